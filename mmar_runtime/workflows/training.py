"""Training by ``config_train.json``: built once, run as a whole or in parts."""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import EarlyStopHandler

from mmar_runtime.components.builder import BuildContext, ComponentBuilder
from mmar_runtime.components.handlers.checkpoint_saver import AtomicCheckpointSaver
from mmar_runtime.components.handlers.trackers import log_checkpoints
from mmar_runtime.components.processes import agree_on_buffers, any_process
from mmar_runtime.components.summary import log_network_summary
from mmar_runtime.config.predictions import outputs_of
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import CheckpointError, ComponentError, NotFiniteError, RunAborted
from mmar_runtime.files import make_folder_to_write
from mmar_runtime.metrics import defined
from mmar_runtime.mmar import RESUME_FILE
from mmar_runtime.results import EpochReport, EvaluationResult, TrainResult
from mmar_runtime.workflows.conf_report import conf_report
from mmar_runtime.workflows.evaluation import require_batches, result_of
from mmar_runtime.workflows.explaining import explained
from mmar_runtime.workflows.first_answer import check_first_answer
from mmar_runtime.workflows.observing import (
    EpochReporter,
    Observer,
    ShouldStop,
    SilentObserver,
    forget_batch,
    stop_between_iterations,
)
from mmar_runtime.workflows.rehearsal import rehearse_validation
from mmar_runtime.workflows.resuming import (
    ResumePoint,
    comparable,
    transforms_follow_torch,
)
from mmar_runtime.workflows.session import session
from mmar_runtime.workflows.training_state import Stateful, StatefulObjects

logger = logging.getLogger(__name__)

