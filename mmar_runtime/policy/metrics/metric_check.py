"""Metrics of a federated job: their classes, inputs, data sets and number.

A metric leaves the site. A class that hands a number of its input on would carry a voxel away. So
would any class over a region of a single voxel, or over a single case. So a metric compares a
prediction with something else, over whole tensors and whole data sets, or is the mean of the
training's loss.

docs/look-up/security.md says what stays open: a comparison reveals some of the values it compares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mmar_runtime.config.expressions import Display, Subscript, from_engine_keys
from mmar_runtime.config.expressions import walk as walk_tree
from mmar_runtime.config.nodes import ComponentSpec, Expression, ListNode, Node, referenced_names
from mmar_runtime.config.nodes import Literal as LiteralNode
from mmar_runtime.config.sections import SLOT_KINDS, WorkflowConfig
from mmar_runtime.errors import Problem
from mmar_runtime.policy.component_check import components_of_kind, table_entry
from mmar_runtime.policy.lambda_forms import INPUT, LOSS
from mmar_runtime.policy.possible_values import Possible, possible_of, possible_values
from mmar_runtime.policy.site_policy import MOST_METRICS, SitePolicy

Use = Literal["compares", "averages", "weighted"]
"""``compares`` predictions with labels; ``averages`` losses, or gives late ones more weight."""

_COMPARING = {
    "ignite.metrics": """
        Accuracy AveragePrecision CohenKappa CommonObjectDetectionMetrics ConfusionMatrix
        CosineSimilarity HSIC HitRate JSDivergence KLDivergence Loss MatthewsCorrCoef
        MaximumMeanDiscrepancy MeanAbsoluteError MeanAveragePrecision MeanPairwiseDistance
        MeanSquaredError MultiLabelConfusionMatrix NDCG ObjectDetectionAvgPrecisionRecall PSNR
        Precision ROC_AUC Recall RootMeanSquaredError SSIM TopKCategoricalAccuracy
    """,
    "monai.handlers": """
        AveragePrecision CalibrationError ConfusionMatrix HausdorffDistance IgniteMetricHandler
        MeanAbsoluteError MeanDice MeanIoUHandler MeanSquaredError MetricsReloadedBinaryHandler
        MetricsReloadedCategoricalHandler PanopticQuality PeakSignalToNoiseRatio ROCAUC
        RootMeanSquaredError SurfaceDistance
    """,
}
USES: Mapping[str, Use] = MappingProxyType(
    {
        "ignite.metrics.Average": "averages",
        "ignite.metrics.GeometricAverage": "averages",
        "ignite.metrics.RunningAverage": "weighted",
        **{
            f"{namespace}.{name}": "compares"
            for namespace, names in _COMPARING.items()
            for name in names.split()
        },
    }
)
"""The classes whose numbers may leave. No class is among them that looks at one input alone
(Entropy, MutualInformation), at texts (Bleu, Rouge, CharacterErrorRate, Perplexity) or at the
machine (Frequency, GpuInfo), or that holds others (MetricGroup)."""

LEAST_ALPHA = 0.9
"""The share of its former value that a running average keeps, so that no case outweighs."""

LEAST_VALUES = 64
"""Of a region that a transform cuts out or samples; below that a metric looks at single voxels."""

SCALE = 0.05, 20.0
"""By which an axis may shrink or grow; a single voxel grown to an image is that voxel."""

MOST_SPACING = 50.0
"""mm from voxel to voxel; a volume that is resampled to more has few voxels left."""

COARSE = 10.0
"""mm from voxel to voxel; more counts as a shrinking, where others follow."""

_SIZES = {
    "patch_size": "GridPatchd RandGridPatchd",
    "roi_size": "CenterSpatialCropd RandSpatialCropSamplesd RandSpatialCropd SpatialCropd",
    "spatial_size": """
        Affined Rand2DElasticd Rand3DElasticd RandAffined RandCoarseDropoutd
        RandCropByLabelClassesd RandCropByPosNegLabeld RandWeightedCropd ResizeWithPadOrCropd
        Resized
    """,
}
REGIONS: Mapping[str, str] = MappingProxyType(
    {name: argument for argument, names in _SIZES.items() for name in names.split()}
)
"""The transforms that leave a region of a given size -> the argument with the size.

