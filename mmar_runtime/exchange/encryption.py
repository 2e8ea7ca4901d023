"""Weights of which a part is encrypted: the choice of the part, and its form on the way.

Nothing here computes with ciphertexts, which ``mmar_runtime.exchange.ckks`` does, or needs torch.
An encrypted part is four dense arrays next to the plain tensors. Code that carries, judges or
digests weights does so with these:

    @encrypted/layout       JSON: name, dtype and shape of each encrypted tensor, by name
    @encrypted/weight       the factor by which the encrypted numbers are multiplied
    @encrypted/lengths      bytes of each ciphertext
    @encrypted/ciphertexts  the ciphertexts, one after the other

All encrypted tensors together are one row of numbers, in the order of the names. Each ciphertext
holds ``SLOTS`` numbers: a one, by which the decrypting site notices wrong keys and wrong sums, and
``VALUES`` of the row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mmar_runtime.config.location import Location
from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.sharing import fitting_names
from mmar_runtime.names import ENCRYPTED_PREFIX

LAYOUT = f"{ENCRYPTED_PREFIX}layout"
WEIGHT = f"{ENCRYPTED_PREFIX}weight"
LENGTHS = f"{ENCRYPTED_PREFIX}lengths"
CIPHERTEXTS = f"{ENCRYPTED_PREFIX}ciphertexts"
ARRAYS: Mapping[str, str] = {
    LAYOUT: "uint8",
    WEIGHT: "float64",
    LENGTHS: "int64",
    CIPHERTEXTS: "uint8",
}
"""The arrays of an encrypted part, and their types; each has one dimension."""

SLOTS = 4096
VALUES = SLOTS - 1
CIPHERTEXT_BYTES = 2 * 2 * 2 * SLOTS * 8 + 1024
"""No ciphertext is larger: two polynomials by two primes, eight bytes a coefficient, and a head."""

MAX_LAYOUT_BYTES = 4 * 2**20
WEIGHT_RANGE = (1e-3, 1e12)
"""Of a factor; below it the noise of the encryption would show in float32."""

Ciphertexts = tuple[bytes, ...]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which tensors are encrypted: name -> dtype, as NumPy writes it, and shape; by name.

    Attributes:
        tensors: at least one, floating-point all of them.
    """

    tensors: Mapping[str, tuple[str, tuple[int, ...]]]

    @property
    def count(self) -> int:
        """Numbers in all tensors together."""
        return sum(math.prod(shape) for _, shape in self.tensors.values())

    @property
    def ciphertexts(self) -> int:
        """How many ciphertexts hold them."""
        return -(-self.count // VALUES)

    @property
    def text(self) -> bytes:
        """JSON with equal bytes for equal layouts."""
        tensors = {name: [dtype, list(shape)] for name, (dtype, shape) in self.tensors.items()}
        return json.dumps(tensors, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def read(cls, text: bytes) -> Layout:
        """Return the layout that was written so.

        Raises:
            WeightsError: it is none.
        """
        try:
            tensors = {
                name: (str(np.dtype(dtype)), tuple(shape))
                for name, (dtype, shape) in json.loads(text).items()
            }
            layout = cls(tensors=tensors)
            shapes = [size for _, shape in tensors.values() for size in shape]
            whole = all(type(size) is int and size >= 0 for size in shapes)
            fits = whole and layout.text == text and layout.count > 0
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError("the list of encrypted tensors cannot be read") from error
        if not fits or any(np.dtype(dtype).kind != "f" for dtype, _ in tensors.values()):
            raise WeightsError("the list of encrypted tensors is not as it is written here")
        return layout

    def joined(self, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """Return the tensors as one row.

        Raises:
            WeightsError: a tensor is missing, or of another shape.
        """
        for name, (_, shape) in self.tensors.items():
            if name not in arrays or arrays[name].shape != shape:
                given = arrays[name].shape if name in arrays else "nothing"
                raise WeightsError(f"{name} is to be encrypted: shape {shape}, found {given}")
        return np.concatenate([np.ravel(arrays[name]).astype(np.float64) for name in self.tensors])

    def parted(
        self, row: npt.NDArray[np.float64], *, noise: float = 0.0
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the tensors of such a row, each in its dtype and shape.

        Args:
            row: as decrypted.
            noise: how far off its numbers may be; see ``without_noise``.

        Raises:
            WeightsError: the row is of another length, or holds values that are not finite in the
                dtype.
        """
        if row.shape != (self.count,):
            raise WeightsError(f"{row.size} numbers were decrypted, {self.count} were expected")
        tensors: dict[str, npt.NDArray[Any]] = {}
        start = 0
        for name, (dtype, shape) in self.tensors.items():
            end = start + math.prod(shape)
            with np.errstate(over="ignore"):
                numbers = without_noise(row[start:end], dtype, noise)
                tensors[name] = numbers.astype(dtype).reshape(shape)
            if not np.isfinite(tensors[name]).all():
                raise WeightsError(f"decrypted values are not finite, in {name}")
            start = end
        return tensors


def without_noise(
    numbers: npt.NDArray[np.float64], dtype: str, noise: float
) -> npt.NDArray[np.float64]:
    """Return numbers before they are rounded to a type, those near its grid moved onto the grid.

    The grid has zero, the numbers of the type, and the middles between neighbours. A mean of two
    sites often lies in the middle, and noise would decide to which side it is rounded. Where the
    grid is finer than the noise, numbers stay as they are.

    Args:
        numbers: finite in the type, or left as they are.
        dtype: a floating-point type.
        noise: how far off the numbers may be.

    >>> between = 1 + 2**-24  # 1 and 1 + 2**-23 are neighbours in float32
    >>> without_noise(np.array([between + 1e-12, 1e-12, 0.1]), "float32", 1e-11) == between
    array([ True, False, False])
    """
    half = np.spacing(np.abs(numbers.astype(dtype))).astype(np.float64) / 2
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        near = np.rint(numbers / half) * half
    is_near = (half > noise) & (np.abs(numbers - near) <= noise)
    return np.where(np.abs(numbers) <= noise, 0.0, np.where(is_near, near, numbers))


def layout_of(weights: Mapping[str, Any], patterns: Any, location: Location) -> Layout:
    """Return which tensors of a network are encrypted: floating-point tensors that a pattern fits.

    Args:
        weights: arrays or tensors by name; only dtypes and shapes are looked at.
        patterns: exact names, or names with ``*`` for any characters.
        location: of the patterns.

    Raises:
        ConfigError: a pattern is none or fits no floating-point tensor.
    """
    dtypes = {name: str(value.dtype).removeprefix("torch.") for name, value in weights.items()}
    floats = [name for name in sorted(weights) if np.dtype(dtypes[name]).kind == "f"]
    names = fitting_names(patterns, floats, location)
    return Layout(tensors={name: (dtypes[name], tuple(weights[name].shape)) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedPart:
    """The encrypted part of some weights.

    Attributes:
        layout: which tensors.
        weight: the factor of the encrypted numbers.
        ciphertexts: as many as the layout says.
    """

    layout: Layout
    weight: float
    ciphertexts: Ciphertexts

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As it travels."""
        return {
            LAYOUT: np.frombuffer(self.layout.text, np.uint8).copy(),
            WEIGHT: np.array([self.weight], np.float64),
            LENGTHS: np.array([len(ciphertext) for ciphertext in self.ciphertexts], np.int64),
            CIPHERTEXTS: np.frombuffer(b"".join(self.ciphertexts), np.uint8).copy(),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> EncryptedPart:
        """Return the part that travelled so.

        Raises:
            WeightsError: with the fault.
        """
        fault = next(iter(part_faults(arrays)), None)
        if fault is not None:
            raise WeightsError(f"the encrypted part cannot be used: {fault}")
        layout = Layout.read(arrays[LAYOUT].tobytes())
        if layout.ciphertexts != arrays[LENGTHS].size:
            raise WeightsError(
                f"{arrays[LENGTHS].size} ciphertexts came; the tensors take {layout.ciphertexts}"
            )
        content = arrays[CIPHERTEXTS].tobytes()
        ends = np.cumsum(arrays[LENGTHS]).tolist()
        pieces = zip([0, *ends], ends, strict=False)
        return cls(
            layout=layout,
            weight=float(arrays[WEIGHT][0]),
            ciphertexts=tuple(content[start:end] for start, end in pieces),
        )


def part_faults(arrays: Mapping[str, Any]) -> Iterable[str]:
    """Yield the faults of an encrypted part's arrays, declared types and sizes first.

    Nothing is called that the sender could have made, and no ciphertext is looked into.
    """
    for name, dtype in ARRAYS.items():
        value = arrays.get(name)
        if type(value) is not np.ndarray or value.dtype != dtype or value.ndim != 1:
            yield f"{name} is not a row of {dtype}"
            return
        if not value.flags.c_contiguous or not value.flags.aligned:
            yield f"{name} is not dense"
            return
    if not 0 < arrays[LAYOUT].size <= MAX_LAYOUT_BYTES:
        yield f"{LAYOUT} has {arrays[LAYOUT].size} bytes"
    low, high = WEIGHT_RANGE
    if arrays[WEIGHT].size != 1 or not low <= float(arrays[WEIGHT][0]) <= high:
        yield f"{WEIGHT} is not a number from {low:g} to {high:g}"
    lengths = arrays[LENGTHS]
    if lengths.size == 0 or not ((lengths > 0) & (lengths <= CIPHERTEXT_BYTES)).all():
        yield f"{LENGTHS} holds a length that no ciphertext has; the most is {CIPHERTEXT_BYTES}"
    elif int(lengths.sum()) != arrays[CIPHERTEXTS].size:
        yield f"{CIPHERTEXTS} has {arrays[CIPHERTEXTS].size} bytes, {LENGTHS} says others"


def is_encrypted(weights: Mapping[str, Any]) -> bool:
    """Return whether a part of these weights is encrypted."""
    return not weights.keys().isdisjoint(ARRAYS)


def plain_part(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Return the tensors that are not encrypted."""
    return {name: tensor for name, tensor in weights.items() if name not in ARRAYS}
