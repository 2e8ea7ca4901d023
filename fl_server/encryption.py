"""The encrypted half of a round: what sites send encrypted is added up without being read.

A site multiplies its local weights by its own weight in the mean before it encrypts them. So the
sum of what the sites send, divided by the sum of their weights, is the new global model, and the
division is left to whoever decrypts: the server adds, and does nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.encryption import EncryptedPart, Layout
from mmar_runtime.weights import Weights

if TYPE_CHECKING:  # brings TenSEAL in, which only an encrypted job needs
    from mmar_runtime.exchange.ckks import Keys, Loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEncryption:
    """What a server has of an encrypted job.

    Attributes:
        layout: the tensors that come encrypted.
        keys: without the secret one.
    """

    layout: Layout
    keys: Keys

    def __post_init__(self) -> None:
        if self.keys.can_decrypt:
            raise FederationError(
                f"{self.keys.source} holds the secret key, which a server must not have; "
                "an encrypted job does not run here"
            )

    def loaded(self, weights: Weights) -> EncryptedAddend:
        """Return the encrypted part of a contribution, ready to be added.

        Raises:
            WeightsError: it is none, or not of this federation's keys.
        """
        part = EncryptedPart.of(arrays_of(weights))
        return EncryptedAddend(weight=part.weight, row=self.keys.loaded(part.ciphertexts))


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedAddend:
    """One site's encrypted part.

    Attributes:
        weight: by which its numbers are multiplied.
        row: the ciphertexts.
    """

    weight: float
    row: Loaded


class EncryptedMean:
    """The weighted mean of encrypted parts, summed up while they arrive."""

    def __init__(self, layout: Layout) -> None:
        from mmar_runtime.exchange.ckks import EncryptedSum

        self._layout = layout
        self._sum = EncryptedSum()
        self._weights: dict[str, float] = {}

    def add(self, site: str, addend: EncryptedAddend) -> None:
        """Take a site's part.

        Raises:
            WeightsError: it cannot be added; the mean stays as it was.
        """
        self._sum.add(addend.row)
        self._weights[site] = addend.weight

    @property
    def total(self) -> float:
        """The sum of the weights, in the order of the sites' names."""
        return sum(self._weights[site] for site in sorted(self._weights))

    def new_global(self) -> Mapping[str, torch.Tensor]:
        """Return the encrypted part of the new global model.

        Raises:
            FederationError: nobody contributed.
        """
        if not self._weights:
            raise FederationError("no site contributed to this round; there is nothing to average")
        part = EncryptedPart(
            layout=self._layout, weight=self.total, ciphertexts=self._sum.ciphertexts
        )
        return {name: torch.from_numpy(array) for name, array in part.arrays.items()}
