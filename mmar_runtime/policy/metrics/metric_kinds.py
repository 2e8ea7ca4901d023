"""What a metric measures and which way is better: by its class, or as the configuration says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mmar_runtime.config.expressions import (
    Arithmetic,
    Comparison,
    Constant,
    ExpressionTree,
    Lambda,
    Subscript,
    from_engine_keys,
)
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec, Expression, ListNode, Literal
from mmar_runtime.config.sections import Section, WorkflowConfig
from mmar_runtime.errors import Problem
from mmar_runtime.policy.component_check import table_entry
from mmar_runtime.policy.component_table import ComponentEntry
from mmar_runtime.policy.lambda_forms import LOSS

HIGHER = frozenset(
    [
        "Accuracy",
        "AveragePrecision",
        "CohenKappa",
        "CommonObjectDetectionMetrics",
        "CosineSimilarity",
        "HSIC",
        "HitRate",
        "MatthewsCorrCoef",
        "MeanAveragePrecision",
        "MeanDice",
        "MeanIoUHandler",
        "MetricsReloadedCategoricalHandler",
        "NDCG",
        "ObjectDetectionAvgPrecisionRecall",
        "PSNR",
        "PanopticQuality",
        "PeakSignalToNoiseRatio",
        "Precision",
        "ROCAUC",
        "ROC_AUC",
        "Recall",
        "SSIM",
        "TopKCategoricalAccuracy",
    ]
)
LOWER = frozenset(
    [
        "CalibrationError",
        "HausdorffDistance",
        "JSDivergence",
        "KLDivergence",
        "Loss",
        "MaximumMeanDiscrepancy",
        "MeanAbsoluteError",
        "MeanPairwiseDistance",
        "MeanSquaredError",
        "Perplexity",
        "RootMeanSquaredError",
        "SurfaceDistance",
    ]
)
LOWER_RATES = frozenset(
    """
    false negative rate;fnr;miss rate;false positive rate;fpr;fall out;false discovery rate;fdr;
    false omission rate;for
    """.replace("\n", " ").split(";")
)
"""What ``metric_name`` of a ConfusionMatrix may ask for that is better when lower."""

OF_LOSSES = frozenset({"Average", "GeometricAverage", "IgniteMetricHandler", "RunningAverage"})
"""Metrics that are better when lower if they average a loss."""

NEITHER = frozenset({"prevalence", "prevalence threshold", "pt"})
BY_CLASS = frozenset({"MeanDice", "MeanIoUHandler", "HausdorffDistance", "SurfaceDistance"})
"""Metrics of masks: one value for each case and class."""

DISTANCES = frozenset({"HausdorffDistance", "SurfaceDistance"})
VECTORS = frozenset({"none", "mean_batch", "sum_batch", "mean_channel", "sum_channel"})
"""The values of ``reduction`` and ``average`` that leave several numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricKind:
    """What is known of a metric before it is computed.

    Attributes:
        higher_is_better: the direction; None where nobody knows it.
        by_class: whether it gives a value for each case and class of masks.
        is_distance: whether the value is a distance between surfaces.
        key_at: where the configuration has it, if models are compared by it.
    """

    higher_is_better: bool | None
    by_class: bool = False
    is_distance: bool = False
    key_at: Location | None = None


def metric_kinds(section: Section) -> Mapping[str, MetricKind]:
    """Return the kind of each metric of a section by its label, the key metric first.

    The key metric always has a direction, for models are compared by it: that of its class, or for
    a class of the MMAR's own what the section says; without a word higher is better, as in MONAI.
    """
    kinds = {}
    for slot in ("key_metric", "additional_metrics"):
        for spec in section.specs(slot):
            higher = _direction(spec)
            if slot == "key_metric" and higher is None:
                higher = not said_lower(section)
            key_at = spec.location if slot == "key_metric" else None
            kinds[spec.log_label or ""] = _kind(spec, higher, key_at)
    return MappingProxyType(kinds)


def _kind(spec: ComponentSpec, higher: bool | None, key_at: Location | None) -> MetricKind:
    entry = table_entry(spec, "metric")
    name = "" if entry is None else entry.name
    return MetricKind(
        higher_is_better=higher,
        by_class=name in BY_CLASS,
        is_distance=name in DISTANCES,
        key_at=key_at,
    )


def _direction(spec: ComponentSpec) -> bool | None:
    entry = table_entry(spec, "metric")
    if entry is None:
        return False if spec.negate else None
    if entry.name in OF_LOSSES:
        return False if _is_of_a_loss(spec) else None
    if entry.name == "ConfusionMatrix":
        return _rate_direction(spec, entry)
    return True if entry.name in HIGHER else False if entry.name in LOWER else None


