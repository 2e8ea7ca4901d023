"""A site under its policy: a task comes in, a reply that may leave the site goes out.

Nothing here knows how tasks and replies travel.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cached_property
from typing import TypeAlias

from fl_client.local_work import LocalWork
from fl_client.memory.done_tasks import DoneTasks
from fl_client.outgoing import outgoing_model, outgoing_result, outgoing_update
from fl_client.progress import ProgressFile
from fl_client.run_watch import RunWatch
from fl_client.site import Site
from fl_client.site_tasks import SiteTasks
from fl_client.task_limits import mmar_problems, over_limit, require_allowed
from mmar_runtime.errors import ConfigError, Problem, RunAborted
from mmar_runtime.exchange.messages import (
    Reply,
    Score,
    Submit,
    Task,
    Train,
    Validate,
    name_of,
)
from mmar_runtime.workflows.observing import ShouldStop

MakeTasks: TypeAlias = Callable[[Site, LocalWork, ProgressFile, ShouldStop], SiteTasks]


class SiteSession:
    """A site's part in one job, under the site's policy.

    Args:
        site: the site.
        work: what the job asks of each site.
        make_tasks: makes what does the work, when the first task needs it.
        progress: where the session reports progress; the run writes into the same folder.
        done: the tasks that the site has done in the job.
        watch: measures what the run takes of the site.
        should_stop: asked between iterations, next to the limits of policy and task.
    """

    def __init__(
        self,
        site: Site,
        work: LocalWork,
        make_tasks: MakeTasks,
        *,
        progress: ProgressFile,
        done: DoneTasks,
        watch: RunWatch,
        should_stop: ShouldStop = lambda: False,
    ) -> None:
        self.site = site
        self._work = work
        self._make_tasks = make_tasks
        self._progress = progress
        self._done = done
        self._watch = watch
        self._stopped = should_stop
        self._tasks: SiteTasks | None = None
        self._deadline = math.inf

    def do(self, task: Task, *, begin: Callable[[Task], Task] = lambda task: task) -> Reply:
        """Do a task that the site's policy allows; each task once.

        The tensors of a reply may lie in the memory of a network: they hold until the next task.

        Args:
            task: what the server asks for.
            begin: called once the task is allowed, before the site does anything for it; returns
                the task with its weights, which nobody has read before.

        Raises:
            PolicyError: the policy does not allow the task, or the site has done it already.
            MmarError: see ``SiteTasks``.
            RunAborted: ``should_stop`` said so, or the task's time is over.
        """
        self._deadline = time.monotonic() + task.timeout if task.timeout else math.inf
        try:
            self._require_allowed(task)
            reply = self._reply(begin(task))
        except RunAborted as aborted:
            if passed := self._watch.passed_limit():
                raise over_limit(passed) from aborted
            raise
        self._done.add(task)
        return reply

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """What the policy has against the MMAR, judged in this process."""
        return mmar_problems(self.site)

    @property
    def tasks(self) -> SiteTasks:
        """What does the site's work in the job."""
        if self._tasks is None:
            work = self._work.at(self.site)
            self._tasks = self._make_tasks(self.site, work, self._progress, self.should_stop)
        return self._tasks

    def should_stop(self) -> bool:
        """Return whether the task at work has to end; asked between iterations."""
        return (
            self._stopped()
            or time.monotonic() > self._deadline
            or self._watch.passed_limit() is not None
        )

    def close(self) -> None:
        """Give back what the tasks have taken; the site gets no task afterwards."""
        if self._tasks is not None:
            self._tasks.close()

    def _require_allowed(self, task: Task) -> None:
        """Raise unless the site's policy allows the task at this moment."""
        if self.problems:
            raise ConfigError(self.problems)
        if over := self._watch.time_is_over():
            raise over_limit(over)
        require_allowed(
            task,
            self._work.at(self.site),
            self.site,
            evaluations=self._done.evaluations,
            run=self._progress.path.parent,
        )
        self._done.require_new(task)

    def _reply(self, task: Task) -> Reply:
        if isinstance(task, Train):
            self._progress.round_number = task.round_number
        self._progress.task(name_of(task), model=task.owner if isinstance(task, Validate) else "")
        policy = self.site.policy
        match task:
            case Train():
                return outgoing_update(self.tasks.train(task.weights, task.round_number), policy)
            case Score():
                return outgoing_result(self.tasks.score(task.weights), policy)
            case Submit():
                return outgoing_model(self.tasks.best(), policy)
            case Validate():
                return outgoing_result(self.tasks.evaluate(task.weights, owner=task.owner), policy)
