"""Metrics of ignite's: undefined where nothing counts, and one value in several processes.

Ignite divides by nothing without a word: a precision without a predicted case is 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import ignite.distributed as idist
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import (
    PSNR,
    ROC_AUC,
    SSIM,
    Accuracy,
    AveragePrecision,
    CohenKappa,
    CosineSimilarity,
    Entropy,
    EpochMetric,
    JSDivergence,
    KLDivergence,
    MatthewsCorrCoef,
    MeanAveragePrecision,
    MeanPairwiseDistance,
    Metric,
    MutualInformation,
    Precision,
    Recall,
    TopKCategoricalAccuracy,
)
from ignite.metrics.rec_sys import NDCG, HitRate
from monai.utils import evenly_divisible_all_gather

from mmar_runtime.errors import ComponentError
from mmar_runtime.policy.metrics.metric_kinds import MetricKind

Rows: TypeAlias = torch.Tensor
"""One entry for each case (case, ...)."""

Rule = TypeVar("Rule")


OF_TENSORS = frozenset(
    [
        *(Accuracy, AveragePrecision, CohenKappa, CosineSimilarity, Entropy, HitRate, JSDivergence),
        *(KLDivergence, MatthewsCorrCoef, MeanAveragePrecision, MeanPairwiseDistance, NDCG),
        *(MutualInformation, PSNR, Precision, ROC_AUC, Recall, SSIM, TopKCategoricalAccuracy),
    ]
)
"""The classes that take predictions and labels as tensors (case, ...)."""


def defined_only(metric: Metric, kind: MetricKind) -> Metric:
    """Return a metric without a value where nothing counts; one of another class as it is."""
    return DefinedMetric(metric, kind) if type(metric) in OF_TENSORS else metric


def one_number(value: Any, kind: MetricKind) -> Any:
    """Return the value of a metric; raise where models are compared by it, and it is several."""
    count = torch.as_tensor(value).numel() if isinstance(value, torch.Tensor | list) else 1
    if kind.key_at is not None and count != 1:
        raise ComponentError(
            f"{kind.key_at}: leaves {count} numbers, and models are compared by one. "
            "Write an average, such as 'macro', or move the metric to additional_metrics."
        )
    return value


class DefinedMetric(Metric):
    """A metric of ignite's that is not a number where it has no value.

    A prediction that is not a number has no value, and neither has a rate over all cases with it:
    an argmax would choose a class.

    Attributes:
        metric: computes the value from pairs of predictions and labels.
        kind: what the value is.
    """

    def __init__(self, metric: Metric, kind: MetricKind) -> None:
        self.metric = metric
        self.kind = kind
        self._inner: Any = metric._impl if isinstance(metric, CohenKappa) else metric
        self.required_output_keys = metric.required_output_keys
        super().__init__(metric._output_transform, skip_unrolling=metric._skip_unrolling)

    def reset(self) -> None:
        """Forget the cases so far."""
        self._inner.reset()
        self._rows, self._not_numbers = 0, 0

    def update(self, output: Any) -> None:
        """Take a batch: predictions, then labels, each (case, ...)."""
        predicted, label, *more = output
        has_value = _of_kind(HAVE_VALUES, self.metric)
        if has_value is not None:
            fit = has_value(predicted, label)
            predicted, label = predicted[fit], label[fit]
        elif predicted.isnan().any():
            self._not_numbers += 1
            predicted = predicted.nan_to_num()
        self._rows += len(torch.atleast_1d(predicted))
        if predicted.numel():
            self._inner.update((predicted, label, *more))

    def compute(self) -> Any:
        """Return the value over all processes; each process has to ask."""
        return one_number(self._computed(), self.kind)

    def _computed(self) -> Any:
        if idist.all_reduce(self._not_numbers):
            return torch.nan
        if isinstance(self._inner, EpochMetric):
            predicted, label = _all_cases(self._inner)
            is_gap = _of_kind(UNRANKED, self.metric)
            if is_gap is not None and is_gap(predicted, label):
                return torch.nan
            return self._inner.compute_fn(predicted, label)
        try:
            value = self._inner.compute()
        except NotComputableError:
            return torch.nan
        defined_part = _of_kind(GAPS, self.metric)
        return value if defined_part is None else defined_part(self._inner, value)

    def taken(self) -> int:
        """Return the cases with a value over all processes; each process has to ask."""
        drops = isinstance(self.metric, HitRate | NDCG)  # cases without anything to find
        return int(idist.all_reduce(self._inner._num_examples if drops else self._rows))


def _of_kind(rules: Mapping[type[Metric], Rule], metric: Metric) -> Rule | None:
    """Return the rule for a metric's class."""
    return next((rule for kind, rule in rules.items() if isinstance(metric, kind)), None)


