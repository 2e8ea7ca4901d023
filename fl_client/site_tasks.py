"""What a site does in a job, and how it is done in this process."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

import torch

from fl_client.local_evaluation import CrossSiteEvaluator
from fl_client.local_training import LocalTrainer, SharedTensors
from fl_client.local_work import LocalWork
from fl_client.memory.stored_rounds import StoredRounds
from fl_client.shared_storage import SharedStorage
from fl_client.site import Site
from fl_client.task_limits import (
    require_enough_cases,
    require_enough_to_report,
    require_metrics_may_leave,
    require_within_limits,
)
from mmar_runtime.components.builder import BuildContext
from mmar_runtime.components.processes import least_number
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import CheckpointError, WeightsError
from mmar_runtime.exchange.messages import BestModel, Update
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights
from mmar_runtime.workflows.observing import Observer, ShouldStop
from mmar_runtime.workflows.session import session


class SiteTasks(Protocol):
    """The tasks of a federation at one site, whichever process does the work.

    What is built for a task lives on for the next one. Weights that are given are left as they are.
    A task may raise any ``MmarError``; ``RunAborted`` if it was asked to stop.
    """

    def train(self, weights: Weights, round_number: int) -> Update:
        """Validate the received weights, train on from them; rounds are counted from 1."""

    def score(self, weights: Weights) -> EvaluationResult:
        """Return the metrics of the received weights by the training's own validation."""

    def best(self) -> BestModel:
        """Return the best model that this site has trained, with the tensors that may leave it.

        Raises:
            WeightsError: there is none yet.
        """

    def evaluate(self, weights: Weights, *, owner: str) -> EvaluationResult:
        """Return the metrics of anybody's model by ``config_cross_validation.json``."""

    def shared_tensors(self) -> SharedTensors:
        """Return the tensors that a contribution of this site would hold."""

    def close(self) -> None:
        """Give back what the tasks have taken; none is asked for afterwards."""


class LocalTasks:
    """The tasks in this process; trainer and evaluator are built when first needed, once in a job.

    Args:
        site: where this is.
        work: how much to train in a round, and what to share.
        process: an opaque name of this process, for the report.
        observer: told of iterations, epochs and validations.
        should_stop: asked between iterations.
        storage: memory that the networks of a process share; None if each has its own.
        stored: the state after the last rounds; None where nobody goes on after the process.
    """

    def __init__(
        self,
        site: Site,
        *,
        work: LocalWork,
        process: str,
        observer: Observer,
        should_stop: ShouldStop,
        storage: SharedStorage | None = None,
        stored: StoredRounds | None = None,
    ) -> None:
        self.site = site
        self.work = work
        self.process = process
        self._observer = observer
        self._should_stop = should_stop
        self._storage = storage
        self._stored = stored
        self._counts: Counter[str] = Counter()
        self._trainer: LocalTrainer | None = None
        self._evaluator: CrossSiteEvaluator | None = None
        self._sessions = ExitStack()

    def train(self, weights: Weights, round_number: int) -> Update:
        """See ``SiteTasks``."""
        trainer = self.trainer(before=round_number)
        update = trainer.train(weights, round_number)
        if self._stored is not None:
            self._stored.write(round_number, trainer.state())
        if self._storage is not None:
            self._storage.lend_gradients(trainer.network, trainer.engine)
        return update

    def score(self, weights: Weights) -> EvaluationResult:
        """See ``SiteTasks``."""
        return self.trainer().score(weights)

    def best(self) -> BestModel:
        """See ``SiteTasks``."""
        if (best := self.trainer().best) is None:
            raise WeightsError("this site has trained no model yet that it could submit")
        # Tensors of their own: those of the trainer may be set aside while other sites work.
        shared = self.trainer().shared(best.weights)
        return replace(best, weights={name: tensor.detach() for name, tensor in shared.items()})

    def evaluate(self, weights: Weights, *, owner: str) -> EvaluationResult:
        """See ``SiteTasks``."""
        if self.work.shared is not None:
            weights = self.trainer().for_evaluation(weights)
        return self.evaluator().evaluate(weights, owner=owner)

    def shared_tensors(self) -> SharedTensors:
        """See ``SiteTasks``."""
        return self.trainer().shared_tensors

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield what takes memory between two tasks: what the trainer keeps; see there."""
        if self._trainer is not None:
            yield from self._trainer.tensors()

    def close(self) -> None:
        """Put the process's settings back."""
        self._sessions.close()

    def trainer(self, *, before: float = math.inf) -> LocalTrainer:
        """Return this site's trainer.

        Args:
            before: a trainer that is built goes on from the newest state before this round.

        Raises:
            PolicyError: the site's policy does not allow this training.
            CheckpointError: the state that an earlier process has stored cannot be used.
        """
        if self._trainer is None:
            config = self.site.train_config()
            require_enough_cases(config, self.site.policy)
            require_metrics_may_leave(config, self.site.policy)
            context = self._context(config)
            trainer = LocalTrainer(
                self.site,
                config,
                context,
                work=self.work,
                process=self.process,
                counts=self._counts,
                observer=self._observer,
                should_stop=self._should_stop,
                in_place=self._storage is not None,
            )
            require_within_limits(trainer, self.site.policy)
            self._go_on(trainer, before, context)
            self._lend(trainer.network)
            self._trainer = trainer
        return self._trainer

    def _go_on(self, trainer: LocalTrainer, before: float, context: BuildContext) -> None:
        if self._stored is None:
            return
        number = self._stored.newest(before)
        if context.processes.several:  # the last round that all of them have stored
            number = least_number(number, context.device)
        if number == 0:
            return
        try:
            trainer.put_back(self._stored.read(number))
        except ValueError as error:
            fault = f"the state of an earlier process does not fit {error}"
            raise CheckpointError(fault) from error

    def evaluator(self) -> CrossSiteEvaluator:
        """Return this site's evaluator for models from anywhere.

        Raises:
            PolicyError: the site's policy does not allow a report on so few persons.
        """
        if self._evaluator is None:
            config = self.site.cross_validation_config()
            require_enough_to_report(config, self.site.policy)
            self._evaluator = CrossSiteEvaluator(
                config, self._context(config), counts=self._counts, should_stop=self._should_stop
            )
            self._lend(self._evaluator.network)
        return self._evaluator

    def _lend(self, network: torch.nn.Module) -> None:
        if self._storage is not None:
            self._storage.lend_weights(network)

    def _context(self, config: WorkflowConfig) -> BuildContext:
        most = self.site.policy.limits.parameters
        return self._sessions.enter_context(
            session(config, allow_code=self.site.allow_code, max_parameters=most)
        )
