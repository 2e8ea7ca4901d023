"""Metrics as they travel: the form by which a site's gate and the server's guard judge them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.messages import MAX_COUNT, MAX_METRIC, MAX_METRICS
from mmar_runtime.exchange.plain import from_plain
from mmar_runtime.metrics import ClassValue, Metrics, MetricValue
from mmar_runtime.names import is_name

MAX_CLASSES = 200
"""Classes of one metric."""


def metrics_from(raw: object) -> Metrics:
    """Return the metrics of a message.

    Raises:
        FederationError: with the metric, where anything has another form or is out of its bounds.
    """
    if type(raw) is not dict or len(raw) > MAX_METRICS or not all(map(is_name, raw)):
        raise FederationError(f"expected an object of at most {MAX_METRICS} named metrics")
    metrics = {}
    for label, value in raw.items():
        try:
            metrics[label] = from_plain(MetricValue, value)
        except FederationError as error:
            raise FederationError(f"{label}: {error}") from error
        if fault := _fault(metrics[label]):
            raise FederationError(f"{label}: {fault}")
    return metrics


def _fault(metric: MetricValue) -> str:
    """Return why a metric cannot be shown or averaged; empty if it can."""
    if len(metric.classes) > MAX_CLASSES or not all(map(is_name, metric.classes)):
        return f"classes: expected at most {MAX_CLASSES} names"
    parts: Mapping[str, MetricValue | ClassValue] = {"": metric, **metric.classes}
    if any(part.value is not None and abs(part.value) > MAX_METRIC for part in parts.values()):
        return f"a value is larger than {MAX_METRIC:g}"
    if not all(count in range(MAX_COUNT + 1) for part in parts.values() for count in _counts(part)):
        return f"a count is not a whole number from 0 to {MAX_COUNT}"
    return ""


def _counts(part: MetricValue | ClassValue) -> Iterator[int]:
    yield part.counted
    if isinstance(part, MetricValue):
        yield part.undefined
    else:
        yield from (part.missed, part.absent, part.spurious)
