"""The reports of an engine while it runs: iterations and epochs, as values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events

from mmar_runtime.components.images.case_errors import (
    case_files,
    files_not_finite,
    shown_files,
)
from mmar_runtime.components.measuring import Measurements
from mmar_runtime.results import EpochReport, EvaluationResult

ShouldStop = Callable[[], bool]


class Observer(Protocol):
    """A listener to the progress of a run; every method may do nothing."""

    def iteration(self, *, epoch: int, epochs: int, done: int, of: int, loss: float | None) -> None:
        """Report that iteration ``done`` ``of`` the epoch's iterations is complete."""

    def epoch(self, report: EpochReport, *, epochs: int) -> None:
        """Report that training has completed an epoch."""

    def validation(self, result: EvaluationResult, *, epoch: int) -> None:
        """Report that training has completed a validation."""


class SilentObserver:
    """Wants to know nothing."""

    def iteration(self, *, epoch: int, epochs: int, done: int, of: int, loss: float | None) -> None:
        """Do nothing."""

    def epoch(self, report: EpochReport, *, epochs: int) -> None:
        """Do nothing."""

    def validation(self, result: EvaluationResult, *, epoch: int) -> None:
        """Do nothing."""


def forget_batch(engine: Engine) -> None:
    """Drop the last batch and its output, which ignite keeps until the next run.

    In a federation the next run may be hours away, and many sites may wait in one process.
    """
    engine.state.batch = engine.state.output = None


class EpochReporter:
    """Attached to a trainer: adds up losses, reports iterations and epochs.

    Attributes:
        reports: the epochs so far; a caller that runs the trainer in parts may empty it in between.
        losses: of the iterations since the last epoch has ended.
        not_finite: where the loss first was infinite or not a number, in words; empty if never.
    """

    def __init__(self, trainer: Engine, measurements: Measurements, observer: Observer) -> None:
        self.reports: list[EpochReport] = []
        self._measurements = measurements
        self.not_finite = ""
        self._observer = observer
        self.losses: list[float] = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def _iteration(self, engine: Engine) -> None:
        loss = loss_of(engine.state.output)
        if loss is not None:
            self.losses.append(loss)
            if not math.isfinite(loss) and not self.not_finite:
                self.not_finite = _not_finite(engine, loss)
        length = engine.state.epoch_length or 1
        self._observer.iteration(
            epoch=engine.state.epoch,
            epochs=engine.state.max_epochs or 0,
            done=(engine.state.iteration - 1) % length + 1,
            of=length,
            loss=loss,
        )

    def _epoch(self, engine: Engine) -> None:
        losses, self.losses = self.losses, []
        report = EpochReport(
            epoch=engine.state.epoch,
            loss=sum(losses) / len(losses) if losses else None,
            metrics=self._measurements.read(),
        )
        self.reports.append(report)
        self._observer.epoch(report, epochs=engine.state.max_epochs or 0)


def _not_finite(engine: Engine, loss: float) -> str:
    """Return in words in which iteration a loss is not finite, and on which files."""
    batch = engine.state.batch
    length = engine.state.epoch_length or 1
    done = (engine.state.iteration - 1) % length + 1
    text = f"the loss is {loss} in epoch {engine.state.epoch}, iteration {done} of {length}"
    if unfit := files_not_finite(batch):
        return (
            f"{text}: values of {shown_files(unfit)} are infinite or not a number\n"
            "    Replace them, or leave the case out; 'mmar data check --full' finds all."
        )
    files = case_files(batch)
    text = f"{text}; files: {shown_files(files)}" if files else text
    return f"{text}\n    Lower the learning rate, or look for images with extreme values."


def loss_of(output: Any) -> float | None:
    """Return the loss in an engine's output: a mapping, or MONAI's list of mappings."""
    if isinstance(output, list) and output:
        output = output[0]
    if not isinstance(output, Mapping) or "loss" not in output:
        return None
    loss = output["loss"]
    if isinstance(loss, torch.Tensor):
        return loss.detach().float().mean().item()
    return float(loss) if isinstance(loss, int | float) else None


def stop_between_iterations(engine: Engine, should_stop: ShouldStop) -> None:
    """End the engine's run after the iteration in which ``should_stop`` first says so.

    The engine then fires neither the end of the epoch nor the end of the run, so no handler
    measures or saves a half epoch.
    """

    def check(engine: Engine) -> None:
        if should_stop():
            engine.terminate(skip_completed=True)

    engine.add_event_handler(Events.ITERATION_COMPLETED, check)
    engine.add_event_handler(Events.EPOCH_STARTED, check)