RandCoarseDropoutd does where its holes are what stays."""

SCALES = frozenset({"roi_scale", "zoom", "min_zoom", "max_zoom", "scale_params", "zoom_range"})
SCALE_CHANGES = frozenset({"scale_range"})
"""The addition to a scale of 1."""

CHOOSING = frozenset({"affine", "mask_data"})
"""Arguments by which a document picks out voxels one by one."""

SPACINGS = frozenset({"pixdim", "min_pixdim"})
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        **dict.fromkeys(SCALES, SCALE),
        **dict.fromkeys(SCALE_CHANGES, (SCALE[0] - 1, SCALE[1] - 1)),
        **dict.fromkeys(SPACINGS, (-math.inf, MOST_SPACING)),
    }
)
"""Arguments of transforms -> the least and the most of their numbers."""

NAMING = ("names", "name", "output_key", "overwrite")
"""Arguments by which a transform names a new entry."""

_AXES = 2
"""Of an image, at least."""

WATCHED = ("metric", "dataset", "dataloader", "trainer", "evaluator")
"""Kinds of components that are judged, and whose persons are counted, in their own entries."""

MEANS_OF_LOSS = "A mean is of the training's own loss: #monai.handlers.from_engine(['loss'])."


def metric_check(policy: SitePolicy) -> Callable[[WorkflowConfig], Iterator[Problem]]:
    """Return the check of everything that decides on metrics, to hand to the loader."""

    def check(config: WorkflowConfig) -> Iterator[Problem]:
        for scope in config.scopes:
            yield from _SectionCheck(config, scope, policy).problems()

    return check


@dataclass(frozen=True, slots=True)
class _SectionCheck:
    """The check of a section, which ``scope`` names."""

    config: WorkflowConfig
    scope: str
    policy: SitePolicy

    @property
    def least(self) -> int:
        """The least number of persons that any of the policy's rules asks for."""
        return max(self.policy.min_dataset_size, self.policy.cross_site.min_cases)

    def problems(self) -> Iterator[Problem]:
        section = self.config.scopes[self.scope]
        metrics = (*section.specs("key_metric"), *section.specs("additional_metrics"))
        count, most = sum(map(_numbers_of, metrics)), self.policy.outgoing.max_metrics
        if count > most:
            message = f"has {count} metrics; a site reports {most} at most (outgoing.max_metrics)"
            rule = "metric-count" if count <= MOST_METRICS else "limit"  # a policy may allow it
            yield Problem(section.location / "additional_metrics", message, "", rule)
        transforms = tuple(components_of_kind(section, "transform"))
        entries = _Entries.of(transforms)
        for spec in metrics:
            yield from _metric_faults(spec, entries)
        for spec in transforms:
            yield from _region_faults(spec)
        yield from _shared_region_fault(transforms)
        yield from self._place_faults()
        yield from self._part_faults()
        for spec in section.specs("dataset") if self.least > 1 else ():
            if spec.data_list is None:  # which list a site has named, path_check judges
                message = f"{spec.title} names no data list, so nobody can count its persons"
                advice = "This site asks for a least number of persons; name its list: "
                yield Problem(spec.location, message, advice + "{DATASET_JSON}.", "data-list")

    def _place_faults(self) -> Iterator[Problem]:
        """Yield metrics, and data of metrics, outside of their own entries and sections."""
        for name, node in self.config.scopes[self.scope].entries.items():
            entry = table_entry(node, None) if isinstance(node, ComponentSpec) else None
            if name not in SLOT_KINDS and entry is not None and entry.kind in WATCHED:
                message = f"{entry.name} is only allowed in its own entry of a section"
                advice = f"The entries: {', '.join(SLOT_KINDS)}."
                yield Problem(node.location, message, advice, "component-kind")
            for target, place in referenced_names(node):
                referred, kind = self.config.find(self.scope, target), SLOT_KINDS.get(target)
                if referred and referred[0] != self.scope and kind in ("dataset", "dataloader"):
                    message = f"@{target} is of another section, whose cases may be others"
                    advice = f"Write {target!r} into this section."
                    yield Problem(place, message, advice, "reference")

    def _part_faults(self) -> Iterator[Problem]:
        """Yield runs over a few batches: their metric would be that of a few cases."""
        section, trains = self.config.scopes[self.scope], self.scope == "train"
        if trains and self.least == 1:
            return
        advice = "Take it out: metrics are over whole data sets."
        for spec in (*section.specs("evaluator"), *section.specs("trainer")):
            if not _is(spec, "epoch_length", (None,)):
                message = f"{spec.title}: epoch_length stops before the end of the data set"
                yield Problem(spec.args.location / "epoch_length", message, advice, "metric")
        if trains:
            return
        for spec in section.specs("dataloader"):
            if not _is(spec, "drop_last", (None, False)):
                message = f"{spec.title}: drop_last leaves cases out"
                yield Problem(spec.args.location / "drop_last", message, advice, "metric")
        for spec in section.specs("dataset"):
            entry = table_entry(spec, "dataset")
            if entry is not None and entry.name == "SmartCacheDataset":
                message = f"{spec.title} holds a part of the list at a time"
                yield Problem(spec.location, message, "Use CacheDataset.", "metric")