def _by_case(rows: Rows) -> Rows:
    return rows.reshape(len(rows), -1)


def _are_numbers(predicted: Rows, label: Rows) -> Rows:
    return ~_by_case(predicted).isnan().any(1)


def _have_angle(predicted: Rows, label: Rows) -> Rows:
    long = _by_case(predicted).any(1) & _by_case(label).any(1)
    return long & _are_numbers(predicted, label)


def _have_noise(predicted: Rows, label: Rows) -> Rows:
    return _by_case(predicted != label).any(1) & _are_numbers(predicted, label)


HAVE_VALUES: Mapping[type[Metric], Callable[[Rows, Rows], Rows]] = MappingProxyType(
    {
        CosineSimilarity: _have_angle,
        KLDivergence: _are_numbers,  # and JSDivergence
        MeanPairwiseDistance: _are_numbers,
        PSNR: _have_noise,
        SSIM: _are_numbers,
    }
)
"""Metrics that are means over cases -> which cases have a value, so that the mean leaves others."""


# --- Metrics of all cases together ---------------------------------------------------------------


def _all_cases(metric: EpochMetric) -> tuple[Rows, Rows]:
    """Return predictions and labels of all processes, which may have unequally many."""
    parts = (torch.cat(metric._predictions), torch.cat(metric._targets))
    if idist.get_world_size() == 1:
        return parts
    predicted, label = (evenly_divisible_all_gather(part, concat=True) for part in parts)
    return predicted, label


def _one_valued(rows: Rows) -> bool:
    """Return whether all cases are of one class, in a column at least."""
    return bool((rows == rows[:1]).all(0).any())


def _one_class(predicted: Rows, label: Rows) -> bool:
    return _one_valued(label)


def _no_positive(predicted: Rows, label: Rows) -> bool:
    return bool((label == 0).all(0).any())


def _uncorrelated(predicted: Rows, label: Rows) -> bool:
    classes = (rows.argmax(1) if rows.ndim > 1 else rows for rows in (predicted, label))
    return any(map(_one_valued, classes))


def _only_chance(predicted: Rows, label: Rows) -> bool:
    return _one_valued(torch.cat([predicted, label]))


UNRANKED: Mapping[type[Metric], Callable[[Rows, Rows], bool]] = MappingProxyType(
    {
        ROC_AUC: _one_class,
        AveragePrecision: _no_positive,
        MatthewsCorrCoef: _uncorrelated,
        CohenKappa: _only_chance,
    }
)
"""Metrics of all cases -> whether predictions and labels leave them without a value."""


# --- Metrics of sums -----------------------------------------------------------------------------


def _summed(part: torch.Tensor) -> torch.Tensor:
    """Return the sum over all processes."""
    return torch.as_tensor(idist.all_reduce(part.clone()))


def _over(denominators: torch.Tensor, value: Any, average: str | bool | None) -> Any:
    """Return what a division by these denominators of the classes leaves defined.

    A mean over classes has a value where each class has, so that none drops out of it.
    """
    empty = denominators == 0
    if average in (False, None):
        return torch.as_tensor(value).where(~empty, torch.nan)
    return torch.nan if empty.any() else value


def _rate(metric: Any, value: Any) -> Any:
    denominators = _summed(metric._denominator)
    if metric._average == "weighted":
        denominators = denominators[_summed(metric._weight) > 0]
    return _over(denominators, value, metric._average)


def _mean_precision(metric: Any, value: Any) -> Any:
    label = torch.cat(metric._y_true, -1)
    several = metric._type == "multiclass"
    positive = label.bincount(minlength=metric._num_classes) if several else label.sum(-1)
    positive = _summed(positive)
    if metric.class_mean in ("micro", "weighted"):
        positive = positive.sum()
    return _over(positive, value, metric.class_mean)


def _kappa(metric: Any, value: Any) -> Any:
    matrix = metric._cm.compute()
    return torch.nan if (matrix.sum(0) + matrix.sum(1)).count_nonzero() == 1 else value


GAPS: Mapping[type[Metric], Callable[[Any, Any], Any]] = MappingProxyType(
    {Precision: _rate, Recall: _rate, MeanAveragePrecision: _mean_precision, CohenKappa: _kappa}
)
"""Metrics of sums -> what is left of their value."""
