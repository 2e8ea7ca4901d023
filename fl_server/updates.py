"""An update of a site: as it arrives, as it is added up, and what the run record keeps of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from fl_server.record.values import EpochRecord, SiteContribution
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.messages import SiteReport, Update
from mmar_runtime.exchange.plain import from_plain
from mmar_runtime.exchange.rounding import SCALES, restored
from mmar_runtime.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A reply of a site; nothing of it has been judged.

    Attributes:
        data: arrays, or metrics, by name.
        metadata: plain values that came with the data; see ``fl_server.update_guard``.
        weights: gives the arrays as tensors, once the guard has let them through.
        logs: heads of the site's logs.
    """

    data: Any
    metadata: Any
    weights: Callable[[], Weights] = dict
    logs: Any = field(default_factory=dict)

    def update(self, round_number: int) -> Update:
        """Return the update that the guard has let through.

        Raises:
            FederationError: the site's report of the round is not complete.
        """
        return Update(
            round_number=round_number,
            difference=self.weights(),
            steps=self.metadata["steps"],
            samples=self.metadata.get("samples"),
            epoch_samples=self.metadata.get("epoch_samples"),
            report=from_plain(SiteReport, self.metadata["report"]),
        )


def restored_update(difference: Weights) -> Weights:
    """Return a difference with float32 in place of rounded tensors; all else is the same.

    Args:
        difference: as it came, found good by the guard.
    """
    if not any(name.startswith(SCALES) for name in difference):
        return difference
    arrays = restored(arrays_of(difference))
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def contribution_of(update: Update, logs: Any, *, weight: float) -> SiteContribution:
    """Return what the run record keeps of an update.

    Args:
        update: that the guard has let through.
        logs: heads of the site's logs.
        weight: of the site in the mean.

    Raises:
        FederationError: a number is not finite, or ``logs`` are not heads of logs.
    """
    report = update.report
    return SiteContribution(
        steps=update.steps,
        samples=update.samples,
        epoch_samples=update.epoch_samples,
        weight=weight,
        sent_bytes=sum(tensor.nbytes for tensor in update.difference.values()),
        seconds=report.seconds,
        received_metrics=report.received_metrics,
        local_metrics=report.local_metrics,
        epochs=tuple(
            EpochRecord(epoch=epoch.epoch, loss=epoch.loss, metrics=epoch.metrics)
            for epoch in report.epochs
            if epoch.loss is not None
        ),
        built=report.built,
        process=report.process,
        logs=logs,
    )
