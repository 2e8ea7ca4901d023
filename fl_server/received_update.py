"""A site's contribution as it came, and what the run record keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_server.run_record import EpochReport, SiteContribution
from mmar_runtime.errors import FederationError
from mmar_runtime.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedUpdate:
    """A contribution as it came from the wire, not checked yet."""

    difference: Weights
    steps: Any
    report: Mapping[str, Any]


def contribution_from(update: ReceivedUpdate) -> SiteContribution:
    """What the run record keeps of a contribution.

    Raises:
        FederationError: the site's report lacks something or holds numbers that are not finite.
    """
    report = dict(update.report)
    try:
        epochs = tuple(
            EpochReport(**epoch) for epoch in report["epochs"] if epoch["loss"] is not None
        )
        return SiteContribution(
            steps=update.steps,
            sent_bytes=sum(tensor.nbytes for tensor in update.difference.values()),
            seconds=report["seconds"],
            received_metrics=report["received_metrics"],
            local_metrics=report["local_metrics"],
            epochs=epochs,
            built=report["built"],
            process=report["process"],
        )
    except (KeyError, TypeError) as error:
        raise FederationError(f"the report of the round is not complete: {error}") from error
