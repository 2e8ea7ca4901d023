"""Metrics with their denominators: what each case and class gave, next to MONAI's mean."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric, MetricGroup
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.handlers import IgniteMetricHandler
from monai.metrics import (
    ConfusionMatrixMetric,
    Cumulative,
    CumulativeIterationMetric,
    PanopticQualityMetric,
    compute_confusion_matrix_metric,
)
from monai.metrics.metric import IterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import ImageMetaKey, MetaKeys, string_list_all_gather

from mmar_runtime.components.ignite_metrics import DefinedMetric, defined_only, one_number
from mmar_runtime.metrics import ClassValue, Metrics, MetricValue, Unit, defined
from mmar_runtime.policy.metrics.metric_kinds import MetricKind
from mmar_runtime.results import Finding

ClassNames = Mapping[int, str]
"""Value of a label -> its name in the data list."""

MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI's code of a length: metre, millimetre, micrometre. 0 means that nobody has said it."""

NUMBERS = (torch.Tensor, np.ndarray, np.generic, int, float)
"""What handlers give as a metric, besides texts and objects."""

SPATIAL_CODES = 0b111
"""The bits of NIfTI's ``xyzt_units`` that hold the unit of lengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a metric found in the last run, over all processes.

    Attributes:
        values: per case and class (case, class); NaN where there is none.
        labelled: whether the class is in the label (case, class); likewise ``predicted``.
        names: of the classes.
        cases: their files.
        unit: of the values.
    """

    values: torch.Tensor
    labelled: torch.Tensor
    predicted: torch.Tensor
    names: tuple[str, ...]
    cases: tuple[str, ...]
    unit: Unit

    @property
    def has_value(self) -> torch.Tensor:
        """Whether a case counts for a class (case, class)."""
        return self.values.isfinite()

    @property
    def counted(self) -> int:
        """Cases with a value for at least one class."""
        return int(self.has_value.any(1).sum())

    def classes(self) -> dict[str, ClassValue]:
        """Return each class's mean over the cases that count for it."""
        return {name: self._class(index) for index, name in enumerate(self.names)}

    def _class(self, index: int) -> ClassValue:
        values, counts = self.values[:, index], self.has_value[:, index]
        labelled, predicted = self.labelled[:, index], self.predicted[:, index]
        return ClassValue(
            value=values[counts].double().mean().item() if counts.any() else None,
            counted=int(counts.sum()),
            missed=int((labelled & ~predicted).sum()),
            absent=int((~labelled).sum()),
            spurious=int((predicted & ~labelled).sum()),
        )

    def findings(self) -> Iterator[Finding]:
        """Yield the cases that the mean of a class does not show."""
        missed, spurious = self.labelled & ~self.predicted, self.predicted & ~self.labelled
        for case, label in (missed | spurious).nonzero().tolist():
            yield Finding(
                case=self.cases[case],
                label=self.names[label],
                fault="missed" if missed[case, label] else "predicted where it is absent",
            )


class _Presence(Cumulative):
    """Which classes each case has, in its label and in the prediction (case, class, 2)."""

    def aggregate(self) -> Any:
        """Return all of it."""
        return self.get_buffer()  # type: ignore[no-untyped-call]


