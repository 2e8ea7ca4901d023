"""Every metric of the component table in the situations of a validation, twice.

Each row has the metric as a configuration would build it, and its value by NumPy, SciPy,
scikit-learn or scikit-image. ``docs/look-up/metrics.csv`` holds the rows; the processes of
``tests/mmar_runtime/workflows/test_processes.py`` import this module for theirs.

Masks are boxes: the model's is one voxel beside the label's. Images are noise. Scores are those of
class 1.
"""

from __future__ import annotations

import csv
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ignite.metrics as of_ignite
import monai.handlers as of_monai
import numpy as np
import scipy.ndimage
import scipy.stats
import sklearn.metrics as reference
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from ignite.metrics.rec_sys import NDCG, HitRate
from monai.data import MetaTensor
from monai.utils import MetaKeys
from scipy.spatial import distance
from skimage.metrics import peak_signal_noise_ratio

from mmar_runtime.components.measuring import Measurements, counted
from mmar_runtime.metrics import MetricValue
from mmar_runtime.policy.metrics.metric_kinds import BY_CLASS, DISTANCES, MetricKind
from mmar_runtime.policy.metrics.value_check import UNTRUE

Array = np.ndarray[Any, Any]
Case = tuple[Any, Any]
"""Prediction and label."""

OfCase = Callable[[Any, Any], float | None]
OfAll = Callable[[Sequence[Any], Sequence[Any]], float | None]

PAIR = of_monai.from_engine(["pred", "label"])
SPACING = (2.0, 1.0, 3.0)
NAMES = {0: "background", 1: "spleen"}
COLUMNS = (
    *("all right", "one case missed", "all missed", "class absent", "empty label", "one case"),
    *("several processes", "uneven batch"),
)
SAME = COLUMNS[-2:]
"""The cases of the first column: shared by two processes, or in batches of two."""


