"""What may leave a site: a closed list, and the bounds that the site's policy sets.

Dense tensors of the model, steps and samples, the number of cases as a bucket, metrics over all
cases that the policy names, seconds, counts of what was built, and one status word. Nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mmar_runtime.errors import PolicyError
from mmar_runtime.exchange.messages import BestModel, Update
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
        received_metrics=_outgoing_metrics(update.report.received_metrics, policy),
        local_metrics=_outgoing_metrics(update.report.local_metrics, policy),
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
    metrics = _outgoing_metrics(result.metrics, policy)
    return replace(result, metrics=metrics, cases=bucket(result.cases))


def outgoing_model(model: BestModel, policy: SitePolicy) -> BestModel:
    """Return the site's best model with the metrics that may leave.

    Raises:
        PolicyError: see ``outgoing_result``.
    """
    return replace(model, result=outgoing_result(model.result, policy))


def _outgoing_epoch(report: EpochReport, policy: SitePolicy) -> EpochReport:
    loss = None if report.loss is None else policy.rounded({LOSS: report.loss}).get(LOSS)
    return replace(report, loss=loss, metrics=_outgoing_metrics(report.metrics, policy))


def _outgoing_metrics(metrics: Mapping[str, float], policy: SitePolicy) -> dict[str, float]:
    outgoing, most = policy.rounded(metrics), policy.outgoing.max_metrics
    if len(outgoing) > most:
        raise PolicyError(f"{len(outgoing)} metrics; outgoing.max_metrics of this site is {most}")
    return outgoing
