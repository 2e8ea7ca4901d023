"""The NVFlare executor of a site: tasks in, replies out, everything else is ``fl_client``'s."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from fl_client.done_tasks import DONE, DoneTasks
from fl_client.flare.audit import done_before, note
from fl_client.flare.encryption_keys import ability_faults
from fl_client.flare.exchange import (
    metrics_reply,
    received_weights,
    update_reply,
    weights_reply,
)
from fl_client.flare.failure import failure
from fl_client.flare.privacy import RunFilters
from fl_client.jobs.approved import job_approval_faults, job_digest
from fl_client.local_training import LocalWork
from fl_client.outgoing import outgoing_result, outgoing_update
from fl_client.progress import ProgressFile
from fl_client.ranks.tasks import RankTasks
from fl_client.run_watch import RunWatch
from fl_client.site import Site
from fl_client.site_tasks import LocalTasks, SiteTasks
from fl_client.task_limits import (
    AskedTask,
    mmar_problems,
    over_limit,
)
from mmar_runtime.config.sources import read_site_values
from mmar_runtime.errors import ConfigError, PolicyError, Problem, RunAborted
from mmar_runtime.exchange.arrays import pack, unpack
from mmar_runtime.exchange.job_documents import JobDocuments
from mmar_runtime.exchange.messages import SCORE, SUBMIT, TRAIN, VALIDATE
from mmar_runtime.flare.tensors import send_tensors
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import site_policy
from mmar_runtime.weights import Weights, digest

SERVERS_OWN = "SRV_"
"""How NVFlare begins the names of the global models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRun:
    """The run of a job at this site.

    Attributes:
        site: where this is.
        filters: what stands between a contribution and the server.
        progress: where the progress of the site is reported.
        done: the tasks that the site has done in the job.
        watch: measures what the run takes of the site.
    """

    site: Site
    filters: RunFilters
    progress: ProgressFile
    done: DoneTasks
    watch: RunWatch

    @classmethod
    def begun(cls, fl_ctx: FLContext) -> SiteRun:
        """The run that begins.

        Raises:
            ConfigError: the site's values or policy, or the documents of the job, have a fault.
            OSError: the site's audit log cannot be read.
        """
        workspace = fl_ctx.get_engine().get_workspace()
        name, job = fl_ctx.get_identity_name(), fl_ctx.get_job_id()
        local, run = Path(workspace.get_site_config_dir()), Path(workspace.get_run_dir(job))
        site = Site(
            name=name,
            mmar=Mmar.open(workspace.get_app_dir(job)),
            values=read_site_values(local, name),
            policy=site_policy(local),
        )
        rounds = JobDocuments.read(site.mmar.root).federation.get("num_rounds")
        return cls(
            site=site,
            filters=RunFilters.read(fl_ctx, site),
            progress=ProgressFile(run / "progress.jsonl"),
            done=done_before(fl_ctx, rounds),
            watch=RunWatch(run, site.policy.limits),
        )

    def judged(self, fl_ctx: FLContext) -> list[Problem]:
        """Judge the MMAR once more, with the site's own values; the log notes the verdict.

        What was judged when the job arrived lay on the disk since then, and this text stays here.
        """
        policy, app = self.site.policy, self.site.mmar.root
        startup = Path(fl_ctx.get_engine().get_workspace().get_startup_kit_dir())
        problems = [
            *mmar_problems(self.site),
            *self.filters.plan.faults(policy),
            *ability_faults(app, startup),
            *job_approval_faults(policy, lambda: job_digest(app)),
        ]
        note(
            fl_ctx,
            "mmar-judged",
            policy=policy.digest,
            verdict="reject" if problems else "accept",
            rules=sorted({one.rule for one in problems}),
        )
        return problems


