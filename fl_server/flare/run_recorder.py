"""Listens to NVFlare's workflow and keeps the run record, the best model and the matrix."""

from __future__ import annotations

import threading
from collections.abc import Mapping
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

from fl_server.cross_site import (
    CrossSiteMatrix,
    build_cross_site_matrix,
    expected_models,
    write_cross_site_csv,
    write_cross_site_json,
)
from fl_server.flare.exchange import (
    answered_round,
    contribution_from,
    failure_of,
    global_weights,
    job_name,
    metrics_from,
    peer_name,
    round_number,
    site_model_from,
    site_names,
    update_from,
)
from fl_server.flare.persistor import MmarModelPersistor, results_folder
from fl_server.model_selection import BestModel, better_model
from fl_server.run_record import RunRecorder, begin_run, shortfalls, write_run_record
from fl_server.update_guard import is_finite_metric
from mmar_runtime.errors import FederationError
from mmar_runtime.weights import digest

ENGINE = "nvflare"
PACKAGES = ("mmar-fl", "torch", "monai", "pytorch-ignite", "nvflare")
SERVER_PREFIX = "SRV_"
"""What NVFlare puts before the names of the server's models."""

MODEL_SCORED = "mmar_model_scored"
"""A site has scored the last global model; the reply is the validation result in the context."""

ALL_SCORED = "mmar_all_scored"
"""No further scores of the last global model will come."""


