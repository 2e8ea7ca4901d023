"""What leaves a site: allowed metrics, rounded as its policy says; numbers of cases as buckets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fl_client.outgoing import bucket, outgoing_metrics, outgoing_result, outgoing_update
from mmar_runtime.errors import PolicyError
from mmar_runtime.exchange.messages import SiteReport, Update
from mmar_runtime.metrics import ClassValue, MetricValue
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, CrossSite, Outgoing, SitePolicy
from mmar_runtime.results import EpochReport, EvaluationResult, Finding
from tests.conftest import metric

DICE = {"val_mean_dice": metric(0.123456789, 20), "val_acc": metric(0.987654321, 20)}
FIVE_CASES = SitePolicy(cross_site=CrossSite(min_cases=5))
FEW = SitePolicy(outgoing=Outgoing(metrics=("val_mean_dice",), round_digits=2))


def update() -> Update:
    epoch = EpochReport(epoch=1, loss=0.5555, metrics={"train_acc": metric(0.75, 20)})
    report = SiteReport(
        received_metrics=DICE,
        local_metrics=DICE,
        epochs=(epoch,),
        seconds=1.5,
        built={"train.trainer": 1},
        process="p",
    )
    return Update(round_number=1, difference={"w": torch.ones(2)}, steps=2, report=report)


def result(cases: int) -> EvaluationResult:
    return EvaluationResult(key_metric="val_mean_dice", metrics=DICE, cases=cases)


def test_by_default_every_metric_leaves_with_four_digits() -> None:
    report = outgoing_update(update(), DEFAULT_POLICY).report

    assert report.local_metrics == {
        "val_mean_dice": metric(0.1235, 20),
        "val_acc": metric(0.9877, 20),
    }
    assert report.received_metrics == report.local_metrics
    assert report.epochs == update().report.epochs
    assert outgoing_result(result(20), DEFAULT_POLICY).metrics == report.local_metrics


def test_a_site_can_let_every_digit_leave() -> None:
    policy = SitePolicy(outgoing=Outgoing(round_digits=None))

    assert outgoing_update(update(), policy).report == update().report
    assert outgoing_result(result(20), policy) == result(20)


def test_a_report_of_too_many_metrics_does_not_leave() -> None:
    policy = SitePolicy(outgoing=Outgoing(max_metrics=1))

    with pytest.raises(PolicyError, match=r"2 metrics; outgoing\.max_metrics of this site is 1"):
        outgoing_update(update(), policy)
    with pytest.raises(PolicyError, match="2 metrics"):
        outgoing_result(result(20), policy)
    one = SitePolicy(outgoing=Outgoing(metrics=("val_acc",), max_metrics=1))
    assert outgoing_result(result(20), one).metrics == {"val_acc": metric(0.9877, 20)}


def test_metrics_that_a_site_withholds_stay_and_the_others_are_rounded() -> None:
    report = outgoing_update(update(), FEW).report

    left = {"val_mean_dice": metric(0.12, 20)}
    assert report.received_metrics == report.local_metrics == left
    assert report.epochs[0].metrics == {}
    assert report.epochs[0].loss is None
    assert outgoing_result(result(20), FEW).metrics == left


def test_the_loss_is_a_metric_like_others() -> None:
    policy = SitePolicy(outgoing=Outgoing(metrics=("train_loss",), round_digits=1))

    assert outgoing_update(update(), policy).report.epochs[0].loss == 0.6


def test_steps_and_samples_leave_exact_unless_the_policy_rounds_them() -> None:
    counted = replace(update(), steps=137, samples=3 * 47, epoch_samples=47)
    policy = SitePolicy(outgoing=Outgoing(count_digits=1))

    exact = outgoing_update(counted, DEFAULT_POLICY)
    assert (exact.steps, exact.samples, exact.epoch_samples) == (137, 3 * 47, 47)
    rounded = outgoing_update(counted, policy)
    assert (rounded.steps, rounded.samples, rounded.epoch_samples) == (100, 3 * 40, 40)


@given(st.integers(1, 10**6), st.integers(1, 100), st.integers(1, 3))
def test_rounded_samples_keep_their_proportion_to_the_epoch(
    per_epoch: int, epochs: int, digits: int
) -> None:
    """So the server's bound of a claim holds for them as well."""
    policy = SitePolicy(outgoing=Outgoing(count_digits=digits))
    counted = replace(update(), samples=epochs * per_epoch, epoch_samples=per_epoch)

    rounded = outgoing_update(counted, policy)

    assert rounded.epoch_samples is not None
    assert rounded.samples == epochs * rounded.epoch_samples
    assert 0.5 * per_epoch < rounded.epoch_samples <= per_epoch


