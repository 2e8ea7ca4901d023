"""Listens to NVFlare's workflow and keeps the run record, the best model and the matrix."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from fl_server.flare.aggregator import aggregator_of
from fl_server.flare.audit import note
from fl_server.flare.exchange import (
    answered_round,
    app_folder,
    failure_of,
    global_digest,
    job_name,
    metrics_from,
    round_number,
    sender,
    site_model_from,
    site_names,
    update_from,
)
from fl_server.flare.later import begin, end, finish, write_later
from fl_server.flare.persistor import MmarModelPersistor, results_folder
from fl_server.model_selection import ModelSelection
from fl_server.received_update import contribution_from
from fl_server.record.cross_site import expected_models
from fl_server.record.cross_site_results import CrossSiteResults, MatrixRows
from fl_server.record.evaluation_digest import evaluation_digest
from fl_server.record.run_record import (
    RECORD_TOPIC,
    RecordFile,
    RunRecorder,
    SiteAbsence,
    begin_run,
)
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.encryption_extra import EXTRA
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.tree_hash import SIGNATURE_FILES, tree_hash
from mmar_runtime.weights import digest

ENGINE = "nvflare"
PACKAGES = ("mmar-fl", "torch", "monai", "pytorch-ignite", "nvflare")

SERVER_PREFIX = "SRV_"
"""What NVFlare puts before the names of the server's models."""

SENDER = "mmar_sender"
"""The site that a reply came from, in the context of that reply."""

MODEL_SCORED = "mmar_model_scored"
"""A site has scored the last global model; the reply is the validation result in the context."""

ALL_SCORED = "mmar_all_scored"
"""No further scores of the last global model will come."""


