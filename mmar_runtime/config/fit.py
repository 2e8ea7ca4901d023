"""Parts of a config that are each right and do not fit: found by following the entries of a case.

What gives a wrong number for sure is a problem; what may be meant is a notice. Nothing is said of
what the config does not show, such as the work of the MMAR's own code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from mmar_runtime.config.consistency import has_own_engine
from mmar_runtime.config.expressions import from_engine_keys
from mmar_runtime.config.grids import (
    CUTTING,
    INTERPOLATING,
    KEEPS_LABELS,
    SAVER,
    Grid,
    Grids,
    Step,
    argument_of,
    differ,
    loaded_keys,
    odd_steps,
    texts_of,
    title_of,
    transforms_of,
)
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec, Expression, ListNode, Node, referenced_names
from mmar_runtime.config.nodes import Literal as LiteralNode
from mmar_runtime.config.predictions import (
    DISCRETE,
    Meaning,
    Prediction,
    predictions_of,
)
from mmar_runtime.config.sections import EvaluationConfig, Section, TrainConfig, WorkflowConfig
from mmar_runtime.config.upgrades.document import Notice
from mmar_runtime.errors import Problem

CLASS_METRICS = frozenset(
    {
        "ConfusionMatrix", "HausdorffDistance", "MeanDice", "MeanIoU", "MeanIoUHandler",
        "PanopticQuality", "SurfaceDice", "SurfaceDistance",
    }
)  # fmt: skip
"""Metrics that compare the regions of classes."""

CLASS_LOSSES = ("Dice", "GeneralizedDice", "Tversky", "Focal", "CrossEntropy", "BCE", "Asymmetric")
"""How the names of losses begin whose labels are classes."""

NOISE = frozenset(
    {
        "GaussianSharpend", "GaussianSmoothd", "HistogramNormalized", "MedianSmoothd",
        "NormalizeIntensityd", "RandAdjustContrastd", "RandBiasFieldd", "RandGaussianNoised",
        "RandGaussianSharpend", "RandGaussianSmoothd", "RandGibbsNoised", "RandHistogramShiftd",
        "RandKSpaceSpikeNoised", "RandRicianNoised", "RandScaleIntensityd", "RandShiftIntensityd",
        "RandStdShiftIntensityd",
    }
)  # fmt: skip
"""Transforms of intensities after which no number is that of a class."""

USERS = {
    "inferer": ", in the engine's inferer",
    "key_metric": ", in the evaluator's key_val_metric",
    "lr_scheduler": ", in the LrScheduleHandler's lr_scheduler",
}
"""Where entries are referred to."""

PADDING = frozenset({"DivisiblePadd", "SpatialPadd"})
"""Steps that leave a volume alone which is large enough."""

SCALES = frozenset({"ScaleIntensityd", "ScaleIntensityRangePercentilesd"})
"""Transforms that spread the values of an image over a range."""

KEEPS_PREDICTION = frozenset(
    {
        "Activationsd", "CastToTyped", "CopyItemsd", "EnsureTyped", "Invertd", "SaveImaged",
        "SqueezeDimd", "ToDeviced", "ToTensord",
    }
)  # fmt: skip
"""Post transforms after which a prediction of fractions is one still."""

MAX_NAMED = 4
"""Steps that a message names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Two parts that do not fit.

    Attributes:
        rule: a short stable identifier for programs.
        place: of the part to change first.
        message: names both parts, the other one with its place.
        advice: the next step.
        certain: whether a number is wrong for sure.
    """

    rule: str
    place: Location
    message: str
    advice: str
    certain: bool = True

    @property
    def problem(self) -> Problem:
        """The finding as a fault of the config."""
        return Problem(self.place, self.message, self.advice, self.rule)

    @property
    def notice(self) -> Notice:
        """The finding as something to know."""
        return Notice(
            rule=self.rule, message=f"{self.message}. {self.advice}".rstrip(), places=(self.place,)
        )


def findings(config: WorkflowConfig, outputs: int | None) -> Iterator[Finding]:
    """Yield what does not fit within the sections of a config.

    Args:
        config: a workflow.
        outputs: how many its network has; None if nobody knows.
    """
    if isinstance(config, EvaluationConfig):
        yield from _without_result(config.section)
    classes = any(has_classes(section) for section in config.scopes.values())
    used = {
        config.find(scope, name)
        for scope, section in config.scopes.items()
        for node in _users(section)
        for name, _ in referenced_names(node)
    }
    for scope, section in config.scopes.items():
        labels = _label_keys(section) if classes else []
        for key in labels:
            yield from _label_values(section, key)
            yield from _scaled_labels(section, key, outputs)
        if has_own_engine(section):
            continue
        yield from _unused(section, {name for found, name in filter(None, used) if found == scope})
        yield from _compared(section)
        if "label" in labels and scope == "train":
            yield from _loss_grids(section)
        yield from _metric_grids(section)
        yield from _saved_cuts(section)
        yield from _post_findings(section, outputs)
        if isinstance(config, TrainConfig):
            yield from _loss_findings(config.train, section, outputs)


def _label_keys(section: Section) -> list[str]:
    """Return the entries from files that hold classes: the label, and what crops take for one."""
    specs = transforms_of(section, "pre_transforms")
    named = {key for spec in specs for key in texts_of(spec, "label_key")}
    return sorted(loaded_keys(section) & {"label", *named})


def _without_result(section: Section) -> Iterator[Finding]:
    """Yield an evaluation that measures nothing and writes nothing."""
    metrics = (*section.specs("key_metric"), *section.specs("additional_metrics"))
    parts = (*transforms_of(section, "post_transforms"), *section.specs("handlers"))
    if metrics or any("Save" in part.title or part.path is not None for part in parts):
        return
    yield Finding(
        rule="no-result",
        place=section.location / "post_transforms",
        message="the evaluation has neither a metric nor a saver, and would leave nothing",
        advice="Add SaveImaged here, or a key_metric.",
        certain=False,
    )


def _unused(section: Section, used: Collection[str]) -> Iterator[Finding]:
    """Yield entries that no other refers to, so that they do nothing."""
    engine = next(iter((*section.specs("trainer"), *section.specs("evaluator"))), None)
    for name, node in section.entries.items() if engine is not None else ():
        if name in (*used, "trainer", "evaluator") or not _components(node):
            continue
        yield Finding(
            rule="unused-entry",
            place=section.location / name,
            message=f"no other entry refers to {name!r}, so it does nothing",
            advice=f'Write "@{name}" where it belongs{USERS.get(name, "")}, or take it out.',
            certain=False,
        )


def _users(section: Section) -> Iterator[Node]:
    """Yield what may use an entry; a handler that only saves or loads it does not."""
    for name, node in section.entries.items():
        for spec in section.specs("handlers") if name == "handlers" else ():
            args = spec.args.items.items()
            yield from (value for name, value in args if name not in ("save_dict", "load_dict"))
        if name != "handlers":
            yield node


def _components(node: Node) -> bool:
    nodes = node.items if isinstance(node, ListNode) else (node,)
    return any(isinstance(each, ComponentSpec) and not each.disabled for each in nodes)


def _compared(section: Section) -> Iterator[Finding]:
    """Yield metrics of masks whose first entry is not the prediction."""
    written = {
        text
        for spec in transforms_of(section, "post_transforms")
        for name in spec.args.items
        for text in texts_of(spec, name)
    }
    for spec, first, second in metrics_of(section):
        swapped = second == "pred" and first in loaded_keys(section)
        image = first == "image" and "image" not in written
        if spec.title in CLASS_METRICS and (swapped or image):
            yield Finding(
                rule="compared",
                place=spec.args.location / "output_transform",
                message=f"{spec.title} takes {first!r} for the prediction and {second!r} for the "
                "label",
                advice="Write from_engine(['pred', 'label']).",
                certain=image and second == "label",
            )


def metrics_of(section: Section) -> Iterator[tuple[ComponentSpec, str, str]]:
    """Yield each metric with the entries that it compares: prediction and label."""
    for spec in (*section.specs("key_metric"), *section.specs("additional_metrics")):
        output = spec.args.items.get("output_transform")
        keys = from_engine_keys(output.tree) if isinstance(output, Expression) else None
        if keys is not None and len(keys) == 2:
            yield spec, keys[0], keys[1]


def has_classes(section: Section) -> bool:
    """Return whether a label of this section holds numbers of classes."""
    losses = [spec.title for spec in section.specs("loss")]
    metrics = (*section.specs("key_metric"), *section.specs("additional_metrics"))
    one_hot = (
        type(argument_of(spec, "label", "to_onehot")) is int
        for spec in transforms_of(section, "post_transforms")
        if title_of(spec) == DISCRETE and "label" in texts_of(spec, "keys")
    )
    return (
        any(title.startswith(CLASS_LOSSES) for title in losses)
        or any(spec.title in CLASS_METRICS for spec in metrics)
        or any(one_hot)
    )


# --- Labels --------------------------------------------------------------------------------------


def _label_values(section: Section, key: str) -> Iterator[Finding]:
    """Yield transforms that turn the classes of a label into other numbers."""
    specs = list(transforms_of(section, "pre_transforms"))
    rounded = max(
        (index for index, spec in enumerate(specs) if _makes_classes(spec, key)), default=-1
    )
    for index, spec in enumerate(specs):
        title = title_of(spec)
        if key not in texts_of(spec, "keys"):
            continue
        if title in NOISE:
            message = f"{title} changes the numbers of the classes in {key!r}"
            advice = f"Take {key!r} out of its keys."
            yield Finding(rule="label-values", place=spec.location, message=message, advice=advice)
        mode = argument_of(spec, key, "mode", INTERPOLATING.get(title))
        written = isinstance(mode, str | int) and not str(mode).startswith("#")
        if title in INTERPOLATING and written and mode not in KEEPS_LABELS:
            if index <= rounded:
                continue
            given = "mode" in spec.args.items
            place = spec.args.location / "mode" if given else spec.location
            default = "" if given else ", its default"
            message = (
                f"{title} interpolates {key!r} with mode {mode!r}{default}: "
                "between two classes it makes numbers that are none"
            )
            yield Finding(
                rule="label-interpolated", place=place, message=message, advice=_modes(spec, key)
            )


def _scaled_labels(section: Section, key: str, outputs: int | None) -> Iterator[Finding]:
    """Yield transforms that spread the classes of a label over a range of intensities."""
    for spec in transforms_of(section, "pre_transforms"):
        title = title_of(spec)
        spread = title in SCALES and (outputs or 0) > 2
        if key in texts_of(spec, "keys") and (spread or _moves_background(spec)):
            message = f"{title} turns the classes in {key!r} into intensities"
            advice = f"Take {key!r} out of its keys."
            yield Finding(rule="label-values", place=spec.location, message=message, advice=advice)


def _moves_background(spec: ComponentSpec) -> bool:
    """Return whether a range of intensities leaves class 0 as a number that is no class."""
    names = ("a_min", "a_max", "b_min", "b_max")
    low, high, least, most = (argument_of(spec, "", name) for name in names)
    if title_of(spec) != "ScaleIntensityRanged" or not all(
        isinstance(bound, int | float) for bound in (low, high)
    ):
        return False
    least, most = (0, 1) if least is None or most is None else (least, most)
    return low != high and not float(-low / (high - low) * (most - least) + least).is_integer()


def _modes(spec: ComponentSpec, key: str) -> str:
    keys, default = texts_of(spec, "keys"), INTERPOLATING[title_of(spec)]
    modes = [
        "nearest" if each == key else str(argument_of(spec, each, "mode", default)) for each in keys
    ]
    listed = ", ".join(f'"{mode}"' for mode in modes)
    return f'Write "mode": [{listed}], one for each of the keys.'


def _makes_classes(spec: ComponentSpec, key: str) -> bool:
    """Return whether a transform gives each voxel a class again, or may do so."""
    if key not in texts_of(spec, "keys"):
        return False
    title = title_of(spec)
    thresholded = any(
        argument_of(spec, key, name) not in (None, False) for name in ("threshold", "rounding")
    )
    return title in ("", "Lambdad", "ThresholdIntensityd") or (title == DISCRETE and thresholded)


# --- Grids ---------------------------------------------------------------------------------------


def _loss_grids(section: Section) -> Iterator[Finding]:
    """Yield a training whose image goes through steps that its label does not, or the reverse."""
    if section.specs("model") and section.specs("model")[0].path is not None:
        return  # a network of the MMAR's own may make another grid of the image's
    grids = Grids.before_network(section)
    image, label = grids.of("image"), grids.of("label")
    if differ(image, label):
        yield _grid_finding("the loss", section.location / "loss", ("image", image), label)


def _metric_grids(section: Section) -> Iterator[Finding]:
    """Yield metrics of two grids; and those of a label that a transform has cut."""
    loaded, grids = loaded_keys(section), Grids.at_metrics(section)
    cut: dict[str, tuple[Location, Step]] = {}
    for spec, pred, label in metrics_of(section):
        if spec.title not in CLASS_METRICS or label not in loaded or pred in loaded:
            continue
        one, other = grids.of(pred), grids.of(label)
        if differ(one, other):
            yield _grid_finding(
                spec.title, spec.args.location / "output_transform", (pred, one), other, label=label
            )
            return
        for step in other or ():
            if step.title in CUTTING:
                cut.setdefault(spec.log_label or spec.title, (spec.location, step))
    if cut:
        place, step = next(iter(cut.values()))
        yield Finding(
            rule="label-cut",
            place=place,
            message=f"{', '.join(cut)}: what {step.title} cuts off a label is not counted "
            f"({step.spec.location})",
            advice="To count whole labels, take 'label' out of its keys and bring 'pred' back with "
            "Invertd.",
            certain=False,
        )


def _saved_cuts(section: Section) -> Iterator[Finding]:
    """Yield images that a transform has cut, and that a saver stretches to the file's grid."""
    for spec in transforms_of(section, "post_transforms"):
        key = next(iter(texts_of(spec, "keys")), "")
        if title_of(spec) != SAVER or argument_of(spec, key, "resample", False) is not True:
            continue
        steps = Grids.at_metrics(section, until=spec).of(key) or ()
        cut = next((step for step in steps if step.title in CUTTING), None)
        if cut and argument_of(spec, key, "padding_mode", "border") == "border":
            yield Finding(
                rule="saved-cut",
                place=spec.location,
                message=f"{SAVER} brings {key!r} to the grid of the file, and {cut.title} has cut "
                f"it ({cut.spec.location}): beyond the cut the file repeats the last voxels",
                advice="Put Invertd before it, with resample=false here.",
                certain=False,
            )


