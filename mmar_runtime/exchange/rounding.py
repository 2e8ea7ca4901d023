"""Differences of weights in fewer bytes: the site rounds them, the server restores them.

Large tensors of float32 are cut into blocks of ``BLOCK`` numbers, in the order of their rows. Each
block has a scale; a number travels divided by its scale:

    NAME            float16 or int8, in the shape of the tensor
    @scales/NAME    float32, one for each block

Everything else travels as it is: other types, small tensors, and vectors, such as biases and the
statistics of batch norms. These are a few numbers of many, and a variance that is rounded may come
out below zero.

Rounding is to nearest, ties to even. Nothing is drawn and nothing is added up, so every machine
makes equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.rounding_forms import Rounding

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]

BLOCK = 256
SCALES = "@scales/"

LEAST_SCALE = 2.0**-126
"""The least normal number of float32: no product of a code and a scale needs more digits."""

LARGEST: Mapping[Rounding, float] = {
    "float16": 65504 * 2.0**112,
    "int8": float(np.finfo(np.float32).max),
}
"""Magnitudes up to here can be rounded; beyond, float16 would round to more than float32 holds."""

SLAB = 256 * BLOCK
"""Numbers that are rounded at a time: they stay in the processor's cache."""

_SCALE_BITS = np.uint32(0xFFFFFF80)
"""All but the last 7 bits of a float32, so that 7 bits times a scale is exact."""


def is_rounded(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    """Return whether a tensor of this type and shape is rounded, or travels as it is."""
    return dtype == np.float32 and len(shape) > 1 and math.prod(shape) >= BLOCK


def rounded(arrays: Arrays, form: Rounding) -> dict[str, Array]:
    """Return the arrays as they travel.

    Args:
        arrays: a difference of weights; left as it is, and shared where it is not rounded.
        form: the type of the rounded numbers.

    Raises:
        WeightsError: a number is not finite, or larger than ``LARGEST``.
    """
    sent: dict[str, Array] = {}
    for name, array in arrays.items():
        if is_rounded(array.dtype, array.shape):
            sent[name], sent[SCALES + name] = _rounded(name, array, form)
        else:
            sent[name] = array
    return sent


def restored(arrays: Arrays) -> dict[str, Array]:
    """Return the arrays with float32 where they were rounded; all others are shared.

    Args:
        arrays: as ``rounded`` makes them, or ``rounding_faults`` finds no fault with.
    """
    return {
        name: _restored(array, arrays[SCALES + name]) if SCALES + name in arrays else array
        for name, array in arrays.items()
        if not name.startswith(SCALES)
    }


def rounding_faults(arrays: Arrays, form: Rounding, model: Arrays) -> Iterator[tuple[str, str]]:
    """Yield the faults of a difference's form: the name of the array, and the fault.

    Types and sizes are judged as declared before a value is read, and nothing is called that the
    sender could have made. Other checks judge missing tensors and tensors that are not rounded.

    Args:
        arrays: as they came, under names that are texts.
        form: the requested form.
        model: arrays of the types and shapes that the network has.
    """
    large = {name: like for name, like in model.items() if is_rounded(like.dtype, like.shape)}
    for name, like in large.items():
        if name in arrays:
            yield from _unlike(name, arrays[name], np.dtype(form), like.shape)
            scales: Any = arrays.get(SCALES + name)
            faults = [*_unlike(SCALES + name, scales, np.dtype(np.float32), _scales_of(like))]
            yield from faults
            if not faults and not (np.isfinite(scales) & (scales >= LEAST_SCALE)).all():
                fault = f"has a scale that is not a number from {LEAST_SCALE:g} on"
                yield SCALES + name, fault
    for name in arrays:
        if name.startswith(SCALES):
            owner = name.removeprefix(SCALES)
            if owner not in large or owner not in arrays:
                yield name, "belongs to no tensor that is rounded"


def _unlike(
    name: str, value: object, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Iterator[tuple[str, str]]:
    """Yield a fault unless a value is a dense array of this type and shape."""
    if type(value) is not np.ndarray:
        yield name, f"has to be an array of {dtype}"
    elif value.dtype != dtype:
        yield name, f"has to be {dtype}, given {str(value.dtype)[:40]}"
    elif value.shape != shape:
        yield name, f"has to have the shape {shape}, given {str(value.shape)[:40]}"
    elif not (value.flags.c_contiguous or value.flags.f_contiguous) or not value.flags.aligned:
        yield name, "is not dense"


def _scales_of(like: Array) -> tuple[int]:
    """Return the shape of the scales of a tensor."""
    return (-(-like.size // BLOCK),)


def _rounded(name: str, array: Array, form: Rounding) -> tuple[Array, npt.NDArray[np.float32]]:
    flat = array.reshape(-1)
    values, scales = np.empty(flat.size, form), np.empty(_scales_of(array), np.float32)
    for start in range(0, flat.size, SLAB):
        rows = _rows(flat[start : start + SLAB])
        largest = np.abs(rows).max(axis=1)
        if not largest.max() <= LARGEST[form]:
            raise WeightsError(
                f"{name}: a difference that is not finite, or larger than {LARGEST[form]:.3g}, "
                f"cannot be sent as {form}; nothing is sent"
            )
        block = start // BLOCK
        own = scales[block : block + len(rows)]
        own[:] = _scales(largest, form)
        scaled = rows / own[:, np.newaxis]
        codes = np.rint(scaled).astype(np.int8) if form == "int8" else _cast(scaled, "float16")
        values[start : start + SLAB] = codes.reshape(-1)[: flat.size - start]
    return values.reshape(array.shape), scales


def _restored(values: Array, scales: Array) -> npt.NDArray[np.float32]:
    flat = values.reshape(-1)
    numbers = np.empty(flat.size, np.float32)
    for start in range(0, flat.size, SLAB):
        rows = _cast(_rows(flat[start : start + SLAB]).copy(), "float32")
        block = start // BLOCK
        rows *= scales[block : block + len(rows), np.newaxis]
        numbers[start : start + SLAB] = rows.reshape(-1)[: flat.size - start]
    return numbers.reshape(values.shape)


def _cast(own: Array, dtype: Literal["float16", "float32"]) -> Array:
    """Return numbers in another type, rounded to nearest; NumPy takes ten times as long.

    Args:
        own: may be written to, which torch asks for.
        dtype: of the result.
    """
    import torch  # not for a judge of an update that is not rounded

    cast: Array = torch.from_numpy(own).to(getattr(torch, dtype)).numpy()
    return cast


def _rows(flat: Array) -> Array:
    """Return numbers as rows of one block each; the last row is filled up with zeros."""
    missing = -flat.size % BLOCK
    whole = np.concatenate([flat, np.zeros(missing, flat.dtype)]) if missing else flat
    return whole.reshape(-1, BLOCK)


def _scales(largest: npt.NDArray[np.float32], form: Rounding) -> npt.NDArray[np.float32]:
    """Return the scale of each block: the largest code is 127, or at most 2^15 and above 2^14.

    Rounded numbers that are rounded again get equal scales, so they stay as they are.
    """
    if form == "int8":
        scales = ((largest / np.float32(127)).view(np.uint32) & _SCALE_BITS).view(np.float32)
        return np.maximum(scales, np.float32(LEAST_SCALE))
    mantissa, exponent = np.frexp(largest)
    powers = np.maximum(exponent - (mantissa == 0.5) - 15, -126)
    return np.asarray(np.ldexp(np.float32(1), powers), np.float32)
