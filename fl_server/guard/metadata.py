"""The metadata of a reply: plain values under known keys, within the closed list.

See ``mmar_runtime.exchange.messages`` for the list; ``fl_client.flare.result_gate`` judges by it
before a reply leaves its site.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from fl_server.guard.claims import claim_faults
from fl_server.guard.values import (
    MAX_SHOWN,
    Expected,
    UpdateFault,
    UpdateLimits,
    listed,
    shown_value,
)
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.messages import (
    ANY_COUNT,
    COUNTS,
    EPOCH_KEYS,
    MAX_BUILT,
    MAX_EPOCH_REPORTS,
    MAX_METRIC,
    MAX_PROCESS_NAME,
    METADATA_KEYS,
    REPORT_KEYS,
)
from mmar_runtime.exchange.metric_messages import metrics_from
from mmar_runtime.names import is_name, shown

CLAIMS = ("site", "job", "round", "kind", "base_model")
"""Metadata by which a reply says what it belongs to."""

MAX_METADATA_DEPTH = 6
MAX_REASON = 200


def about_faults(
    metadata: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Judge all that comes with the tensors."""
    unfit = [*_metadata_faults(metadata, expected, limits)]
    yield from unfit
    if not unfit and isinstance(metadata, dict):
        yield from _claim_faults(metadata, expected)
        yield from _number_faults(metadata, expected, limits)


def check_first(site: str, answered: Collection[str]) -> tuple[UpdateFault, ...]:
    """Return why a reply does not count if its site has answered already; empty if it has not."""
    if site not in answered:
        return ()
    return (UpdateFault("duplicate", "site", f"{site} has answered already"),)


