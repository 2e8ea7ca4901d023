"""One site of a simulation, in a process that many sites may share.

Nothing here knows how the weights came. What is returned may leave the site.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from fl_client.done_tasks import DoneTasks
from fl_client.local_training import LocalWork
from fl_client.outgoing import outgoing_result, outgoing_update
from fl_client.progress import ProgressFile
from fl_client.simulation.shared_storage import SharedStorage
from fl_client.site import Site
from fl_client.site_tasks import LocalTasks
from fl_client.task_limits import (
    AskedTask,
    mmar_problems,
    too_long,
)
from mmar_runtime.errors import ConfigError, Problem, RunAborted
from mmar_runtime.exchange.messages import SCORE, SUBMIT, TRAIN, VALIDATE, BestModel, Update
from mmar_runtime.exchange.rounding import rounded
from mmar_runtime.exchange.rounding_forms import Rounding
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWork:
    """What a job asks of each of its sites.

    Attributes:
        local_epochs: epochs that a round trains, unless the site has a number of its own.
        steps_aggregation: optimizer steps that a round trains; 0 means whole epochs.
        shared_names: the tensors that the sites share; None for all.
        transfer: the form in which large tensors of an update leave; None for as they are.
    """

    local_epochs: int = 1
    steps_aggregation: int = 0
    shared_names: list[str] | None = None
    transfer: Rounding | None = None


class SimulatedSite:
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
        self._tasks: LocalTasks | None = None
        self._done = DoneTasks((), rounds=None)
        self._seconds = 0.0
        self._task_started = 0.0
        self._deadline = math.inf

    def train(self, received: Weights, round_number: int, *, timeout: float = 0) -> Update:
        """One round; ``timeout`` is in seconds, 0 means as long as it takes.

        The tensors of the update lie in the memory that the networks share: they hold until the
        next task of any site.
        """
        with self._task(TRAIN, timeout, round_number=round_number):
            self._progress.round_number = round_number
            self._progress.task(TRAIN)
            update = self.tasks().train(received, round_number)
            trainer = self.tasks().trainer()
            self._storage.lend_gradients(trainer.network, trainer.engine)
            return self._rounded(outgoing_update(update, self.site.policy))

    def _rounded(self, update: Update) -> Update:
        """The update as the job has it sent."""
        form = self._work.transfer
        if form is None:
            return update
        arrays = {name: tensor.numpy() for name, tensor in update.difference.items()}
        sent = {name: torch.from_numpy(one) for name, one in rounded(arrays, form).items()}
        return replace(update, difference=sent)

    def score(self, received: Weights, *, timeout: float = 0) -> EvaluationResult:
        """The metrics of a received model, by the validation of the training."""
        with self._task(SCORE, timeout):
            self._progress.task(SCORE)
            return outgoing_result(self.tasks().score(received), self.site.policy)

    def submit(self) -> BestModel:
        """This site's best model."""
        with self._task(SUBMIT):
            self._progress.task(SUBMIT)
            best = self.tasks().best()
            result = outgoing_result(best.result, self.site.policy)
            return BestModel(
                # Tensors of their own: the site's may be set aside when its turn is over.
                weights={name: tensor.detach() for name, tensor in best.weights.items()},
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
        is_anothers = not is_global and owner != self.site.name
        with self._task(VALIDATE, timeout, model=owner, is_anothers=is_anothers):
            self._progress.task(VALIDATE, model=owner)
            result = self.tasks().evaluate(weights, owner=owner)
            return outgoing_result(result, self.site.policy)

    def tensors(self) -> Iterator[torch.Tensor]:
        """What takes memory while the site waits for its next turn."""
        if self._tasks is not None:
            yield from self._tasks.tensors()

    def close(self) -> None:
        """Put the settings of the process back, and end what the run has opened."""
        if self._tasks is not None:
            self._tasks.close()

    def tasks(self) -> LocalTasks:
        """What this site does in the job, made when first needed."""
        if self._tasks is None:
            self._tasks = LocalTasks(
                self.site,
                work=LocalWork(epochs=self._epochs(), steps=self._work.steps_aggregation),
                shared=self._work.shared_names,
                process=self._process,
                observer=self._progress,
                should_stop=self._should_stop,
                built=self._storage.lend_weights,
                in_place=True,
            )
        return self._tasks

    def _epochs(self) -> int:
        return self.site.local_epochs(self._work.local_epochs)

    @contextmanager
    def _task(
        self,
        task: str,
        timeout: float = 0,
        *,
        round_number: int = 0,
        model: str = "",
        is_anothers: bool = False,
    ) -> Iterator[None]:
        """Judge a task, measure its time, and remember it once it is done.

        A task that was stopped for want of time was declined.
        """
        self._task_started = time.monotonic()
        self._deadline = self._task_started + timeout if timeout else math.inf
        try:
            self._may(task, round_number=round_number, is_anothers=is_anothers)
            self._done.require_new(task, round_number, model)
            yield
            self._done.add(task, round_number, model)
        except RunAborted as error:
            if self._out_of_time():
                raise too_long(self.site) from error
            raise
        finally:
            self._seconds += time.monotonic() - self._task_started

    def _may(self, task: str, *, round_number: int, is_anothers: bool) -> None:
        """Raise unless the site's policy allows a task at this moment."""
        if self._problems:
            raise ConfigError(self._problems)
        if self._out_of_time():
            raise too_long(self.site)
        asked = AskedTask(
            name=task,
            epochs=0 if self._work.steps_aggregation else self._epochs(),
            round_number=round_number,
            evaluations=self._done.evaluations,
            is_anothers=lambda: is_anothers,
        )
        asked.require_allowed(self.site, self._progress.path.parent)

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        """What the policy has against the MMAR; judged in this process, as a deployed site does."""
        return mmar_problems(self.site)

    def _out_of_time(self) -> bool:
        """Whether the site has worked for as long as its policy allows; sites take turns here."""
        seconds = self._seconds + time.monotonic() - self._task_started
        return seconds / 60 > self.site.policy.limits.wall_minutes

    def _should_stop(self) -> bool:
        return time.monotonic() > self._deadline or self._out_of_time()