class CountedMetric:
    """A metric of MONAI's that also remembers what each case has of each class.

    It stands in the place of ``metric_fn`` of a handler. A distance is in millimetres, by the
    position of the label's voxels. The mean of nothing is not a number.

    Args:
        metric: computes the values.
        kind: what they are.
        names: of the labels' values.
    """

    def __init__(
        self, metric: CumulativeIterationMetric, kind: MetricKind, names: ClassNames
    ) -> None:
        self._metric = metric
        self._kind = kind
        self._names = names
        self._presence = _Presence()
        self._cases: list[str] = []
        self._in_mm = True
        self._one_hot = True
        self._is_mask = False
        self.tally: Tally | None = None
        self.taken = 0
        if hasattr(metric, "get_not_nans"):
            metric.get_not_nans = True

    def reset(self) -> None:
        """Forget the cases so far."""
        self._metric.reset()
        self._presence.reset()  # type: ignore[no-untyped-call]
        self._cases, self._in_mm, self.tally = [], True, None

    def __call__(self, y_pred: Any, y: Any) -> None:
        """Take a batch: lists of (channel, spatial...), or tensors with a batch axis in front."""
        for predicted, label in zip(y_pred, y, strict=True):
            with warnings.catch_warnings():
                # MONAI warns of its own calls, and of an empty mask without naming the case.
                warnings.simplefilter("ignore")
                spacing = self._spacing(label)
                values: Any = IterationMetric.__call__(
                    self._metric, [predicted], [label], **spacing
                )
            if not self._cases:
                self._look_at(label)
            self._cases.append(_file_of(label) or f"case {len(self._cases) + 1}")
            if isinstance(values, list):  # scores and labels, for a rank of all cases
                self._metric.extend(*values)
                continue
            is_number = self._kind.by_class or not predicted.isnan().any()
            values = values.where(values.isfinite() & is_number, torch.nan)
            self._metric.extend(values)
            if self._kind.by_class:
                self._presence.extend(self._present(predicted, label, values.shape[1])[None])

    def _spacing(self, label: Any) -> dict[str, Any]:
        """Return the argument for a distance in millimetres; none where nobody knows it."""
        if not self._kind.is_distance:
            return {}
        spacing = spacing_in_mm(label)
        if spacing is None or getattr(self._metric, "distance_metric", "") != "euclidean":
            self._in_mm = False
            return {}
        return {"spacing": list(spacing)}

    def _look_at(self, label: torch.Tensor) -> None:
        """Find out what the channels of the first label are: one of them, one for each, or free."""
        self._is_mask = label.ndim > 0 and label.shape[0] == 1
        of_instances = isinstance(self._metric, PanopticQualityMetric)
        self._one_hot = self._is_mask or of_instances or bool((label.sum(0) == 1).all())

    def _present(self, predicted: torch.Tensor, label: torch.Tensor, count: int) -> torch.Tensor:
        """Return whether the last ``count`` classes are labelled and predicted (class, 2)."""
        first = 0 if getattr(self._metric, "include_background", True) else 1
        if label.shape[0] == 1 and count > 1:  # class numbers
            pairs = [(label == c, predicted == c) for c in range(first, first + count)]
        else:
            pairs = [(label[c] > 0.5, predicted[c] > 0.5) for c in range(-count, 0)]
        flags = [torch.stack([part.any() for part in pair]) for pair in pairs]
        return torch.stack(flags).as_subclass(torch.Tensor).float()

    def aggregate(self) -> Any:
        """Return MONAI's mean, which is not a number where nothing counts; sum up the cases."""
        return one_number(self._aggregated(), self._kind)

    def _aggregated(self) -> Any:
        buffer = self._metric.get_buffer()
        if isinstance(buffer, list):
            scores, _ = buffer
            return self._rank(scores)
        if self._kind.by_class:
            self.tally = self._tallied()
        result = self._metric.aggregate()
        first = result[0] if isinstance(result, list) else result
        self.taken = int(self._has_value(buffer).sum())
        if isinstance(self._metric, PanopticQualityMetric):
            return first.where(_divisors(self._metric, buffer) > 0, torch.nan)
        if not isinstance(first, tuple):
            return first
        values, counts = first
        if isinstance(values, dict):  # one entry for each class
            each = zip(values.items(), counts, strict=True)
            return {name: value if count > 0 else torch.nan for (name, value), count in each}
        if counts.numel() != values.numel():
            return values
        return torch.where(counts.flatten() > 0, values.flatten(), torch.nan)

    def _rank(self, scores: torch.Tensor) -> torch.Tensor:
        """Return a rate of all cases in the order of their scores, which have to be numbers."""
        self.taken = len(scores)
        if scores.isnan().any():
            return torch.tensor(torch.nan)
        return torch.as_tensor(self._metric.aggregate())

    def _has_value(self, buffer: torch.Tensor) -> torch.Tensor:
        """Return whether each case has a value for at least one class (case)."""
        if isinstance(self._metric, ConfusionMatrixMetric) and self._metric.compute_sample:
            buffer = compute_confusion_matrix_metric(self._metric.metric_name[0], buffer)
        return buffer.isfinite().flatten(1).any(1)

    def get_buffer(self) -> Any:
        """Return the value of each case and class, as ``MetricsSaver`` writes them."""
        return self._metric.get_buffer()

    def _tallied(self) -> Tally:
        values, presence = self._metric.get_buffer(), self._presence.aggregate()
        several = idist.get_world_size() > 1
        cases = string_list_all_gather(self._cases) if several else self._cases
        unit: Unit = ""
        if self._kind.is_distance:
            unit = "mm" if self._in_mm else "voxels"
        return Tally(
            values=values.as_subclass(torch.Tensor).cpu(),
            labelled=presence[..., 0].cpu() > 0,
            predicted=presence[..., 1].cpu() > 0,
            names=self.class_names(values.shape[1]),
            cases=tuple(cases),
            unit=unit,
        )

    def class_names(self, count: int) -> tuple[str, ...]:
        """Return the names of the last ``count`` channels: of the labels, or of the channels.

        A single channel is the mask of class 1.
        """
        without_background = isinstance(self._metric, PanopticQualityMetric)
        has_background = getattr(self._metric, "include_background", not without_background)
        first = 0 if has_background and not (self._is_mask and count == 1) else 1
        if not self._one_hot:
            return tuple(f"channel{index}" for index in range(first, first + count))
        return tuple(self._names.get(c, f"class{c}") for c in range(first, first + count))


