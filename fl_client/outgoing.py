"""What may leave a site: a closed list, and the bounds that the site's policy sets.

Dense tensors of the model, steps and samples, the number of cases as a bucket, metrics over all
cases that the policy names, seconds, counts of what was built, and one status word. Nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from mmar_runtime.errors import PolicyError
from mmar_runtime.exchange.messages import BestModel, Update
from mmar_runtime.metrics import ClassValue, Metrics, MetricValue, significant
from mmar_runtime.policy.site_policy import SitePolicy
from mmar_runtime.results import EpochReport, EvaluationResult

LOSS = "train_loss"
"""The name by which a policy allows or withholds the mean loss of an epoch."""

BUCKETS = (1, 2, 5)


def bucket(count: int) -> int:
    """Return a number of cases as it leaves the site: the largest of 1, 2, 5, 10, 20, ... below.

    >>> [bucket(count) for count in (1, 4, 5, 19, 360)]
    [1, 2, 5, 10, 200]
    """
    best, scale = 1, 1
    while scale <= count:
        best = max(step * scale for step in BUCKETS if step * scale <= count)
        scale *= 10
    return best


def outgoing_update(update: Update, policy: SitePolicy) -> Update:
    """Return the update with the metrics that may leave, rounded as the policy says.

    Raises:
        PolicyError: it has more metrics than may leave in one report.
    """
    report = replace(
        update.report,
        received_metrics=outgoing_metrics(update.report.received_metrics, policy),
        local_metrics=outgoing_metrics(update.report.local_metrics, policy),
        epochs=tuple(_outgoing_epoch(epoch, policy) for epoch in update.report.epochs),
    )
    return _with_outgoing_counts(replace(update, report=report), policy)


def _with_outgoing_counts(update: Update, policy: SitePolicy) -> Update:
    """Return the update with steps and samples rounded down as the policy says.

    The samples of a round keep their proportion to those of an epoch, so they say no more than the
    latter do.
    """
    samples, per_epoch = update.samples, update.epoch_samples
    if samples is not None and per_epoch is not None:
        rounded = policy.rounded_count(per_epoch)
        samples, per_epoch = max(1, samples * rounded // per_epoch), rounded
    steps = policy.rounded_count(update.steps)
    return replace(update, steps=steps, samples=samples, epoch_samples=per_epoch)


def outgoing_result(result: EvaluationResult, policy: SitePolicy) -> EvaluationResult:
    """Return an evaluation as it may leave.

    Raises:
        PolicyError: it covers fewer cases than the policy asks for, or has more metrics than may
            leave in one report.
    """
    least = policy.cross_site.min_cases
    if result.cases < least:
        raise PolicyError(
            f"{result.cases} validation cases; the policy of this site reports no metric of fewer "
            f"than {least} (cross_site.min_cases)"
        )
    metrics = outgoing_metrics(result.metrics, policy)
    return replace(result, metrics=metrics, cases=bucket(result.cases), findings=())


def outgoing_model(model: BestModel, policy: SitePolicy) -> BestModel:
    """Return the site's best model with the metrics that may leave.

    Raises:
        PolicyError: see ``outgoing_result``.
    """
    return replace(model, result=outgoing_result(model.result, policy))


def _outgoing_epoch(report: EpochReport, policy: SitePolicy) -> EpochReport:
    loss = None if report.loss is None else outgoing_loss(report.loss, policy)
    means = {label: replace(metric, classes={}) for label, metric in report.metrics.items()}
    return replace(report, loss=loss, metrics=outgoing_metrics(means, policy))


def outgoing_loss(loss: float, policy: SitePolicy) -> float | None:
    """Return the mean loss of an epoch as it may leave; None if it may not, or is not a number."""
    digits = policy.outgoing.round_digits
    if not policy.lets_out(LOSS) or not math.isfinite(loss):
        return None
    return loss if digits is None else significant(loss, digits)


def outgoing_metrics(metrics: Metrics, policy: SitePolicy) -> Metrics:
    """Return the metrics that may leave; raise ``PolicyError`` if these are too many.

    A value of fewer cases than the policy asks for stays here. Where the values of all classes
    would be too many numbers, none of them leaves: the means go first.
    """
    outgoing, most = policy.rounded(metrics), policy.outgoing.max_metrics
    if len(outgoing) > most:
        raise PolicyError(f"{len(outgoing)} metrics; outgoing.max_metrics of this site is {most}")
    with_classes = sum(metric.numbers for metric in outgoing.values()) <= most
    least = policy.cross_site.min_cases
    return {
        label: _of_enough_cases(metric if with_classes else replace(metric, classes={}), least)
        for label, metric in _with_rounded_counts(outgoing, policy)
    }


def _with_rounded_counts(metrics: Metrics, policy: SitePolicy) -> Iterator[tuple[str, MetricValue]]:
    """Yield the metrics with their counts rounded down as the policy says; the sums stay sums."""
    rounded = policy.rounded_count
    for label, metric in metrics.items():
        counted = rounded(metric.counted)
        classes = {
            name: replace(
                part,
                counted=rounded(part.counted),
                missed=rounded(part.missed),
                absent=rounded(part.absent),
                spurious=rounded(part.spurious),
            )
            for name, part in metric.classes.items()
        }
        undefined = rounded(metric.cases) - counted
        yield label, replace(metric, counted=counted, undefined=undefined, classes=classes)


def _of_enough_cases(metric: MetricValue, least: int) -> MetricValue:
    classes = {name: part for name, part in metric.classes.items() if _cases(part) >= least}
    if metric.value is None or metric.counted >= least:
        return replace(metric, classes=classes)
    return replace(metric, value=None, withheld=True, classes={})


def _cases(part: ClassValue) -> int:
    """Return the cases behind a class's value, or where it has none, those behind its counts."""
    return part.counted if part.value is not None else part.missed + part.absent