def _grid_finding(
    who: str, place: Location, compared: tuple[str, Grid], other: Grid, *, label: str = "label"
) -> Finding:
    key, one = compared
    more, less = odd_steps(one, other), odd_steps(other, one)
    parts = [f"{key!r} went through {_named(more)}"] if more else []
    parts += [f"{label!r} went through {_named(less)}"] if less else []
    if key == "pred" and not one:
        parts.append("'pred' has the grid of the file, as Invertd or no step made it")
        advice = (
            f"Take {label!r} out of the keys of those transforms, or invert it too: Invertd with "
            f"{label!r} in keys and orig_keys, and nearest_interp true for it."
        )
    elif less:
        advice = f"Let these steps change 'image' and {label!r} alike: in their keys."
    else:
        advice = f"Add {label!r} to their keys, with mode 'nearest' where they interpolate" + (
            ", or bring 'pred' back with Invertd." if key == "pred" else "."
        )
    return Finding(
        rule="grids",
        place=place,
        message=f"{who} compares {key!r} with {label!r} on different grids: {'; '.join(parts)}",
        advice=advice,
        certain=not all(step.title in PADDING for step in (*more, *less)),
    )


def _named(steps: Iterable[Step]) -> str:
    first = islice(steps, MAX_NAMED)
    return ", ".join(f"{step.title} ({step.spec.location.place})" for step in first)