class RunRecordKeeper(FLComponent):
    """Owns the run record while the workflows run.

    Args:
        min_sites: contributions that a round needs.
        num_rounds: rounds that the job asks for.
        persistor_id: the component that keeps the models.
        aggregator_id: the component that knows why a contribution was rejected.
    """

    def __init__(
        self,
        min_sites: int,
        num_rounds: int,
        persistor_id: str = "persistor",
        aggregator_id: str = "aggregator",
    ) -> None:
        super().__init__()
        self.min_sites = min_sites
        self.num_rounds = num_rounds
        self.persistor_id = persistor_id
        self.aggregator_id = aggregator_id
        self._recorder: RunRecorder | None = None
        self._best: BestModel | None = None
        self._cells: dict[str, dict[str, Mapping[str, float]]] = {}
        self._failed_cells: list[str] = []
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
            AppEventType.ROUND_STARTED: self._round_started,
            EventType.BEFORE_PROCESS_SUBMISSION: self._reply_arrived,
            AppEventType.AFTER_CONTRIBUTION_ACCEPT: self._contribution_handled,
            AppEventType.BEFORE_AGGREGATION: self._received_model_scored,
            AppEventType.ROUND_DONE: self._round_done,
            MODEL_SCORED: self._last_model_scored,
            ALL_SCORED: self._all_scored,
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

    def _persistor(self, fl_ctx: FLContext) -> MmarModelPersistor:
        persistor = fl_ctx.get_engine().get_component(self.persistor_id)
        if not isinstance(persistor, MmarModelPersistor):
            raise FederationError(f"the component {self.persistor_id!r} is no MmarModelPersistor")
        return persistor

    def _key_metric(self, fl_ctx: FLContext) -> str:
        return self._persistor(fl_ctx).initial.key_metric

    def _begin(self, fl_ctx: FLContext) -> RunRecorder:
        record = begin_run(
            job=job_name(fl_ctx),
            engine=ENGINE,
            started=datetime.now(UTC),
            key_metric=self._key_metric(fl_ctx),
            rounds_asked=self.num_rounds,
            sites=site_names(fl_ctx),
            min_sites=self.min_sites,
            versions={name: version(name) for name in PACKAGES},
            initial_weights_sha256=digest(global_weights(fl_ctx)),
        )
        return RunRecorder(record)

    def _round_started(self, fl_ctx: FLContext) -> None:
        if self._recorder is None:
            self._recorder = self._begin(fl_ctx)
        self.recorder.start_round(round_number(fl_ctx))
        self._write(fl_ctx)

    def _reply_arrived(self, fl_ctx: FLContext) -> None:
        """A site that could not train is recorded here; the workflow tells nobody else."""
        result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        if fl_ctx.get_prop(FLContextKey.TASK_NAME) != AppConstants.TASK_TRAIN:
            return
        failure = failure_of(result) if isinstance(result, Shareable) else "no reply"
        if failure is not None and self._is_awaited(result, fl_ctx):
            self.recorder.failed(peer_name(fl_ctx), failure)
            self._write(fl_ctx)

    def _is_awaited(self, reply: object, fl_ctx: FLContext) -> bool:
        """Whether a reply is a site's first to the open round; a straggler's may be to another."""
        current = self.recorder.record.open_round
        if current is None or peer_name(fl_ctx) in current.sites:
            return False
        answered = answered_round(reply) if isinstance(reply, Shareable) else None
        return answered in (None, current.number)

    def _contribution_handled(self, fl_ctx: FLContext) -> None:
        site = peer_name(fl_ctx)
        if not fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED):
            aggregator = fl_ctx.get_engine().get_component(self.aggregator_id)
            if self._is_awaited(fl_ctx.get_prop(AppConstants.TRAINING_RESULT), fl_ctx):
                self.recorder.rejected(site, aggregator.rejections.get(site, "no reason given"))
                self._write(fl_ctx)
            return
        contribution = contribution_from(update_from(fl_ctx.get_prop(AppConstants.TRAINING_RESULT)))
        number = round_number(fl_ctx)
        self.recorder.contribution(site, contribution)
        self.recorder.score(number - 1, site, contribution.received_metrics)
        self._write(fl_ctx)

    def _received_model_scored(self, fl_ctx: FLContext) -> None:
        """The global model is still the received one here, so it can be kept if it is best."""
        self._select(round_number(fl_ctx) - 1, fl_ctx)

    def _select(self, number: int, fl_ctx: FLContext) -> None:
        scores = self.recorder.record.scores_of(number)
        if scores is None:
            raise FederationError(f"no site has scored the global model of round {number}")
        better = better_model(
            self._best,
            round_number=number,
            scores=scores.sites,
            key_metric=self._key_metric(fl_ctx),
        )
        if better is not None:
            self._best = better
            self.recorder.best(number)
            self.fire_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, fl_ctx)

    def _round_done(self, fl_ctx: FLContext) -> None:
        self.recorder.close_round(digest(global_weights(fl_ctx)))
        self._write(fl_ctx)

    def _last_model_scored(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(AppConstants.VALIDATION_RESULT)
        if failure_of(result) is None:
            number = len(self.recorder.record.rounds)
            self.recorder.score(number, peer_name(fl_ctx), metrics_from(result))

    def _all_scored(self, fl_ctx: FLContext) -> None:
        self._select(len(self.recorder.record.rounds), fl_ctx)
        self._write(fl_ctx)

    def _site_model_arrived(self, fl_ctx: FLContext) -> None:
        """A site's best model is kept beside the global ones."""
        result = fl_ctx.get_prop(AppConstants.RECEIVED_MODEL)
        site = str(fl_ctx.get_prop(AppConstants.RECEIVED_MODEL_OWNER))
        failure = failure_of(result)
        if failure is not None:
            self._failed_cells.append(f"{site} submitted no model: {failure}")
            return
        try:
            model = site_model_from(result)
            self.recorder.local_best(site, model.round_number, model.metrics)
        except FederationError as error:
            self._failed_cells.append(f"{site} submitted no usable model: {error}")
            return
        self._persistor(fl_ctx).write(site, model.weights, fl_ctx)
        self._write(fl_ctx)

    def _cell_arrived(self, fl_ctx: FLContext) -> None:
        model = str(fl_ctx.get_prop(AppConstants.MODEL_OWNER)).removeprefix(SERVER_PREFIX)
        site = str(fl_ctx.get_prop(AppConstants.DATA_CLIENT))
        result = fl_ctx.get_prop(AppConstants.VALIDATION_RESULT)
        failure = failure_of(result)
        if failure is not None:
            self._failed_cells.append(f"{site} could not evaluate {model}: {failure}")
            return
        metrics = metrics_from(result)
        if not all(map(is_finite_metric, metrics.values())):
            self._failed_cells.append(f"{site} sent metrics of {model} that are not finite")
            return
        self._cells.setdefault(model, {})[site] = metrics

    def publish(self, fl_ctx: FLContext) -> tuple[str, ...]:
        """Write record and matrix; returns what fell short of what the job asked for.

        Raises:
            FederationError: no round has started.
        """
        with self._lock:
            found = [*shortfalls(self.recorder.record), *self._failed_cells]
            try:
                matrix = self._matrix(fl_ctx)
                found += [
                    f"the matrix has no value of {model} at {site}"
                    for model, site in matrix.missing
                ]
            except FederationError as error:
                found.append(f"no cross-site result: {error}")
            blocking = tuple(found)
            if blocking:
                self.recorder.finish("failed", "; ".join(blocking))
            else:
                self.recorder.finish("complete")
            self._write(fl_ctx)
            return blocking

    def _matrix(self, fl_ctx: FLContext) -> CrossSiteMatrix:
        sites = self.recorder.record.sites
        matrix = build_cross_site_matrix(
            self._cells,
            key_metric=self._key_metric(fl_ctx),
            models=expected_models(sites),
            sites=sites,
        )
        write_cross_site_json(results_folder(fl_ctx) / "cross_site.json", matrix)
        write_cross_site_csv(results_folder(fl_ctx) / "cross_site.csv", matrix)
        return matrix

    def _run_failed(self, fl_ctx: FLContext) -> None:
        reason = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        self._finish_as_failed(str(reason), fl_ctx)

    def _run_ended(self, fl_ctx: FLContext) -> None:
        self._finish_as_failed("the run ended before its results were complete", fl_ctx)

    def _finish_as_failed(self, reason: str, fl_ctx: FLContext) -> None:
        if self._recorder is not None and self._recorder.record.status == "running":
            self._recorder.finish("failed", reason)
            self._write(fl_ctx)

    def _write(self, fl_ctx: FLContext) -> None:
        write_run_record(results_folder(fl_ctx) / "run_record.json", self.recorder.record)


def keeper_of(engine: Any, component_id: str) -> RunRecordKeeper:
    """The run's record keeper.

    Raises:
        FederationError: the job has no such component.
    """
    keeper = engine.get_component(component_id)
    if not isinstance(keeper, RunRecordKeeper):
        raise FederationError(f"the component {component_id!r} is no RunRecordKeeper")
    return keeper
