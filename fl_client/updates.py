"""What a site sends after a round: a difference of weights, with what it took to get there."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmar_runtime.errors import WeightsError
from mmar_runtime.results import SiteReport
from mmar_runtime.weights import Weights, mismatches, not_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalUpdate:
    """One site's contribution to one round.

    Attributes:
        round_number: the round, counted from 1.
        difference: local minus received weights, by name, in the dtypes of the weights.
        steps: optimizer steps done in this round; the update's weight in the mean.
        report: metrics, losses and seconds.
    """

    round_number: int
    difference: Weights
    steps: int
    report: SiteReport


def weight_difference(local: Weights, received: Weights) -> dict[str, torch.Tensor]:
    """``local - received``, tensor by tensor, in the memory of ``local``, which is used up.

    Raises:
        WeightsError: names, shapes or dtypes differ, or a value is not finite.
    """
    faults = mismatches(received, local)
    if faults:
        raise WeightsError(f"the trained weights do not match the received ones: {faults[0]}")
    difference = {name: local[name].sub_(received[name]) for name in received}
    name = first_not_finite(difference)
    if name is not None:
        raise WeightsError(
            f"training ended in values that are not finite, in {name}; nothing is sent. "
            "A lower learning rate, or gradient clipping, may help."
        )
    return difference


def first_not_finite(weights: Weights) -> str | None:
    """The name of the first tensor that holds NaN or an infinity; None if all are finite."""
    return next(not_finite(weights), None)