# --- Activations and classes ---------------------------------------------------------------------


def _post_findings(section: Section, outputs: int | None) -> Iterator[Finding]:
    """Yield post transforms that do not fit the network's outputs, one another, or a metric."""
    stages = predictions_of(section, outputs)
    image = Grids.before_network(section).of("image") or ()
    resampled = any(step.title in INTERPOLATING for step in image)
    for key, steps in stages.items():
        for before, after in pairwise(steps):
            if after.inverted_by is before.inverted_by:
                yield from _stage_findings(key, before, after)
            elif resampled:
                yield from _inverted_classes(key, after)
        yield from _saved_early(section, key)
    for spec, pred, _ in metrics_of(section):
        if spec.title in CLASS_METRICS and pred in stages:
            yield from _metric_findings(spec, pred, stages[pred][-1])
            yield from _undecided(section, spec, pred, stages[pred][-1])


def _undecided(
    section: Section, metric: ComponentSpec, key: str, pred: Prediction
) -> Iterator[Finding]:
    """Yield a metric of masks for a prediction of fractions, or of what the network leaves."""
    steps = [s for s in transforms_of(section, "post_transforms") if key in texts_of(s, "keys")]
    own_inferer = any(spec.path is not None for spec in section.specs("inferer"))
    if (
        own_inferer
        or pred.meaning not in ("raw", "softmax", "sigmoid")
        or any(title_of(spec) not in KEEPS_PREDICTION for spec in steps)
    ):
        return
    raw = pred.meaning == "raw"
    what = f"a {pred.meaning}" if not raw else "as the network leaves it"
    many = (pred.outputs or 1) > 1
    yield Finding(
        rule="undecided",
        place=metric.location,
        message=f"{metric.title} compares masks, and {key!r} is {what}",
        advice=f"Put AsDiscreted with {'argmax and to_onehot' if many else 'threshold'} into "
        f"{section.location / 'post_transforms'}.",
        certain=raw,
    )


