"""The guard of one job: what each kind of reply of its sites has to be, over plain values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fl_server.guard.metric_contract import MetricContract
from fl_server.guard.tensors import largest_magnitude
from fl_server.guard.update_limits import update_limits
from fl_server.guard.values import Expected, UpdateFault
from fl_server.initial_model import InitialModel
from fl_server.update_guard import check_update
from mmar_runtime.errors import ConfigError, FederationError
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.encryption import ARRAYS, Layout
from mmar_runtime.exchange.job_documents import FEDERATION_ARGUMENTS
from mmar_runtime.exchange.rounding import Arrays
from mmar_runtime.exchange.rounding_forms import ROUNDINGS, Rounding
from mmar_runtime.exchange.sharing import form_problems, matching
from mmar_runtime.exchange.weighing import WeighBy

SHOWN_FAULTS = 3
OPTIONAL_NAMES = FEDERATION_ARGUMENTS / "optional_names"


class PlainReplyGuard:
    """Judges the replies of one job's sites; each method gives the faults, none if it is good.

    Data and metadata are plain values, as ``fl_server.update_guard.check_update`` takes them.

    Args:
        initial: where the run started: the tensors of the model, and the metrics of the job.
        job: id of the job.
        limits: the job's own limits.
        optional_names: patterns of the tensors that a contribution may lack.
        encrypted: the tensors that the sites send encrypted; None for none.
        weigh_by: what a site claims as its weight in the mean.
        factors: site -> factor of its claim; 1 for a site not named.
        transfer: the form in which large tensors of contributions come; None for as they are.
        steps: optimizer steps that the job asks for in a round; 0 where it asks for epochs.

    Attributes:
        optional: the tensors that fit these patterns.

    Raises:
        ConfigError: a limit is unknown or out of its bounds, or a pattern is none.
        FederationError: there is no such form of transfer.
    """

    def __init__(
        self,
        initial: InitialModel,
        job: str,
        limits: Mapping[str, Any],
        *,
        optional_names: list[str] | None = None,
        encrypted: Layout | None = None,
        weigh_by: WeighBy = "samples",
        factors: Mapping[str, float] | None = None,
        transfer: Rounding | None = None,
        steps: int = 0,
    ) -> None:
        self._steps = steps
        self._key_metric = initial.key_metric
        self._encrypted = encrypted
        self._weigh_by = weigh_by
        self._factors = factors or {}
        if transfer is not None and transfer not in ROUNDINGS:
            raise FederationError(f"transfer is {transfer!r}, no form of {', '.join(ROUNDINGS)}")
        self._transfer = transfer
        # Whole weights are compared with shapes, dtypes, and the numbers of integers. So no other
        # model than the current one takes memory.
        self._model = {
            name: np.broadcast_to(np.zeros((), array.dtype), array.shape)
            if array.dtype.kind == "f"
            else array
            for name, array in self._plain(arrays_of(initial.weights)).items()
        }
        self.optional: frozenset[str] = frozenset()
        if optional_names is not None:
            if problems := list(form_problems(optional_names, OPTIONAL_NAMES)):
                raise ConfigError(problems)
            # A permission that nobody can use is not a fault.
            self.optional = frozenset(matching(optional_names, initial.weights))
        self._job = job
        self._metrics = initial.metrics
        self._limits = update_limits(limits, initial.metrics.ranges)
        self._largest: tuple[str | None, Mapping[str, float]] = (None, {})
        self._cross_site_metrics = initial.cross_site_metrics
        self._cross_site_limits = update_limits(limits, initial.cross_site_metrics.ranges)

    def _plain(self, model: Arrays) -> Arrays:
        """Of a model what does not come encrypted."""
        if self._encrypted is None:
            return model
        hidden = {*self._encrypted.tensors, *ARRAYS}
        return {name: array for name, array in model.items() if name not in hidden}

    @property
    def norm_ratio(self) -> float | None:
        """The bound of a norm as a multiple of the round's median; None for none."""
        return self._limits.norm_ratio

    @property
    def weight_ratio(self) -> float:
        """The bound of a site's claim as a multiple of the round's median."""
        return self._limits.weight_ratio

    def contribution_faults(
        self,
        data: object,
        metadata: object,
        *,
        site: str,
        round_number: int,
        model: Arrays,
        base_model: str | None,
        contributors: Collection[str],
        epoch_samples: int | None = None,
        usual_claim: float | None = None,
    ) -> tuple[UpdateFault, ...]:
        """Judge a reply to ``train``.

        Args:
            data: the difference as it came.
            metadata: what came with it.
            site: its sender, as the server knows it.
            round_number: the current round, counted from 1.
            model: the global model.
            base_model: what identifies it, such as its digest; None where the tasks carry none.
            contributors: who has answered in this round.
            epoch_samples: what the site has stated in a former round; None if nothing.
            usual_claim: the median of the claims in the last round; None in the first one.
        """
        expected = Expected(
            site=site,
            job=self._job,
            kind="WEIGHT_DIFF",
            model=self._plain(model),
            encrypted=self._encrypted,
            weigh_by=self._weigh_by,
            epoch_samples=epoch_samples,
            usual_claim=usual_claim,
            factor=self._factors.get(site, 1.0),
            optional=self.optional,
            key_metric=self._key_metric,
            metric_names=self._metrics.names,
            directions=self._metrics.directions,
            round=round_number,
            base_model=base_model,
            contributors=contributors,
            largest=self._largest_of(model, base_model),
            transfer=self._transfer,
            steps=self._steps,
        )
        return check_update(data, metadata, expected, self._limits)

    def _largest_of(self, model: Arrays, base_model: str | None) -> Mapping[str, float]:
        """Return the largest magnitudes in the global model, computed once in a round."""
        if base_model is None:
            return {}
        if self._largest[0] != base_model:
            largest = {
                name: largest_magnitude(array)
                for name, array in model.items()
                if array.dtype.kind == "f"
            }
            self._largest = (base_model, largest)
        return self._largest[1]

    def model_faults(
        self, data: object, metadata: object, *, site: str, answered: Collection[str]
    ) -> tuple[UpdateFault, ...]:
        """Judge a reply to ``submit_model``; ``answered`` have done so already."""
        expected = Expected(
            site=site,
            job=self._job,
            kind="WEIGHTS",
            model=self._model,
            encrypted=self._encrypted,
            key_metric=self._key_metric,
            metric_names=self._metrics.names,
            directions=self._metrics.directions,
            contributors=answered,
        )
        return check_update(data, metadata, expected, self._limits)

    def score_faults(self, data: object, metadata: object, *, site: str) -> tuple[UpdateFault, ...]:
        """Judge a reply to ``score_model``."""
        return check_update(data, metadata, self._metrics_of(site, self._metrics, ()), self._limits)

    def validation_faults(
        self, data: object, metadata: object, *, site: str, answered: Collection[str]
    ) -> tuple[UpdateFault, ...]:
        """Judge a reply to ``validate``; ``answered`` have done so for this model already."""
        expected = self._metrics_of(site, self._cross_site_metrics, answered)
        return check_update(data, metadata, expected, self._cross_site_limits)

    def _metrics_of(
        self, site: str, contract: MetricContract, answered: Collection[str]
    ) -> Expected:
        return Expected(
            site=site,
            job=self._job,
            kind="METRICS",
            key_metric=self._key_metric,
            metric_names=contract.names,
            directions=contract.directions,
            contributors=answered,
        )


def reason_of(faults: Collection[UpdateFault]) -> str:
    """Return the first few faults in one line."""
    return "; ".join(str(fault) for fault in list(faults)[:SHOWN_FAULTS])
