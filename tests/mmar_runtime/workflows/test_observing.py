"""What an engine tells while it runs, and how it is stopped between two iterations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from mmar_runtime.components.measuring import Measurements
from mmar_runtime.results import EpochReport, EvaluationResult
from mmar_runtime.workflows.observing import (
    EpochReporter,
    loss_of,
    stop_between_iterations,
)


class Notebook:
    """An observer that writes everything down."""

    def __init__(self) -> None:
        self.iterations: list[tuple[int, int, int, int, float | None]] = []
        self.epochs: list[tuple[EpochReport, int]] = []
        self.validations: list[tuple[EvaluationResult, int]] = []

    def iteration(self, *, epoch: int, epochs: int, done: int, of: int, loss: float | None) -> None:
        self.iterations.append((epoch, epochs, done, of, loss))

    def epoch(self, report: EpochReport, *, epochs: int) -> None:
        self.epochs.append((report, epochs))

    def validation(self, result: EvaluationResult, *, epoch: int) -> None:
        self.validations.append((result, epoch))


def losing(losses: list[float]) -> Engine:
    """An engine whose iterations put out these losses, as MONAI's trainers do."""
    return Engine(lambda engine, _: [{"loss": torch.tensor(losses[engine.state.iteration - 1])}])


# --- Losses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "loss"),
    [
        ({"loss": 0.5}, 0.5),
        ({"loss": torch.tensor(0.5)}, 0.5),
        ({"loss": torch.tensor([0.25, 0.75])}, (0.25 + 0.75) / 2),
        ({"loss": torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True)}, 0.5),
        ([{"loss": 0.5}, {"loss": 0.5}], 0.5),
        ([], None),
        ({"pred": 1.0}, None),
        ({"loss": "low"}, None),
        (0.5, None),
        (None, None),
    ],
)
def test_the_loss_in_an_engines_output(output: object, loss: float | None) -> None:
    assert loss_of(output) == loss


# --- Epochs --------------------------------------------------------------------------------------


def test_an_epoch_reports_the_mean_of_its_losses() -> None:
    engine = losing([1.0, 0.5, 0.5, 0.0])
    reporter = EpochReporter(engine, Measurements(engine, {}, {}), Notebook())
    engine.run([0, 0], max_epochs=2)
    assert reporter.reports == [
        EpochReport(epoch=1, loss=(1.0 + 0.5) / 2),
        EpochReport(epoch=2, loss=(0.5 + 0.0) / 2),
    ]


def test_an_observer_is_told_of_iterations_and_epochs() -> None:
    engine, notebook = losing([1.0, 0.5, 0.25, 0.0]), Notebook()
    EpochReporter(engine, Measurements(engine, {}, {}), notebook)
    engine.run([0, 0], max_epochs=2)
    assert notebook.iterations == [
        (1, 2, 1, 2, 1.0),
        (1, 2, 2, 2, 0.5),
        (2, 2, 1, 2, 0.25),
        (2, 2, 2, 2, 0.0),
    ]
    assert [(report.epoch, of) for report, of in notebook.epochs] == [(1, 2), (2, 2)]


def test_an_engine_without_losses_reports_none() -> None:
    engine = Engine(lambda *_: None)
    reporter = EpochReporter(engine, Measurements(engine, {}, {}), Notebook())
    engine.run([0], max_epochs=1)
    assert reporter.reports == [EpochReport(epoch=1, loss=None)]


# --- Stopping ------------------------------------------------------------------------------------


def announced(engine: Engine, *events: Any) -> list[str]:
    found: list[str] = []
    for event in events:
        engine.add_event_handler(event, lambda _, name=event.name: found.append(name))
    return found


def test_a_stop_ends_the_run_after_the_iteration_and_announces_no_end() -> None:
    engine = Engine(lambda *_: None)
    stop_between_iterations(engine, lambda: engine.state.iteration >= 2)
    found = announced(engine, Events.EPOCH_COMPLETED, Events.COMPLETED)
    engine.run([0, 0, 0], max_epochs=2)
    assert engine.state.iteration == 2
    assert found == []


def test_a_stop_asked_for_between_epochs_starts_no_iteration() -> None:
    asked: list[bool] = []
    engine = Engine(lambda *_: None)
    stop_between_iterations(engine, lambda: bool(asked))
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: asked.append(True))
    engine.run([0, 0, 0], max_epochs=2)
    assert engine.state.iteration == 3


def test_without_a_stop_the_run_is_complete() -> None:
    engine = Engine(lambda *_: None)
    stop_between_iterations(engine, lambda: False)
    found = announced(engine, Events.EPOCH_COMPLETED, Events.COMPLETED)
    engine.run([0, 0], max_epochs=1)
    assert found == ["EPOCH_COMPLETED", "COMPLETED"]
