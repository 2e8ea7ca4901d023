"""The NVFlare executor of a site: NVFlare's messages to tasks, replies to NVFlare's messages."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

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
from fl_client.flare.result_gate import tensors_in
from fl_client.jobs.approved import job_approval_faults, job_digest
from fl_client.local_work import LocalWork
from fl_client.memory.done_tasks import DONE, facts_of
from fl_client.memory.stored_rounds import STORED, StoredRounds
from fl_client.progress import ProgressFile
from fl_client.ranks.tasks import RankTasks
from fl_client.run_watch import RunWatch
from fl_client.site import Site
from fl_client.site_session import MakeTasks, SiteSession
from fl_client.site_tasks import LocalTasks, SiteTasks
from mmar_runtime.config.sources import read_site_values
from mmar_runtime.errors import ConfigError, PolicyError, Problem, RunAborted
from mmar_runtime.exchange.arrays import pack, unpack
from mmar_runtime.exchange.job_documents import JobDocuments
from mmar_runtime.exchange.messages import (
    SCORE,
    SUBMIT,
    TASKS,
    TRAIN,
    BestModel,
    Reply,
    Score,
    Submit,
    Task,
    Train,
    Update,
    Validate,
    name_of,
)
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.flare.tensors import send_tensors
from mmar_runtime.flare.wire import SERVERS_OWN
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import site_policy
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights, digest
from mmar_runtime.workflows.observing import ShouldStop


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRun:
    """The run of a job at this site.

    Attributes:
        session: the site under its policy.
        filters: what an update passes on the way to the server.
        trains: whether the sites of the job train.
    """

    session: SiteSession
    filters: RunFilters
    trains: bool

    @classmethod
    def begun(
        cls, fl_ctx: FLContext, work: LocalWork, make_tasks: MakeTasks, should_stop: ShouldStop
    ) -> SiteRun:
        """Return the run that begins; arguments as for ``SiteSession``.

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
        documents = JobDocuments.read(site.mmar.root)
        session = SiteSession(
            site,
            replace(work, weigh_by=documents.weigh_by),
            make_tasks,
            progress=ProgressFile(run / "progress.jsonl"),
            done=done_before(fl_ctx, documents.federation.get("num_rounds")),
            watch=RunWatch(run, site.policy.limits),
            should_stop=should_stop,
        )
        filters = RunFilters.read(fl_ctx, site)
        return cls(session=session, filters=filters, trains=documents.trains)

    def judged(self, fl_ctx: FLContext) -> list[Problem]:
        """Judge the job once more, with the site's own values; the log notes the verdict.

        The site judged the job when the job arrived, and the files could have changed since then.
        """
        site = self.session.site
        startup = Path(fl_ctx.get_engine().get_workspace().get_startup_kit_dir())
        problems = [
            *self.session.problems,
            *self.filters.plan.faults(site.policy),
            *ability_faults(site.mmar.root, startup),
            *job_approval_faults(site.policy, lambda: job_digest(site.mmar.root)),
        ]
        note(
            fl_ctx,
            "mmar-judged",
            policy=site.policy.digest,
            verdict="reject" if problems else "accept",
            rules=sorted({problem.rule for problem in problems}),
        )
        return problems

    def task(self, name: str, shareable: Shareable) -> Task:
        """Return the task of a message from the server; its weights are read once it is allowed."""
        if name == SUBMIT:
            return Submit()
        if name == TRAIN:
            # NVFlare counts rounds from 0; records and people count from 1.
            number = int(shareable.get_header(AppConstants.CURRENT_ROUND)) + 1
            return Train(weights={}, round_number=number)
        if name == SCORE:
            return Score(weights={})
        owner = str(shareable.get_header(AppConstants.MODEL_OWNER))
        # In a job that does not train, the server's models are of no federation of this site.
        is_global = self.trains and owner.startswith(SERVERS_OWN)
        return Validate(weights={}, owner=owner, is_global=is_global)


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
        self._abort = Signal()
        self._leaving: Shareable | None = None
        self._is_simulated = False
        send_tensors()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Begin the site's run when NVFlare's run starts, and end it with NVFlare's.

        Between, unpack models that arrive, and pack models after the last filter has seen them.
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
        elif event_type == EventType.END_RUN and isinstance(self._run, SiteRun):
            self._run.session.close()

    def _start(self, fl_ctx: FLContext) -> None:
        self._is_simulated = bool(fl_ctx.get_prop(FLContextKey.SIMULATE_MODE, False))
        try:
            work = LocalWork(
                epochs=self.local_epochs, steps=self.steps_aggregation, shared=self.shared_names
            )
            run = SiteRun.begun(fl_ctx, work, self.make_tasks, lambda: bool(self._abort.triggered))
            problems = run.judged(fl_ctx)
            self._run = ConfigError(problems) if problems else run
        except Exception as error:  # NVFlare only logs an error of an event
            self._run = error
            raise

    def make_tasks(
        self, site: Site, work: LocalWork, progress: ProgressFile, should_stop: ShouldStop
    ) -> SiteTasks:
        """Return what does the site's work: this process, or as many as the site says."""
        if site.processes > 1:
            return RankTasks(
                site,
                work=work,
                run=progress.path.parent,
                progress=progress.path,
                should_stop=should_stop,
            )
        return LocalTasks(
            site,
            work=work,
            process=uuid.uuid4().hex[:12],
            observer=progress,
            should_stop=should_stop,
            # In a simulation nobody starts a site's process again.
            stored=None if self._is_simulated else StoredRounds(progress.path.parent / STORED),
        )

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
        """Do a task; any error becomes a return code and a status word."""
        if task_name not in TASKS:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        self._abort = abort_signal
        try:
            task = self.run.task(task_name, shareable)
            begin = partial(self._begin, shareable=shareable, fl_ctx=fl_ctx)
            reply = _message(self.run.session.do(task, begin=begin))
            note(fl_ctx, DONE, task=task_name, **facts_of(task), **_tensors(reply))
            return reply
        except RunAborted:
            return make_reply(ReturnCode.TASK_ABORTED)
        except Exception as error:
            return failure(error, task=task_name, by=self, fl_ctx=fl_ctx)

    def _begin(self, task: Task, *, shareable: Shareable, fl_ctx: FLContext) -> Task:
        """Prepare the filters and the log for an allowed task; return the task with its weights.

        Raises:
            WeightsError: see ``received_weights``.
        """
        run = self.run
        if isinstance(task, Submit):
            run.filters.require_none()
        note(fl_ctx, "task-in", task=name_of(task), **_tensors(shareable))
        if isinstance(task, Train):
            run.filters.prepare(
                fl_ctx, lambda: run.session.tasks.shared_tensors(), task.round_number
            )
        return (
            task if isinstance(task, Submit) else replace(task, weights=received_weights(shareable))
        )


def _message(reply: Reply) -> Shareable:
    """Return the message of a reply."""
    match reply:
        case Update():
            return update_reply(reply)
        case BestModel():
            meta = {"round": reply.round_number, "metrics": to_plain(reply.result.metrics)}
            return weights_reply(reply.weights, meta=meta)
        case EvaluationResult():
            return metrics_reply(reply)
    raise TypeError(f"a site does not answer with {type(reply).__name__}")


def _tensors(shareable: Shareable) -> dict[str, object]:
    """Return digest and bytes of the weights in a message; nothing if there are no weights."""
    if (arrays := tensors_in(shareable)) is None:
        return {}
    weights: Weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {"tensors": digest(weights), "bytes": sum(array.nbytes for array in arrays.values())}
