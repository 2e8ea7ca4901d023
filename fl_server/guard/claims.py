"""What a site claims as its weight in the mean: whether it can have earned that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from fl_server.guard.values import Expected, UpdateFault, UpdateLimits, shown_value
from mmar_runtime.exchange.messages import COUNTS, MAX_CASES, MAX_EPOCHS
from mmar_runtime.exchange.weighing import WeighBy, claim_of

MOST_STEPS = 10**6
"""Of an epoch of one site."""


def claim_in(metadata: object, rule: WeighBy) -> int | None:
    """Return the claim in the metadata of an update; None where there is no such number."""
    named = metadata if type(metadata) is dict else {}
    counts = {name: named.get(name) for name in ("steps", "samples")}
    if any(type(count) is not int for name, count in counts.items() if name == rule):
        return None
    whole = {name: count if type(count) is int else 0 for name, count in counts.items()}
    return claim_of(rule, **whole)


def claim_faults(
    metadata: Mapping[str, Any], expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Judge steps and samples by the epochs of the round, by the site's data, and by the others.

    A site states once how many samples its epoch has, and is held to that.
    """
    epochs = _epochs(metadata.get("report"))
    steps = expected.steps or epochs * MOST_STEPS
    yield from _count_fault(metadata.get("steps"), "steps", min(limits.max_steps, steps))
    for name in ("samples", "epoch_samples"):
        if name in metadata and expected.weigh_by != "samples":
            message = f"the job weighs sites by {expected.weigh_by}, and asks for no number of them"
            yield UpdateFault(name, name, message)
    if expected.weigh_by == "samples":
        yield from _sample_faults(metadata, epochs, expected)
    claim = claim_in(metadata, expected.weigh_by)
    if claim is not None and expected.usual_claim is not None:
        yield from _outlier(claim, expected.usual_claim, limits.weight_ratio)


def _sample_faults(
    metadata: Mapping[str, Any], epochs: int, expected: Expected
) -> Iterator[UpdateFault]:
    stated = metadata.get("epoch_samples")
    faults = [*_count_fault(stated, "epoch_samples", MAX_CASES)]
    yield from faults
    if faults:
        return
    if expected.epoch_samples not in (None, stated):
        message = f"is {shown_value(stated)}; the site has stated {expected.epoch_samples} before"
        yield UpdateFault("epoch_samples", "epoch_samples", message)
        return
    yield from _count_fault(metadata.get("samples"), "samples", epochs * int(stated or 0))


def _epochs(report: object) -> int:
    """Return the epochs that a round can have had.

    A handler may end an epoch early, so the last one may not be among those that are reported.
    """
    epochs = report.get("epochs") if isinstance(report, dict) else None
    return min((len(epochs) if type(epochs) is list else 0) + 1, MAX_EPOCHS)


def _count_fault(value: object, place: str, most: int) -> Iterator[UpdateFault]:
    allowed = range(1, min(most, COUNTS[place][-1]) + 1)
    if type(value) is not int or value not in allowed:
        message = f"has to be a whole number from 1 to {allowed[-1]}, found {shown_value(value)}"
        yield UpdateFault(place, place, message)


def _outlier(claim: int, usual: float, ratio: float) -> Iterator[UpdateFault]:
    if claim > ratio * usual:
        message = (
            f"claims a weight of {claim}, more than {ratio:g} times the median of the sites, "
            f"{usual:g}; limits.weight_ratio of the job can allow more"
        )
        yield UpdateFault("weight", "weight", message)


def outlying_claims(claims: Mapping[str, int], ratio: float) -> dict[str, UpdateFault]:
    """Return the sites that claim more than ``ratio`` times the median, with the reason.

    >>> sorted(outlying_claims({"site-1": 10, "site-2": 20, "site-3": 10**6}, 100))
    ['site-3']
    """
    if not claims:
        return {}
    middle = median(claims.values())
    faults = {site: [*_outlier(claim, middle, ratio)] for site, claim in claims.items()}
    return {site: found[0] for site, found in faults.items() if found}