def _saved_early(section: Section, key: str) -> Iterator[Finding]:
    """Yield a saver that writes a prediction before its classes are decided."""
    saver: ComponentSpec | None = None
    for spec in transforms_of(section, "post_transforms"):
        if key not in texts_of(spec, "keys"):
            continue
        if title_of(spec) == "SaveImaged":
            saver = spec
        elif title_of(spec) == DISCRETE and saver is not None:
            yield Finding(
                rule="saved-early",
                place=saver.location,
                message=f"SaveImaged writes {key!r} before {title_of(spec)} ({spec.location.place})"
                " decides its classes",
                advice="Put SaveImaged last, unless that is meant.",
                certain=False,
            )
            return


def _inverted_classes(key: str, pred: Prediction) -> Iterator[Finding]:
    """Yield an inversion that computes the voxels of classes from their neighbours."""
    spec = pred.inverted_by
    if spec is None or argument_of(spec, key, "nearest_interp", True) is not False:
        return
    if pred.meaning in ("classes", "one-hot", "mask"):
        classes = "numbers of classes" if pred.meaning == "classes" else "a mask"
        yield Finding(
            rule="classes-interpolated",
            place=spec.args.location / "nearest_interp",
            message=f"Invertd interpolates {key!r}, which is {classes} by then",
            advice="Write true, or put it before AsDiscreted.",
            certain=pred.meaning == "classes" and (pred.outputs or 0) > 2,
        )