def _is_of_a_loss(spec: ComponentSpec) -> bool:
    """Return whether a metric averages a loss: by its function, or the training's own."""
    output = spec.args.items.get("output_transform")
    keys = from_engine_keys(output.tree) if isinstance(output, Expression) else None
    return "loss_fn" in spec.args.items or tuple(keys or ()) == (LOSS,)


def _rate_direction(spec: ComponentSpec, entry: ComponentEntry) -> bool | None:
    """Return the direction of the rate that MONAI's ConfusionMatrix reports: its first."""
    if not entry.path.startswith("monai."):
        return None  # ignite's is a whole matrix
    given = spec.args.items.get("metric_name")
    first = given.items[0] if isinstance(given, ListNode) and given.items else given
    name = str(first.value) if isinstance(first, Literal) else "hit_rate"
    words = name.replace("_", " ").lower()
    return None if words in NEITHER else words not in LOWER_RATES


def said_lower(section: Section) -> bool:
    """Return whether a section says that a lower key metric is better."""
    return any(said for _, said in _said(section))


def _said(section: Section) -> Iterator[tuple[Location, bool]]:
    """Yield each word of a section on the direction of its key metric: whether lower is better."""
    for spec in section.specs("key_metric"):
        if spec.negate:
            yield spec.location / "negate", True
    for spec in section.specs("handlers"):
        sign = spec.args.items.get("key_metric_negative_sign")
        if spec.title == "CheckpointSaver" and isinstance(sign, Literal) and sign.value is True:
            yield sign.location, True
    for spec in (*section.specs("trainer"), *section.specs("evaluator")):
        compare = spec.args.items.get("metric_cmp_fn")
        if isinstance(compare, Expression) and isinstance(compare.tree, Comparison):
            yield compare.location, compare.tree.operator.startswith("<")


def direction_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield key metrics that cannot select a model, or would select the worst model."""
    for section in config.scopes.values():
        yield from _stop_faults(section)
        for spec in section.specs("key_metric"):
            yield from _vector_fault(spec)
            higher = _direction(spec)
            if higher is None:
                higher = not said_lower(section)
            for place, lower in _said(section):
                if lower is higher:
                    better = "higher" if higher else "lower"
                    message = f"a {better} {spec.title} is better; this would keep the worst model"
                    yield Problem(place, message, "Take it out.", "metric-direction")


def _stop_faults(section: Section) -> Iterator[Problem]:
    """Yield early stops that would end a training because it gets better."""
    kinds = metric_kinds(section)
    for spec in section.specs("handlers"):
        score = spec.args.items.get("score_function")
        if spec.title != "EarlyStopHandler" or not isinstance(score, Expression):
            continue
        for label, turned in _score_of(score.tree):
            higher = kinds[label].higher_is_better if label in kinds else None
            if higher is turned:
                better, sign = ("higher", "without") if higher else ("lower", "with")
                message = f"a {better} {label!r} is better, and this stops where it gets better"
                advice = f"Write the metric {sign} a minus."
                yield Problem(score.location, message, advice, "metric-direction")


def _score_of(tree: ExpressionTree) -> Iterator[tuple[str, bool]]:
    """Yield the metric that a score is made of, and whether a minus turns it."""
    body, turned = tree.body if isinstance(tree, Lambda) else None, False
    if isinstance(body, Arithmetic) and isinstance(body.left, Constant):
        minus = body.operator == "-" or (body.operator == "*" and body.left.value == -1)
        body, turned = (body.right, True) if minus else (None, False)
    if isinstance(body, Subscript) and isinstance(body.key, str):
        yield body.key, turned


def _vector_fault(spec: ComponentSpec) -> Iterator[Problem]:
    if spec.title == "MetricGroup":
        message = "MetricGroup holds several metrics, and models are compared by one"
        advice = "Write that one here, and move the group to additional_metrics."
        yield Problem(spec.named_at, message, advice, "key-metric")
    for name, best in (("reduction", "mean"), ("average", "macro")):
        given = spec.args.items.get(name)
        word = given.value if isinstance(given, Literal) else None
        if given is None and name == "reduction" and spec.title == "PanopticQuality":
            word = "mean_batch"  # which it takes without a word
        if word in VECTORS:
            message = f"{word!r} leaves several numbers, and models are compared by one"
            advice = f"Write {best!r}, or move the metric to additional_metrics."
            yield Problem(spec.args.location / name, message, advice, "key-metric")
