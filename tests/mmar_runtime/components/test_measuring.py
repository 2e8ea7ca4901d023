"""Metrics with their denominators, against NumPy and SciPy.

Masks of 12 x 10 x 8 voxels of 2 x 1 x 3 mm, one class beside the background. A right prediction is
the label moved by one voxel along the first axis, so that each number can be checked by hand: of
the label's 4 x 4 x 4 voxels, 3 x 4 x 4 are met. The whole table is in ``docs/look-up/metrics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.metrics import Accuracy, Metric
from monai.data import MetaTensor
from monai.handlers import (
    ROCAUC,
    AveragePrecision,
    ConfusionMatrix,
    HausdorffDistance,
    MeanAbsoluteError,
    MeanDice,
    MeanIoUHandler,
    MeanSquaredError,
    SurfaceDistance,
    from_engine,
)
from monai.utils import MetaKeys
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from mmar_runtime.components.measuring import Measurements, counted, spacing_in_mm
from mmar_runtime.metrics import ClassValue, MetricValue
from mmar_runtime.policy.metrics.metric_kinds import BY_CLASS, DISTANCES, MetricKind

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Case = tuple[Mask, Mask]
"""Prediction and label."""

PAIR = from_engine(["pred", "label"])
SPACING = (2.0, 1.0, 3.0)
NAMES = {0: "background", 1: "spleen"}
DOCS = Path(__file__).parents[3] / "docs/look-up/metrics.md"


def box(first: int, last: int) -> Mask:
    mask = np.zeros((12, 10, 8), bool)
    mask[first:last, 3:7, 2:6] = True
    return mask


LABEL, MOVED, NOTHING = box(4, 8), box(5, 9), box(0, 0)
SITUATIONS: Mapping[str, Sequence[Case]] = {
    "all found": [(MOVED, LABEL), (LABEL, LABEL), (MOVED, LABEL)],
    "one missed": [(MOVED, LABEL), (LABEL, LABEL), (NOTHING, LABEL)],
    "all missed": [(NOTHING, LABEL)] * 3,
    "absent in one": [(MOVED, LABEL), (LABEL, LABEL), (NOTHING, NOTHING)],
    "false where absent": [(MOVED, LABEL), (LABEL, LABEL), (LABEL, NOTHING)],
    "one case": [(MOVED, LABEL)],
}

# --- the metrics, computed by other means: one value for each case, None where there is none


def dice(predicted: Mask, label: Mask) -> float | None:
    return 2 * float((predicted & label).sum()) / float(predicted.sum() + label.sum())


def iou(predicted: Mask, label: Mask) -> float | None:
    return float((predicted & label).sum()) / float((predicted | label).sum())


def sensitivity(predicted: Mask, label: Mask) -> float | None:
    return float((predicted & label).sum()) / float(label.sum())


def where_labelled(of_case: Callable[[Mask, Mask], float | None]) -> Callable[..., float | None]:
    return lambda predicted, label: of_case(predicted, label) if label.any() else None


def surface(mask: Mask) -> np.ndarray[Any, Any]:
    """The places of a mask's outer voxels, in mm (voxel, axis)."""
    return np.argwhere(mask & ~binary_erosion(mask)) * SPACING


def distances(predicted: Mask, label: Mask) -> tuple[Any, Any]:
    """From each outer voxel of one mask to the other mask, in mm."""
    all_pairs = cdist(surface(predicted), surface(label))
    return all_pairs.min(1), all_pairs.min(0)


def where_both(of_case: Callable[[Any, Any], float]) -> Callable[[Mask, Mask], float | None]:
    def value(predicted: Mask, label: Mask) -> float | None:
        return of_case(*distances(predicted, label)) if predicted.any() and label.any() else None

    return value


def farthest(there: Any, back: Any) -> float:
    return float(max(there.max(), back.max()))


def farthest_95(there: Any, back: Any) -> float:
    return float(max(np.quantile(there, 0.95), np.quantile(back, 0.95)))


MASK_METRICS: Mapping[str, tuple[Callable[[], Metric], Callable[[Mask, Mask], float | None]]] = {
    "MeanDice": (
        lambda: MeanDice(include_background=False, output_transform=PAIR),
        where_labelled(dice),
    ),
    "MeanIoU": (
        lambda: MeanIoUHandler(include_background=False, output_transform=PAIR),
        where_labelled(iou),
    ),
    "HausdorffDistance": (
        lambda: HausdorffDistance(include_background=False, output_transform=PAIR),
        where_both(farthest),
    ),
    "HausdorffDistance 95": (
        lambda: HausdorffDistance(include_background=False, percentile=95, output_transform=PAIR),
        where_both(farthest_95),
    ),
    "SurfaceDistance": (
        lambda: SurfaceDistance(include_background=False, output_transform=PAIR),
        where_both(lambda there, _: float(there.mean())),
    ),
}


def kind_of(handler: Metric) -> MetricKind:
    name = type(handler).__name__
    is_distance = name in DISTANCES
    return MetricKind(
        higher_is_better=not is_distance, by_class=name in BY_CLASS, is_distance=is_distance
    )