class MmarExecutor(Executor):
    """Trains, scores, submits and validates for one site; builds each engine once in a job.

    Args:
        local_epochs: epochs that a round trains, unless the site has a number of its own.
        steps_aggregation: optimizer steps that a round trains; 0 means whole epochs.
        shared_names: the tensors that the sites share, by exact name or with ``*`` for any
            characters; None for all. The server's workflow has the same argument.
    """

    def __init__(
        self,
        local_epochs: int = 1,
        steps_aggregation: int = 0,
        shared_names: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.shared_names = shared_names
        self.local_epochs = local_epochs
        self.steps_aggregation = steps_aggregation
        self._run: SiteRun | Exception = PolicyError("this job was not judged at this site")
        self._tasks: SiteTasks | None = None
        self._abort = Signal()
        self._leaving: Shareable | None = None
        send_tensors()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Find out where this is when the run starts; put process settings back at its end.

        Between, change models from the form in which they travel, and back behind the last look.
        """
        if event_type == EventType.START_RUN:
            self._start(fl_ctx)
        elif event_type == EventType.BEFORE_TASK_DATA_FILTER:
            unpack(fl_ctx.get_prop(FLContextKey.TASK_DATA))
        elif event_type == EventType.AFTER_TASK_RESULT_FILTER:
            self._leaving = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        elif event_type == EventType.BEFORE_SEND_TASK_RESULT:
            leaving, self._leaving = self._leaving, None
            pack(leaving)
        elif event_type == EventType.END_RUN and self._tasks is not None:
            self._tasks.close()

    def _start(self, fl_ctx: FLContext) -> None:
        try:
            run = SiteRun.begun(fl_ctx)
            problems = run.judged(fl_ctx)
            self._run = ConfigError(problems) if problems else run
        except Exception as error:  # NVFlare logs it, as it is one of an event, and goes on
            self._run = error
            raise

    @property
    def run(self) -> SiteRun:
        """The run that this site takes part in.

        Raises:
            Exception: why it takes no part: no run has started, or the job is refused.
        """
        if isinstance(self._run, Exception):
            raise self._run
        return self._run

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Do a task; whatever goes wrong becomes a return code and a status word."""
        tasks = {
            TRAIN: self._train,
            SCORE: self._score,
            SUBMIT: self._submit,
            VALIDATE: self._validate,
        }
        if task_name not in tasks:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        self._abort = abort_signal
        try:
            self._may(task_name, shareable)
            if task_name == SUBMIT:
                self.run.filters.require_none()
            note(fl_ctx, "task-in", task=task_name, **_tensors(shareable))
            if task_name == TRAIN:
                self.run.filters.prepare(
                    fl_ctx, lambda: self.tasks().shared_tensors(), _round_of(shareable)
                )
            reply = tasks[task_name](shareable)
            self._remember(task_name, shareable, fl_ctx, **_tensors(reply))
            return reply
        except RunAborted as aborted:
            if passed := self.run.watch.passed_limit():
                error = over_limit(passed)
                error.__cause__ = aborted
                return failure(error, task=task_name, by=self, fl_ctx=fl_ctx)
            return make_reply(ReturnCode.TASK_ABORTED)
        except Exception as error:
            return failure(error, task=task_name, by=self, fl_ctx=fl_ctx)

    def _may(self, task: str, shareable: Shareable) -> None:
        """Raise unless the job was judged and the site's policy allows this task at this moment."""
        run = self.run
        if over := run.watch.time_is_over():
            raise over_limit(over)
        epochs = run.site.local_epochs(self.local_epochs)
        asked = AskedTask(
            name=task,
            epochs=0 if self.steps_aggregation else epochs,
            round_number=_round_of(shareable) if task == TRAIN else 0,
            evaluations=run.done.evaluations,
            is_anothers=lambda: self._is_anothers(shareable),
        )
        asked.require_allowed(run.site, run.progress.path.parent)
        run.done.require_new(task, asked.round_number, _model_of(shareable))

    def _remember(
        self, task: str, shareable: Shareable, fl_ctx: FLContext, **facts: object
    ) -> None:
        """Note a task that is done, before its reply leaves."""
        round_number = _round_of(shareable) if task == TRAIN else 0
        if task == TRAIN:
            facts["round"] = round_number
        if task == VALIDATE:
            facts["model"] = _model_of(shareable)
        note(fl_ctx, DONE, task=task, **facts)
        self.run.done.add(task, round_number, _model_of(shareable))

    def _is_anothers(self, shareable: Shareable) -> bool:
        """Whether a model is neither this site's nor of a training that it takes part in."""
        owner = _model_of(shareable)
        if owner.startswith(SERVERS_OWN):
            return not JobDocuments.read(self.run.site.mmar.root).trains
        return owner != self.run.site.name

    def _should_stop(self) -> bool:
        return bool(self._abort.triggered) or self.run.watch.passed_limit() is not None

    def tasks(self) -> SiteTasks:
        """What this site does in the job, made when first needed."""
        if self._tasks is None:
            site = self.run.site
            epochs = site.local_epochs(self.local_epochs)
            work = LocalWork(epochs=epochs, steps=self.steps_aggregation)
            self._tasks = self._several(work) if site.processes > 1 else self._single(work)
        return self._tasks

    def _single(self, work: LocalWork) -> SiteTasks:
        return LocalTasks(
            self.run.site,
            work=work,
            shared=self.shared_names,
            process=uuid.uuid4().hex[:12],
            observer=self.run.progress,
            should_stop=self._should_stop,
        )

    def _several(self, work: LocalWork) -> SiteTasks:
        return RankTasks(
            self.run.site,
            work=work,
            shared=self.shared_names,
            run=self.run.progress.path.parent,
            progress=self.run.progress.path,
            should_stop=self._should_stop,
        )

    def _train(self, shareable: Shareable) -> Shareable:
        round_number = _round_of(shareable)
        self.run.progress.round_number = round_number
        self.run.progress.task(TRAIN)
        update = self.tasks().train(received_weights(shareable), round_number)
        return update_reply(outgoing_update(update, self.run.site.policy))

    def _score(self, shareable: Shareable) -> Shareable:
        self.run.progress.task(SCORE)
        result = self.tasks().score(received_weights(shareable))
        return metrics_reply(outgoing_result(result, self.run.site.policy))

    def _submit(self, shareable: Shareable) -> Shareable:
        self.run.progress.task(SUBMIT)
        best = self.tasks().best()
        result = outgoing_result(best.result, self.run.site.policy)
        meta = {"round": best.round_number, "metrics": dict(result.metrics)}
        return weights_reply(best.weights, meta=meta)

    def _validate(self, shareable: Shareable) -> Shareable:
        owner = _model_of(shareable)
        self.run.progress.task(VALIDATE, model=owner)
        result = self.tasks().evaluate(received_weights(shareable), owner=owner)
        return metrics_reply(outgoing_result(result, self.run.site.policy))


def _round_of(shareable: Shareable) -> int:
    """NVFlare counts rounds from 0; records and people count from 1."""
    return int(shareable.get_header(AppConstants.CURRENT_ROUND)) + 1


def _model_of(shareable: Shareable) -> str:
    """The name of the model that is to be evaluated."""
    return str(shareable.get_header(AppConstants.MODEL_OWNER))


def _tensors(shareable: Shareable) -> dict[str, object]:
    """Digest and bytes of the weights that a message carries; nothing where it carries none."""
    dxo = shareable.get("DXO")
    data = dxo.get("data") if isinstance(dxo, dict) else None
    if not isinstance(data, dict) or not all(isinstance(one, np.ndarray) for one in data.values()):
        return {}
    weights: Weights = {name: torch.from_numpy(array) for name, array in data.items()}
    return {"tensors": digest(weights), "bytes": sum(array.nbytes for array in data.values())}