def _divisors(metric: PanopticQualityMetric, buffer: torch.Tensor) -> torch.Tensor:
    """Return what a panoptic quality divides by: where that is 0, there is nothing to judge."""
    counts, _ = do_metric_reduction(buffer, metric.reduction)
    found, spurious, missed = counts[..., :3].unbind(-1)
    of_pairs = metric.metric_name[0].lower().replace("_", " ") in ("sq", "segmentation quality")
    return found if of_pairs else found + spurious + missed


def spacing_in_mm(image: Any) -> tuple[float, ...] | None:
    """Return the distance of neighbouring voxels along each spatial axis of (channel, ...), in mm.

    None for an image whose file has no position, such as a picture. MONAI takes the numbers of a
    NIfTI's affine for millimetres, also where its header says micrometres.
    """
    if not isinstance(image, MetaTensor) or MetaKeys.ORIGINAL_AFFINE not in image.meta:
        return None
    code = int(image.meta.get("xyzt_units", 0)) & SPATIAL_CODES
    lengths = affine_to_spacing(image.affine, r=image.ndim - 1)
    return tuple(float(length) * MM_PER_UNIT.get(code, 1.0) for length in lengths)


def _file_of(image: Any) -> str:
    return str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "")) if hasattr(image, "meta") else ""