HAS_STATE = (torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
"""The objects that a training changes, besides the counters of its engines."""

MAX_EPOCHS_IN_STEPS = 10**9
"""When a run is bounded by its steps, this many epochs mean no bound."""


class TrainingWorkflow:
    """The trainer of a config with everything it needs; epochs go on counting from run to run.

    Attributes:
        trainer: MONAI's trainer, or the MMAR's own.
        network: what is trained; None if the MMAR's own trainer keeps it to itself.
        evaluator: the engine of the config's ValidationHandler; None without a validate section.
        validated: the last validation that ran during training, with the epoch it ran after.
        validations: how many have run.
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
        with explained(config):  # a data set that caches reads its images when it is built
            self.trainer: Any = self.builder.get("train", "trainer")
            self.network: torch.nn.Module | None = self.entry("train", "model")
            self.evaluator: Engine | None = self.entry("validate", "evaluator")
        if outputs_of(config, config) is None:
            check_first_answer(self.trainer, config)
        self.validated: tuple[int, EvaluationResult] | None = None
        self.validations = 0
        self._observer = observer or SilentObserver()
        self._processes = context.processes
        self._device = context.device
        self._asked_to_stop = should_stop
        self._stopped = False
        self._reporter: EpochReporter | None = None
        if isinstance(self.trainer, Engine):
            for handler in self._early_stops():  # built before the trainer
                handler.set_trainer(self.trainer)
            measurements = self.builder.measurements("train", self.trainer)
            self._reporter = EpochReporter(self.trainer, measurements, self._observer)
            stop_between_iterations(self.trainer, self._should_stop)
            log_checkpoints(self.handlers())
        if self.evaluator is not None:
            self._measurements = self.builder.measurements("validate", self.evaluator)
            self._prepare_evaluator(self.evaluator)
            self.evaluator.add_event_handler(Events.COMPLETED, self._remember_validation)

    def _should_stop(self) -> bool:
        """Return whether to stop; several processes stop at the same iteration.

        A run whose loss is not finite stops here as well: no handler then saves its weights.
        """
        if not self._stopped:
            asked = self._asked_to_stop() or self._not_finite != ""
            several = self._processes.several
            self._stopped = any_process(asked, self._device) if several else asked
        return self._stopped

    @property
    def _not_finite(self) -> str:
        return "" if self._reporter is None else self._reporter.not_finite

    def _require_finite(self) -> None:
        """Raise if the loss of any process is not finite; each process has to ask."""
        found = self._not_finite
        several = self._processes.several
        if any_process(bool(found), self._device) if several else found:
            raise NotFiniteError(
                f"{self.config.train.location}: {found or 'another process has such a loss'}\n"
                "    Models that were saved before are kept."
            )

    def _prepare_evaluator(self, evaluator: Engine) -> None:
        if not self._processes.several:
            stop_between_iterations(evaluator, self._should_stop)
        elif self.network is not None:
            # Processes evaluate different numbers of cases, so they cannot ask each other in
            # between; the trainer stops after the validation.
            network = self.network
            evaluator.add_event_handler(Events.STARTED, lambda _: agree_on_buffers(network))

    def entry(self, scope: str, name: str) -> Any:
        """Return the object of a section's entry, built on demand; None without the entry."""
        section = self.config.scopes.get(scope)
        if section is None or name not in section.entries:
            return None
        return self.builder.get(scope, name)

    def savers(self) -> list[AtomicCheckpointSaver]:
        """Return the handlers that write checkpoints, of the first process alone."""
        return [each for each in self.handlers() if isinstance(each, AtomicCheckpointSaver)]

    def handlers(self) -> Iterator[object]:
        """Yield the handlers that are attached to the engines, of training first."""
        for scope in self.config.scopes:
            built = self.builder.built(scope).get("handlers")
            yield from built if isinstance(built, list) else ()

    def parts(self) -> dict[str, Stateful]:
        """Return the stateful networks, optimizers and schedules by their names in 'train'.

        They may have any name: those of a GAN, for one.
        """
        return {
            name: built
            for name, built in self.builder.built("train").items()
            if isinstance(built, HAS_STATE) and built.state_dict()
        }

    def stateful(self) -> StatefulObjects:
        """Return the objects with state.

        Raises:
            ComponentError: the MMAR brings a trainer that is not an ignite engine.
        """
        return StatefulObjects(
            trainer=self.engine,
            evaluator=self.evaluator,
            parts=self.parts(),
            early_stops=self._early_stops(),
            reporter=self._reporter,
        )

    def _early_stops(self) -> tuple[EarlyStopHandler, ...]:
        return tuple(each for each in self.handlers() if isinstance(each, EarlyStopHandler))

    def _remember_validation(self, evaluator: Engine) -> None:
        result = result_of(evaluator, self._measurements)
        self.validated = (self.epoch, result)
        self.validations += 1
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
            f"{place}: {type(self.trainer).__name__} is not an ignite Engine, so 'mmar train' "
            "runs it whole, but nothing runs it in parts"
        )

    def run(self) -> tuple[EpochReport, ...]:
        """Train to the end of the configured epochs; return a report for each epoch.

        Raises:
            RunAborted: ``should_stop`` said so.
            NotFiniteError: the loss is infinite or not a number.
            DataError, ComponentError: something inside the engine failed, or there is no batch.
        """
        self._stopped = False
        if self._reporter is not None:
            # A federation's next round begins with other weights, and may follow a failed round.
            self._reporter.not_finite, self._reporter.reports = "", []
        if isinstance(self.trainer, Engine):
            require_batches(self.trainer, self.config.train)
        if self.evaluator is not None:
            require_batches(self.evaluator, self.config.scopes["validate"])
        with explained(self.config), warnings.catch_warnings():
            # A loss would repeat the label over the channels of the prediction, and only warn.
            warnings.filterwarnings("error", message="Using a target size")
            self.trainer.run()
        if self._stopped:
            self._require_finite()
        for engine in (self.trainer, self.evaluator):
            if isinstance(engine, Engine):
                forget_batch(engine)
        if self._stopped or (self._reporter is None and self._asked_to_stop()):
            raise RunAborted("the training was stopped before it was complete")
        if self._reporter is None:
            return ()
        return tuple(self._reporter.reports)

    def rehearse(self) -> None:
        """Try the first batch of the validation, so that its faults show before the training.

        Of several processes one could fail while the others wait for it, so they do not try.

        Raises:
            DataError, ComponentError: the validation would fail.
        """
        if self.evaluator is not None and not self._processes.several:
            rehearse_validation(self.evaluator, self._measurements.handlers, self.config)

    def run_epochs(self, count: int) -> tuple[EpochReport, ...]:
        """Train ``count`` more epochs."""
        self.engine.state.max_epochs = self.epoch + count
        return self.run()

    def run_steps(self, count: int) -> tuple[EpochReport, ...]:
        """Train ``count`` more optimizer steps; the next run goes on within the epoch."""
        engine = self.engine
        last = self.iteration + count
        engine.state.max_epochs = MAX_EPOCHS_IN_STEPS
        if engine.state.epoch_length is not None:
            # A terminated engine finishes its epoch; ignite itself would begin the next epoch. Then
            # no epoch would ever be complete where the runs are shorter than an epoch, and no
            # handler that waits for its end would run.
            engine.state.epoch = self.iteration // engine.state.epoch_length
            engine.should_terminate = False

        def terminate_within_epoch() -> None:
            if self.iteration % (engine.state.epoch_length or 1) != 0:
                terminate_after_epoch()

        def terminate_after_epoch() -> None:
            if self.iteration >= last:
                engine.terminate()

        with (
            engine.add_event_handler(Events.ITERATION_COMPLETED, terminate_within_epoch),
            engine.add_event_handler(Events.EPOCH_COMPLETED, terminate_after_epoch),
        ):
            return self.run()