def defined(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


@dataclass(frozen=True)
class Row:
    """A metric, its value by other means, and what it is given.

    Attributes:
        make: builds the handler.
        expected: predictions and labels of all cases -> value, and over how many cases.
        situations: name -> cases.
        output: a case -> what the engine puts out.
    """

    make: Callable[[], Metric]
    expected: Callable[[Sequence[Case]], tuple[float | None, int]]
    situations: Mapping[str, Sequence[Case]]
    output: Callable[[Any, Any], Mapping[str, torch.Tensor]]

    def found(self, cases: Sequence[Case], size: int = 1) -> MetricValue:
        """Return what the product measures."""
        items = [dict(self.output(*case)) for case in cases]
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI and torch warn of what is undefined or old
            return measured(self.make(), batches)[0]


def kind_of(handler: Metric) -> MetricKind:
    name = type(handler).__name__
    is_distance = name in DISTANCES
    return MetricKind(
        higher_is_better=not is_distance, by_class=name in BY_CLASS, is_distance=is_distance
    )


def measured(handler: Metric, batches: Sequence[list[Any]]) -> tuple[MetricValue, Measurements]:
    """Run an engine that puts out these batches, and read its only metric."""
    engine, kind = Engine(lambda _, batch: batch), kind_of(handler)
    handler = counted(handler, kind, NAMES)
    handler.attach(engine, "metric")
    measurements = Measurements(engine, {"metric": handler}, {"metric": kind})
    engine.run(batches)
    return measurements.read()["metric"], measurements


def mean_of(of_case: OfCase) -> Callable[[Sequence[Case]], tuple[float | None, int]]:
    """A metric with a value for each case, and the mean over the cases that have one."""

    def expected(cases: Sequence[Case]) -> tuple[float | None, int]:
        found = [value for case in cases if (value := defined(of_case(*case))) is not None]
        return (float(np.mean(found)) if found else None, len(found))

    return expected


def over_all(of_all: OfAll) -> Callable[[Sequence[Case]], tuple[float | None, int]]:
    """A metric of all cases together."""

    def expected(cases: Sequence[Case]) -> tuple[float | None, int]:
        predictions, labels = (np.stack(part) for part in zip(*cases, strict=True))
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            warnings.simplefilter("ignore")  # each of its own zeros scikit-learn warns of
            value = defined(of_all(predictions, labels))
        return value, len(cases) if value is not None else 0

    return expected


# --- Masks ---------------------------------------------------------------------------------------


def box(first: int, last: int) -> Array:
    mask = np.zeros((12, 10, 8), bool)
    mask[first:last, 3:7, 2:6] = True
    return mask


LABEL, MOVED, NOTHING = box(4, 8), box(5, 9), box(0, 0)
MASKS: Mapping[str, Sequence[Case]] = {
    "all right": [(MOVED, LABEL), (LABEL, LABEL), (MOVED, LABEL)],
    "one case missed": [(MOVED, LABEL), (LABEL, LABEL), (NOTHING, LABEL)],
    "all missed": [(NOTHING, LABEL)] * 3,
    "class absent": [(NOTHING, NOTHING)] * 3,
    "empty label": [(MOVED, LABEL), (LABEL, LABEL), (LABEL, NOTHING)],
    "one case": [(MOVED, LABEL)],
}


def volume(mask: Array, *, code: int = 2, file: str = "") -> MetaTensor:
    """A mask as the post transforms leave it: one channel for each class, with its position."""
    affine = np.diag([*SPACING, 1.0])
    meta = {MetaKeys.ORIGINAL_AFFINE: affine, "xyzt_units": code, "filename_or_obj": file}
    channels = torch.as_tensor(np.stack([~mask, mask])).float()
    return MetaTensor(channels, affine=torch.as_tensor(affine), meta=meta)


def volumes(predicted: Array, label: Array) -> dict[str, torch.Tensor]:
    return {"pred": volume(predicted), "label": volume(label)}


def dice(predicted: Array, label: Array) -> float | None:
    return 2 * (predicted & label).sum() / (predicted.sum() + label.sum()) if label.any() else None


def iou(predicted: Array, label: Array) -> float | None:
    return (predicted & label).sum() / (predicted | label).sum() if label.any() else None


def sensitivity(predicted: Array, label: Array) -> float | None:
    return (predicted & label).sum() / label.sum() if label.any() else None


def surface(mask: Array) -> Array:
    """The places of a mask's outer voxels, in mm (voxel, axis)."""
    return np.argwhere(mask & ~scipy.ndimage.binary_erosion(mask)) * SPACING


def between_surfaces(of_case: Callable[[Array, Array], float]) -> OfCase:
    """A number of the distances from each outer voxel of one mask to the other mask, in mm."""

    def value(predicted: Array, label: Array) -> float | None:
        if not (predicted.any() and label.any()):
            return None
        all_pairs = distance.cdist(surface(predicted), surface(label))
        return of_case(all_pairs.min(1), all_pairs.min(0))

    return value


def masks(make: Callable[[], Metric], of_case: OfCase) -> Row:
    return Row(make, mean_of(of_case), MASKS, volumes)


def without_background(cls: Callable[..., Metric], **arguments: Any) -> Callable[[], Metric]:
    return partial(cls, include_background=False, output_transform=PAIR, **arguments)


HAUSDORFF = partial(without_background, of_monai.HausdorffDistance)
MASK_ROWS: Mapping[str, Row] = {
    "MeanDice": masks(without_background(of_monai.MeanDice), dice),
    "MeanIoUHandler": masks(without_background(of_monai.MeanIoUHandler), iou),
    "HausdorffDistance": masks(
        HAUSDORFF(), between_surfaces(lambda there, back: max(there.max(), back.max()))
    ),
    "HausdorffDistance 95": masks(
        HAUSDORFF(percentile=95),
        between_surfaces(
            lambda there, back: max(np.quantile(there, 0.95), np.quantile(back, 0.95))
        ),
    ),
    "SurfaceDistance": masks(
        without_background(of_monai.SurfaceDistance),
        between_surfaces(lambda there, _: there.mean()),
    ),
    "SurfaceDistance symmetric": masks(
        without_background(of_monai.SurfaceDistance, symmetric=True),
        between_surfaces(lambda there, back: np.concatenate([there, back]).mean()),
    ),
    "ConfusionMatrix sensitivity of each case": masks(
        without_background(
            of_monai.ConfusionMatrix, metric_name="sensitivity", compute_sample=True
        ),
        sensitivity,
    ),
}

# Of the voxels of all cases together: true and false positives, true and false negatives.
RATES: Mapping[str, Callable[[Any, Any, Any, Any], Any]] = {
    "sensitivity": lambda tp, fp, tn, fn: tp / (tp + fn),
    "specificity": lambda tp, fp, tn, fn: tn / (tn + fp),
    "precision": lambda tp, fp, tn, fn: tp / (tp + fp),
    "negative predictive value": lambda tp, fp, tn, fn: tn / (tn + fn),
    "miss rate": lambda tp, fp, tn, fn: fn / (fn + tp),
    "fall out": lambda tp, fp, tn, fn: fp / (fp + tn),
    "false discovery rate": lambda tp, fp, tn, fn: fp / (fp + tp),
    "false omission rate": lambda tp, fp, tn, fn: fn / (fn + tn),
    "prevalence threshold": lambda tp, fp, tn, fn: (
        1 / (1 + np.sqrt(tp / (tp + fn) * (fp + tn) / fp))
    ),
    "threat score": lambda tp, fp, tn, fn: tp / (tp + fn + fp),
    "accuracy": lambda tp, fp, tn, fn: (tp + tn) / (tp + fp + tn + fn),
    "balanced accuracy": lambda tp, fp, tn, fn: (tp / (tp + fn) + tn / (tn + fp)) / 2,
    "f1 score": lambda tp, fp, tn, fn: 2 * tp / (2 * tp + fp + fn),
    "matthews correlation coefficient": lambda tp, fp, tn, fn: (
        (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    ),
    "fowlkes mallows index": lambda tp, fp, tn, fn: np.sqrt(tp / (tp + fp) * tp / (tp + fn)),
    "informedness": lambda tp, fp, tn, fn: tp / (tp + fn) + tn / (tn + fp) - 1,
    "markedness": lambda tp, fp, tn, fn: tp / (tp + fp) + tn / (tn + fn) - 1,
}


def rate(of_counts: Callable[[Any, Any, Any, Any], Any]) -> OfAll:
    def value(predicted: Any, label: Any) -> float:
        matrix = reference.confusion_matrix(label.ravel(), predicted.ravel(), labels=[0, 1])
        tn, fp, fn, tp = matrix.ravel().astype(float)
        return of_counts(tp, fp, tn, fn)

    return value


RATE_ROWS = {
    f"ConfusionMatrix {name}": Row(
        without_background(of_monai.ConfusionMatrix, metric_name=name),
        over_all(rate(of_counts)),
        MASKS,
        volumes,
    )
    for name, of_counts in RATES.items()
}


def instances(predicted: Array, label: Array) -> dict[str, torch.Tensor]:
    """Two channels: the number of an instance, and that of its class."""
    pair = {"pred": predicted, "label": label}
    return {key: torch.as_tensor(np.stack([mask, mask])).int() for key, mask in pair.items()}


def panoptic(of_counts: Callable[[float, float, float], Any]) -> OfAll:
    """Of instances: how many are found, how many are wrong, and the sum of the IoU of the found."""

    def value(predicted: Any, label: Any) -> float:
        ious = [iou(*case) or 0.0 for case in zip(predicted, label, strict=True)]
        found = [one for one in ious if one > 0.5]
        shown = sum(mask.any() for mask in (*predicted, *label))
        return of_counts(np.float64(len(found)), shown - 2 * len(found), np.sum(found))

    return value


PANOPTIC: Mapping[str, Callable[[float, float, float], Any]] = {
    "pq": lambda found, wrong, ious: ious / (found + wrong / 2),
    "sq": lambda found, wrong, ious: ious / found,
    "rq": lambda found, wrong, ious: found / (found + wrong / 2),
}
PANOPTIC_ROWS = {
    f"PanopticQuality {name}": Row(
        partial(of_monai.PanopticQuality, num_classes=1, metric_name=name, output_transform=PAIR),
        over_all(panoptic(of_counts)),
        MASKS,
        instances,
    )
    for name, of_counts in PANOPTIC.items()
}


def confident(predicted: Array, label: Array) -> dict[str, torch.Tensor]:
    """Probabilities of 0.95 for the model's class."""
    probability = np.where(predicted, 0.95, 0.05)
    channels = torch.as_tensor(np.stack([1 - probability, probability])).float()
    return {"pred": channels, "label": volume(label).as_tensor()}


def calibration(predicted: Array, label: Array) -> float:
    """The gap of confidence and share of hits, of both confidences, by their voxels."""
    gaps = [
        (mask.sum(), abs(p - label[mask].mean()))
        for mask, p in ((predicted, 0.95), (~predicted, 0.05))
        if mask.any()
    ]
    return sum(size * gap for size, gap in gaps) / predicted.size


CALIBRATION = Row(
    without_background(of_monai.CalibrationError, num_bins=10),
    mean_of(calibration),
    MASKS,
    confident,
)

# --- Images --------------------------------------------------------------------------------------

random = np.random.default_rng(0)
NOISE = [(random.random((1, 16, 16)), random.random((1, 16, 16))) for _ in range(3)]
LOST = [(np.full_like(image, np.nan), image) for _, image in NOISE]
IMAGES: Mapping[str, Sequence[Case]] = {
    "all right": NOISE,
    "one case missed": [*NOISE[:2], LOST[2]],
    "all missed": LOST,
    "one case": NOISE[:1],
}


def tensors(predicted: Array, label: Array) -> dict[str, torch.Tensor]:
    return {"pred": torch.as_tensor(predicted), "label": torch.as_tensor(label)}


def vectors(predicted: Array, label: Array) -> dict[str, torch.Tensor]:
    return tensors(predicted.ravel(), label.ravel())


def images(make: Callable[[], Metric], of_case: OfCase, *, flat: bool = False) -> Row:
    """Row of a metric whose value is none where the prediction is not a number."""

    def value(predicted: Array, label: Array) -> float | None:
        return None if np.isnan(predicted).any() else of_case(predicted.ravel(), label.ravel())

    return Row(make, mean_of(value), IMAGES, vectors if flat else tensors)


def ssim(predicted: Array, label: Array) -> float:
    blurred = partial(scipy.ndimage.gaussian_filter, sigma=1.5, mode="mirror", radius=5)
    x, y = (image.reshape(16, 16) for image in (predicted, label))
    mean_x, mean_y = blurred(x), blurred(y)
    variance_x, variance_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    brightness = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    contrast = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
    return float((brightness * contrast).mean())


def mse(predicted: Array, label: Array) -> float:
    return reference.mean_squared_error(label, predicted)


def mae(predicted: Array, label: Array) -> float:
    return reference.mean_absolute_error(label, predicted)


def psnr(predicted: Array, label: Array) -> float:
    return peak_signal_noise_ratio(label, predicted, data_range=1.0)


IMAGE_ROWS: Mapping[str, Row] = {
    "MeanSquaredError": images(partial(of_monai.MeanSquaredError, output_transform=PAIR), mse),
    "MeanAbsoluteError": images(partial(of_monai.MeanAbsoluteError, output_transform=PAIR), mae),
    "RootMeanSquaredError": images(
        partial(of_monai.RootMeanSquaredError, output_transform=PAIR),
        lambda predicted, label: np.sqrt(mse(predicted, label)),
    ),
    "PeakSignalToNoiseRatio": images(
        partial(of_monai.PeakSignalToNoiseRatio, max_val=1.0, output_transform=PAIR), psnr
    ),
    "PSNR": images(partial(of_ignite.PSNR, 1.0, PAIR), psnr),
    "SSIM": images(partial(of_ignite.SSIM, 1.0, output_transform=PAIR), ssim),
    "CosineSimilarity": images(
        partial(of_ignite.CosineSimilarity, output_transform=PAIR),
        lambda predicted, label: 1 - distance.cosine(predicted, label),
    ),
    "MeanPairwiseDistance": images(
        partial(of_ignite.MeanPairwiseDistance, output_transform=PAIR),
        distance.euclidean,
        flat=True,
    ),
    "Loss": Row(
        partial(of_ignite.Loss, torch.nn.L1Loss(), PAIR),
        over_all(lambda predictions, labels: np.abs(predictions - labels).mean()),
        IMAGES,
        tensors,
    ),
    "IgniteMetricHandler loss_fn": images(
        partial(of_monai.IgniteMetricHandler, loss_fn=torch.nn.MSELoss(), output_transform=PAIR),
        mse,
    ),
}

# --- Classes of cases ----------------------------------------------------------------------------

SCORES: Mapping[str, Sequence[Case]] = {
    "all right": [(0.9, 1), (0.2, 0), (0.6, 1), (0.7, 0), (0.8, 1)],
    "one case missed": [(0.9, 1), (0.2, 0), (0.6, 1), (0.7, 0), (0.1, 1)],
    "all missed": [(0.3, 1), (0.2, 0), (0.4, 1), (0.25, 0), (0.1, 1)],
    "class absent": [(0.3, 0), (0.2, 0), (0.4, 0)],
    "empty label": [(0.9, 0), (0.2, 0), (0.6, 0)],
    "one case": [(0.9, 1)],
}


def channels(score: float, label: int) -> dict[str, torch.Tensor]:
    return {"pred": torch.tensor([1 - score, score]), "label": torch.eye(2)[label]}


def numbers(score: float, label: int) -> dict[str, torch.Tensor]:
    return {"pred": torch.tensor(score), "label": torch.tensor(label)}


def decisions(score: float, label: int) -> dict[str, torch.Tensor]:
    return {"pred": torch.tensor(int(score > 0.5)), "label": torch.tensor(label)}


def logits(score: float, label: int) -> dict[str, torch.Tensor]:
    return {"pred": torch.tensor([1 - score, score]).log(), "label": torch.tensor(label)}


def two_logits(score: float, label: int) -> dict[str, torch.Tensor]:
    """The label as a distribution too: nine tenths for its class."""
    return {"pred": logits(score, label)["pred"], "label": logits(0.1 + 0.8 * label, 0)["pred"]}


def decided(of_all: Callable[..., Any]) -> OfAll:
    """A number of labels and decisions, in scikit-learn's order."""
    return lambda scores, labels: of_all(labels, (scores > 0.5).astype(int))


def one_class(labels: Any) -> bool:
    return len(set(labels)) == 1


def scored(of_all: Callable[..., Any], *, needs_both: bool) -> OfAll:
    """A number of labels and scores; none without a positive case, or without both classes."""

    def value(scores: Any, labels: Any) -> float | None:
        return (
            None
            if not any(labels) or (needs_both and one_class(labels))
            else of_all(labels, scores)
        )

    return value


def correlation(labels: Any, decisions: Any) -> float | None:
    constant = one_class(labels) or one_class(decisions)
    return None if constant else reference.matthews_corrcoef(labels, decisions)


def each_class(of_all: Callable[..., Any]) -> Callable[[Any, Any], float]:
    """The mean over both classes, where each has a value."""
    more = {"labels": [0, 1], "average": None, "zero_division": np.nan}
    return lambda labels, decisions: float(np.mean(of_all(labels, decisions, **more)))


def by_support(labels: Any, decisions: Any) -> float:
    """The mean precision of the classes that are there, weighted by their cases."""
    more = {"labels": [0, 1], "average": None, "zero_division": np.nan}
    precisions, support = (
        reference.precision_score(labels, decisions, **more),
        np.bincount(labels, minlength=2),
    )
    return float(np.average(precisions[support > 0], weights=support[support > 0]))


def distribution(score: float) -> Array:
    return np.array([1 - score, score])


def classes(make: Callable[[], Metric], of_all: OfAll, output: Callable[[float, int], Any]) -> Row:
    return Row(make, over_all(of_all), SCORES, output)


def ignites(cls: Callable[..., Metric], **arguments: Any) -> Callable[[], Metric]:
    return partial(cls, output_transform=PAIR, **arguments)


def divergence(of_pair: Callable[[Array, Array], float]) -> Callable[..., Any]:
    return mean_of(
        lambda score, label: of_pair(distribution(0.1 + 0.8 * label), distribution(score))
    )


def mixed(scores: Any, _: Any) -> float:
    """The information of a case's prediction on its class."""
    each = np.stack([distribution(score) for score in scores])
    return scipy.stats.entropy(each.mean(0)) - scipy.stats.entropy(each, axis=1).mean()


def ranked(scores: Any, labels: Any) -> float:
    truth = np.eye(2)[labels]
    return reference.ndcg_score(truth, np.stack([distribution(score) for score in scores]), k=2)


zero = {"zero_division": np.nan}
precision = partial(reference.precision_score, **zero)
recall = partial(reference.recall_score, **zero)
auc, average_precision = reference.roc_auc_score, reference.average_precision_score
CLASS_ROWS: Mapping[str, Row] = {
    "ROCAUC": classes(ignites(of_monai.ROCAUC), scored(auc, needs_both=True), channels),
    "AveragePrecision": classes(
        ignites(of_monai.AveragePrecision), scored(average_precision, needs_both=True), numbers
    ),
    "ROC_AUC": classes(ignites(of_ignite.ROC_AUC), scored(auc, needs_both=True), numbers),
    "ignite.metrics.AveragePrecision": classes(
        ignites(of_ignite.AveragePrecision), scored(average_precision, needs_both=False), numbers
    ),
    "MeanAveragePrecision": classes(
        ignites(of_ignite.MeanAveragePrecision),
        scored(average_precision, needs_both=False),
        numbers,
    ),
    "Accuracy": classes(ignites(of_ignite.Accuracy), decided(reference.accuracy_score), logits),
    "TopKCategoricalAccuracy": classes(
        ignites(of_ignite.TopKCategoricalAccuracy, k=1), decided(reference.accuracy_score), logits
    ),
    "HitRate": classes(ignites(HitRate, top_k=1), decided(reference.accuracy_score), channels),
    "NDCG": classes(ignites(NDCG, top_k=[2]), ranked, channels),
    "Precision": classes(ignites(of_ignite.Precision), decided(precision), decisions),
    "Precision macro": classes(
        ignites(of_ignite.Precision, average="macro"),
        decided(each_class(reference.precision_score)),
        logits,
    ),
    "Precision micro": classes(
        ignites(of_ignite.Precision, average="micro"), decided(reference.accuracy_score), logits
    ),
    "Precision weighted": classes(
        ignites(of_ignite.Precision, average="weighted"), decided(by_support), logits
    ),
    "Recall": classes(ignites(of_ignite.Recall), decided(recall), decisions),
    "Recall macro": classes(
        ignites(of_ignite.Recall, average="macro"),
        decided(each_class(reference.recall_score)),
        logits,
    ),
    "CohenKappa": classes(
        ignites(of_ignite.CohenKappa), decided(reference.cohen_kappa_score), decisions
    ),
    "CohenKappa num_classes": classes(
        ignites(of_ignite.CohenKappa, num_classes=2),
        decided(reference.cohen_kappa_score),
        decisions,
    ),
    "MatthewsCorrCoef": classes(
        ignites(of_ignite.MatthewsCorrCoef), decided(correlation), decisions
    ),
    "KLDivergence": Row(
        ignites(of_ignite.KLDivergence), divergence(scipy.stats.entropy), SCORES, two_logits
    ),
    "JSDivergence": Row(
        ignites(of_ignite.JSDivergence),
        divergence(lambda one, other: distance.jensenshannon(one, other) ** 2),
        SCORES,
        two_logits,
    ),
    "Entropy": Row(
        ignites(of_ignite.Entropy),
        mean_of(lambda score, _: float(scipy.stats.entropy(distribution(score)))),
        SCORES,
        logits,
    ),
    "MutualInformation": classes(ignites(of_ignite.MutualInformation), mixed, logits),
}

ROWS: Mapping[str, Row] = {
    **MASK_ROWS,
    **RATE_ROWS,
    **PANOPTIC_ROWS,
    "CalibrationError": CALIBRATION,
    **IMAGE_ROWS,
    **CLASS_ROWS,
}


UNMEASURED: Mapping[str, str] = {
    **dict.fromkeys(
        ("Average", "GeometricAverage", "RunningAverage"),
        "a mean over the steps of a training, not over cases",
    ),
    **dict.fromkeys(
        ("Bleu", "CharacterErrorRate", "Perplexity", "Rouge", "RougeL", "RougeN"),
        "of texts, which no network here writes",
    ),
    **dict.fromkeys(
        ("MetricsReloadedBinaryHandler", "MetricsReloadedCategoricalHandler"),
        "of the package MetricsReloaded, which is not among the tested ones",
    ),
    "MetricGroup": "holds other metrics",
    **{
        path.removeprefix("ignite.metrics."): f"refused: {why}" for path, (why, _) in UNTRUE.items()
    },
}
"""Metrics without a row -> why."""


def table() -> list[list[str]]:
    """Return the cells of the table in the documents: a value, and over how many cases."""
    lines = [["metric", *COLUMNS, "note"]]
    for name, row in ROWS.items():
        situations = {**row.situations, **dict.fromkeys(SAME, row.situations["all right"])}
        cells = [
            cell(*row.expected(situations[column])) if column in situations else "-"
            for column in COLUMNS
        ]
        lines.append([name, *cells, "" if "-" not in cells else "images have no classes"])
    absent = ["-"] * len(COLUMNS)
    lines += [[name, *absent, why] for name, why in sorted(UNMEASURED.items())]
    return lines


def cell(value: float | None, counted: int) -> str:
    return f"undefined ({counted})" if value is None else f"{value:.3f} ({counted})"


def shared(rank: int) -> dict[str, tuple[float | None, int]]:
    """Return each metric as one of two processes measures it, which has a part of the cases."""
    found = {}
    for name, row in ROWS.items():
        cases = row.situations["all right"]
        half = (len(cases) + 1) // 2
        one = row.found(cases[:half] if rank == 0 else cases[half:])
        found[name] = one.value, one.counted
    return found


if __name__ == "__main__":  # > docs/look-up/metrics.csv
    csv.writer(sys.stdout, lineterminator="\n").writerows(table())