def measured(handler: Metric, batches: Iterable[list[Any]]) -> tuple[MetricValue, Measurements]:
    """Run an engine that puts out these batches, and read its only metric."""
    engine, kind = Engine(lambda _, batch: batch), kind_of(handler)
    counted(handler, kind, NAMES).attach(engine, "metric")
    measurements = Measurements(engine, {"metric": handler}, {"metric": kind})
    engine.run(list(batches))
    return measurements.read()["metric"], measurements


def volume(mask: Mask, *, code: int = 2, file: str = "") -> MetaTensor:
    """A mask as the post transforms leave it: one channel for each class, with its position."""
    affine = np.diag([*SPACING, 1.0])
    meta = {MetaKeys.ORIGINAL_AFFINE: affine, "xyzt_units": code, "filename_or_obj": file}
    channels = torch.as_tensor(np.stack([~mask, mask])).float()
    return MetaTensor(channels, affine=torch.as_tensor(affine), meta=meta)


def output(case: Case, index: int = 0) -> dict[str, Any]:
    return {"pred": volume(case[0]), "label": volume(case[1], file=f"case-{index}")}


def in_batches(cases: Sequence[Case], size: int) -> list[list[Any]]:
    items = [output(case, index) for index, case in enumerate(cases)]
    return [items[start : start + size] for start in range(0, len(items), size)]


def expected(cases: Sequence[Case], of_case: Callable[[Mask, Mask], float | None]) -> list[float]:
    values = [of_case(predicted, label) for predicted, label in cases]
    return [value for value in values if value is not None]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("metric", MASK_METRICS)
def test_a_metric_of_masks_is_the_mean_over_the_cases_that_count(
    metric: str, situation: str
) -> None:
    (make, of_case), cases = MASK_METRICS[metric], SITUATIONS[situation]
    values = expected(cases, of_case)
    labelled = [bool(label.any()) for _, label in cases]
    predicted = [bool(mask.any()) for mask, _ in cases]

    for size in (1, 2):  # the last batch is smaller
        found, _ = measured(make(), in_batches(cases, size))

        assert found.counted == len(values)
        assert found.undefined == len(cases) - len(values)
        assert found.value == (pytest.approx(np.mean(values), rel=1e-6) if values else None)
        assert found.unit == ("mm" if "Distance" in metric else "")
        [(name, part)] = found.classes.items()
        assert (name, part.counted) == ("spleen", len(values))
        assert part.value == (pytest.approx(np.mean(values), rel=1e-6) if values else None)
        assert part.missed == sum(a and not b for a, b in zip(labelled, predicted, strict=True))
        assert part.absent == labelled.count(False)
        assert part.spurious == sum(b and not a for a, b in zip(labelled, predicted, strict=True))


def test_the_table_in_the_documents_is_what_the_metrics_give() -> None:
    """Each row of the table: value, and over how many cases."""
    rows = []
    for metric, (_, of_case) in MASK_METRICS.items():
        cells = []
        for cases in SITUATIONS.values():
            values = expected(cases, of_case)
            mean = f"{np.mean(values):.3f}" if values else "undefined"
            cells.append(f"{mean} ({len(values)})")
        rows.append(f"| {metric} | {' | '.join(cells)} |")
    written = DOCS.read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in written] == []


# --- what else a metric may be


def test_the_cases_that_a_mean_hides_are_named() -> None:
    """Six of twelve cases, say, are not in the mean of a distance: which are they?"""
    cases = [(MOVED, LABEL), (NOTHING, LABEL), (LABEL, NOTHING)]
    _, measurements = measured(MASK_METRICS["MeanDice"][0](), in_batches(cases, 2))
    assert [(one.case, one.label, one.fault) for one in measurements.findings()] == [
        ("case-1", "spleen", "missed"),
        ("case-2", "spleen", "predicted where it is absent"),
    ]


def test_one_value_for_each_class_becomes_one_metric_for_each() -> None:
    def handler() -> Metric:
        return MeanDice(include_background=True, reduction="mean_batch", output_transform=PAIR)

    metric = handler()
    engine, kind = Engine(lambda _, batch: batch), kind_of(metric)
    counted(metric, kind, NAMES).attach(engine, "dice")
    measurements = Measurements(engine, {"dice": metric}, {"dice": kind})
    engine.run(in_batches(SITUATIONS["absent in one"], 1))

    found = measurements.read()

    assert list(found) == ["dice_background", "dice_spleen"]
    assert found["dice_spleen"].value == pytest.approx((0.75 + 1) / 2)
    assert (found["dice_spleen"].counted, found["dice_spleen"].undefined) == (2, 1)


def test_a_rate_of_cases_without_the_class_is_undefined() -> None:
    """0 of 0 labelled voxels are found: no rate, where MONAI's mean of none is 0."""

    def rate() -> Metric:
        return ConfusionMatrix(
            include_background=False,
            metric_name="sensitivity",
            compute_sample=True,
            output_transform=PAIR,
        )

    nothing, _ = measured(rate(), in_batches([(LABEL, NOTHING)], 1))
    assert (nothing.value, nothing.counted) == (None, 0)
    some, _ = measured(rate(), in_batches(SITUATIONS["one case"], 1))
    assert some.value == pytest.approx(48 / 64)


