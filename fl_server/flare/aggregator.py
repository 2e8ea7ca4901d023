"""Guard and weighted mean as an NVFlare aggregator."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from fl_server.asked_steps import asked_steps
from fl_server.encryption import ServerEncryption
from fl_server.flare.audit import note
from fl_server.flare.exchange import (
    AGGREGATION_WEIGHTS,
    BASE_MODEL,
    app_folder,
    as_arrays,
    digest_of,
    global_arrays,
    global_digest,
    global_weights,
    in_memory,
    round_number,
    sender,
    site_names,
    update_from,
)
from fl_server.flare.guard import ReplyGuard, reason_of
from fl_server.flare.later import finish
from fl_server.flare.own_aggregation import OwnAggregation, Reply, widened_reply
from fl_server.flare.persistor import MmarModelPersistor
from fl_server.guard.reply_guard import PlainReplyGuard, require_patterns
from fl_server.received_update import ReceivedUpdate, added_up, contribution_from
from fl_server.round_mean import RoundMean
from fl_server.update_guard import UpdateFault
from mmar_runtime.errors import ConfigError, FederationError, WeightsError
from mmar_runtime.exchange.rounding_forms import FORMS, Form
from mmar_runtime.weights import Weights, digest


class MmarAggregator(Aggregator):
    """Adds up contributions as they arrive; a faulty one is rejected and the round goes on.

    With a bound on norms that depends on the round's median, contributions are kept until the
    round is over: as much memory as the model takes, for every site.

    Args:
        min_sites: contributions that a round needs; with fewer the run fails.
        aggregation_weights: factor of a site's steps in the mean; 1 for a site not named.
        persistor_id: the component that knows the job's model and metrics.
        limits: bounds of the update guard; see ``fl_server.guard.update_limits``.
        optional_names: tensors that a contribution may lack, by exact name or with ``*`` for any
            characters. Each is averaged over the sites that sent it; one that nobody sent stays.
        transfer: the form in which sites send large tensors, ``float16`` or ``int8``; None for as
            they are. The filter ``fl_client.flare.compact.CompactUpdate`` has the same argument.
        aggregator: an aggregator of the job's own, which takes the place of the weighted mean;
            see ``fl_server.flare.own_aggregation``. The guard stands before and behind it.
    """

    def __init__(
        self,
        min_sites: int,
        aggregation_weights: dict[str, float] | None = None,
        persistor_id: str = "persistor",
        limits: dict[str, Any] | None = None,
        optional_names: list[str] | None = None,
        aggregator: Any = None,
        transfer: Form | None = None,
    ) -> None:
        super().__init__()
        self.transfer = transfer
        self.optional_names = optional_names
        self.aggregator = aggregator
        self.persistor_id = persistor_id
        self.min_sites = min_sites
        self.aggregation_weights = aggregation_weights
        self.limits = limits or {}
        self.rejections: dict[str, str] = {}
        self._guard: ReplyGuard | None = None
        self._base_model: str | None = None
        self._answered: set[str] = set()
        self._mean: RoundMean | None = None
        self._own: OwnAggregation | None = None
        self._aggregated_round: int | None = None
        # Contributions arrive on threads of their own, late ones while the mean is taken.
        self._lock = threading.RLock()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Put the digest of the global model on each task, to know its replies again."""
        if event_type == EventType.START_RUN:
            try:
                self._start()
            except (ConfigError, FederationError) as error:
                self.system_panic(str(error), fl_ctx)
        elif event_type == AppEventType.ROUND_STARTED:
            self._base_model = global_digest(fl_ctx)
        elif event_type == AppEventType.BEFORE_TRAIN_TASK:
            task = fl_ctx.get_prop(AppConstants.TRAIN_SHAREABLE)
            task.add_cookie(BASE_MODEL, self._base_model)
            if self._encryption(fl_ctx) is not None:
                # A site multiplies before it encrypts, so it has to know.
                task.set_header(AGGREGATION_WEIGHTS, dict(self.aggregation_weights or {}))

    def _start(self) -> None:
        """Judge what the job asks for before anything is sent."""
        if self.optional_names is not None:
            require_patterns(self.optional_names)
        if self.transfer is not None and self.transfer not in FORMS:
            raise FederationError(f"transfer is {self.transfer!r}, no form of {', '.join(FORMS)}")
        if self.aggregator is not None:
            self._own = OwnAggregation(self.aggregator)

    def guard(self, fl_ctx: FLContext) -> ReplyGuard:
        """The guard of this job.

        Raises:
            FederationError: the run has not started, or has no persistor of this project.
            ConfigError: the job's limits have faults.
        """
        if self._guard is None:
            encryption = self._encryption(fl_ctx)
            plain = PlainReplyGuard(
                self._persistor(fl_ctx).initial,
                fl_ctx.get_job_id(),
                self.limits,
                optional_names=self.optional_names,
                encrypted=None if encryption is None else encryption.layout,
                factors=self.aggregation_weights,
                transfer=self.transfer,
                steps=asked_steps(app_folder(fl_ctx)),
            )
            self._guard = ReplyGuard(plain)
        return self._guard

    def _persistor(self, fl_ctx: FLContext) -> MmarModelPersistor:
        persistor = fl_ctx.get_engine().get_component(self.persistor_id)
        if not isinstance(persistor, MmarModelPersistor):
            raise FederationError(f"{self.persistor_id!r} is no MmarModelPersistor")
        return persistor

    def _encryption(self, fl_ctx: FLContext) -> ServerEncryption | None:
        """What is needed to add up encrypted tensors; None if the job encrypts none."""
        return self._persistor(fl_ctx).encryption

    def reset(self, fl_ctx: FLContext) -> None:
        """Forget the round that is over."""
        with self._lock:
            self.rejections = {}
            self._answered = set()
            self._mean = None
            if self._own is not None:
                self._own.forget(fl_ctx)

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Check a contribution and take it; the reason of a rejection is kept for the record.

        Whatever the contribution is, nothing is raised: an error of the guard is a rejection.
        """
        try:
            site = sender(shareable)
        except FederationError as error:
            self.log_warning(fl_ctx, f"contribution rejected: {error}")
            return False
        with self._lock:
            try:
                faults = self._take(site, shareable, fl_ctx)
            except Exception as error:
                self.log_exception(fl_ctx, f"contribution of {site} cannot be judged")
                message = f"cannot be judged ({type(error).__name__})"
                faults = (UpdateFault("unreadable", "update", message),)
            if faults:
                self._reject(site, faults, fl_ctx)
        return not faults

    def _reject(self, site: str, faults: tuple[UpdateFault, ...], fl_ctx: FLContext) -> None:
        reason = reason_of(faults)
        self.rejections[site] = reason
        self.log_warning(fl_ctx, f"contribution of {site} rejected: {reason}")
        note(
            self,
            fl_ctx,
            "contribution-rejected",
            site=site,
            round=round_number(fl_ctx),
            rules=sorted({fault.rule for fault in faults}),
            reason=reason,
        )

    def _take(self, site: str, shareable: Shareable, fl_ctx: FLContext) -> tuple[UpdateFault, ...]:
        """Add a contribution, or keep it for later; the faults of one that is not taken."""
        if site not in site_names(fl_ctx):
            return (UpdateFault("site", "site", f"{site} is no site of this run"),)
        aggregated = fl_ctx.get_prop(AppConstants.CURRENT_ROUND) == self._aggregated_round
        if aggregated or (self._mean is not None and self._mean.settled):
            # It would count in the next round's mean, and shut out what the site sends then.
            return (UpdateFault("late", "round", "arrived after the round was aggregated"),)
        guard = self.guard(fl_ctx)
        faults = guard.contribution_faults(
            shareable,
            fl_ctx,
            site=site,
            round_number=round_number(fl_ctx),
            model=global_arrays(fl_ctx),
            base_model=self._base_model,
            contributors=self._answered,
        )
        if not any(fault.rule in ("round", "base_model") for fault in faults):
            self._answered.add(site)
        if faults:
            return faults
        update = update_from(shareable)
        encryption = self._encryption(fl_ctx)
        try:
            contribution = contribution_from(update)
        except FederationError as error:
            return (UpdateFault("report", "report", str(error)),)
        try:
            encrypted = None if encryption is None else encryption.loaded(update.difference)
        except WeightsError as error:
            return (UpdateFault("encryption", "update", str(error)),)
        fault = self._round_mean(fl_ctx).add(
            site, added_up(update.difference), update.steps, encrypted
        )
        if fault is not None:
            return (fault,)
        if self._own is not None:
            own = in_memory(shareable)
            whole = own if self.transfer is None else widened_reply(own)
            self._own.add(site, Reply(shareable=whole, peer=fl_ctx.get_peer_context()))
        note(
            self,
            fl_ctx,
            "contribution-accepted",
            site=site,
            round=round_number(fl_ctx),
            steps=contribution.steps,
            bytes=contribution.sent_bytes,
            logs=dict(contribution.logs),
            tensors=partial(digest, update.difference),
            **_left_out(update, guard.optional),
        )
        return ()

    def settle(self, fl_ctx: FLContext) -> Mapping[str, str]:
        """Add what was kept until now, but for norms far off the median; site -> why not.

        Nothing is kept, and nothing happens, where norms have no bound that depends on others.
        """
        with self._lock:
            faults = self._round_mean(fl_ctx).settle()
            for site, fault in faults.items():
                self._reject(site, (fault,), fl_ctx)
            return {site: str(fault) for site, fault in faults.items()}

    def _round_mean(self, fl_ctx: FLContext) -> RoundMean:
        if self._mean is None:
            guard = self.guard(fl_ctx)
            self._mean = RoundMean(
                site_names(fl_ctx),
                min_sites=self.min_sites,
                aggregation_weights=self.aggregation_weights,
                norm_ratio=guard.norm_ratio,
                optional_names=guard.optional,
                encryption=self._encryption(fl_ctx),
                averages=self._own is None,
            )
        return self._mean

    def _new_global(self, weights: Weights, fl_ctx: FLContext) -> Weights:
        mean = self._round_mean(fl_ctx)
        if self._own is None:
            return mean.new_global(weights)
        finish(fl_ctx)  # it may change what came, whose digests are still to be taken
        optional = self.guard(fl_ctx).optional
        found = self._own.new_global(weights, fl_ctx, sites=mean.contributors, optional=optional)
        # It may go on with its own tensors; those of the global model nobody changes.
        return {name: tensor.clone() for name, tensor in found.items()}

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """The new global weights.

        Raises:
            FederationError: fewer sites contributed than the job asks for.
            WeightsError: the new weights are not finite, or not the model's; the ones before stay.
        """
        with self._lock:
            self.settle(fl_ctx)
            self._aggregated_round = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
            mean = self._round_mean(fl_ctx)
            mean.require_enough(self.rejections)
            weights = self._new_global(global_weights(fl_ctx), fl_ctx)
        arrays = as_arrays(weights)
        note(
            self,
            fl_ctx,
            "global-model",
            round=round_number(fl_ctx),
            contributors=list(mean.contributors),
            bytes=sum(array.nbytes for array in arrays.values()),
            tensors=digest_of(arrays, fl_ctx),
        )
        return DXO(DataKind.WEIGHTS, data=arrays).to_shareable()


def _left_out(update: ReceivedUpdate, optional: Collection[str]) -> dict[str, object]:
    """For the log: the tensors that a contribution lacks, where it may lack some."""
    names = [one for one in optional if one not in update.difference]
    return {"left_out": sorted(names)} if names else {}


def aggregator_of(engine: Any, component_id: str) -> MmarAggregator:
    """The run's aggregator, which has the guard of the job.

    Raises:
        FederationError: the job has no such component.
    """
    aggregator = engine.get_component(component_id)
    if not isinstance(aggregator, MmarAggregator):
        raise FederationError(f"the component {component_id!r} is no MmarAggregator")
    return aggregator