class RunRecordKeeper(FLComponent):
    """Owns the run record while the workflows run.

    Args:
        min_sites: contributions that a round needs, and values of a model of the server.
        num_rounds: rounds that the job asks for; 0 where it only evaluates given models.
        persistor_id: the component that keeps the models.
        aggregator_id: the component that knows why a contribution was rejected.
    """

    def __init__(
        self,
        min_sites: int,
        num_rounds: int = 0,
        persistor_id: str = "persistor",
        aggregator_id: str = "aggregator",
    ) -> None:
        super().__init__()
        self.min_sites = min_sites
        self.num_rounds = num_rounds
        self.persistor_id = persistor_id
        self.aggregator_id = aggregator_id
        self._recorder: RunRecorder | None = None
        self._file: RecordFile | None = None
        self._selection: ModelSelection | None = None
        self.cross_site = CrossSiteResults()
        # Replies of sites are handled on threads of their own; a handler may fire further events.
        self._lock = threading.RLock()

    @property
    def recorder(self) -> RunRecorder:
        """The record's owner.

        Raises:
            FederationError: no round has started.
        """
        if self._recorder is None:
            raise FederationError("no round has started, so there is no run record")
        return self._recorder

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Write down what happens."""
        handlers = {
            EventType.START_RUN: self._run_starts,
            AppEventType.ROUND_STARTED: self._round_started,
            EventType.BEFORE_TASK_RESULT_FILTER: self._reply_came,
            EventType.BEFORE_PROCESS_SUBMISSION: self._reply_arrived,
            AppEventType.AFTER_CONTRIBUTION_ACCEPT: self._contribution_handled,
            AppEventType.BEFORE_AGGREGATION: self._received_model_scored,
            AppEventType.ROUND_DONE: self._round_done,
            MODEL_SCORED: self._last_model_scored,
            ALL_SCORED: self._all_scored,
            AppEventType.CROSS_VAL_INIT: self._validation_begins,
            AppEventType.RECEIVE_BEST_MODEL: self._site_model_arrived,
            AppEventType.VALIDATION_RESULT_RECEIVED: self._cell_arrived,
            EventType.FATAL_SYSTEM_ERROR: self._run_failed,
            EventType.END_RUN: self._run_ended,
        }
        handler = handlers.get(event_type)
        if handler is None:
            return
        with self._lock:
            try:
                handler(fl_ctx)
            except Exception as error:
                # NVFlare logs what a handler raises and goes on; a record with a hole is no record.
                self.log_exception(fl_ctx, f"the run record cannot be kept: {error}")
                self.system_panic(f"the run record cannot be kept: {error}", fl_ctx)

    def _run_starts(self, fl_ctx: FLContext) -> None:
        """Let an admin ask the running job for its record; write later from now on."""
        begin(fl_ctx)
        fl_ctx.get_engine().register_app_command(RECORD_TOPIC, self._record_asked)

    def _record_asked(self, topic: str, data: object, fl_ctx: FLContext) -> dict[str, Any]:
        with self._lock:
            return {} if self._recorder is None else self._recorder.record.as_dict()

    def _persistor(self, fl_ctx: FLContext) -> MmarModelPersistor:
        persistor = fl_ctx.get_engine().get_component(self.persistor_id)
        if not isinstance(persistor, MmarModelPersistor):
            raise FederationError(f"the component {self.persistor_id!r} is no MmarModelPersistor")
        return persistor

    def _key_metric(self, fl_ctx: FLContext) -> str:
        return self._persistor(fl_ctx).initial.key_metric

    def _begin(self, fl_ctx: FLContext) -> RunRecorder:
        encryption = self._persistor(fl_ctx).encryption
        packages = PACKAGES if encryption is None else (*PACKAGES, EXTRA)
        record = begin_run(
            job=job_name(fl_ctx),
            engine=ENGINE,
            started=datetime.now(UTC),
            key_metric=self._key_metric(fl_ctx),
            rounds_asked=self.num_rounds,
            sites=site_names(fl_ctx),
            min_sites=self.min_sites,
            versions={name: version(name) for name in packages},
            initial_weights_sha256=global_digest(fl_ctx) if self.num_rounds else None,
            shared_names=self._persistor(fl_ctx).initial.shared_names,
        )
        note(
            self,
            fl_ctx,
            "run-started",
            name=record.job,
            sites=list(record.sites),
            job_digest=tree_hash(app_folder(fl_ctx), leave_out=SIGNATURE_FILES),
            tensors=record.initial_weights_sha256,
            shared_names=record.shared_names and list(record.shared_names),
            encrypted=encryption and list(encryption.layout.tensors),
        )
        return RunRecorder(record)

    def _round_started(self, fl_ctx: FLContext) -> None:
        if self._recorder is None:
            self._recorder = self._begin(fl_ctx)
            self._selection = ModelSelection(self._recorder, self._key_metric(fl_ctx))
        self.recorder.start_round(round_number(fl_ctx))
        self._write(fl_ctx)

    def _validation_begins(self, fl_ctx: FLContext) -> None:
        """Where there are no rounds, this is the start of the run."""
        if self.num_rounds == 0:
            self._recorder = self._begin(fl_ctx)
            self._write(fl_ctx)

    def _reply_came(self, fl_ctx: FLContext) -> None:
        """A filter that fails leaves a reply without its sender, so that is kept beside it."""
        came = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        fl_ctx.set_prop(SENDER, sender(came), private=True, sticky=False)

    def _reply_arrived(self, fl_ctx: FLContext) -> None:
        """A site that could not train is recorded here; the workflow tells nobody else."""
        if fl_ctx.get_prop(FLContextKey.TASK_NAME) != AppConstants.TASK_TRAIN:
            return
        result, site = fl_ctx.get_prop(FLContextKey.TASK_RESULT), fl_ctx.get_prop(SENDER)
        failure = failure_of(result)
        if failure is not None and self._is_awaited(result, site):
            self.recorder.failed(site, failure)
            self._write(fl_ctx)

    def _is_awaited(self, reply: Shareable, site: str) -> bool:
        """Whether a reply is a site's first to the open round; a straggler's may be to another."""
        record = None if self._recorder is None else self._recorder.record
        current = None if record is None else record.open_round
        if record is None or current is None or site not in set(record.sites) - set(current.sites):
            return False
        return answered_round(reply) in (None, current.number)

    def _contribution_handled(self, fl_ctx: FLContext) -> None:
        reply = fl_ctx.get_prop(AppConstants.TRAINING_RESULT)
        site = sender(reply)
        if not fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED):
            aggregator = aggregator_of(fl_ctx.get_engine(), self.aggregator_id)
            if self._is_awaited(reply, site):
                self.recorder.rejected(site, aggregator.rejections.get(site, "no reason given"))
                self._write(fl_ctx)
            return
        contribution = contribution_from(update_from(reply))
        number = round_number(fl_ctx)
        if self._is_awaited(reply, site):
            self.recorder.contribution(site, contribution)
        else:  # it failed, or seemed to, and has contributed after all
            self.recorder.changed(site, contribution)
        self.recorder.score(number - 1, site, contribution.received_metrics)
        self._write(fl_ctx)

    def _received_model_scored(self, fl_ctx: FLContext) -> None:
        """The global model is still the received one here, so it can be kept if it is best."""
        aggregator = aggregator_of(fl_ctx.get_engine(), self.aggregator_id)
        for site, reason in aggregator.settle(fl_ctx).items():
            self.recorder.changed(site, SiteAbsence(status="rejected", reason=reason))
            self._write(fl_ctx)
        self._select(round_number(fl_ctx) - 1, fl_ctx)

    def _select(self, number: int, fl_ctx: FLContext) -> None:
        if self._selection is not None and self._selection.is_best(number):
            self.fire_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, fl_ctx)

    def _round_done(self, fl_ctx: FLContext) -> None:
        self.recorder.close_round(global_digest(fl_ctx))
        self._write(fl_ctx)

    def _last_model_scored(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(AppConstants.VALIDATION_RESULT)
        if failure_of(result) is None:
            number = len(self.recorder.record.rounds)
            self.recorder.score(number, sender(result), metrics_from(result))
            self._write(fl_ctx)

    def _all_scored(self, fl_ctx: FLContext) -> None:
        self._select(len(self.recorder.record.rounds), fl_ctx)
        self._write(fl_ctx)

    def _site_model_arrived(self, fl_ctx: FLContext) -> None:
        """A site's best model is kept beside the global ones."""
        result = fl_ctx.get_prop(AppConstants.RECEIVED_MODEL)
        site = str(fl_ctx.get_prop(AppConstants.RECEIVED_MODEL_OWNER))
        failure = failure_of(result)
        if failure is not None:
            self.cross_site.model_failed(site, failure)
            return
        try:
            model = site_model_from(result)
            self.recorder.local_best(site, model.round_number, model.metrics)
        except FederationError as error:
            self.cross_site.fell_short(f"{site} submitted no usable model: {error}")
            return
        self._persistor(fl_ctx).write(site, model.weights, fl_ctx)
        self._write(fl_ctx)

    def _cell_arrived(self, fl_ctx: FLContext) -> None:
        model = str(fl_ctx.get_prop(AppConstants.MODEL_OWNER)).removeprefix(SERVER_PREFIX)
        site = str(fl_ctx.get_prop(AppConstants.DATA_CLIENT))
        result = fl_ctx.get_prop(AppConstants.VALIDATION_RESULT)
        failure = failure_of(result)
        if failure is not None:
            self.cross_site.cell_failed(model, site, failure)
            return
        self.cross_site.cell(model, site, metrics_from(result))

    def publish(self, fl_ctx: FLContext) -> tuple[str, ...]:
        """Write record and matrix; returns what keeps the run from having ended well.

        See ``CrossSiteResults.publish``.

        Raises:
            FederationError: no round has started, or something could not be written.
        """
        with self._lock:
            outcome = self.cross_site.publish(
                self.recorder.record,
                results_folder(fl_ctx),
                rows=self._rows(fl_ctx),
                min_sites=self.min_sites,
            )
            for sentence in outcome.told:
                self.log_warning(fl_ctx, sentence)
            if outcome.blocking:
                self.recorder.finish("failed", "; ".join(outcome.blocking))
            else:
                self.recorder.finish("complete")
            self._write(fl_ctx)
            finish(fl_ctx)
            return outcome.blocking

    def _rows(self, fl_ctx: FLContext) -> MatrixRows:
        record, persistor = self.recorder.record, self._persistor(fl_ctx)
        of_server = persistor.model_names
        models = expected_models(record.sites) if record.trains else of_server
        there = [name for name in models if persistor.has(name, fl_ctx)]
        return MatrixRows(
            key_metric=record.key_metric,
            models=models,
            of_server=of_server,
            weights_sha256={name: digest(persistor.read(name, fl_ctx)) for name in there},
            evaluation_sha256=evaluation_digest(
                Mmar(app_folder(fl_ctx)), shared_names=record.shared_names
            ),
        )

    def _run_failed(self, fl_ctx: FLContext) -> None:
        reason = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        self._finish_as_failed(str(reason), fl_ctx)

    def _run_ended(self, fl_ctx: FLContext) -> None:
        self._finish_as_failed("the run ended before its results were complete", fl_ctx)
        with suppress(FederationError):  # which has ended the run
            end(fl_ctx)

    def _finish_as_failed(self, reason: str, fl_ctx: FLContext) -> None:
        if self._recorder is not None and self._recorder.record.status == "running":
            self._recorder.finish("failed", reason)
            self._write(fl_ctx)

    def _write(self, fl_ctx: FLContext) -> None:
        """Have the record as it is now written, unless it has changed again by then."""
        if self._file is None:
            self._file = RecordFile(results_folder(fl_ctx) / "run_record.json")
        file, recorder = self._file, self.recorder
        record = recorder.record

        def write() -> None:
            if recorder.record is record:  # else whoever changed it has it written
                file.write(record)

        write_later(self, fl_ctx, "the run record", write)


def keeper_of(engine: Any, component_id: str) -> RunRecordKeeper:
    """The run's record keeper.

    Raises:
        FederationError: the job has no such component.
    """
    keeper = engine.get_component(component_id)
    if not isinstance(keeper, RunRecordKeeper):
        raise FederationError(f"the component {component_id!r} is no RunRecordKeeper")
    return keeper