def _numbers_of(spec: ComponentSpec) -> int:
    """Return how many numbers a metric gives, as far as it lists their names."""
    labels = spec.args.items.get("return_with_label")
    if isinstance(labels, ListNode):
        return max(1, len(labels.items))
    classes = spec.args.items.get("num_classes")
    if classes is None or _is(spec, "return_with_label", (None, False)):
        return 1
    return max(1, math.ceil(min(possible_values(classes).most, MOST_METRICS)))


# --- Which metrics -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entries:
    """The entries of a case after the transforms of a section.

    Attributes:
        inputs: entries without a prediction in them: images, labels, and their products.
        names_losses: whether a transform may have put something by the name of a loss.
    """

    inputs: frozenset[str]
    names_losses: bool

    @classmethod
    def of(cls, transforms: Iterable[ComponentSpec]) -> _Entries:
        """Return the entries that the transforms of a section leave."""
        inputs, names_losses = {INPUT, "label"}, False
        for spec in transforms:
            made = _texts(spec, NAMING)
            if made and _texts(spec, ("keys",)) <= inputs:
                inputs |= made
            names_losses |= _may_name_a_loss(_texts(spec, spec.args.items))
        return cls(frozenset(inputs), names_losses)

    def is_loss(self, name: str) -> bool:
        """Return whether an entry is a loss of the engine's."""
        return LOSS in name and not self.names_losses


def _metric_faults(spec: ComponentSpec, entries: _Entries) -> Iterator[Problem]:
    entry = table_entry(spec, "metric")
    if entry is None:
        return  # code, which a site has allowed; or an unknown class, which another check refuses
    use = USES.get(f"{entry.namespace}.{entry.name}")
    if use is None:
        message = f"{spec.title} does not compare predictions with labels, so it may not leave"
        advice = "Use a metric such as MeanDice or Accuracy."
        yield Problem(spec.named_at, message, advice, "metric")
        return
    output = spec.args.items.get("output_transform")
    names = _entries(output)
    place = spec.args.location / "output_transform"
    if use == "compares":
        if names and names <= entries.inputs:
            message = f"{spec.title} compares {_listed(names)}, and no prediction"
            yield Problem(place, message, "Compare 'pred' with 'label'.", "metric")
        return
    if not names or not all(map(entries.is_loss, names)):
        reported = _listed(names) if names else "what nobody has named"
        message = f"{spec.title} reports {reported} itself"
        yield Problem(place, message, MEANS_OF_LOSS, "metric")
    if use != "weighted":
        return
    alpha = spec.args.items.get("alpha")
    if alpha is not None and not possible_values(alpha).least >= LEAST_ALPHA:
        message = f"{spec.title}: alpha is below {LEAST_ALPHA}, so that single cases show"
        yield Problem(spec.args.location / "alpha", message, "Leave it out.", "limit")
    if "src" in spec.args.items:
        message = f"{spec.title}: src hides what is averaged"
        yield Problem(spec.args.location / "src", message, MEANS_OF_LOSS, "metric")


def _entries(output: Node | None) -> frozenset[str]:
    """Return the entries of the engine's output that a metric is computed from."""
    if not isinstance(output, Expression):
        return frozenset()
    keys = (part.key for part in walk_tree(output.tree) if isinstance(part, Subscript))
    named = {key for key in keys if isinstance(key, str)}
    return frozenset(named | set(from_engine_keys(output.tree) or ()))


def _texts(spec: ComponentSpec, arguments: Mapping[str, Node] | tuple[str, ...]) -> set[str]:
    """Return every text in some arguments of a component."""
    nodes = (spec.args.items[name] for name in arguments if name in spec.args.items)
    return {text for node in nodes for text in possible_values(node).texts or ()}


def _may_name_a_loss(texts: set[str]) -> bool:
    """Return whether a text has the word, also joined to another such as a key's ending."""
    parts = ((LOSS[:cut], LOSS[cut:]) for cut in range(len(LOSS)))
    return any(LOSS in text for text in texts) or any(
        any(text.endswith(first) for text in texts) and any(text.startswith(last) for text in texts)
        for first, last in parts
    )


