"""Metrics with their denominators, against NumPy and SciPy.

Masks of 12 x 10 x 8 voxels of 2 x 1 x 3 mm, one class beside the background. A right prediction is
the label moved by one voxel along the first axis, so that each number can be checked by hand: of
the label's 4 x 4 x 4 voxels, 3 x 4 x 4 are met. ``test_metric_table.py`` has all metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from ignite.metrics import (
    PSNR,
    ROC_AUC,
    Accuracy,
    CosineSimilarity,
    KLDivergence,
    Metric,
    MetricGroup,
    Precision,
    Recall,
)
from ignite.metrics.rec_sys import HitRate
from monai.data import MetaTensor
from monai.handlers import ROCAUC, MeanDice, PanopticQuality, PeakSignalToNoiseRatio

from mmar_runtime.components.measuring import Measurements, counted, spacing_in_mm
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ComponentError
from mmar_runtime.metrics import ClassValue, MetricValue
from mmar_runtime.policy.metrics.metric_kinds import MetricKind
from tests.mmar_runtime.components.metric_table import (
    LABEL,
    MASK_ROWS,
    MASKS,
    MOVED,
    NAMES,
    NOTHING,
    PAIR,
    SPACING,
    Case,
    cell,
    channels,
    decisions,
    instances,
    kind_of,
    logits,
    measured,
    numbers,
    volume,
)

SITUATIONS = {**MASKS, "absent in one": [(MOVED, LABEL), (LABEL, LABEL), (NOTHING, NOTHING)]}
ROWS = (
    "MeanDice",
    "MeanIoUHandler",
    "HausdorffDistance",
    "HausdorffDistance 95",
    "SurfaceDistance",
)
COLUMNS = (
    *("all right", "one case missed", "all missed"),
    *("absent in one", "empty label", "one case"),
)
DOCS = Path(__file__).parents[3] / "docs/look-up/metrics.md"


def output(case: Case, index: int = 0) -> dict[str, Any]:
    return {"pred": volume(case[0]), "label": volume(case[1], file=f"case-{index}")}


def in_batches(cases: Sequence[Case], size: int) -> list[list[Any]]:
    items = [output(case, index) for index, case in enumerate(cases)]
    return [items[start : start + size] for start in range(0, len(items), size)]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("metric", ROWS)
def test_a_metric_of_masks_is_the_mean_over_the_cases_that_count(
    metric: str, situation: str
) -> None:
    row, cases = MASK_ROWS[metric], SITUATIONS[situation]
    value, counted = row.expected(cases)
    value = value if value is None else pytest.approx(value, rel=1e-6)
    labelled = [bool(label.any()) for _, label in cases]
    predicted = [bool(mask.any()) for mask, _ in cases]

    for size in (1, 2):  # the last batch is smaller
        found, _ = measured(row.make(), in_batches(cases, size))

        assert (found.value, found.counted) == (value, counted)
        assert found.undefined == len(cases) - counted
        assert found.unit == ("mm" if "Distance" in metric else "")
        [(name, part)] = found.classes.items()
        assert (name, part.value, part.counted) == ("spleen", value, counted)
        assert part.missed == sum(a and not b for a, b in zip(labelled, predicted, strict=True))
        assert part.absent == labelled.count(False)
        assert part.spurious == sum(b and not a for a, b in zip(labelled, predicted, strict=True))


def test_the_page_has_what_the_metrics_of_masks_give() -> None:
    """Each row of its table: value, and over how many cases."""
    rows = [
        [name, *(cell(*MASK_ROWS[name].expected(SITUATIONS[column])) for column in COLUMNS)]
        for name in ROWS
    ]
    written = DOCS.read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if f"| {' | '.join(row)} |" not in written] == []


# --- what else a metric may be


def test_the_cases_that_a_mean_hides_are_named() -> None:
    """Six of twelve cases, say, are not in the mean of a distance: which are they?"""
    cases = [(MOVED, LABEL), (NOTHING, LABEL), (LABEL, NOTHING)]
    _, measurements = measured(MASK_ROWS["MeanDice"].make(), in_batches(cases, 2))
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


def classified(handler: Metric, output: Callable[[float, int], Any], *cases: Case) -> MetricValue:
    return measured(handler, [[output(*case)] for case in cases])[0]


@pytest.mark.parametrize(
    ("metric", "output"), [(ROCAUC, channels), (ROC_AUC, numbers), (Accuracy, logits)]
)
def test_scores_that_are_not_numbers_leave_no_rate(
    metric: Callable[..., Metric], output: Callable[[float, int], Any]
) -> None:
    """An argmax would choose a class, and a rank a place."""
    found = classified(metric(output_transform=PAIR), output, (0.9, 1), (0.2, 0), (math.nan, 1))
    assert (found.value, found.counted, found.undefined) == (None, 0, 3)


IMAGE, ZERO = torch.ones(4, 4), torch.zeros(4, 4)


@pytest.mark.parametrize(
    ("handler", "without", "other"),
    [
        (PSNR(1.0, PAIR), (IMAGE, IMAGE), (ZERO, IMAGE)),  # a ratio to no noise
        (KLDivergence(PAIR), (IMAGE[0] * math.nan, IMAGE[0]), (ZERO[0], IMAGE[0])),  # no number
        (PeakSignalToNoiseRatio(1.0, output_transform=PAIR), (IMAGE, IMAGE), (ZERO, IMAGE)),
        (CosineSimilarity(output_transform=PAIR), (ZERO, IMAGE), (IMAGE, IMAGE)),  # no angle to 0
        (HitRate(output_transform=PAIR), (IMAGE[0], ZERO[0]), (IMAGE[0], IMAGE[0])),  # no hit
    ],
    ids=["PSNR", "KLDivergence", "PeakSignalToNoiseRatio", "CosineSimilarity", "HitRate"],
)
def test_a_case_without_a_value_is_not_in_the_mean(
    handler: Metric, without: Case, other: Case
) -> None:
    batches = [[{"pred": pred, "label": label}] for pred, label in (without, other)]
    found, _ = measured(handler, batches)
    assert (found.value is not None, found.counted, found.undefined) == (True, 1, 1)


def vector(handler: Metric, outputs: Sequence[Any]) -> dict[str, tuple[float | None, int]]:
    """The metrics of an engine whose only metric leaves several numbers."""
    engine, kind = Engine(lambda _, batch: batch), kind_of(handler)
    handler = counted(handler, kind, NAMES)
    handler.attach(engine, "m")
    measurements = Measurements(engine, {"m": handler}, {"m": kind})
    engine.run([[one] for one in outputs])
    return {label: (one.value, one.counted) for label, one in measurements.read().items()}


def test_a_metric_of_each_class_keeps_all_classes_under_their_names() -> None:
    cases = [(0.9, 1), (0.2, 0), (0.8, 1), (0.7, 0)]
    assert vector(
        ROCAUC(average="none", output_transform=PAIR), [channels(*case) for case in cases]
    ) == {"m_background": (1.0, 4), "m_spleen": (1.0, 4)}
    assert vector(
        Precision(output_transform=PAIR), [logits(score, 1) for score in (0.9, 0.8, 0.7)]
    ) == {"m_0": (None, 0), "m_1": (1.0, 3)}
    found = vector(PanopticQuality(num_classes=2, output_transform=PAIR), [instances(MOVED, LABEL)])
    assert found == {"m_spleen": (pytest.approx(0.6), 1), "m_class2": (None, 0)}


@pytest.mark.parametrize(
    ("several", "single", "output"),
    [
        (Precision(PAIR), Precision(PAIR, average="macro"), logits),
        (ROCAUC("none", PAIR), ROCAUC("macro", PAIR), channels),
    ],
    ids=["ignite", "MONAI"],
)
def test_a_key_metric_of_several_numbers_is_an_error(
    several: Metric, single: Metric, output: Callable[[float, int], Any]
) -> None:
    kind = MetricKind(higher_is_better=True, key_at=Location("config.json") / "key_metric")

    def run(handler: Metric) -> float:
        engine = Engine(lambda _, batch: batch)
        counted(handler, kind, NAMES).attach(engine, "m")
        return engine.run([[output(0.9, 1)], [output(0.2, 0)]]).metrics["m"]

    assert run(single) == 1.0
    told = r"config.json: key_metric: leaves 2 numbers, and models are compared by one\."
    with pytest.raises(ComponentError, match=told):
        run(several)


def test_each_metric_of_a_group_is_undefined_by_itself() -> None:
    parts = {"precision": Precision(), "recall": Recall()}
    group = MetricGroup(parts, output_transform=PAIR)
    found = vector(group, [decisions(0.2, 1), decisions(0.3, 0)])
    assert found == {"precision": (None, 0), "recall": (0.0, 2)}


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

    make = MASK_ROWS["HausdorffDistance"].make
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


def test_numbers_of_classes_have_the_names_of_their_labels() -> None:
    numbers = torch.arange(3.0).expand(1, 4, 4, 3)
    handler = MeanDice(num_classes=3, include_background=True, output_transform=PAIR)
    found, _ = measured(handler, [[{"pred": numbers, "label": numbers}]])
    assert list(found.classes) == ["background", "spleen", "class2"]


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
