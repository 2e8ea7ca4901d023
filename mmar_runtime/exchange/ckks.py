"""Arithmetic on encrypted numbers: CKKS (Cheon et al. 2017, doi 10.1007/978-3-319-70694-8_15).

All knowledge of TenSEAL is here; importing this module needs the extra ``he``. The steps on
ciphertexts is encrypt, add, decrypt, and nothing else: no product is ever taken, so no key for
that is needed, and the noise of a sum is that of its addends.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tenseal

from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.encryption import (
    CIPHERTEXT_BYTES,
    SLOTS,
    VALUES,
    WEIGHT_RANGE,
    Ciphertexts,
    EncryptedPart,
)
from mmar_runtime.exchange.encryption_extra import EXTRA

CLIENT_CONTEXT = "client_context.tenseal"
SERVER_CONTEXT = "server_context.tenseal"
"""Where NVFlare's provisioning puts the keys: in ``startup/`` of a kit."""

POLY_MODULUS_DEGREE = 2 * SLOTS
COEFF_MOD_BIT_SIZES = (60, 40, 40)
SCALE_BITS = 50
"""A number of the size of one comes back to 12 digits: more than float32 has."""

SCALE = 2.0**SCALE_BITS
PRIMES = 2
"""Of a ciphertext; the third of the parameters serves the keys."""

NOISE = 2.0**-35
"""How far a sum of encrypted numbers may be off; a mean is that by the weight of all sites.

Measured with the parameters above: 2^-39.6 is the standard deviation of one addend, and that of k
addends is larger by the root of k. So this is 24 times that of one site, and 6 times that of 16.
"""

LARGEST = 2.0**38
"""Of an encrypted number: 1024 of them add up to less than 2^49, where sums wrap around."""

MOST_OFF = 1e-4
"""How far the one of a ciphertext may be off: far more than noise, far less than another key."""


Loaded: TypeAlias = list[Any]
"""Ciphertexts as TenSEAL computes with them."""


