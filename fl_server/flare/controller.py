"""Carries a federated run over NVFlare: one workflow, from the first weights to the results."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, TaskCompletionStatus
from nvflare.apis.controller_spec import Task as FlareTask
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.utils.tensor_disk_offload_context import (
    cleanup_tensor_disk_offload,
    setup_tensor_disk_offload,
)
from nvflare.fuel.utils.memory_utils import try_malloc_trim

from fl_server.federation import FederatedRun, failure_reason
from fl_server.flare.encryption import server_encryption
from fl_server.flare.exchange import (
    answered_round,
    app_folder,
    as_arrays,
    cookie,
    failure_of,
    in_memory,
    job_name,
    message_of,
    received_from,
    site_names,
)
from fl_server.flare.own_aggregation import OwnAggregation, Reply, restored_reply
from fl_server.flare.wake import WakingController
from fl_server.given_models import given_models
from fl_server.initial_model import InitialModel, initial_model
from fl_server.life_signs import LifeSigns
from fl_server.record.evaluation_digest import evaluation_digest
from fl_server.record.values import CANNOT_BEGIN, MAX_FAILURE, RunRecord
from fl_server.run_files import RESULTS, RunFiles
from mmar_runtime.audit import AUDIT_FILE, AuditLog
from mmar_runtime.audit_keys import LogKey
from mmar_runtime.config.sources import read_site_values
from mmar_runtime.errors import FederationError, MmarError
from mmar_runtime.exchange.encryption_extra import EXTRA
from mmar_runtime.exchange.job_documents import JobDocuments
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import (
    SCORE,
    SUBMIT,
    TRAIN,
    VALIDATE,
    Submit,
    Task,
    Train,
    Validate,
    name_of,
)
from mmar_runtime.flare.wire import RECORD_TOPIC
from mmar_runtime.mmar import Mmar
from mmar_runtime.names import shown
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES, tree_hash
from mmar_runtime.policy.site_policy import site_policy
from mmar_runtime.weights import Weights, digest

ENGINE = "nvflare"
PACKAGES = ("mmar-fl", "torch", "monai", "pytorch-ignite", "nvflare")
SECONDS_BETWEEN_LOOKS = 0.2
"""How soon an abort or a timeout is noticed; replies are noticed at once."""

SECONDS_BETWEEN_ROSTERS = 2.0
"""How soon a site that came back is known to the job."""

LARGE = 64 * 2**20
"""Bytes of a model from which on what a round has freed is given back to the system at once."""

STANDING_MODELS = 3
"""Models that are out for evaluation at a time: so a slow site keeps no other waiting, and memory
stays bounded."""

Taken = Callable[[str, Shareable, FLContext], None]
"""``taken(site, reply, fl_ctx)``: hands a reply to the run."""


class FederationController(WakingController):
    """Asks the sites of a job for what a ``FederatedRun`` wants, and hands it their replies.

    Args:
        min_sites: contributions that a round needs; with fewer the run fails.
        num_rounds: rounds of training; 0 for a job that only has models evaluated.
        models: names of the models that the job brings along; see ``given_models``.
        aggregator: an aggregator of the job's own in place of the weighted mean; see
            ``own_aggregation``.
        wait_for_others: seconds that a task waits for further sites once ``min_sites`` replied.
        enable_tensor_disk_offload: whether NVFlare writes each update to a file as it arrives, so
            that the server reads a tensor at a time.
        **terms: further fields of ``JobTerms``.
    """

    def __init__(
        self,
        min_sites: int,
        num_rounds: int = 0,
        models: list[str] | None = None,
        aggregator: Any = None,
        wait_for_others: int = 10,
        encrypt_layers: list[str] | None = None,
        enable_tensor_disk_offload: bool = False,
        **terms: Any,
    ) -> None:
        super().__init__()
        self.terms = JobTerms(rounds=num_rounds, min_sites=min_sites, **terms)
        self.models = models or []
        self.aggregator = aggregator
        self.encrypt_layers = encrypt_layers
        self.enable_tensor_disk_offload = enable_tensor_disk_offload
        self.wait_for_others = wait_for_others
        self._run: FederatedRun | None = None
        self._own: OwnAggregation | None = None
        self._replied = threading.Event()
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._signs = LifeSigns()

    @property
    def run(self) -> FederatedRun:
        """The run of the job.

        Raises:
            FederationError: the run has not begun.
        """
        if self._run is None:
            raise FederationError("the run has not begun")
        return self._run

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """End the record with the run, however NVFlare ends it."""
        super().handle_event(event_type, fl_ctx)
        if self._run is None:
            return
        if event_type == EventType.FATAL_SYSTEM_ERROR:
            self._run.fail(str(fl_ctx.get_prop(FLContextKey.EVENT_DATA)))
        elif event_type == EventType.END_RUN:
            self._ended.set()
            try:
                self._run.fail("the run ended before its results were complete")
            finally:
                self._run.close()

    # --- begin

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Judge what the job asks for, and build its first model, before any site is asked."""
        try:
            self._run = self._begun(fl_ctx)
        except (MmarError, OSError) as error:
            reason = shown(str(error), MAX_FAILURE)
            self.system_panic(f"{CANNOT_BEGIN}: {reason}", fl_ctx)
            return
        fl_ctx.get_engine().register_app_command(RECORD_TOPIC, self._record_asked)

    def _record_asked(self, topic: str, data: object, fl_ctx: FLContext) -> dict[str, Any]:
        return self.run.record.as_dict()

    def _begun(self, fl_ctx: FLContext) -> FederatedRun:
        workspace, job = fl_ctx.get_engine().get_workspace(), fl_ctx.get_job_id()
        local, mmar = Path(workspace.get_site_config_dir()), Mmar.open(app_folder(fl_ctx))
        initial = initial_model(
            mmar,
            values=read_site_values(local, fl_ctx.get_identity_name()),
            policy=site_policy(local),
            shared=self.terms.shared_names,
            load_checkpoint=not self.models,
        )
        self._is_large = sum(tensor.nbytes for tensor in initial.weights.values()) > LARGE
        startup = Path(workspace.get_startup_kit_dir())
        encryption = (
            None
            if self.encrypt_layers is None
            else server_encryption(startup, initial.weights, self.encrypt_layers)
        )
        self._own = None if self.aggregator is None else OwnAggregation(self.aggregator)
        record = self._first_record(initial, fl_ctx, encrypted=encryption is not None)
        results = Path(workspace.get_run_dir(job)) / RESULTS
        files = RunFiles(results, initial.train_conf, durable=True)
        root = Path(workspace.get_root_dir())
        self._log, self._files = AuditLog(root / AUDIT_FILE, LogKey.of_kit(root)), files
        self._job = job
        steps = JobDocuments.read(mmar.root).executor.get("steps_aggregation", 0)
        run = FederatedRun(
            record,
            job,
            replace(self.terms, steps_aggregation=steps),
            initial,
            files,
            evaluation_sha256=evaluation_digest(mmar, shared_names=initial.shared_names),
            given=given_models(mmar, self.models, initial.weights),
            encryption=encryption,
            own_mean=None if self._own is None else partial(self._aggregated, fl_ctx, self._own),
            note=self._note,
        )
        self._note(
            "run-started",
            name=record.job,
            sites=list(record.sites),
            job_digest=tree_hash(mmar.root, leave_out=SIGNATURE_FILES),
            tensors=record.initial_weights_sha256,
            shared_names=record.shared_names and list(record.shared_names),
            encrypted=encryption and list(encryption.layout.tensors),
        )
        return run

    def _first_record(
        self, initial: InitialModel, fl_ctx: FLContext, *, encrypted: bool
    ) -> RunRecord:
        packages = (*PACKAGES, EXTRA) if encrypted else PACKAGES
        return RunRecord(
            job=job_name(fl_ctx),
            engine=ENGINE,
            started=datetime.now(UTC),
            key_metric=initial.key_metric,
            rounds_asked=self.terms.rounds,
            sites=site_names(fl_ctx),
            min_sites=self.terms.min_sites,
            versions={name: version(name) for name in packages},
            initial_weights_sha256=digest(initial.weights) if self.terms.rounds else None,
            shared_names=initial.shared_names,
            weigh_by=self.terms.weigh_by,
        )

    def _note(self, event: str, **facts: Any) -> None:
        """Have a line of the server's log written, in its turn."""

        def write() -> None:
            values = {name: fact() if callable(fact) else fact for name, fact in facts.items()}
            try:
                self._log.append(event, job=self._job, **values)
            except OSError as error:
                message = f"the audit log of this server cannot be written: {error}"
                raise FederationError(message) from error

        self._files.do(write)

    # --- the course

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Ask the sites for everything that the run wants, in order."""
        if self._run is None:
            return
        engine = fl_ctx.get_engine()
        if not fl_ctx.get_prop(FLContextKey.SIMULATE_MODE, False):  # there no heartbeats are sent
            threading.Thread(target=self._follow_roster, args=(engine,), daemon=True).start()
        offload = setup_tensor_disk_offload(engine, self.enable_tensor_disk_offload, self._job)
        try:
            self._carry(self._run, fl_ctx, abort_signal)
        except _Aborted:
            return
        except Exception as error:
            self.log_exception(fl_ctx, "the run has failed")
            self.system_panic(failure_reason(error), fl_ctx)
        finally:
            cleanup_tensor_disk_offload(engine, offload)

    def _follow_roster(self, engine: Any) -> None:
        """Learn from the server's own process which sites are there, and under which tokens."""
        while not self._ended.wait(SECONDS_BETWEEN_ROSTERS):
            try:
                engine.sync_clients_from_main_process()
            except RuntimeError as error:  # it does not answer
                self.logger.warning("the roster of the job may be old: %s", error)
            else:
                stamps = {site.name: site.last_connect_time for site in engine.get_clients()}
                self._signs.heard(stamps)

    def _carry(self, run: FederatedRun, fl_ctx: FLContext, abort: Signal) -> None:
        least, every = self.terms.min_sites, len(run.sites)
        for number in range(1, self.terms.rounds + 1):
            fl_ctx.set_prop(AppConstants.CURRENT_ROUND, number - 1, private=True, sticky=True)
            self._ask(run.open_round(), self._trained, fl_ctx, abort, least=least)
            run.close_round()
            if self._is_large:
                # NVFlare's memory_gc_rounds does that too, and has the sites wait for it.
                self._files.do(try_malloc_trim)
        if self.terms.rounds:
            self._ask(run.scores_wanted(), self._scored, fl_ctx, abort, least=least)
            run.close_scores()
            self._ask(run.models_wanted(), self._submitted, fl_ctx, abort, least=every)
        standing: deque[FlareTask] = deque()
        for task in run.cells_wanted():
            if len(standing) == STANDING_MODELS:
                self._wait(standing.popleft(), abort)
            taken = partial(self._evaluated, task.owner)
            standing.append(self._sent(task, taken, fl_ctx, least=every))
        while standing:
            self._wait(standing.popleft(), abort)
        outcome = run.end()
        if outcome.blocking:
            self.system_panic("; ".join(outcome.blocking), fl_ctx)

    def _trained(self, site: str, reply: Shareable, fl_ctx: FLContext) -> None:
        if (status := failure_of(reply)) is not None:
            self.run.absent(site, status, round_number=answered_round(reply))
            return
        kept = partial(self._kept_for_own, site, reply, fl_ctx)
        self.run.take(site, received_from(reply, fl_ctx), counted=kept)

    def _kept_for_own(self, site: str, reply: Shareable, fl_ctx: FLContext) -> None:
        if self._own is not None:
            own = in_memory(reply)
            whole = own if self.terms.transfer is None else restored_reply(own)
            self._own.add(site, Reply(shareable=whole, peer=fl_ctx.get_peer_context()))

    def _aggregated(
        self,
        fl_ctx: FLContext,
        own: OwnAggregation,
        weights: Weights,
        sites: Collection[str],
        optional: frozenset[str],
    ) -> Weights:
        """Return the mean by the job's own aggregator, which may go on with its tensors."""
        model = make_model_learnable(as_arrays(weights), {})
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model, private=True, sticky=True)
        weights = own.new_global(weights, fl_ctx, sites=sites, optional=optional)
        own.forget(fl_ctx)
        return {name: tensor.clone() for name, tensor in weights.items()}

    def _scored(self, site: str, reply: Shareable, fl_ctx: FLContext) -> None:
        if failure_of(reply) is None:
            self.run.scored(site, received_from(reply, fl_ctx))

    def _submitted(self, site: str, reply: Shareable, fl_ctx: FLContext) -> None:
        if (status := failure_of(reply)) is None:
            self.run.model(site, received_from(reply, fl_ctx))
        else:
            self.run.model_absent(site, status)

    def _evaluated(self, owner: str, site: str, reply: Shareable, fl_ctx: FLContext) -> None:
        if (status := failure_of(reply)) is None:
            self.run.cell(owner, site, received_from(reply, fl_ctx))
        else:
            self.run.cell_absent(owner, site, status)

    def _evaluated_late(self, site: str, reply: Shareable, fl_ctx: FLContext) -> None:
        self._evaluated(str(cookie(reply, AppConstants.MODEL_OWNER)), site, reply, fl_ctx)

    # --- messages

    def _ask(
        self, task: Task, taken: Taken, fl_ctx: FLContext, abort: Signal, *, least: int
    ) -> None:
        """Have the sites do a task; return when NVFlare calls the task complete."""
        self._wait(self._sent(task, taken, fl_ctx, least=least), abort)
        if isinstance(task, Train):
            for site in sorted(self._lost()):
                self.run.lost(site)

    def _sent(self, task: Task, taken: Taken, fl_ctx: FLContext, *, least: int) -> FlareTask:
        """Send a task to all sites.

        Args:
            task: what the run wants.
            taken: gets each reply.
            fl_ctx: of the workflow.
            least: replies after which the task waits for the others only a while.
        """
        encrypts = self.encrypt_layers is not None
        message = message_of(
            task,
            rounds=self.terms.rounds,
            base_model=self.run.base_model(),
            factors=self.terms.aggregation_weights if encrypts else None,
        )
        sent = FlareTask(
            name=name_of(task),
            data=message,
            timeout=math.ceil(task.timeout),  # NVFlare takes whole seconds; 0 is without end
            before_task_sent_cb=partial(self._sending, self._facts_of(task)),
            result_received_cb=partial(self._received, taken),
            task_done_cb=_let_go,
        )
        self.broadcast(sent, fl_ctx, list(self.run.sites), least, self.wait_for_others)
        return sent

    def _facts_of(self, task: Task) -> dict[str, Any]:
        """Return what the log says of a task; all sites share one digest of its model."""
        facts: dict[str, Any] = {"task": name_of(task)}
        if isinstance(task, Validate):
            facts["model"] = task.owner
        if not isinstance(task, Submit):
            facts["bytes"] = sum(tensor.nbytes for tensor in task.weights.values())
            facts["tensors"] = self.run.digest_of(task.weights)
        return facts

    def _sending(self, facts: dict[str, Any], client_task: ClientTask, fl_ctx: FLContext) -> None:
        self._done(partial(self._note, "task-out", site=client_task.client.name, **facts))

    def _received(self, taken: Taken, client_task: ClientTask, fl_ctx: FLContext) -> None:
        self._done(partial(taken, client_task.client.name, client_task.result, fl_ctx))
        client_task.result = None

    def _done(self, step: Callable[[], None]) -> None:
        """Do a step on a thread of NVFlare's; what fails in the server itself ends the run."""
        try:
            step()
        except Exception as error:
            self._failure = self._failure or error
        finally:
            self._replied.set()

    def _wait(self, sent: FlareTask, abort: Signal) -> None:
        """Return when a task is complete.

        Raises:
            _Aborted: the job is aborted.
            Exception: what failed at a reply.
        """
        while sent.completion_status is None:
            if abort.triggered or self._failure is not None:
                self.cancel_task(sent, completion_status=TaskCompletionStatus.ABORTED)
                raise self._failure or _Aborted
            self._replied.wait(SECONDS_BETWEEN_LOOKS)
            self._replied.clear()
            if self._waits_for_the_lost_alone(sent):
                self.cancel_task(sent, completion_status=TaskCompletionStatus.OK)
            # NVFlare's own thread looks five times a second. This takes the lock that the handling
            # of a reply holds, so what was just received is counted.
            self.communicator.check_tasks()
        if self._failure is not None:
            raise self._failure

    def _lost(self) -> frozenset[str]:
        """Return the sites that show no sign of life, or whose part of the job has ended."""
        ended = (site for site in self.run.sites if self.get_client_disconnect_time(site))
        return self._signs.lost().union(ended)

    def _waits_for_the_lost_alone(self, sent: FlareTask) -> bool:
        """Return whether enough sites have replied to a task, and the others are lost."""
        replied = {each.client.name for each in sent.client_tasks if each.result_received_time}
        missing = set(self.run.sites) - replied
        least = self.terms.min_sites if sent.name in (TRAIN, SCORE) else 0
        return bool(missing) and len(replied) >= least and missing <= self._lost()

    def process_result_of_unknown_task(
        self,
        client: Client,
        task_name: str,
        client_task_id: str,
        result: Shareable,
        fl_ctx: FLContext,
    ) -> None:
        """Hand over a reply to a task that is complete; the run knows what is too late."""
        late = {
            TRAIN: self._trained,
            SCORE: self._scored,
            SUBMIT: self._submitted,
            VALIDATE: self._evaluated_late,
        }
        if self._run is not None and client.name in self._run.sites and task_name in late:
            self._done(partial(late[task_name], client.name, result, fl_ctx))
        else:
            self.log_warning(fl_ctx, f"late reply of {client.name} to {task_name} is not used")

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Do nothing: the end of the run, which may come without this call, closes everything."""


def _let_go(task: FlareTask, fl_ctx: FLContext) -> None:
    """Drop the model of a task: task and replies name each other, so it would stay for long."""
    task.data = None
    task.before_task_sent_cb = None  # it knows the model, for the log


class _Aborted(Exception):
    """The job is aborted."""