def numbers(pairs: Iterable[tuple[float, int]]) -> list[list[Any]]:
    """Classification: the score of class 1, and the label (0 or 1), both with two channels."""
    return [
        [
            {
                "pred": torch.tensor([1 - score, score]),
                "label": torch.eye(2)[label],
            }
        ]
        for score, label in pairs
    ]


def rank_auc(pairs: Sequence[tuple[float, int]]) -> float:
    """The share of pairs of a positive and a negative case that are in the right order."""
    positive = np.array([score for score, label in pairs if label])
    negative = np.array([score for score, label in pairs if not label])
    return float((positive[:, None] > negative).mean())


def test_an_auc_needs_both_classes() -> None:
    pairs = [(0.9, 1), (0.2, 0), (0.6, 0), (0.4, 1)]
    both, _ = measured(ROCAUC(output_transform=PAIR), numbers(pairs))
    assert both.value == pytest.approx(rank_auc(pairs))
    assert both.counted == 4

    with pytest.warns(UserWarning, match="y values can not be all"):
        one, _ = measured(ROCAUC(output_transform=PAIR), numbers([(0.2, 0), (0.6, 0)]))
    assert (one.value, one.counted, one.undefined) == (None, 0, 2)


@pytest.mark.parametrize(
    ("handler", "of_difference"),
    [
        (MeanSquaredError, lambda difference: float((difference**2).mean())),
        (MeanAbsoluteError, lambda difference: float(np.abs(difference).mean())),
    ],
)
def test_an_error_of_images_is_the_mean_over_the_cases(
    handler: Callable[..., Metric], of_difference: Callable[[Any], float]
) -> None:
    random = np.random.default_rng(0)
    images = [random.normal(size=(2, 1, 4, 4, 4)) for _ in range(3)]
    batches = [
        [dict(zip(("pred", "label"), map(torch.as_tensor, pair), strict=True))] for pair in images
    ]
    found, _ = measured(handler(output_transform=PAIR), batches)
    assert found.value == pytest.approx(np.mean([of_difference(a - b) for a, b in images]))
    assert (found.counted, found.classes) == (3, {})


def test_a_metric_of_ignites_counts_its_cases() -> None:
    def pair(outputs: list[Any]) -> tuple[Any, Any]:
        predicted = torch.stack([one["pred"] for one in outputs])
        return predicted, torch.stack([one["label"] for one in outputs]).argmax(1)

    found, _ = measured(Accuracy(pair), numbers([(0.9, 1), (0.2, 0), (0.6, 0)]))
    assert (found.value, found.counted) == (pytest.approx(2 / 3), 3)
    precision, _ = measured(AveragePrecision(output_transform=PAIR), numbers([(0.9, 1), (0.2, 0)]))
    assert precision.value == pytest.approx(1.0)


# --- units and names


@pytest.mark.parametrize(
    ("code", "factor"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001), (8 + 3, 0.001)]
)
def test_millimetres_follow_the_unit_of_the_files_header(code: int, factor: float) -> None:
    image = volume(LABEL, code=code)
    assert spacing_in_mm(image) == pytest.approx([length * factor for length in SPACING])


def test_a_picture_has_no_millimetres() -> None:
    def flat(case: Case) -> list[Any]:
        parts = {"pred": case[0], "label": case[1]}
        return [{key: MetaTensor(volume(mask).as_tensor()) for key, mask in parts.items()}]

    make, _ = MASK_METRICS["HausdorffDistance"]
    found, _ = measured(make(), [flat((MOVED, LABEL))])
    assert (found.value, found.unit) == (1.0, "voxels")


@pytest.mark.parametrize(
    ("background", "one_hot", "names"),
    [
        (True, True, ["background", "spleen", "class2"]),
        (False, True, ["spleen", "class2"]),
        (False, False, ["channel1", "channel2"]),
    ],
)
def test_a_class_has_the_name_of_its_label(
    background: bool, one_hot: bool, names: list[str]
) -> None:
    channels = torch.zeros(3, 4, 4, 4)
    channels[0 if one_hot else slice(None)] = 1
    handler = MeanDice(include_background=background, output_transform=PAIR)
    found, _ = measured(handler, [[{"pred": channels, "label": channels}]])
    assert list(found.classes) == names


def test_a_single_channel_is_the_mask_of_class_1() -> None:
    mask = torch.ones(1, 4, 4, 4)
    handler = MeanDice(include_background=True, output_transform=PAIR)
    found, _ = measured(handler, [[{"pred": mask, "label": mask}]])
    assert list(found.classes) == ["spleen"]


def test_a_value_without_cases_cannot_be_made() -> None:
    for make in (MetricValue, ClassValue):
        with pytest.raises(ValueError, match="0 cases cannot have the value"):
            make(value=0.0, counted=0)
    with pytest.raises(ValueError, match="cannot have the value inf"):
        MetricValue(value=math.inf, counted=3)
