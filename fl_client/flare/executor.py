"""The NVFlare executor of a site: tasks in, replies out, everything else is ``fl_client``'s."""

from __future__ import annotations

import uuid
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

from fl_client.approved_jobs import job_approval_faults, job_digest
from fl_client.client_config import job_trains, rounds_of
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
from fl_client.local_training import LocalWork
from fl_client.outgoing import outgoing_result, outgoing_update
from fl_client.progress import ProgressFile
from fl_client.ranks.tasks import RankTasks
from fl_client.run_watch import RunWatch
from fl_client.site import Site
from fl_client.site_tasks import LocalTasks, SiteTasks
from fl_client.task_limits import (
    SCORE,
    SUBMIT,
    TRAIN,
    VALIDATE,
    AskedTask,
    mmar_problems,
    over_limit,
    refusal,
)
from mmar_runtime.config.sources import read_site_values
from mmar_runtime.errors import ConfigError, MmarError, PolicyError, RunAborted
from mmar_runtime.flare.tensors import send_tensors
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import site_policy
from mmar_runtime.weights import Weights, digest
from mmar_runtime.wire import pack, unpack

SERVERS_OWN = "SRV_"
"""How NVFlare begins the names of the global models."""


class MmarExecutor(Executor):
    """Trains, scores, submits and validates for one site; builds each engine once in a job.

    Args:
        local_epochs: epochs that a round trains, unless the site has a number of its own.
        steps_aggregation: optimizer steps that a round trains; 0 means whole epochs.
        shared_names: the tensors that the sites share, by exact name or with ``*`` for any
            characters; None for all. The server's persistor has the same argument.
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
        self._tasks: SiteTasks | None = None
        self._abort: Signal | None = None
        self._leaving: Shareable | None = None
        send_tensors()
        self._site: Site | None = None
        self._filters: RunFilters | None = None
        self._progress: ProgressFile | None = None
        self._done = DoneTasks((), None)
        self._watch: RunWatch | None = None
        self._refusal: Exception | None = PolicyError("this job was not judged at this site")

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
        workspace = fl_ctx.get_engine().get_workspace()
        name, job_id = fl_ctx.get_identity_name(), fl_ctx.get_job_id()
        local = Path(workspace.get_site_config_dir())
        self._site = Site(
            name=name,
            mmar=Mmar.open(workspace.get_app_dir(job_id)),
            values=read_site_values(local, name),
            policy=site_policy(local),
        )
        run = Path(workspace.get_run_dir(job_id))
        self._progress = ProgressFile(run / "progress.jsonl")
        self._watch = RunWatch(run, self._site.policy.limits)
        try:
            self._done = done_before(fl_ctx, rounds_of(self._site.mmar))
            self._refusal = self._judged(fl_ctx)
        except Exception as error:  # NVFlare logs it, as it is one of an event, and goes on
            self._refusal = error
            raise

    def _judged(self, fl_ctx: FLContext) -> ConfigError | None:
        """Judge the MMAR once more in this process, with the site's own values.

        What was judged when the job arrived lay on the disk since then, and this text stays here.
        """
        policy = self.site.policy
        startup = Path(fl_ctx.get_engine().get_workspace().get_startup_kit_dir())
        self._filters = RunFilters.read(fl_ctx, self.site)
        problems = [
            *mmar_problems(self.site),
            *self.filters.plan.faults(policy),
            *ability_faults(self.site.mmar.root, startup),
            *job_approval_faults(policy, lambda: job_digest(self.site.mmar.root)),
        ]
        note(
            fl_ctx,
            "mmar-judged",
            policy=policy.digest,
            verdict="reject" if problems else "accept",
            rules=sorted({one.rule for one in problems}),
        )
        return refusal(problems)

    @property
    def site(self) -> Site:
        """This site.

        Raises:
            MmarError: no run has started.
        """
        if self._site is None:
            raise MmarError("no run has started at this site")
        return self._site

    @property
    def filters(self) -> RunFilters:
        """What stands between a contribution and the server.

        Raises:
            MmarError: no run has started.
        """
        if self._filters is None:
            raise MmarError("no run has started at this site")
        return self._filters

    @property
    def progress(self) -> ProgressFile:
        """Where this site's progress is told.

        Raises:
            MmarError: no run has started.
        """
        if self._progress is None:
            raise MmarError("no run has started at this site")
        return self._progress

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
                self.filters.require_none()
            note(fl_ctx, "task-in", task=task_name, **_tensors(shareable))
            if task_name == TRAIN:
                self.filters.prepare(
                    fl_ctx, lambda: self.tasks().shared_tensors(), _round_of(shareable)
                )
            reply = tasks[task_name](shareable)
            self._remember(task_name, shareable, fl_ctx, **_tensors(reply))
            return reply
        except RunAborted as aborted:
            if passed := self._passed_limit():
                error = over_limit(passed)
                error.__cause__ = aborted
                return failure(error, task=task_name, by=self, fl_ctx=fl_ctx)
            return make_reply(ReturnCode.TASK_ABORTED)
        except Exception as error:
            return failure(error, task=task_name, by=self, fl_ctx=fl_ctx)
        finally:
            self._abort = None

    def _may(self, task: str, shareable: Shareable) -> None:
        """Raise unless the job was judged and the site's policy allows this task at this moment."""
        if self._refusal is not None:
            raise self._refusal
        if self._watch is not None and (over := self._watch.time_is_over()):
            raise over_limit(over)
        epochs = self.site.local_epochs(self.local_epochs)
        asked = AskedTask(
            name=task,
            epochs=0 if self.steps_aggregation else epochs,
            round_number=_round_of(shareable) if task == TRAIN else 0,
            evaluations=self._done.evaluations,
            is_anothers=lambda: self._is_anothers(shareable),
        )
        asked.require_allowed(self.site, self.progress.path.parent)
        self._done.require_new(task, asked.round_number, _model_of(shareable))

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
        self._done.add(task, round_number, _model_of(shareable))

    def _is_anothers(self, shareable: Shareable) -> bool:
        """Whether a model is neither this site's nor of a training that it takes part in."""
        owner = _model_of(shareable)
        if owner.startswith(SERVERS_OWN):
            return not job_trains(self.site.mmar)
        return owner != self.site.name

    def _passed_limit(self) -> str | None:
        return None if self._watch is None else self._watch.passed_limit()

    def _should_stop(self) -> bool:
        aborted = self._abort is not None and bool(self._abort.triggered)
        return aborted or self._passed_limit() is not None

    def tasks(self) -> SiteTasks:
        """What this site does in the job, made when first needed."""
        if self._tasks is None:
            epochs = self.site.local_epochs(self.local_epochs)
            work = LocalWork(epochs=epochs, steps=self.steps_aggregation)
            self._tasks = self._several(work) if self.site.processes > 1 else self._single(work)
        return self._tasks

    def _single(self, work: LocalWork) -> SiteTasks:
        return LocalTasks(
            self.site,
            work=work,
            shared=self.shared_names,
            process=uuid.uuid4().hex[:12],
            observer=self.progress,
            should_stop=self._should_stop,
        )

    def _several(self, work: LocalWork) -> SiteTasks:
        return RankTasks(
            self.site,
            work=work,
            shared=self.shared_names,
            run=self.progress.path.parent,
            progress=self.progress.path,
            should_stop=self._should_stop,
        )

    def _train(self, shareable: Shareable) -> Shareable:
        round_number = _round_of(shareable)
        self.progress.round_number = round_number
        self.progress.task(TRAIN)
        update = self.tasks().train(received_weights(shareable), round_number)
        return update_reply(outgoing_update(update, self.site.policy))

    def _score(self, shareable: Shareable) -> Shareable:
        self.progress.task(SCORE)
        result = self.tasks().score(received_weights(shareable))
        return metrics_reply(outgoing_result(result, self.site.policy))

    def _submit(self, shareable: Shareable) -> Shareable:
        self.progress.task(SUBMIT)
        best = self.tasks().best()
        result = outgoing_result(best.result, self.site.policy)
        meta = {"round": best.round_number, "metrics": dict(result.metrics)}
        return weights_reply(best.weights, meta=meta)

    def _validate(self, shareable: Shareable) -> Shareable:
        owner = _model_of(shareable)
        self.progress.task(VALIDATE, model=owner)
        result = self.tasks().evaluate(received_weights(shareable), owner=owner)
        return metrics_reply(outgoing_result(result, self.site.policy))


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
