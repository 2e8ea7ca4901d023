"""The mean of one round: contributions that were found good, added or kept until all are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from fl_server.aggregation import InTimeWeightedMean
from fl_server.update_guard import UpdateFault, outlying_norms, update_norm
from mmar_runtime.errors import FederationError
from mmar_runtime.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A contribution that is added once the norms of the whole round are known."""

    difference: Weights
    steps: int
    norm: float


class RoundMean:
    """Adds contributions up as they come.

    With a bound on norms that depends on the round's median, they are kept until the round is over:
    as much memory as the model takes, for every site.

    Args:
        sites: every site that may contribute.
        min_sites: contributions that the round needs.
        aggregation_weights: factor of a site's steps; 1 for a site that is not named.
        norm_ratio: the bound of a norm as a multiple of the median; None for none.

    Attributes:
        settled: whether the round's norms have been compared, so that it is closed to others.
    """

    def __init__(
        self,
        sites: Iterable[str],
        *,
        min_sites: int,
        aggregation_weights: Mapping[str, float] | None = None,
        norm_ratio: float | None = None,
    ) -> None:
        self.settled = False
        self._min_sites = min_sites
        self._norm_ratio = norm_ratio
        self._held: dict[str, _Held] = {}
        self._mean = InTimeWeightedMean(sites, aggregation_weights=aggregation_weights)

    @property
    def contributors(self) -> tuple[str, ...]:
        """The sites whose contributions are in the mean, in the order of their names."""
        return self._mean.contributors

    def add(self, site: str, difference: Weights, steps: int) -> None:
        """Take a contribution that the guard has let through."""
        if self._norm_ratio is None:
            self._mean.add(site, difference, steps)
            return
        norm = update_norm({name: tensor.numpy() for name, tensor in difference.items()})
        self._held[site] = _Held(difference=difference, steps=steps, norm=norm)

    def settle(self) -> Mapping[str, UpdateFault]:
        """Add what was kept until now, but for norms far off the median; site -> why not.

        Nothing is kept, and nothing happens, where norms have no bound that depends on others.
        """
        if self._norm_ratio is None:
            return {}
        held, self._held = self._held, {}
        self.settled = True
        norms = {site: one.norm for site, one in held.items()}
        outliers = outlying_norms(norms, self._norm_ratio)
        for site, one in held.items():
            if site not in outliers:
                self._mean.add(site, one.difference, one.steps)
        return outliers

    def new_global(
        self, global_weights: Weights, rejections: Mapping[str, str]
    ) -> dict[str, torch.Tensor]:
        """The new global weights.

        Args:
            global_weights: those before.
            rejections: site -> why its contribution is not in the mean; for the error.

        Raises:
            FederationError: fewer sites contributed than the job asks for.
            WeightsError: the new weights are not finite, or not the model's.
        """
        count = len(self.contributors)
        if count < self._min_sites:
            raise FederationError(
                f"{count} sites contributed, the job asks for {self._min_sites}; "
                f"rejected: {dict(rejections) or 'none'}"
            )
        return self._mean.new_global(global_weights)
