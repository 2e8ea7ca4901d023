"""The terms of a job for its server and its sites, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmar_runtime.exchange.rounding_forms import Rounding
from mmar_runtime.exchange.weighing import WeighBy


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTerms:
    """The terms of a job.

    Attributes:
        rounds: rounds of training.
        min_sites: contributions that a round needs.
        local_epochs: epochs that a site trains in a round.
        steps_aggregation: optimizer steps that a site trains in a round; 0 means whole epochs.
        shared_names: the tensors that the sites share; None for all.
        weigh_by: what a site claims as its weight in the mean.
        aggregation_weights: factor of a site's claim.
        limits: bounds of the update guard.
        optional_names: patterns of the tensors that an update may lack; None for none.
        transfer: the form in which large tensors of updates are sent; None for as they are.
        train_timeout: seconds that a site may take for a round; 0 means as long as it takes. So for
            the other timeouts.
        score_timeout: for the score of the last global model.
        submit_timeout: for handing over a site's own model.
        validation_timeout: for evaluating a model.
    """

    rounds: int
    min_sites: int
    local_epochs: int = 1
    steps_aggregation: int = 0
    shared_names: list[str] | None = None
    weigh_by: WeighBy = "samples"
    aggregation_weights: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    optional_names: list[str] | None = None
    transfer: Rounding | None = None
    train_timeout: float = 0
    score_timeout: float = 0
    submit_timeout: float = 600
    validation_timeout: float = 6000