def test_no_samples_leave_where_the_job_does_not_weigh_by_them() -> None:
    assert outgoing_update(update(), SitePolicy(outgoing=Outgoing(count_digits=1))).samples is None


def test_the_weights_are_not_touched() -> None:
    assert torch.equal(outgoing_update(update(), FEW).difference["w"], torch.ones(2))


def test_no_metric_of_too_few_cases_is_told() -> None:
    policy = SitePolicy(cross_site=CrossSite(min_cases=5))

    assert outgoing_result(result(5), policy).cases == 5
    with pytest.raises(PolicyError, match="4 validation cases"):
        outgoing_result(result(4), policy)


# --- what a metric says besides its value


def part(value: float | None, counted: int, **counts: int) -> ClassValue:
    return ClassValue(value=value, counted=counted, **counts)


SPLEEN, RARE, GONE = part(0.45678, 9, absent=1), part(0.5, 1, absent=9), part(None, 0, absent=10)
BY_CLASS = metric(0.456789, 10, classes={"spleen": SPLEEN, "rare": RARE, "gone": GONE})


@pytest.mark.parametrize(
    ("policy", "found", "left"),
    [
        (SitePolicy(), BY_CLASS, metric(0.4568, 10, classes={"spleen": part(0.4568, 9, absent=1),
                                                           "rare": RARE, "gone": GONE})),
        (FIVE_CASES, BY_CLASS, metric(0.4568, 10, classes={"spleen": part(0.4568, 9, absent=1),
                                                           "gone": GONE})),
        (FIVE_CASES, metric(0.5, 4, undefined=6, classes={"spleen": SPLEEN}),
         metric(None, 4, undefined=6, withheld=True)),
        (FIVE_CASES, metric(None, 10), metric(None, 10)),
        (SitePolicy(outgoing=Outgoing(max_metrics=4)), BY_CLASS,
         metric(0.4568, 10, classes={"spleen": part(0.4568, 9, absent=1),
                                     "rare": RARE, "gone": GONE})),
        (SitePolicy(outgoing=Outgoing(max_metrics=3)), BY_CLASS, metric(0.4568, 10)),
    ],
    ids=["rounded", "a class of few cases", "of few cases", "undefined", "as many", "too many"],
)  # fmt: skip
def test_what_leaves_of_a_metric(policy: SitePolicy, found: MetricValue, left: MetricValue) -> None:
    metrics = {"dice": found}

    assert outgoing_metrics(metrics, policy) == {"dice": left}
    assert outgoing_metrics({"dice": left}, policy) == {"dice": left}  # the gate asks again
    evaluation = EvaluationResult(key_metric="dice", metrics=metrics, cases=10)
    assert outgoing_result(evaluation, policy).metrics == {"dice": left}


def test_one_too_many_leaves_the_classes_of_all_metrics_behind() -> None:
    policy = SitePolicy(outgoing=Outgoing(max_metrics=7))

    left = outgoing_metrics({"one": BY_CLASS, "other": BY_CLASS}, policy)

    assert left == {"one": metric(0.4568, 10), "other": metric(0.4568, 10)}


def test_the_metrics_of_an_epoch_leave_without_their_classes() -> None:
    epoch = EpochReport(epoch=1, loss=float("nan"), metrics={"dice": BY_CLASS})
    report = replace(update().report, epochs=(epoch,))

    [left] = outgoing_update(replace(update(), report=report), DEFAULT_POLICY).report.epochs

    assert left == EpochReport(epoch=1, loss=None, metrics={"dice": metric(0.4568, 10)})


def test_files_of_patients_stay() -> None:
    finding = Finding(case="DOE_JOHN.nii.gz", label="spleen", fault="missed")

    assert outgoing_result(replace(result(20), findings=(finding,)), DEFAULT_POLICY).findings == ()


@given(st.integers(1, 10**9))
def test_a_bucket_is_never_above_the_number_and_at_least_two_fifths_of_it(count: int) -> None:
    assert 0.4 * count <= bucket(count) <= count
    assert bucket(bucket(count)) == bucket(count)