def _listed(names: frozenset[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


# --- The data of a metric ------------------------------------------------------------------------


def _region_faults(spec: ComponentSpec) -> Iterator[Problem]:
    """Yield transforms that may leave a region of a few voxels: metrics take whole tensors."""
    if table_entry(spec, "transform") is None:
        return
    for argument, lengths in _regions(spec):
        if math.prod(lengths) < LEAST_VALUES:
            message = f"{spec.title}: a region of fewer than {LEAST_VALUES} values may be left"
            yield Problem(spec.args.location / argument, message, "", "limit")
    for name, node in spec.args.items.items():
        place = spec.args.location / name
        if name in RANGES:
            (least, most), possible = RANGES[name], possible_values(node)
            if possible.has_numbers and not least <= possible.least <= possible.most <= most:
                message = f"{spec.title}: {name} has to be from {least:g} to {most:g}"
                yield Problem(place, message, "", "limit")
        elif name in CHOOSING and not _is(spec, name, (None,)):
            message = f"{spec.title}: {name} picks out voxels one by one"
            yield Problem(place, message, "Take it out.", "metric")


def _regions(spec: ComponentSpec) -> Iterator[tuple[str, list[float]]]:
    """Yield the fewest values along each axis of the regions that a transform leaves."""
    entry = table_entry(spec, "transform")
    if entry is None:
        return
    name, argument = entry.name, REGIONS.get(entry.name)
    size = None if argument is None else spec.args.items.get(argument)
    drops = name == "RandCoarseDropoutd" and _is(spec, "dropout_holes", (None, True))
    if argument is not None and size is not None and not drops:
        items = _items(size)
        axes = items * _AXES if len(items) == 1 else items
        yield argument, [_length(axis) for axis in axes]
    start, end = (spec.args.items.get(corner) for corner in ("roi_start", "roi_end"))
    if name == "SpatialCropd" and start is not None and end is not None:
        corners = zip(_items(start), _items(end), strict=False)
        yield "roi_end", [_between(first, last) for first, last in corners]


def _between(first: Possible, last: Possible) -> float:
    """Return the fewest values between two corners; 0 if they come from the list of cases."""
    known = first.texts == last.texts == frozenset() and first.has_numbers and last.has_numbers
    return max(last.least - max(first.most, 0), 0) if known else 0


def _shared_region_fault(transforms: Iterable[ComponentSpec]) -> Iterator[Problem]:
    """Yield a fault if several transforms leave a few voxels; they may turn axes."""
    lengths, axes, left = list[float](), _AXES, 1.0
    for spec in transforms:
        regions, scale = [region for _, region in _regions(spec)], _least_scale(spec)
        lengths = sorted([*lengths, *(length for region in regions for length in region)])
        axes = max(axes, *(len(region) for region in regions), 0)
        left *= scale
        values = math.prod(lengths[:axes]) * left**axes if lengths else math.inf
        if (regions or scale < 1) and (values < LEAST_VALUES or left < SCALE[0]):
            message = f"{spec.title}: with the transforms before it, it leaves too few values"
            yield Problem(spec.location, message, "Leave larger regions.", "limit")
            return


def _least_scale(spec: ComponentSpec) -> float:
    """Return the factor by which a transform may shrink each axis."""
    left = 1.0
    for name, node in spec.args.items.items():
        if name in SCALES:
            left *= min(1.0, possible_values(node).least)
        elif name in SCALE_CHANGES:
            left *= min(1.0, 1 + possible_values(node).least)
        elif name in SPACINGS:
            left *= COARSE / max(COARSE, possible_values(node).most)
    return left


def _length(possible: Possible) -> float:
    if possible.texts != frozenset():
        return 1  # the key of an entry that holds the size
    if not possible.has_numbers or possible.most < 1:
        return LEAST_VALUES
    return max(possible.least, 1)


def _items(node: Node) -> list[Possible]:
    """Return the possible values of each item of a list, or of the node itself."""
    if isinstance(node, ListNode):
        return [possible_values(item) for item in node.items]
    if isinstance(node, Expression) and isinstance(node.tree, Display):
        return [possible_of(item) for item in node.tree.items]
    return [possible_values(node)]


def _is(spec: ComponentSpec, argument: str, values: tuple[bool | None, ...]) -> bool:
    """Return whether an argument is among these words; left out, it counts as null."""
    node = spec.args.items.get(argument)
    return node is None or (
        isinstance(node, LiteralNode) and any(node.value is value for value in values)
    )