def train(
    config: TrainConfig,
    *,
    allow_code: bool,
    observer: Observer | None = None,
    should_stop: ShouldStop = lambda: False,
    resume: bool = False,
) -> TrainResult:
    """Train an MMAR by its config, from the first epoch to the last.

    Args:
        config: the training workflow.
        allow_code: whether components may come from the MMAR's own code.
        observer: gets iterations, epochs and validations.
        should_stop: asked between iterations.
        resume: go on after the last epoch that an interrupted run has stored, to the same
            weights as if it had not been interrupted.

    Raises:
        CheckpointError: ``resume`` without anything to go on from.
        ConfigError: a fault that only shows when the classes are at hand.
        DataError, ComponentError: something failed while building or running, or no batch came.
        RunAborted: ``should_stop`` said so; no half-written file is left.
    """
    with session(config, allow_code=allow_code) as context:
        folder = Path(str(config.value("MMAR_CKPT_DIR")))
        make_folder_to_write(folder)
        asked_for = comparable(config, processes=context.processes.count)
        if resume:
            # It would put a file's weights in the place of those of the interrupted run.
            config = config.with_train(config.train.without_handlers("CheckpointLoader"))
        workflow = TrainingWorkflow(config, context, observer=observer, should_stop=should_stop)
        _introduce(workflow)
        point = _resume_point(workflow, folder, asked_for, should_stop)
        if resume and point is None:
            place = config.train.location / "trainer"
            raise CheckpointError(
                f"{place}: {type(workflow.trainer).__name__} keeps its networks to itself, so "
                "there is nothing to resume from. Start without --resume."
            )
        if point is not None:
            if resume:
                point.restore()
            transforms_follow_torch(workflow.engine, context)
            if context.processes.first:
                point.write_after_epochs()
        if not resume:
            workflow.rehearse()
        started = time.monotonic()
        reports = workflow.run()
        return _train_result(workflow, reports, time.monotonic() - started)


def _introduce(workflow: TrainingWorkflow) -> None:
    """Log the network and the configuration, as far as the config asks for it."""
    settings = workflow.config.settings
    if workflow.network is not None and settings.input_size is not None:
        log_network_summary(workflow.network, settings.input_size)
    if settings.print_conf:
        for line in conf_report(workflow.config, workflow.builder):
            logger.info("%s", line)


def _resume_point(
    workflow: TrainingWorkflow, folder: Path, asked_for: Mapping[str, Any], should_stop: ShouldStop
) -> ResumePoint | None:
    """Return the point to resume from; None if the MMAR's own trainer holds all of its state."""
    if not workflow.parts() or not isinstance(workflow.trainer, Engine):
        return None
    return ResumePoint(
        path=folder / RESUME_FILE,
        training=workflow.stateful(),
        # The first process alone knows the saved files.
        savers=workflow.savers() if workflow.builder.context.processes.first else [],
        config=asked_for,
        should_stop=should_stop,
    )


def _train_result(
    workflow: TrainingWorkflow, reports: tuple[EpochReport, ...], seconds: float
) -> TrainResult:
    iterations = workflow.iteration if isinstance(workflow.trainer, Engine) else None
    plain = TrainResult(
        epochs=reports,
        iterations=iterations,
        seconds=seconds,
        checkpoints=_checkpoints(workflow),
    )
    if workflow.evaluator is None:
        return plain
    plain = replace(plain, validations=workflow.validations)
    # MONAI adds the attributes of the key metric; a resumed training may bring its best along.
    state: Any = workflow.evaluator.state
    if state.key_metric_name is None or state.best_metric_epoch < 1:
        return plain
    if defined(float(state.best_metric)) is None:
        return replace(plain, key_metric=state.key_metric_name)
    return replace(
        plain,
        key_metric=state.key_metric_name,
        best_metric=float(state.best_metric),
        best_epoch=int(state.best_metric_epoch),
    )


def _checkpoints(workflow: TrainingWorkflow) -> tuple[str, ...] | None:
    """Return the files of weights that are written; None if the MMAR's own code may write some."""
    names = [name for saver in workflow.savers() for name in saver.files()]
    sections = workflow.config.scopes.values()
    own = [spec for section in sections for spec in section.specs("handlers") if spec.path]
    if not names and (own or not isinstance(workflow.trainer, Engine)):
        return None
    return tuple(dict.fromkeys(names))
