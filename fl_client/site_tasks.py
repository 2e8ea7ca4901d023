"""What a site does in a job, in a process that many sites may share.

Nothing here knows how the weights came. What is returned may leave the site.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from fl_client.local_evaluation import CrossSiteEvaluator
from fl_client.local_training import LocalTrainer, LocalWork
from fl_client.outgoing import outgoing_result, outgoing_update
from fl_client.progress import ProgressFile
from fl_client.shared_storage import SharedStorage
from fl_client.site import Site
from fl_client.site_limits import (
    require_enough_cases,
    require_metrics_may_leave,
    require_within_limits,
)
from fl_client.updates import LocalUpdate
from mmar_runtime.components.builder import BuildContext
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import ConfigError, PolicyError, RunAborted, WeightsError
from mmar_runtime.files import bytes_below
from mmar_runtime.policy.mmar_check import check_mmar
from mmar_runtime.results import EvaluationResult, Metrics
from mmar_runtime.weights import Weights
from mmar_runtime.workflows.session import session

TRAIN = "train"
SCORE = "score_model"
SUBMIT = "submit_model"
VALIDATE = "validate"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWork:
    """What a job asks of each of its sites.

    Attributes:
        local_epochs: epochs that a round trains.
        steps_aggregation: optimizer steps that a round trains; 0 means whole epochs.
        shared_names: the tensors that the sites share; None for all.
    """

    local_epochs: int = 1
    steps_aggregation: int = 0
    shared_names: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedModel:
    """A site's own best model.

    Attributes:
        weights: those that may leave the site.
        round_number: the round that it is of.
        metrics: its metrics at this site.
    """

    weights: Weights
    round_number: int
    metrics: Metrics


class SiteTasks:
    """One site's part in a job; engines are built when first needed, and live on.

    Every task may raise whatever ``fl_client.status_words`` has a word for.

    Args:
        site: where this is.
        work: what the job asks for.
        progress: where this site's progress is told; what its run writes lies beside it.
        process: an opaque name of this process, for the report.
        storage: memory that the networks of this process share.
    """

    def __init__(
        self,
        site: Site,
        *,
        work: JobWork,
        progress: ProgressFile,
        process: str,
        storage: SharedStorage,
    ) -> None:
        self.site = site
        self._work = work
        self._progress = progress
        self._process = process
        self._storage = storage
        self._counts: Counter[str] = Counter()
        self._trainer: LocalTrainer | None = None
        self._evaluator: CrossSiteEvaluator | None = None
        self._sessions = ExitStack()
        self._refusal: ConfigError | None = None
        self._is_judged = False
        self._seconds = 0.0
        self._task_started = 0.0
        self._deadline = math.inf

    def train(self, received: Weights, round_number: int, *, timeout: float = 0) -> LocalUpdate:
        """One round; ``timeout`` is in seconds, 0 means as long as it takes."""
        with self._task(timeout):
            self._may(TRAIN)
            if round_number > self.site.policy.limits.rounds:
                raise PolicyError(
                    f"round {round_number}; limits.rounds of this site is "
                    f"{self.site.policy.limits.rounds}"
                )
            self._progress.round_number = round_number
            self._progress.task(TRAIN)
            trainer = self.trainer()
            update = trainer.train(received, round_number)
            self._storage.lend_gradients(trainer.network, trainer.engine)
            return outgoing_update(update, self.site.policy)

    def score(self, received: Weights, *, timeout: float = 0) -> EvaluationResult:
        """The metrics of a received model, by the validation of the training."""
        with self._task(timeout):
            self._may(SCORE)
            self._progress.task(SCORE)
            return outgoing_result(self.trainer().score(received), self.site.policy)

    def submit(self) -> SubmittedModel:
        """This site's best model."""
        with self._task():
            self._may(SUBMIT)
            if not self.site.policy.cross_site.share_model:
                raise PolicyError("cross_site.share_model of this site is off")
            self._progress.task(SUBMIT)
            best = self.trainer().best
            if best is None:
                raise WeightsError("this site has trained no model yet that it could submit")
            result = outgoing_result(best.result, self.site.policy)
            shared = self.trainer().shared(best.weights)
            return SubmittedModel(
                # Tensors of their own: the site's may be set aside when its turn is over.
                weights={name: tensor.detach() for name, tensor in shared.items()},
                round_number=best.round_number,
                metrics=result.metrics,
            )

    def validate(
        self, weights: Weights, owner: str, *, is_global: bool, timeout: float = 0
    ) -> EvaluationResult:
        """The metrics of any model, by the job's cross-site validation.

        Args:
            weights: of the model.
            owner: its name.
            is_global: whether it is the federation's, not one site's.
            timeout: in seconds; 0 means as long as it takes.
        """
        with self._task(timeout):
            self._may(VALIDATE)
            is_anothers = not is_global and owner != self.site.name
            if is_anothers and not self.site.policy.cross_site.evaluate_others:
                raise PolicyError("cross_site.evaluate_others of this site is off")
            self._progress.task(VALIDATE, model=owner)
            if self._work.shared_names is not None:
                weights = self.trainer().for_evaluation(weights)
            result = self.evaluator().evaluate(weights, owner=owner)
            return outgoing_result(result, self.site.policy)

    def tensors(self) -> Iterator[torch.Tensor]:
        """What takes memory while the site waits for its next turn."""
        if self._trainer is not None:
            yield from self._trainer.tensors()

    def close(self) -> None:
        """Put the settings of the process back, and end what the run has opened."""
        self._sessions.close()

    @contextmanager
    def _task(self, timeout: float = 0) -> Iterator[None]:
        """Measure the time of a task; one that was stopped for want of time was declined."""
        self._task_started = time.monotonic()
        self._deadline = self._task_started + timeout if timeout else math.inf
        try:
            yield
        except RunAborted as error:
            if self._out_of_time():
                raise self._too_long() from error
            raise
        finally:
            self._seconds += time.monotonic() - self._task_started

    def _may(self, task: str) -> None:
        """Raise unless the site's policy allows a task at this moment."""
        if not self._is_judged:
            self._judge()
        if self._refusal is not None:
            raise self._refusal
        limits, work = self.site.policy.limits, self._work
        if self._out_of_time():
            raise self._too_long()
        if work.local_epochs > limits.epochs_per_round and not work.steps_aggregation:
            raise PolicyError(
                f"{work.local_epochs} epochs a round; limits.epochs_per_round of this site is "
                f"{limits.epochs_per_round}"
            )
        used, most = bytes_below(self._progress.path.parent), limits.disk_gib * 2**30
        if used > most:
            raise PolicyError(f"this run has written {used} bytes; limits.disk_gib allows {most}")

    def _judge(self) -> None:
        """Judge the MMAR with the site's own values, as a deployed site does in its process."""
        self._is_judged = True
        verdict = check_mmar(self.site.mmar.root, self.site.policy, site_values=self.site.values)
        self._refusal = ConfigError(list(verdict.problems)) if verdict.problems else None

    def _out_of_time(self) -> bool:
        """Whether the site has worked for as long as its policy allows; sites take turns here."""
        seconds = self._seconds + time.monotonic() - self._task_started
        return seconds / 60 > self.site.policy.limits.wall_minutes

    def _too_long(self) -> PolicyError:
        most = self.site.policy.limits.wall_minutes
        return PolicyError(f"this job has run for limits.wall_minutes of this site, {most}")

    def _should_stop(self) -> bool:
        return time.monotonic() > self._deadline or self._out_of_time()

    def _context(self, config: WorkflowConfig) -> BuildContext:
        most = self.site.policy.limits.parameters
        return self._sessions.enter_context(
            session(config, allow_code=self.site.allow_code, max_parameters=most)
        )

    def trainer(self) -> LocalTrainer:
        """This site's trainer, built when first needed."""
        if self._trainer is None:
            config = self.site.train_config()
            require_enough_cases(config, self.site.policy)
            require_metrics_may_leave(config, self.site.policy)
            trainer = LocalTrainer(
                self.site,
                config,
                self._context(config),
                work=LocalWork(epochs=self._work.local_epochs, steps=self._work.steps_aggregation),
                process=self._process,
                counts=self._counts,
                observer=self._progress,
                should_stop=self._should_stop,
                shared=self._work.shared_names,
            )
            require_within_limits(trainer, self.site.policy)
            self._storage.lend_weights(trainer.network)
            self._trainer = trainer
        return self._trainer

    def evaluator(self) -> CrossSiteEvaluator:
        """This site's evaluator for models from anywhere, built when first needed."""
        if self._evaluator is None:
            config = self.site.cross_validation_config()
            self._evaluator = CrossSiteEvaluator(
                config, self._context(config), counts=self._counts, should_stop=self._should_stop
            )
            self._storage.lend_weights(self._evaluator.network)
        return self._evaluator