def _stage_findings(key: str, before: Prediction, after: Prediction) -> Iterator[Finding]:
    by = after.by
    if by is None:
        return
    activations: tuple[Meaning, ...] = ("sigmoid", "softmax")
    if after.meaning in activations and before.meaning in activations and before.by is not None:
        message = (
            f"{after.meaning} of {key!r}, which is a {before.meaning} already "
            f"({before.by.location.place})"
        )
        yield Finding(rule="activation", place=by.location, message=message, advice="Keep one.")
    elif before.channels == 1 and after.meaning == "softmax":
        message = f"softmax of the single channel of {key!r} is 1 everywhere"
        advice = "Write sigmoid, or give the network an output for the background."
        yield Finding(rule="activation", place=by.location, message=message, advice=advice)
    elif before.channels == 1 and argument_of(by, key, "argmax") is True:
        message = f"argmax of the single channel of {key!r} is 0 everywhere"
        advice = "Write threshold, or give the network an output for the background."
        yield Finding(rule="activation", place=by.location, message=message, advice=advice)
    elif after.meaning == "one-hot" and after.outputs not in (None, after.channels):
        message = f"to_onehot makes {after.channels} classes, and the network has {after.outputs}"
        yield Finding(
            rule="classes",
            place=by.args.location / "to_onehot",
            message=f"{message} outputs",
            advice=f"Write {after.outputs}.",
            certain=(after.channels or 0) < (after.outputs or 0),
        )
    elif after.meaning == "mask" and before.meaning == "raw" and before.by is None:
        yield Finding(
            rule="activation",
            place=by.location,
            message=f"a threshold for {key!r} as the network leaves it, without an activation",
            advice="Put Activationsd before it, unless the network ends with a sigmoid.",
            certain=False,
        )


