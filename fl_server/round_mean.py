"""The mean of one round: contributions that were found good, added or kept until all are there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch

from fl_server.aggregation import InTimeWeightedMean
from fl_server.encryption import EncryptedAddend, EncryptedMean, ServerEncryption
from fl_server.guard.claims import outlying_claims
from fl_server.guard.tensors import outlying_norms, update_norm
from fl_server.guard.values import UpdateFault
from mmar_runtime.errors import FederationError, WeightsError
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.encryption import plain_part
from mmar_runtime.exchange.spare_memory import SpareMemory
from mmar_runtime.weights import Weights, copy_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A contribution that is added once the whole round is known; its norm if that is bounded."""

    difference: Weights
    claim: int
    encrypted: EncryptedAddend | None
    norm: float | None


class RoundMean:
    """Adds contributions up as they come.

    What is judged by the median of the round is kept until the round is over: as much memory as the
    model takes, for every site. With a bound on norms that is every contribution, and in the first
    round one whose claim could be far above those of the others.

    Args:
        sites: every site that may contribute.
        min_sites: contributions that the round needs.
        aggregation_weights: factor of a site's claim; 1 for a site that is not named.
        weight_ratio: the bound of a claim as a multiple of the round's median; None where claims
            have been judged before.
        norm_ratio: the bound of a norm as a multiple of the median; None for none.
        optional_names: tensors that a contribution may lack.
        encryption: what is needed to add up encrypted tensors; None if the job encrypts none.
        averages: whether there is a mean; without it, because a job's own aggregator takes its
            place, only the names of those that count are kept.
        spare: of contributions that are only lent, memory for copies; see ``InTimeWeightedMean``.

    """

    def __init__(
        self,
        sites: Iterable[str],
        *,
        min_sites: int,
        aggregation_weights: Mapping[str, float] | None = None,
        weight_ratio: float | None = None,
        norm_ratio: float | None = None,
        optional_names: Collection[str] = (),
        encryption: ServerEncryption | None = None,
        averages: bool = True,
        spare: SpareMemory | None = None,
    ) -> None:
        self._min_sites = min_sites
        self._norm_ratio = norm_ratio
        self._weight_ratio = weight_ratio
        self._claims: dict[str, int] = {}
        self._averages = averages
        self._lent = spare is not None
        self._held: dict[str, _Held] = {}
        self._layout = None if encryption is None else encryption.layout
        self._encrypted_mean: EncryptedMean | None = None
        self._mean = InTimeWeightedMean(
            sites,
            aggregation_weights=aggregation_weights,
            optional_names=optional_names,
            # Those that are kept until all are there are copied before they come to the mean.
            spare=spare if norm_ratio is None else None,
        )

    @property
    def contributors(self) -> tuple[str, ...]:
        """The sites whose contributions count, in the order of their names."""
        return self._mean.contributors

    def add(
        self,
        site: str,
        difference: Weights,
        claim: int,
        encrypted: EncryptedAddend | None = None,
    ) -> UpdateFault | None:
        """Take a contribution that the guard has let through; why not, if it cannot be added.

        Args:
            site: its sender.
            difference: as it came; what is encrypted in it is left to ``encrypted``.
            claim: its weight in the mean, before the factor of the site.
            encrypted: its encrypted part, if the job encrypts.
        """
        plain = difference if self._layout is None else plain_part(difference)
        self._claims[site] = claim
        # The median of whole numbers is at least one.
        may_be_outlier = self._weight_ratio is not None and claim > self._weight_ratio
        if self._norm_ratio is None and not may_be_outlier:
            return self._count(site, plain, claim, encrypted)
        if self._lent:
            plain = {name: copy_of(tensor) for name, tensor in plain.items()}
        norm = None if self._norm_ratio is None else update_norm(arrays_of(plain))
        self._held[site] = _Held(
            difference=plain if self._averages else {},
            claim=claim,
            encrypted=encrypted,
            norm=norm,
        )
        return None

    def _count(
        self, site: str, plain: Weights, claim: int, encrypted: EncryptedAddend | None
    ) -> UpdateFault | None:
        """Add the encrypted part first: it alone can fail, and then nothing of the site counts."""
        if self._layout is not None and encrypted is not None:
            self._encrypted_mean = self._encrypted_mean or EncryptedMean(self._layout)
            try:
                self._encrypted_mean.add(site, encrypted)
            except WeightsError as error:
                return UpdateFault("encryption", "update", str(error))
        self._mean.add(site, plain if self._averages else {}, claim)
        return None

    def settle(self) -> Mapping[str, UpdateFault]:
        """Add what was kept, but for claims and norms far off the median; site -> why not.

        What cannot be added is left out too; in the order of names, so that it is always the same.
        """
        held, self._held = self._held, {}
        ratio = self._weight_ratio
        faults = {} if ratio is None else outlying_claims(self._claims, ratio)
        if self._norm_ratio is not None:
            norms = {site: update.norm for site, update in held.items() if site not in faults}
            known = {site: norm for site, norm in norms.items() if norm is not None}
            faults |= outlying_norms(known, self._norm_ratio)
        for site, update in sorted(held.items()):
            if site not in faults:
                fault = self._count(site, update.difference, update.claim, update.encrypted)
                if fault is not None:
                    faults[site] = fault
        return faults

    def require_enough(self, rejections: Mapping[str, str]) -> None:
        """Raise if too few contributed.

        Args:
            rejections: site -> why its contribution is not in the mean.

        Raises:
            FederationError: fewer sites contributed than the job asks for.
        """
        count = len(self.contributors)
        if count < self._min_sites:
            raise FederationError(
                f"{count} sites contributed, the job asks for {self._min_sites}; "
                f"rejected: {dict(sorted(rejections.items())) or 'none'}"
            )

    def new_global(self, global_weights: Weights) -> dict[str, torch.Tensor]:
        """Return the new global weights; raises like ``InTimeWeightedMean.new_global``."""
        if self._layout is None or self._encrypted_mean is None:
            return self._mean.new_global(global_weights)
        hidden, before = self._layout.tensors, plain_part(global_weights)
        plain = {name: tensor for name, tensor in before.items() if name not in hidden}
        return {**self._mean.new_global(plain), **self._encrypted_mean.new_global()}
