"""Metrics whose number would not be what its name says: told before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from mmar_runtime.config.fit import Finding
from mmar_runtime.config.nodes import ComponentSpec, ListNode, Reference
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import Problem
from mmar_runtime.policy.component_check import table_entry
from mmar_runtime.policy.possible_values import possible_values

BY_BATCH = "takes each batch by itself, so its value depends on the size of the batches", ""
MATRIX = "gives a matrix, and a metric is a number", "Use Precision, Recall or Accuracy."
DETECTION = "gives -1 where no case is labelled", ""
SUMMED = (
    "adds up the voxels of a case; only for single numbers is that their mean",
    "Write the name without a path: MONAI's is the mean.",
)
UNTRUE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ignite.metrics.CommonObjectDetectionMetrics": DETECTION,
        "ignite.metrics.ConfusionMatrix": MATRIX,
        "ignite.metrics.HSIC": BY_BATCH,
        "ignite.metrics.MaximumMeanDiscrepancy": BY_BATCH,
        "ignite.metrics.MeanAbsoluteError": SUMMED,
        "ignite.metrics.MeanSquaredError": SUMMED,
        "ignite.metrics.MultiLabelConfusionMatrix": MATRIX,
        "ignite.metrics.ObjectDetectionAvgPrecisionRecall": DETECTION,
        "ignite.metrics.RootMeanSquaredError": SUMMED,
    }
)
"""Classes that leave no number over cases -> why, and what to do."""

OF_CASES = frozenset({"none", "mean_channel", "sum_channel"})
"""The values of ``reduction`` that leave a number for each case."""

SUMS = frozenset({"sum", "sum_batch"})
POOLED = frozenset({"ConfusionMatrix", "PanopticQuality"})
"""Metrics that add up counts of all cases before they divide, which a sum does not change."""


def value_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield metrics that would leave no number, several without names, or another than expected."""
    for scope, section in config.scopes.items():
        for spec in (*section.specs("key_metric"), *section.specs("additional_metrics")):
            yield from _faults(spec)
            yield from _wrapped(config, scope, spec)
            if spec.title == "RunningAverage" and scope != "train":
                message = f"{spec.title} gives late batches more weight, so their order counts"
                yield Problem(spec.named_at, message, "Only a training's loss has one.", "metric")


def value_findings(config: WorkflowConfig) -> Iterator[Finding]:
    """Yield metrics that report less than they are asked for, as MONAI does."""
    for section in config.scopes.values():
        for spec in (*section.specs("key_metric"), *section.specs("additional_metrics")):
            names = spec.args.items.get("metric_name")
            if isinstance(names, ListNode) and len(names.items) > 1:
                message = f"{spec.title} reports the first of its {len(names.items)} names alone"
                place = spec.args.location / "metric_name"
                yield Finding(
                    rule="metric",
                    place=place,
                    message=message,
                    advice="Write one metric for each.",
                    certain=False,
                )


def _wrapped(config: WorkflowConfig, scope: str, spec: ComponentSpec) -> Iterator[Problem]:
    """Yield a handler where MONAI's handler of metrics wants what is inside of one."""
    node = spec.args.items.get("metric_fn")
    target = config.find(scope, node.name) if isinstance(node, Reference) else None
    inner = config.scopes[target[0]].entries[target[1]] if target else None
    if isinstance(inner, ComponentSpec) and table_entry(inner, "metric") is not None:
        place = spec.args.location / "metric_fn"
        message = f"{inner.title} is a handler itself"
        yield Problem(place, message, f"Write {inner.title} in its place.", "metric")


def _faults(spec: ComponentSpec) -> Iterator[Problem]:
    entry = table_entry(spec, "metric")
    if entry is None:
        return
    reason, advice = UNTRUE.get(f"{entry.namespace}.{entry.name}", ("", ""))
    if reason:
        yield Problem(spec.named_at, f"{spec.title} {reason}", advice, "metric")
    place = spec.args.location
    for name in ("reduction", "metric_reduction"):
        given = _texts(spec, name)
        refused = OF_CASES if entry.name in POOLED else OF_CASES | SUMS
        for word in sorted(given & refused):
            what = "is no mean" if word in SUMS else "leaves a number for each case"
            message = f"{word!r} {what}; a metric is a mean over cases"
            yield Problem(place / name, message, "Write 'mean' or 'mean_batch'.", "metric")
    if "samples" in _texts(spec, "average") and entry.name in ("Precision", "Recall"):
        message = "'samples' counts a case without a class as 0, where it has no value"
        yield Problem(place / "average", message, "Write 'macro' or 'micro'.", "metric")


def _texts(spec: ComponentSpec, argument: str) -> frozenset[str]:
    """Return what an argument may say."""
    node = spec.args.items.get(argument)
    return frozenset() if node is None else possible_values(node).texts or frozenset()