def _metric_findings(spec: ComponentSpec, key: str, pred: Prediction) -> Iterator[Finding]:
    if pred.meaning == "classes" and pred.by is not None and "num_classes" not in spec.args.items:
        number = "an unknown number of" if pred.outputs is None else str(pred.outputs)
        if pred.outputs is None or pred.outputs > 2:
            yield Finding(
                rule="class-numbers",
                place=pred.by.location,
                message=f"argmax without to_onehot: {spec.log_label or spec.title} "
                f"({spec.location.place}) would compare numbers of classes with class 1 alone, "
                f"and the network has {number} outputs",
                advice=f"Write to_onehot with the number of outputs, for {key!r} and the label"
                + ("; two outputs are right as they are." if pred.outputs is None else "."),
                certain=pred.outputs is not None,
            )
    background = spec.args.items.get("include_background")
    if (
        pred.channels == 1
        and isinstance(background, LiteralNode)
        and background.value is False
        and pred.meaning != "classes"
    ):
        yield Finding(
            rule="background",
            place=background.location,
            message=f"{spec.title} leaves no background out: {key!r} has a single channel",
            advice="Take include_background out.",
            certain=False,
        )


def _loss_findings(train: Section, section: Section, outputs: int | None) -> Iterator[Finding]:
    """Yield a loss whose activation does not fit the outputs, or a post transform's."""
    for loss in train.specs("loss"):
        activation = _activation_of(loss)
        if section is train and outputs == 1 and activation == "softmax":
            yield Finding(
                rule="activation",
                place=loss.location,
                message=f"{loss.title} takes a softmax, and the network has a single output: "
                "there is nothing to learn from",
                advice="Write sigmoid, or give the network an output for the background.",
            )
        stages = predictions_of(section, outputs).get("pred", [])
        for stage, after in zip(stages, [*stages[1:], None], strict=True):
            if stage.by is None or activation is None or stage.meaning in (activation, "unknown"):
                continue
            if stage.meaning not in ("sigmoid", "softmax") or stage.channels == 1:
                continue
            thresholded = after is not None and after.meaning == "mask"
            yield Finding(
                rule="activation",
                place=stage.by.location,
                message=f"{stage.meaning} of 'pred', which {loss.title} trains for a {activation} "
                f"({loss.location.place})",
                advice=f"Write {activation} here too.",
                certain=thresholded or stage.meaning == "sigmoid",
            )
            break


def _activation_of(loss: ComponentSpec) -> Meaning | None:
    """Return the activation that a loss applies to the network's outputs; None if unknown."""
    if loss.path is not None:
        return None
    if loss.title == "CrossEntropyLoss":
        return "softmax"
    if loss.title == "BCEWithLogitsLoss":
        return "sigmoid"
    for name in ("softmax", "sigmoid"):
        node = loss.args.items.get(name)
        if isinstance(node, LiteralNode) and node.value is True:
            return "softmax" if name == "softmax" else "sigmoid"
    return None
