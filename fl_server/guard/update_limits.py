"""The bounds of the update guard as a job writes them: ``limits`` of ``FederationController``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fl_server.guard.values import Range, UpdateLimits
from mmar_runtime.errors import ConfigError, Problem, did_you_mean
from mmar_runtime.exchange.job_documents import FEDERATION_ARGUMENTS
from mmar_runtime.exchange.messages import MAX_COUNT, MAX_METRIC

PLACE = FEDERATION_ARGUMENTS / "limits"

BOUNDS: Mapping[str, tuple[type, float, float]] = {
    "max_bytes": (int, 1, 2**40),
    "max_norm": (float, 0, math.inf),
    "norm_ratio": (float, 1, math.inf),
    "weight_ratio": (float, 1, 1e9),
    "max_steps": (int, 1, MAX_COUNT),
    "metadata_bytes": (int, 1, 2**20),
}
"""Each number that a job may set: its type, the least, and the most."""

KEYS = (*BOUNDS, "metric_ranges")


def update_limits(job: Mapping[str, Any], known: Mapping[str, Range]) -> UpdateLimits:
    """Return the limits of a job.

    Args:
        job: what the job sets; nothing means the defaults.
        known: ranges of metrics that follow from what the metrics are; the job's own win.

    Raises:
        ConfigError: with every unknown key and every value out of its bounds.
    """
    ranges = job.get("metric_ranges", {})
    if problems := [*_problems(job, ranges)]:
        raise ConfigError(problems)
    own = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
    return UpdateLimits(**{**job, "metric_ranges": {**known, **own}})


def _problems(job: Mapping[str, Any], ranges: Any) -> Iterator[Problem]:
    for key, value in job.items():
        if key not in KEYS:
            yield Problem(PLACE / key, f"unknown limit {key!r}", did_you_mean(key, KEYS), "limit")
        elif key in BOUNDS:
            kind, least, most = BOUNDS[key]
            if not _is_number(value, kind) or not least <= value <= most:
                number = "whole number" if kind is int else "number"
                message = f"has to be a {number} from {least:g} to {most:g}, found {value!r}"
                yield Problem(PLACE / key, message, "", "limit")
    if not isinstance(ranges, Mapping):
        message = f"has to map names of metrics to [least, greatest], found {ranges!r}"
        yield Problem(PLACE / "metric_ranges", message, "", "limit")
        return
    for name, bounds in ranges.items():
        if not _is_range(bounds):
            message = f"has to be [least, greatest] within 1e12, found {bounds!r}"
            yield Problem(PLACE / "metric_ranges" / name, message, "", "limit")


def _is_number(value: object, kind: type) -> bool:
    allowed = (int,) if kind is int else (int, float)
    return type(value) in allowed and math.isfinite(value)  # type: ignore[arg-type]


def _is_range(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    low, high = value
    return (
        all(_is_number(bound, float) for bound in value)
        and -MAX_METRIC <= low <= high <= MAX_METRIC
    )