def _metadata_faults(
    metadata: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Judge that the metadata is a small tree of plain finite values under known keys."""
    if type(metadata) is not dict:
        yield UpdateFault(
            "metadata", "metadata", f"has to be an object, found {shown_value(metadata)}"
        )
        return
    known = (*CLAIMS, *METADATA_KEYS[expected.kind])
    for key in metadata:
        if type(key) is not str or key not in known:
            yield UpdateFault("metadata", "metadata", f"unknown key {shown_value(key)}")
    yield from _tree_faults(metadata, "metadata", limits)


def _tree_faults(tree: object, name: str, limits: UpdateLimits) -> Iterator[UpdateFault]:
    left = limits.metadata_bytes
    waiting: list[tuple[object, str, int]] = [(tree, name, 0)]
    while waiting:
        value, place, depth = waiting.pop()
        if fault := _plain_fault(value, depth):
            yield UpdateFault(name, place, fault)
            return
        left -= _plain_bytes(value)
        if left < 0:
            message = f"has more than {limits.metadata_bytes} bytes"
            yield UpdateFault("metadata-size", name, message)
            return
        waiting += _inside(value, place, depth + 1)


def _plain_fault(value: object, depth: int) -> str:
    """Return why a value is none of the plain ones; empty if it is."""
    if type(value) in (dict, list, tuple):
        return "is nested too deeply" if depth > MAX_METADATA_DEPTH else ""
    if type(value) is str:
        return "" if value.isprintable() else "is a text with control characters"
    if type(value) is float:
        return "" if math.isfinite(value) else f"is not finite, found {value!r}"
    if type(value) is int:
        return "" if value in ANY_COUNT else "is too large a number"
    return (
        "" if value is None or type(value) is bool else f"is no plain value, {shown_value(value)}"
    )


def _plain_bytes(value: object) -> int:
    """About as many bytes as the value takes as JSON, without what is inside it."""
    if isinstance(value, dict):
        return 2 + sum(4 + len(key) for key in value if type(key) is str)
    if isinstance(value, list | tuple):
        return 2 + len(value)
    return 2 + len(value.encode()) if isinstance(value, str) else len(repr(value))


def _inside(value: object, place: str, depth: int) -> list[tuple[object, str, int]]:
    if isinstance(value, dict):
        return [
            (item, f"{place}.{key}"[:MAX_SHOWN], depth)
            if type(key) is str and key.isprintable()
            else (_NOT_PLAIN, f"{place}, name of a value", depth)
            for key, item in value.items()
        ]
    if isinstance(value, list | tuple):
        return [(item, f"{place}[{index}]", depth) for index, item in enumerate(value)]
    return []


_NOT_PLAIN = object()


def _claim_faults(metadata: Mapping[str, object], expected: Expected) -> Iterator[UpdateFault]:
    """Judge that the reply belongs here, and was not counted already."""
    awaited = {
        "site": expected.site,
        "job": expected.job,
        "kind": expected.kind,
        "round": expected.round,
        "base_model": expected.base_model,
    }
    for claim, value in awaited.items():
        claimed = metadata.get(claim)
        if value is not None and (type(claimed) is not type(value) or claimed != value):
            message = f"belongs to {shown_value(claimed)}, not to {shown_value(value)}"
            yield UpdateFault(claim, claim, message)
    yield from check_first(expected.site, expected.contributors)


def _number_faults(
    metadata: Mapping[str, Any], expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Steps, cases, rounds and metrics out of their range."""
    history = metadata.get("filter_history", ())
    if type(history) not in (list, tuple) or not all(map(is_name, history)):
        message = f"has to list names of filters, found {shown_value(history)}"
        yield UpdateFault("metadata", "filter_history", message)
    if expected.kind == "WEIGHT_DIFF":
        yield from claim_faults(metadata, expected, limits)
        yield from _report_faults(metadata.get("report"), expected, limits)
    elif expected.kind == "WEIGHTS":
        yield from _count_fault(metadata.get("model_round"), "model_round")
        yield from metric_faults(metadata.get("metrics"), "metrics", expected, limits)
    elif "cases" in metadata:
        yield from _count_fault(metadata["cases"], "cases")


def _report_faults(
    report: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    if not isinstance(report, dict):
        yield UpdateFault("report", "report", "the contribution carries no report of the round")
        return
    for key in report:
        if key not in REPORT_KEYS:
            yield UpdateFault("report", "report", f"unknown key {shown_value(key)}")
    for name in ("received_metrics", "local_metrics"):
        yield from metric_faults(report.get(name), f"report.{name}", expected, limits)
    yield from _account_faults(report)


def _account_faults(report: Mapping[str, Any]) -> Iterator[UpdateFault]:
    """Judge the account of a site's work, which is stored and shown: numbers and plain names.

    ``Received.update`` reports what is missing.
    """
    fits: Mapping[str, Callable[[Any], bool]] = {
        "process": lambda value: is_name(value) and len(value) <= MAX_PROCESS_NAME,
        "seconds": lambda value: _is_number(value) and value >= 0,
        "built": lambda value: _maps_names_to(
            value, lambda count: _is_count(count, COUNTS["built"]), MAX_BUILT
        ),
        "epochs": lambda value: (
            type(value) is list and len(value) <= MAX_EPOCH_REPORTS and all(map(_is_epoch, value))
        ),
    }
    for key, is_fit in fits.items():
        if key in report and not is_fit(report[key]):
            message = f"is no account of a round, found {shown_value(report[key])}"
            yield UpdateFault("report", f"report.{key}", message)


def _is_epoch(value: object) -> bool:
    if type(value) is not dict or not set(value) <= set(EPOCH_KEYS):
        return False
    loss, metrics = value.get("loss"), value.get("metrics", {})
    numbers = _is_count(value.get("epoch"), COUNTS["epoch"]) and (loss is None or _is_number(loss))
    return numbers and _are_metrics(metrics)


def _are_metrics(value: object) -> bool:
    try:
        metrics_from(value)
    except FederationError:
        return False
    return True


def _maps_names_to(value: object, is_fit: Callable[[Any], bool], most: int) -> bool:
    return (
        type(value) is dict
        and len(value) <= most
        and all(is_name(name) and is_fit(number) for name, number in value.items())
    )


def _is_count(value: object, allowed: range) -> bool:
    return type(value) is int and value in allowed


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _count_fault(value: object, place: str) -> Iterator[UpdateFault]:
    allowed = COUNTS[place]
    if not _is_count(value, allowed):
        message = f"has to be a whole number from 1 to {allowed[-1]}, found {shown_value(value)}"
        yield UpdateFault(place, place, message)


def metrics_reply_faults(
    metrics: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Judge the metrics that are a whole reply; as small and plain as metadata."""
    unfit = [*_tree_faults(metrics, "metrics", limits)]
    yield from unfit
    if not unfit:
        yield from metric_faults(metrics, "metrics", expected, limits)


def metric_faults(
    metrics: object, place: str, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Judge that metrics can be compared, averaged and shown."""
    try:
        found = metrics_from(metrics)
    except FederationError as error:
        yield UpdateFault("metrics", place, shown(str(error), MAX_REASON))
        return
    names = expected.metric_names
    if expected.key_metric is not None and expected.key_metric not in found:
        message = f"the key metric {expected.key_metric!r} is missing, found {listed(found)}"
        yield UpdateFault("metrics", place, message)
    elif names is not None and not set(found) <= set(names):
        message = f"may hold {listed(names)}, found {listed(found)}"
        yield UpdateFault("metrics", place, message)
    for name, metric in found.items():
        low, high = limits.metric_ranges.get(name, (-MAX_METRIC, MAX_METRIC))
        values = [metric.value, *(part.value for part in metric.classes.values())]
        if odd := [value for value in values if value is not None and not low <= value <= high]:
            message = f"has to be a number from {low:g} to {high:g}, found {odd[0]!r}"
            yield UpdateFault("metrics", f"{place}.{name}", message)
        if metric.higher_is_better is not expected.directions.get(name, metric.higher_is_better):
            message = "has another direction than the job's metric"
            yield UpdateFault("metrics", f"{place}.{name}", message)