class Measurements:
    """Reads the metrics of an engine with their denominators.

    Args:
        engine: whose metrics they are.
        handlers: label -> the metric's handler.
        kinds: label -> what the metric measures.
    """

    def __init__(
        self, engine: Engine, handlers: Mapping[str, Metric], kinds: Mapping[str, MetricKind]
    ) -> None:
        self._engine = engine
        self._handlers = handlers
        self._kinds = kinds
        self._items = 0
        engine.state.measurements = self  # type: ignore[attr-defined]  # for the metrics' saver
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)

    @property
    def handlers(self) -> tuple[Metric, ...]:
        """The handlers of the metrics."""
        return tuple(self._handlers.values())

    def _begin(self) -> None:
        self._items = 0

    def _count(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self._items += len(output) if isinstance(output, list) else 1

    def cases(self) -> int:
        """Return the items of the last epoch over all processes; each process has to ask."""
        return int(idist.all_reduce(self._items))

    def read(self, labels: Iterable[str] | None = None) -> dict[str, MetricValue]:
        """Return the metrics of the last epoch; each process has to ask.

        Args:
            labels: of the metrics, a vector by its own label; all of them by default.
        """
        cases = self.cases()
        found: dict[str, MetricValue] = {}
        values = self._engine.state.metrics
        for label in values if labels is None else labels:
            value, handler = values[label], self._handlers.get(label)
            kind = self._kinds.get(label, MetricKind(higher_is_better=None))
            found |= _values(label, value, handler, kind, cases)
        return found

    def class_names(self, label: str) -> list[str] | None:
        """Return the names of a metric's classes; None where it does not go by class."""
        tally = tally_of(self._handlers.get(label))
        return None if tally is None else list(tally.names)

    def findings(self) -> tuple[Finding, ...]:
        """Return the cases that the means do not show, each once."""
        tallies = filter(None, map(tally_of, self._handlers.values()))
        return tuple(dict.fromkeys(one for tally in tallies for one in tally.findings()))


def counted(handler: Metric, kind: MetricKind, names: ClassNames) -> Metric:
    """Return a metric's handler with the cases counted; one of another package as it is."""
    if isinstance(handler, IgniteMetricHandler):
        handler.metric_fn = CountedMetric(handler.metric_fn, kind, names)  # type: ignore[assignment]
        return handler
    if type(handler) is MetricGroup:
        parts = handler.metrics.items()
        handler.metrics = {name: counted(part, kind, names) for name, part in parts}
    return defined_only(handler, kind)


def _counter(handler: Metric | None) -> CountedMetric | None:
    metric: Any = getattr(handler, "metric_fn", None)
    return metric if isinstance(metric, CountedMetric) else None


def tally_of(handler: Metric | None) -> Tally | None:
    """Return what a metric counted by case and class, if it does."""
    counter = _counter(handler)
    return None if counter is None else counter.tally


def _taken(handler: Metric | None, cases: int) -> int:
    """Return how many of the cases have a value; each process has to ask."""
    counter = _counter(handler)
    if counter is not None:
        return min(counter.taken, cases)
    return min(handler.taken(), cases) if isinstance(handler, DefinedMetric) else cases


def _values(
    label: str, value: Any, handler: Metric | None, kind: MetricKind, cases: int
) -> Metrics:
    """Return a metric by its label, or one for each number of a vector; matrices are left out."""
    numbers = torch.as_tensor(value) if isinstance(value, (*NUMBERS, list)) else None
    if numbers is None or numbers.ndim > 1:
        return {}
    counter, tally = _counter(handler), tally_of(handler)
    cases = cases if tally is None else len(tally.cases)
    parts = {} if tally is None else tally.classes()
    taken = _taken(handler, cases)
    metric = partial(
        _metric, cases=cases, unit="" if tally is None else tally.unit, higher=kind.higher_is_better
    )
    if numbers.numel() == 1:
        return {label: metric(numbers.item(), taken, classes=parts)}
    count = len(numbers)
    names = map(str, range(count)) if counter is None else counter.class_names(count)
    return {
        f"{label}_{name}": metric(number, parts[name].counted if name in parts else taken)
        for name, number in zip(names, numbers.tolist(), strict=True)
    }


def _metric(
    number: float,
    counted: int,
    *,
    cases: int,
    unit: Unit,
    higher: bool | None,
    classes: Mapping[str, ClassValue] = MappingProxyType({}),
) -> MetricValue:
    """Return a number with its denominator, which is 0 where it has no value."""
    value = defined(number)
    counted = 0 if value is None else counted
    return MetricValue(
        value=value,
        counted=counted,
        undefined=cases - counted,
        unit=unit,
        higher_is_better=higher,
        classes=classes,
    )
