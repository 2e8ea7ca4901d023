"""What metrics, losses and savers compare; the refusals themselves are in ``tests/mistakes``."""

from __future__ import annotations

from monai.metrics.confusion_matrix import check_confusion_matrix_metric_name

from mmar_runtime.policy.metrics.comparisons import RATES
from mmar_runtime.policy.metrics.metric_kinds import LOWER_RATES


def test_the_rates_of_a_confusion_matrix_are_those_that_monai_knows() -> None:
    assert all(map(check_confusion_matrix_metric_name, RATES))
    assert {rate.replace(" ", "_") for rate in map(str.strip, LOWER_RATES)} <= RATES
