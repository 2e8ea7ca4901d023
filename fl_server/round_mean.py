"""The mean of one round: contributions that were found good, added or kept until all are there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch

from fl_server.aggregation import InTimeWeightedMean
from fl_server.encryption import EncryptedAddend, EncryptedMean, ServerEncryption
from fl_server.guard.tensors import outlying_norms, update_norm
from fl_server.guard.values import UpdateFault
from mmar_runtime.errors import FederationError, WeightsError
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.encryption import plain_part
from mmar_runtime.exchange.spare_memory import SpareMemory
from mmar_runtime.weights import Weights, copy_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A contribution that is added once the norms of the whole round are known."""

    difference: Weights
    steps: int
    encrypted: EncryptedAddend | None
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
        norm_ratio: float | None = None,
        optional_names: Collection[str] = (),
        encryption: ServerEncryption | None = None,
        averages: bool = True,
        spare: SpareMemory | None = None,
    ) -> None:
        self._min_sites = min_sites
        self._norm_ratio = norm_ratio
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
        steps: int,
        encrypted: EncryptedAddend | None = None,
    ) -> UpdateFault | None:
        """Take a contribution that the guard has let through; why not, if it cannot be added.

        Args:
            site: its sender.
            difference: as it came; what is encrypted in it is left to ``encrypted``.
            steps: its weight in the mean.
            encrypted: its encrypted part, if the job encrypts.
        """
        plain = difference if self._layout is None else plain_part(difference)
        if self._norm_ratio is None:
            return self._count(site, plain, steps, encrypted)
        if self._lent:
            plain = {name: copy_of(tensor) for name, tensor in plain.items()}
        norm = update_norm(arrays_of(plain))
        self._held[site] = _Held(
            difference=plain if self._averages else {},
            steps=steps,
            encrypted=encrypted,
            norm=norm,
        )
        return None

    def _count(
        self, site: str, plain: Weights, steps: int, encrypted: EncryptedAddend | None
    ) -> UpdateFault | None:
        """Add the encrypted part first: it alone can fail, and then nothing of the site counts."""
        if self._layout is not None and encrypted is not None:
            self._encrypted_mean = self._encrypted_mean or EncryptedMean(self._layout)
            try:
                self._encrypted_mean.add(site, encrypted)
            except WeightsError as error:
                return UpdateFault("encryption", "update", str(error))
        self._mean.add(site, plain if self._averages else {}, steps)
        return None

    def apply_norm_bound(self) -> Mapping[str, UpdateFault]:
        """Add what was kept until now, but for norms far off the median; site -> why not.

        What cannot be added is left out too; in the order of names, so that it is always the same.
        Nothing is kept, and nothing happens, where norms have no bound that depends on others.
        """
        if self._norm_ratio is None:
            return {}
        held, self._held = self._held, {}
        norms = {site: update.norm for site, update in held.items()}
        faults = outlying_norms(norms, self._norm_ratio)
        for site, update in sorted(held.items()):
            if site not in faults:
                fault = self._count(site, update.difference, update.steps, update.encrypted)
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