class Keys:
    """The keys of a federation, as a server or a site has them.

    Args:
        content: of the file in the kit.
        source: the name of the file, for errors.

    Raises:
        WeightsError: it holds no keys that can be used here.
    """

    def __init__(self, content: bytes, *, source: str) -> None:
        self.source = source
        try:
            self._context = tenseal.context_from(content)
            context = self._context.seal_context().data.key_context_data()
            degree = int(context.parms().poly_modulus_degree())
            scale = float(self._context.global_scale)
        except Exception as error:  # TenSEAL raises RuntimeError and ValueError alike
            fault = f"holds no keys that can be read: {error}"
            if "incompatible version" in str(error):
                fault = (
                    f"was made by another version of TenSEAL than here, {version(EXTRA)}; server, "
                    "sites and the provisioning machine need the same version"
                )
            raise WeightsError(f"{source} {fault}") from error
        if degree != POLY_MODULUS_DEGREE or scale != SCALE:
            raise WeightsError(
                f"{source} has the parameters {degree} and {scale:g}; this version works with "
                f"{POLY_MODULUS_DEGREE} and {SCALE:g}, which 'mmar provision' writes"
            )

    @property
    def can_decrypt(self) -> bool:
        """Whether the secret key is among them."""
        return bool(self._context.is_private())

    def encrypt(self, row: npt.NDArray[np.float64], weight: float) -> Ciphertexts:
        """Return ``weight * row``, encrypted.

        Raises:
            WeightsError: there is no secret key, values are not finite, or they are too large.
        """
        self._require_secret()
        low, high = WEIGHT_RANGE
        if not low <= weight <= high:
            raise WeightsError(
                f"the weight of this update is {weight:g}; from {low:g} to {high:g} can be "
                "encrypted. It is the claim of the site by its aggregation weight."
            )
        if not np.isfinite(row).all():
            raise WeightsError("values that are not finite would be encrypted; nothing is sent")
        count = -(-row.size // VALUES)
        slots = np.zeros((count, SLOTS))
        slots[:, 0] = 1.0
        padded = np.zeros(count * VALUES)
        padded[: row.size] = row
        slots[:, 1:] = padded.reshape(count, VALUES)
        slots *= weight
        if np.abs(slots).max() > LARGEST:
            raise WeightsError(
                f"a value by its weight is {np.abs(slots).max():g}; {LARGEST:g} is the most that "
                "can be encrypted, so that no sum of the sites wraps around"
            )
        return tuple(
            bytes(tenseal.ckks_vector(self._context, slot.tolist()).serialize()) for slot in slots
        )

    def decrypt(
        self, ciphertexts: Sequence[bytes], weight: float, count: int
    ) -> npt.NDArray[np.float64]:
        """Return the row of ``count`` numbers that was multiplied by ``weight`` and encrypted.

        Raises:
            WeightsError: there is no secret key, or it is another than they were encrypted with,
                or the sum has another weight than the given.
        """
        self._require_secret()
        numbers = np.empty((len(ciphertexts), SLOTS))
        for index, ciphertext in enumerate(ciphertexts):
            numbers[index] = self._loaded(ciphertext).decrypt()
        numbers /= weight
        off = np.abs(numbers[:, 0] - 1.0)
        if not (off <= MOST_OFF).all():
            raise WeightsError(
                "the received weights were encrypted with other keys than those in "
                f"{self.source}, or were not added up as they are said to be; nothing was loaded"
            )
        return numbers[:, 1:].reshape(-1)[:count]

    def tensors(self, part: EncryptedPart) -> dict[str, npt.NDArray[Any]]:
        """Return the decrypted tensors of a part, rounded to their types as if without noise.

        Raises:
            WeightsError: see ``decrypt`` and ``Layout.parted``.
        """
        row = self.decrypt(part.ciphertexts, part.weight, part.layout.count)
        return part.layout.parted(row, noise=NOISE / part.weight)

    def loaded(self, ciphertexts: Sequence[bytes]) -> Loaded:
        """Return ciphertexts ready to be added.

        Raises:
            WeightsError: a text is not a ciphertext of this federation.
        """
        return [self._loaded(ciphertext) for ciphertext in ciphertexts]

    def _loaded(self, ciphertext: bytes) -> tenseal.CKKSVector:
        if len(ciphertext) > CIPHERTEXT_BYTES:
            raise WeightsError(f"a ciphertext has {len(ciphertext)} bytes")
        try:
            vector = tenseal.ckks_vector_from(self._context, ciphertext)
            parts = vector.ciphertext()
            fits = (
                vector.size() == SLOTS
                and len(parts) == 1
                and parts[0].size() == 2
                and parts[0].coeff_modulus_size() == PRIMES
                and parts[0].poly_modulus_degree() == POLY_MODULUS_DEGREE
                and parts[0].scale == SCALE
            )
        except Exception as error:  # a sent text may make TenSEAL raise any exception
            raise WeightsError("a ciphertext cannot be read with these keys") from error
        if not fits:
            raise WeightsError("a ciphertext is of another form than those of this federation")
        if parts[0].is_transparent():
            raise WeightsError("a ciphertext is transparent: it hides nothing, and cannot be added")
        return vector

    def _require_secret(self) -> None:
        if not self.can_decrypt:
            raise WeightsError(f"{self.source} holds no secret key")


class EncryptedSum:
    """The sum of encrypted rows; exact, so its bits do not depend on the order of its addends."""

    def __init__(self) -> None:
        self._sum: Loaded = []

    def add(self, row: Loaded) -> None:
        """Add a row, all of one length.

        Raises:
            WeightsError: it cannot be added, such as a row that cancels the sum; the sum stays as
                it was.
        """
        if not self._sum:
            self._sum = row
            return
        try:
            # In place, an error would leave a part of the row in the sum.
            self._sum = [total + addend for total, addend in zip(self._sum, row, strict=True)]
        except Exception as error:  # a sent text may make TenSEAL raise any exception
            raise WeightsError("a ciphertext cannot be added to those of the others") from error

    @property
    def ciphertexts(self) -> Ciphertexts:
        """The sum; none before a row was added."""
        return tuple(bytes(vector.serialize()) for vector in self._sum)
