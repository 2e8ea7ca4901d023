"""Training by ``config_train.json``: built once, run in one go or in parts."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from mmar_runtime.components.builder import BuildContext, ComponentBuilder
from mmar_runtime.components.summary import log_network_summary
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import ComponentError, RunAborted
from mmar_runtime.results import EpochReport, EvaluationResult, TrainResult
from mmar_runtime.workflows.evaluation import result_of
from mmar_runtime.workflows.explaining import explained
from mmar_runtime.workflows.observing import (
    EpochReporter,
    Observer,
    ShouldStop,
    SilentObserver,
    stop_between_iterations,
)
from mmar_runtime.workflows.session import session

MAX_EPOCHS_IN_STEPS = 10**9
"""When a run is bounded by its steps, this many epochs stand for no bound."""


class TrainingWorkflow:
    """The trainer of a config with everything it needs; epochs go on counting from run to run.

    Attributes:
        trainer: MONAI's trainer, or the MMAR's own.
        network: what is trained; None if the MMAR's own trainer keeps it to itself.
        evaluator: what the config's ValidationHandler runs; None without a validate section.
        validated: the last validation that ran during training, with the epoch it ran after.
    """

    def __init__(
        self,
        config: TrainConfig,
        context: BuildContext,
        *,
        counts: Counter[str] | None = None,
        observer: Observer | None = None,
        should_stop: ShouldStop = lambda: False,
    ) -> None:
        self.config = config
        self.builder = ComponentBuilder(config, context, counts=counts)
        self.trainer: Any = self.builder.get("train", "trainer")
        self.network: torch.nn.Module | None = self._entry("train", "model")
        self.evaluator: Engine | None = self._entry("validate", "evaluator")
        self.validated: tuple[int, EvaluationResult] | None = None
        self._observer = observer or SilentObserver()
        self._should_stop = should_stop
        self._reporter: EpochReporter | None = None
        if isinstance(self.trainer, Engine):
            self._reporter = EpochReporter(self.trainer, self._observer)
            stop_between_iterations(self.trainer, should_stop)
        if self.evaluator is not None:
            stop_between_iterations(self.evaluator, should_stop)
            self.evaluator.add_event_handler(Events.COMPLETED, self._remember_validation)

    def _entry(self, scope: str, name: str) -> Any:
        section = self.config.scopes.get(scope)
        if section is None or name not in section.entries:
            return None
        return self.builder.get(scope, name)

    def _remember_validation(self, evaluator: Engine) -> None:
        result = result_of(evaluator)
        self.validated = (self.epoch, result)
        self._observer.validation(result, epoch=self.epoch)

    @property
    def epoch(self) -> int:
        """Epochs trained so far."""
        return int(self.engine.state.epoch)

    @property
    def iteration(self) -> int:
        """Optimizer steps done so far."""
        return int(self.engine.state.iteration)

    @property
    def engine(self) -> Engine:
        """The trainer as an ignite engine.

        Raises:
            ComponentError: the MMAR brings a trainer that is none.
        """
        if isinstance(self.trainer, Engine):
            return self.trainer
        place = self.config.train.location / "trainer"
        raise ComponentError(
            f"{place}: {type(self.trainer).__name__} is no ignite Engine, so it can run as a whole "
            "with 'mmar train', but not in parts"
        )

    def run(self) -> tuple[EpochReport, ...]:
        """Train to the end of the configured epochs; returns a report for each one done.

        Raises:
            RunAborted: ``should_stop`` said so.
            DataError, ComponentError: something inside the engine failed.
        """
        with explained(self.config):
            self.trainer.run()
        if self._should_stop():
            raise RunAborted("the training was stopped before it was complete")
        if self._reporter is None:
            return ()
        reports, self._reporter.reports = tuple(self._reporter.reports), []
        return reports

    def run_epochs(self, count: int) -> tuple[EpochReport, ...]:
        """Train ``count`` more epochs."""
        self.engine.state.max_epochs = self.epoch + count
        return self.run()

    def run_steps(self, count: int) -> tuple[EpochReport, ...]:
        """Train ``count`` more optimizer steps; the next run goes on within the epoch."""
        engine = self.engine
        last = self.iteration + count
        engine.state.max_epochs = MAX_EPOCHS_IN_STEPS
        with engine.add_event_handler(Events.ITERATION_COMPLETED, _terminate_after, last):
            return self.run()


def _terminate_after(engine: Engine, last: int) -> None:
    if engine.state.iteration >= last:
        engine.terminate()


def train(
    config: TrainConfig,
    *,
    allow_code: bool,
    observer: Observer | None = None,
    should_stop: ShouldStop = lambda: False,
) -> TrainResult:
    """Train an MMAR by its config, from the first epoch to the last.

    Raises:
        ConfigError: a fault that only shows when the classes are at hand.
        DataError, ComponentError: something failed while building or running.
        RunAborted: ``should_stop`` said so; no half-written file is left.
    """
    with session(config, allow_code=allow_code) as context:
        Path(str(config.value("MMAR_CKPT_DIR"))).mkdir(parents=True, exist_ok=True)
        workflow = TrainingWorkflow(config, context, observer=observer, should_stop=should_stop)
        if workflow.network is not None and config.settings.input_size is not None:
            log_network_summary(workflow.network, config.settings.input_size)
        started = time.monotonic()
        reports = workflow.run()
        return _train_result(workflow, reports, time.monotonic() - started)


def _train_result(
    workflow: TrainingWorkflow, reports: tuple[EpochReport, ...], seconds: float
) -> TrainResult:
    iterations = workflow.iteration if isinstance(workflow.trainer, Engine) else 0
    if workflow.evaluator is None or workflow.validated is None:
        return TrainResult(epochs=reports, iterations=iterations, seconds=seconds)
    state: Any = workflow.evaluator.state  # MONAI adds the attributes of the key metric
    return TrainResult(
        epochs=reports,
        iterations=iterations,
        seconds=seconds,
        key_metric=state.key_metric_name,
        best_metric=float(state.best_metric),
        best_epoch=int(state.best_metric_epoch),
    )
