"""Guard and weighted mean as an NVFlare aggregator."""

from __future__ import annotations

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.app_constant import AppConstants

from fl_server.aggregation import InTimeWeightedMean
from fl_server.flare.exchange import (
    as_arrays,
    contribution_from,
    global_weights,
    peer_name,
    site_names,
    update_from,
)
from fl_server.run_record import SiteContribution
from fl_server.update_guard import faults, metric_faults
from mmar_runtime.errors import FederationError


class MmarAggregator(Aggregator):
    """Adds up contributions as they arrive; a faulty one is rejected and the round goes on.

    Args:
        min_sites: contributions that a round needs; with fewer the run fails.
        aggregation_weights: factor of a site's steps in the mean; 1 for a site not named.
        persistor_id: the component that knows the job's key metric.
    """

    def __init__(
        self,
        min_sites: int,
        aggregation_weights: dict[str, float] | None = None,
        persistor_id: str = "persistor",
    ) -> None:
        super().__init__()
        self.persistor_id = persistor_id
        self._metrics: frozenset[str] = frozenset()
        self.min_sites = min_sites
        self.aggregation_weights = aggregation_weights
        self.rejections: dict[str, str] = {}
        self._mean: InTimeWeightedMean | None = None
        self._aggregated_round: int | None = None

    def reset(self, fl_ctx: FLContext) -> None:
        """Forget the round that is over."""
        self.rejections = {}
        self._mean = None

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Check a contribution and add it; the reason of a rejection is kept for the record."""
        site = peer_name(fl_ctx)
        reason = self._refusal(site, shareable, fl_ctx)
        if reason is None:
            return True
        self.rejections[site] = reason
        self.log_warning(fl_ctx, f"contribution of {site} rejected: {reason}")
        return False

    def _refusal(self, site: str, shareable: Shareable, fl_ctx: FLContext) -> str | None:
        asked = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        answered = shareable.get_cookie(AppConstants.CONTRIBUTION_ROUND)
        if asked != answered:
            return f"belongs to round {answered}, not to {asked}"
        if asked == self._aggregated_round:
            # It would count in the next round's mean, and shut out what the site sends then.
            return "arrived after the round was aggregated"
        try:
            update = update_from(shareable)
            found = faults(update.difference, update.steps, global_weights(fl_ctx))
            if found:
                return "; ".join(found[:3])
            contribution = contribution_from(update)
            found = self._metric_faults(contribution, fl_ctx)
            if found:
                return "; ".join(found)
            self._metrics = frozenset(contribution.received_metrics)
            self._round_mean(fl_ctx).add(site, update.difference, update.steps)
        except FederationError as error:
            return str(error)
        return None

    def _metric_faults(self, contribution: SiteContribution, fl_ctx: FLContext) -> tuple[str, ...]:
        persistor = fl_ctx.get_engine().get_component(self.persistor_id)
        key_metric = persistor.initial.key_metric
        return (
            *metric_faults(contribution.received_metrics, key_metric, self._metrics),
            *metric_faults(contribution.local_metrics, key_metric, self._metrics),
        )

    def _round_mean(self, fl_ctx: FLContext) -> InTimeWeightedMean:
        if self._mean is None:
            self._mean = InTimeWeightedMean(
                site_names(fl_ctx), aggregation_weights=self.aggregation_weights
            )
        return self._mean

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """The new global weights.

        Raises:
            FederationError: fewer sites contributed than the job asks for.
            WeightsError: the new weights are not finite.
        """
        self._aggregated_round = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        mean = self._round_mean(fl_ctx)
        count = len(mean.contributors)
        if count < self.min_sites:
            raise FederationError(
                f"{count} sites contributed, the job asks for {self.min_sites}; "
                f"rejected: {self.rejections or 'none'}"
            )
        weights = mean.new_global(global_weights(fl_ctx))
        return DXO(DataKind.WEIGHTS, data=as_arrays(weights)).to_shareable()
