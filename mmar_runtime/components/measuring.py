"""Metrics with their denominators: what each case and class gave, next to MONAI's mean."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.handlers import IgniteMetricHandler
from monai.metrics import Cumulative, CumulativeIterationMetric
from monai.metrics.metric import IterationMetric
from monai.utils import ImageMetaKey, MetaKeys, string_list_all_gather

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
        if hasattr(metric, "get_not_nans"):
            metric.get_not_nans = True

    def reset(self) -> None:
        """Forget the cases so far."""
        self._metric.reset()
        self._presence.reset()  # type: ignore[no-untyped-call]
        self._cases, self._in_mm, self.tally = [], True, None

    def __call__(self, y_pred: Any, y: Any) -> None:
        """Take a batch: lists of (channel, spatial...), or tensors with a batch axis in front."""
        if not self._kind.by_class:
            self._metric(y_pred, y)
            return
        for predicted, label in zip(y_pred, y, strict=True):
            with warnings.catch_warnings():
                # MONAI warns of its own calls, and of an empty mask without naming the case.
                warnings.simplefilter("ignore")
                spacing = self._spacing(label)
                values: Any = IterationMetric.__call__(
                    self._metric, [predicted], [label], **spacing
                )
            if self._kind.is_distance:
                values = values.where(values.isfinite(), torch.nan)
            self._metric.extend(values)
            self._presence.extend(self._present(predicted, label, values.shape[1])[None])
            self._cases.append(_file_of(label) or f"case {len(self._cases) + 1}")

    def _spacing(self, label: Any) -> dict[str, Any]:
        """Return the argument for a distance in millimetres; none where nobody knows it."""
        if not self._kind.is_distance:
            return {}
        spacing = spacing_in_mm(label)
        if spacing is None or getattr(self._metric, "distance_metric", "") != "euclidean":
            self._in_mm = False
            return {}
        return {"spacing": list(spacing)}

    def _present(self, predicted: torch.Tensor, label: torch.Tensor, count: int) -> torch.Tensor:
        """Return whether the last ``count`` classes are labelled and predicted (class, 2)."""
        first = 0 if getattr(self._metric, "include_background", True) else 1
        if label.shape[0] == 1 and count > 1:  # class numbers
            pairs = [(label == c, predicted == c) for c in range(first, first + count)]
        else:
            pairs = [(label[c] > 0.5, predicted[c] > 0.5) for c in range(-count, 0)]
            if not self._cases:
                self._is_mask = label.shape[0] == 1
                self._one_hot = self._is_mask or bool((label.sum(0) == 1).all())
        flags = [torch.stack([part.any() for part in pair]) for pair in pairs]
        return torch.stack(flags).as_subclass(torch.Tensor).float()

    def aggregate(self) -> Any:
        """Return MONAI's mean, which is not a number where nothing counts; sum up the cases."""
        result = self._metric.aggregate()
        if self._kind.by_class:
            self.tally = self._tallied()
        first = result[0] if isinstance(result, list) else result
        if not isinstance(first, tuple):
            return first
        values, counts = first
        if isinstance(values, dict):  # one entry for each class
            each = zip(values.items(), counts, strict=True)
            return {name: value if count > 0 else torch.nan for (name, value), count in each}
        if counts.numel() != values.numel():
            return values
        return torch.where(counts.flatten() > 0, values.flatten(), torch.nan)

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
        first = 0 if getattr(self._metric, "include_background", True) else 1
        if self._is_mask:
            first = 1
        if not self._one_hot:
            return tuple(f"channel{index}" for index in range(first, first + count))
        return tuple(self._names.get(c, f"class{c}") for c in range(first, first + count))


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

    def _begin(self) -> None:
        self._items = 0

    def _count(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self._items += len(output) if isinstance(output, list) else 1

    def cases(self) -> int:
        """Return the items of the last epoch over all processes; each process has to ask."""
        return int(idist.all_reduce(self._items))

    def read(self) -> dict[str, MetricValue]:
        """Return the metrics of the last epoch; each process has to ask."""
        cases = self.cases()
        found: dict[str, MetricValue] = {}
        for label, value in self._engine.state.metrics.items():
            tally = tally_of(self._handlers.get(label))
            kind = self._kinds.get(label, MetricKind(higher_is_better=None))
            found |= _values(label, value, tally, kind, cases)
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
    """Return a metric's handler with the cases counted; a handler of ignite's stays as it is."""
    if isinstance(handler, IgniteMetricHandler):
        handler.metric_fn = CountedMetric(handler.metric_fn, kind, names)  # type: ignore[assignment]
    return handler


def tally_of(handler: Metric | None) -> Tally | None:
    """Return what a metric counted by case and class, if it does."""
    metric: Any = getattr(handler, "metric_fn", None)
    return metric.tally if isinstance(metric, CountedMetric) else None


def _values(label: str, value: Any, tally: Tally | None, kind: MetricKind, cases: int) -> Metrics:
    """Return a metric by its label, or one for each number of a vector; matrices are left out."""
    numbers = torch.as_tensor(value) if isinstance(value, NUMBERS) else None
    if numbers is None or numbers.ndim > 1:
        return {}
    parts = {} if tally is None else tally.classes()
    if numbers.numel() == 1:
        number = defined(numbers.item())
        total = cases if tally is None else len(tally.cases)
        counted = 0 if number is None else total if tally is None else tally.counted
        one = MetricValue(
            value=number,
            counted=counted,
            undefined=total - counted,
            unit="" if tally is None else tally.unit,
            higher_is_better=kind.higher_is_better,
            classes=parts,
        )
        return {label: one}
    names = list(parts) if len(parts) == len(numbers) else map(str, range(len(numbers)))
    return {
        f"{label}_{name}": _component(number, parts.get(name), tally, kind, cases)
        for name, number in zip(names, numbers.tolist(), strict=True)
    }


def _component(
    number: float, part: ClassValue | None, tally: Tally | None, kind: MetricKind, cases: int
) -> MetricValue:
    """Return one number of a vector: a class's, where the vector goes by class."""
    value = defined(number)
    counted = 0 if value is None else cases if part is None else part.counted
    return MetricValue(
        value=value,
        counted=counted,
        undefined=cases - counted,
        unit="" if tally is None else tally.unit,
        higher_is_better=kind.higher_is_better,
    )
