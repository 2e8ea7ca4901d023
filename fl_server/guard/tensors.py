"""The tensors of a reply: first as they are declared, then their values and their norm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from statistics import median
from typing import Any, TypeGuard

import numpy as np

from fl_server.guard.claims import claim_in
from fl_server.guard.values import (
    MAX_FAULTS,
    MAX_SHOWN,
    Expected,
    UpdateFault,
    UpdateLimits,
    shown_name,
    shown_value,
)
from mmar_runtime.exchange.encryption import (
    ARRAYS,
    LAYOUT,
    LENGTHS,
    WEIGHT,
    part_faults,
    plain_part,
)
from mmar_runtime.exchange.rounding import Array, Arrays, restored, rounding_faults

MAX_NORM_FACTOR = 2.0**24
"""So many times a number, added to it, leaves nothing of it in float32."""

BLOCK = 2**16
"""Numbers that are converted at a time: they stay in the processor's cache."""


def update_faults(
    update: object, metadata: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Judge the tensors of a difference, or of whole weights."""
    hidden = [*_encrypted_faults(update, metadata, expected, limits)]
    yield from hidden
    if expected.encrypted is not None and _is_named(update):
        update = plain_part(update)
    if expected.transfer is not None and _is_named(update):
        faults = islice(rounding_faults(update, expected.transfer, expected.model), MAX_FAULTS)
        misshapen = [UpdateFault("transfer", shown_name(place), fault) for place, fault in faults]
        yield from misshapen
        if misshapen:
            return
        update = restored(update)
    unlike = [*_tensor_faults(update, expected, limits)]
    yield from unlike
    if not unlike and isinstance(update, dict):
        yield from _value_faults(update, expected, limits)


def _is_named(update: object) -> TypeGuard[dict[str, Any]]:
    return type(update) is dict and all(type(name) is str for name in update)


def update_norm(update: Arrays) -> float:
    """Return the Euclidean norm over all floating-point tensors in float64; it may be infinite."""
    with np.errstate(all="ignore"):
        squares = [_square_sum(array) for array in update.values() if array.dtype.kind == "f"]
    return math.sqrt(sum(squares))


def outlying_norms(norms: Mapping[str, float], ratio: float) -> dict[str, UpdateFault]:
    """Return the sites whose norm is more than ``ratio`` times the median, with the reason."""
    if not norms:
        return {}
    middle = median(norms.values())
    bound = f", more than {ratio:g} times the median {middle:.6g}"
    faults = {site: _norm_fault(norm, ratio * middle, bound) for site, norm in norms.items()}
    return {site: fault for site, fault in faults.items() if fault is not None}


# --- what is encrypted


def _encrypted_faults(
    update: object, metadata: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Judge ciphertexts as they are declared, and that no tensor to encrypt comes in plain."""
    layout = expected.encrypted
    if layout is None or not _is_named(update):
        return  # ``_tensor_faults`` rejects what is not an update
    for name in layout.tensors:
        if name in update:
            yield UpdateFault("encryption", name, "came in plain, and has to be encrypted")
    faults = [UpdateFault("encryption", "update", fault) for fault in part_faults(update)]
    yield from faults
    if faults:
        return
    size = sum(update[name].nbytes for name in ARRAYS)
    if limits.max_bytes is not None and size > limits.max_bytes:
        message = f"has {size} encrypted bytes; {limits.max_bytes} is the most"
        yield UpdateFault("bytes", "update", message)
    if update[LAYOUT].tobytes() != layout.text:
        message = "names other tensors than those that the job encrypts"
        yield UpdateFault("encryption", LAYOUT, message)
    elif update[LENGTHS].size != layout.ciphertexts:
        message = f"has {update[LENGTHS].size} ciphertexts; the tensors take {layout.ciphertexts}"
        yield UpdateFault("encryption", LENGTHS, message)
    weight, sent = 1.0, float(update[WEIGHT][0])
    if expected.kind == "WEIGHT_DIFF":
        claim = claim_in(metadata, expected.weigh_by)
        weight = sent if claim is None else claim * expected.factor
    if sent != weight:
        message = (
            f"is {sent:g}; {expected.weigh_by} by the site's aggregation weight are {weight:g}"
        )
        yield UpdateFault("encryption", WEIGHT, message)


# --- tensors as they are declared


def _tensor_faults(
    update: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Judge names, shapes, dtypes, layout and bytes; no value is read."""
    if type(update) is not dict:
        yield UpdateFault("tensors", "update", f"has to be an object, found {shown_value(update)}")
        return
    if len(update) > len(expected.model) + MAX_FAULTS:
        message = f"has {len(update)} tensors; the network has {len(expected.model)}"
        yield UpdateFault("names", "update", message)
        return
    for name in update:
        if type(name) is not str:
            yield UpdateFault("names", "update", f"a tensor is called {shown_value(name)}")
            return
        if name not in expected.model:
            yield UpdateFault("names", shown_name(name), "not part of the network")
    if expected.model and not update:
        yield UpdateFault("names", "update", "has no tensor at all")
        return
    declared = 0
    for name, like in expected.model.items():
        if name not in update:
            if name not in expected.optional:
                yield UpdateFault("names", name, "missing")
            continue
        if fault := _array_fault(update[name], like):
            yield UpdateFault(fault[0], name, fault[1])
        else:
            declared += like.nbytes
    if limits.max_bytes is not None and declared > limits.max_bytes:
        message = f"has {declared} bytes; {limits.max_bytes} is the most"
        yield UpdateFault("bytes", "update", message)


def _array_fault(value: object, like: Array) -> tuple[str, str] | None:
    """Return the rule that an array breaks as it is declared, and the reason; None if none.

    An array that passes has the bytes of the model's tensor, all of them there.
    """
    if type(value) is not np.ndarray:
        return "array", f"is no plain array, {shown_value(value)}"
    if value.dtype != like.dtype:
        return "dtype", f"{like.dtype}, given {str(value.dtype)[:MAX_SHOWN]}"
    if value.shape != like.shape:
        return "shape", f"shape {like.shape}, given {str(value.shape)[:MAX_SHOWN]}"
    if not (value.flags.c_contiguous or value.flags.f_contiguous) or not value.flags.aligned:
        return "layout", "is not dense"
    return None


# --- values


def _value_faults(
    update: Arrays, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Judge that values are finite, and that a training of the model can have led to them."""
    is_difference = expected.kind == "WEIGHT_DIFF"
    spoilt = False
    most_there_is = 0.0
    for name, like in expected.model.items():
        if name not in update:
            continue  # it is one that may be missing
        value = update[name]
        if like.dtype.kind == "f":
            largest = largest_magnitude(value)
            most_there_is += value.size * (largest * largest)
            fault = _float_fault(value, largest, like if is_difference else None, name, expected)
        else:
            base = like if is_difference else np.zeros_like(like)
            fault = _integer_fault(value, base, like, limits.max_steps if is_difference else None)
        if fault:
            spoilt = True
            yield UpdateFault(fault[0], name, fault[1])
    if is_difference and not spoilt:
        yield from _norm_faults(update, math.sqrt(most_there_is), expected, limits)


def _norm_faults(
    update: Arrays, most_there_is: float, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Judge the norm by its bounds; ``most_there_is`` is at least as large, and costs nothing."""
    most = limits.max_norm
    if most is None and most_there_is <= MAX_NORM_FACTOR:
        return
    norm = update_norm(update)
    most = MAX_NORM_FACTOR * (1 + update_norm(expected.model)) if most is None else most
    if (outlier := _norm_fault(norm, most, f"; {most:g} is the most")) is not None:
        yield outlier


def largest_magnitude(array: Array) -> float:
    """Return the largest magnitude in an array; NaN or infinite if that is in it."""
    flat, largest = array.reshape(-1, order="A"), 0.0
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        low, high = float(block.min()), float(block.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return low + high
        largest = max(largest, -low, high)
    return largest


def _float_fault(
    value: Array,
    largest: float,
    base: Array | None,
    name: str,
    expected: Expected,
) -> tuple[str, str] | None:
    if not math.isfinite(largest):
        return "finite", "values that are not finite"
    if base is None:
        return None
    # A mean of models that each are in range is in range too.
    known = expected.largest.get(name)
    if largest + (largest_magnitude(base) if known is None else known) <= np.finfo(value.dtype).max:
        return None
    moved = np.abs(value.astype(np.float64) + base.astype(np.float64))
    if moved.size and not moved.max() <= np.finfo(value.dtype).max:
        return "range", f"leads to values that {value.dtype} does not hold"
    return None


def _integer_fault(
    value: Array, base: Array, like: Array, most: int | None
) -> tuple[str, str] | None:
    """Judge that a buffer stays in its range, and moves by at most ``most``."""
    if value.size == 0 or value.dtype.kind == "b":
        return None
    low, high = int(value.min()), int(value.max())
    if most is not None and not -most <= low <= high <= most:
        return "range", f"moves by {low} to {high}; {most} is the most"
    if int(base.max()) + high > np.iinfo(value.dtype).max:
        return "range", f"leads to values that {value.dtype} does not hold"
    if int(like.min()) >= 0 and int((base + value).min()) < 0:
        return "range", "leads to negative values, where the model has none"
    return None


def _square_sum(array: Array) -> float:
    flat = array.reshape(-1)
    total = 0.0
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK].astype(np.float64)
        total += float(np.dot(block, block))
    return total


def _norm_fault(norm: float, most: float, bound: str) -> UpdateFault | None:
    """Judge a norm by a bound, and name the bound in the fault."""
    if not math.isfinite(norm):
        return UpdateFault("norm", "update", "its norm is no finite number in float64")
    return UpdateFault("norm", "update", f"its norm is {norm:.6g}{bound}") if norm > most else None
