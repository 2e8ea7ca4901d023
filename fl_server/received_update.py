"""A site's contribution as it came, and what the run record keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fl_server.record.values import EpochRecord, SiteContribution
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.rounding import SCALES, restored
from mmar_runtime.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedUpdate:
    """A contribution as it came from the wire, not checked yet."""

    difference: Weights
    steps: Any
    report: Mapping[str, Any]
    logs: Any = field(default_factory=dict)


def added_up(difference: Weights) -> Weights:
    """A difference as it is added up: what came rounded is float32 again, all else is the same.

    Args:
        difference: as it came, found good by the guard.
    """
    if not any(name.startswith(SCALES) for name in difference):
        return difference
    arrays = restored({name: tensor.numpy() for name, tensor in difference.items()})
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def contribution_from(update: ReceivedUpdate) -> SiteContribution:
    """What the run record keeps of a contribution.

    Raises:
        FederationError: the site's report lacks something or holds numbers that are not finite.
    """
    report = dict(update.report)
    try:
        epochs = tuple(
            EpochRecord(**epoch) for epoch in report["epochs"] if epoch["loss"] is not None
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
            logs=update.logs,
        )
    except (KeyError, TypeError) as error:
        raise FederationError(f"the report of the round is not complete: {error}") from error
