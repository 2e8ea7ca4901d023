"""What a server asks its sites for, and what comes back, where both are on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from fl_client.simulation.simulated_site import SubmittedModel
from fl_client.updates import LocalUpdate
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Train a round from these weights."""

    weights: Weights
    round_number: int
    timeout: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Validate these weights as a received global model is validated."""

    weights: Weights
    timeout: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Hand over the site's own best model, which takes no time worth a bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validate:
    """Evaluate a model by the cross-site validation.

    Attributes:
        weights: of the model.
        owner: its name.
        is_global: whether it is the federation's, not one site's.
        timeout: in seconds; 0 means as long as it takes.
    """

    weights: Weights
    owner: str
    is_global: bool
    timeout: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A site could not do a task.

    Attributes:
        status: one word, with the reference under which the site keeps the text of its error;
            empty of a site that did not answer in time.
    """

    status: str


Task = Train | Score | Submit | Validate
Reply = LocalUpdate | EvaluationResult | SubmittedModel | Failure


class Crew(Protocol):
    """The sites of a simulation."""

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""

    def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
        """Have every site, or only one, do a task; the replies, as they come."""
