"""Which metrics a job's sites report, and between which values, by its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fl_server.guard.values import Range
from mmar_runtime.config.sections import Section
from mmar_runtime.exchange.messages import MAX_METRIC
from mmar_runtime.policy.metrics.metric_kinds import metric_kinds

ROUNDING = 1e-6
"""A share computed in float32 can be this much more than 1."""

_SHARE = (0.0, 1.0 + ROUNDING)
_DISTANCE = (0.0, MAX_METRIC)

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "Accuracy": _SHARE,
        "HausdorffDistance": _DISTANCE,
        "MeanAbsoluteError": _DISTANCE,
        "MeanDice": _SHARE,
        "MeanIoUHandler": _SHARE,
        "MeanSquaredError": _DISTANCE,
        "ROCAUC": _SHARE,
        "RootMeanSquaredError": _DISTANCE,
        "SurfaceDistance": _DISTANCE,
    }
)
"""Metrics that give one number under their own label, and its range, as long as no argument of
``RESHAPING`` makes several or other numbers of it."""

RESHAPING = frozenset({"average", "reduction", "return_with_label"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricContract:
    """What a reply with metrics has to hold.

    Attributes:
        key_metric: the metric by which models are compared.
        names: no others than these, though a site may withhold some; None where one of the metrics
            may give several numbers, whose names are not known beforehand.
        ranges: least and greatest value, for the metrics that have such.
        directions: whether higher is better, by metric; None where nobody knows it.
    """

    key_metric: str
    names: frozenset[str] | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    directions: Mapping[str, bool | None] = field(default_factory=dict)

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher key metric is better."""
        return self.directions.get(self.key_metric) is not False


def metric_contract(section: Section, key_metric: str) -> MetricContract:
    """Return the contract of a section with ``key_metric`` and ``additional_metrics``."""
    specs = (*section.specs("key_metric"), *section.specs("additional_metrics"))
    ranges = {
        spec.log_label or "": None if spec.args.items.keys() & RESHAPING else RANGES.get(spec.title)
        for spec in specs
    }
    known = {label: found for label, found in ranges.items() if found is not None}
    names = frozenset(ranges) if len(known) == len(specs) else None
    directions = {label: kind.higher_is_better for label, kind in metric_kinds(section).items()}
    return MetricContract(
        key_metric=key_metric,
        names=names,
        ranges=MappingProxyType(known),
        directions=MappingProxyType(directions),
    )
