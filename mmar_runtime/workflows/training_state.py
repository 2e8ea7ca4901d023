"""What a training changes, as a value that can be taken and put back.

A training that goes on after an interruption and a federated round that has failed need the same.
Random sources are not part of it: see ``process_state``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ignite.engine import Engine
from monai.handlers import EarlyStopHandler

from mmar_runtime.workflows.observing import EpochReporter


class Stateful(Protocol):
    """Networks, optimizers and schedules: their state can be taken out and put back."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Put a state back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatefulObjects:
    """The objects of a training that have state.

    Attributes:
        trainer: the engine; its counters are state.
        evaluator: its best metric is state; None without validation.
        parts: network, optimizer, schedule by name; those that the config has.
        early_stops: handlers that count validations without progress.
        reporter: adds up the losses of the epoch at work; None where nobody reports.
    """

    trainer: Engine
    evaluator: Engine | None = None
    parts: Mapping[str, Stateful]
    early_stops: tuple[EarlyStopHandler, ...] = ()
    reporter: EpochReporter | None = None

    def state(self, *, without: object = None) -> dict[str, Any]:
        """Return tensors and plain values; the tensors are those of the objects, not copies.

        Args:
            without: the part that is left out.
        """
        return {
            "parts": {
                name: part.state_dict() for name, part in self.parts.items() if part is not without
            },
            "trainer": engine_state(self.trainer),
            "evaluator": None if self.evaluator is None else engine_state(self.evaluator),
            "early_stops": [early_stop_state(handler) for handler in self.early_stops],
            "losses": [] if self.reporter is None else list(self.reporter.losses),
        }

    def put_back(self, state: Mapping[str, Any], *, without: object = None) -> None:
        """Put a state back.

        Args:
            state: as ``state`` has returned it.
            without: the part that stays as it is.

        Raises:
            ValueError: the state is of other objects.
        """
        for name, part in self.parts.items():
            if part is without:
                continue
            try:
                part.load_state_dict(state["parts"][name])
            except (KeyError, RuntimeError, ValueError) as error:
                raise ValueError(f"the {name} that is built now: {error}") from error
        restore_engine(self.trainer, state["trainer"])
        if self.evaluator is not None and state["evaluator"] is not None:
            restore_engine(self.evaluator, state["evaluator"])
        for handler, counts in zip(self.early_stops, state["early_stops"], strict=True):
            restore_early_stop(handler, counts)
        if self.reporter is not None:
            self.reporter.losses = list(state["losses"])


def engine_state(engine: Engine) -> dict[str, Any]:
    """Return the counters and the best metric of an engine."""
    state: Any = engine.state
    return {
        "epoch": state.epoch,
        "iteration": state.iteration,
        "epoch_length": state.epoch_length,
        "best_metric": float(getattr(state, "best_metric", -1)),
        "best_metric_epoch": int(getattr(state, "best_metric_epoch", -1)),
    }


def restore_engine(engine: Engine, saved: Mapping[str, Any]) -> None:
    """Put counters and best metric back."""
    for name, value in saved.items():
        setattr(engine.state, name, value)


def early_stop_state(handler: EarlyStopHandler) -> dict[str, Any]:
    """Return how often the score has not improved, and the best score."""
    stop: Any = handler._handler
    return {"counter": stop.counter, "best_score": stop.best_score}


def restore_early_stop(handler: EarlyStopHandler, saved: Mapping[str, Any]) -> None:
    """Put the count and the best score back."""
    for name, value in saved.items():
        setattr(handler._handler, name, value)
