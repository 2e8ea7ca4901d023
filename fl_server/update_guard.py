"""What a site's reply must be before anything is done with it: one function over plain values.

``check_update`` takes numpy arrays and plain metadata and returns what is wrong with them. It calls
nothing that the sender could have made: only exact types of Python and numpy are looked into, and
sizes are judged as declared, before a value is read or converted. Whatever it is given, it returns;
an error of its own is a refusal too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from mmar_runtime.exchange.encryption import (
    ARRAYS,
    LAYOUT,
    LENGTHS,
    WEIGHT,
    Layout,
    part_faults,
    plain_part,
)
from mmar_runtime.exchange.rounding import restored, rounding_faults
from mmar_runtime.exchange.rounding_forms import Rounding
from mmar_runtime.names import is_name

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
Range: TypeAlias = tuple[float, float]
Kind = Literal["WEIGHT_DIFF", "WEIGHTS", "METRICS"]

MAX_FAULTS = 12
"""Faults that are told of one reply; there may be more."""

MAX_STEPS = 10**9
MAX_CASES = 10**6
"""Of one site: with a batch for each case, its epoch has no more steps than that."""

MAX_EPOCHS = 100
"""That a site trains in a round: the highest ``limits.epochs_per_round`` of a site's policy."""

MAX_METADATA_BYTES = 16 * 1024
"""A report of 100 epochs, the most that a site trains in a round by default, takes half of it."""

MAX_METADATA_DEPTH = 6
MAX_METRIC = 1e12
"""No metric is larger: sums over any number of sites stay finite."""

WIPED = 2.0**24
"""So many times a number, added to it, leaves nothing of it in float32."""

BLOCK = 2**16
"""Numbers that are converted at a time: they stay in the processor's cache."""

MAX_METRICS = 200
MAX_SHOWN = 60
LARGEST_INT = 2**63

CLAIMS = ("site", "job", "round", "kind", "base_model")
"""Metadata by which a reply says what it belongs to."""

METADATA_KEYS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "WEIGHT_DIFF": ("steps", "report", "initial_metrics", "filter_history"),
        "WEIGHTS": ("model_round", "metrics", "filter_history"),
        "METRICS": ("cases", "filter_history"),
    }
)
"""Further metadata of each kind of reply."""

REPORT_KEYS = (
    "received_metrics", "local_metrics", "epochs", "seconds", "built", "process", "cases",
)  # fmt: skip
"""What a site's report on its round may hold."""


@dataclass(frozen=True, slots=True)
class UpdateFault:
    """One reason to refuse a reply.

    Attributes:
        rule: a short stable identifier, such as ``shape``.
        place: the tensor, or the place in the metadata.
        message: what was found there, and what is allowed.
    """

    rule: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateLimits:
    """Bounds that a federation sets.

    Attributes:
        max_bytes: of all tensors together; None for as many as the model has.
        max_norm: Euclidean norm of a difference over all its floating-point tensors; None for
            ``WIPED`` times that of the model, and one.
        norm_ratio: the same bound as a multiple of the round's median; None for none.
        max_steps: optimizer steps of one site in one round. An integer buffer, such as a counter of
            batches, moves by no more than this either.
        metadata_bytes: of everything but the tensors.
        metadata_keys: allowed keys beside ``CLAIMS``; None for those of ``METADATA_KEYS``.
        metric_ranges: least and greatest value of a metric, by name.
    """

    max_bytes: int | None = None
    max_norm: float | None = None
    norm_ratio: float | None = None
    max_steps: int = MAX_STEPS
    metadata_bytes: int = MAX_METADATA_BYTES
    metadata_keys: tuple[str, ...] | None = None
    metric_ranges: Mapping[str, Range] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the server awaits.

    Attributes:
        site: the sender, as the connection was authenticated.
        job: id of the job.
        kind: a difference of weights, whole weights, or metrics alone.
        model: the global model, to which a difference is added; names, shapes and dtypes of the
            tensors are its. Empty where only metrics are awaited.
        optional: names of tensors that may be missing.
        key_metric: has to be among the metrics.
        metric_names: there may be no others; None where the job does not tell.
        round: number of the round; None where a reply belongs to none.
        base_model: digest of the model that was sent; None where it is not compared.
        contributors: who has answered already.
        median_norm: median of the round's norms, once it is known.
        largest: of each floating-point tensor of the model its ``largest_magnitude``, where whoever
            judges several replies has computed it before.
        encrypted: the tensors that come encrypted, which ``model`` does not have; None for none.
        factor: of the site's steps in the mean: steps by factor is the weight of what is encrypted.
        transfer: the form in which large tensors of a difference come; None for as they are.
        steps: optimizer steps that the job asks for in a round; 0 where it asks for epochs.
    """

    site: str
    job: str
    kind: Kind = "WEIGHT_DIFF"
    model: Arrays = field(default_factory=dict)
    optional: Collection[str] = ()
    key_metric: str | None = None
    metric_names: Collection[str] | None = None
    round: int | None = None
    base_model: str | None = None
    contributors: Collection[str] = ()
    median_norm: float | None = None
    largest: Mapping[str, float] = field(default_factory=dict)
    encrypted: Layout | None = None
    factor: float = 1.0
    transfer: Rounding | None = None
    steps: int = 0


def check_update(
    update: object, metadata: object, expected: Expected, limits: UpdateLimits
) -> tuple[UpdateFault, ...]:
    """Why a reply must not be used; empty if it may be. Never raises, whatever it is given.

    Args:
        update: tensor name -> array, or metric name -> value where metrics are awaited.
        metadata: what came with it: ``CLAIMS`` and the keys of ``METADATA_KEYS``, plain values.
        expected: what the server awaits.
        limits: the bounds.
    """
    try:
        with np.errstate(all="ignore"):
            return tuple(islice(_faults(update, metadata, expected, limits), MAX_FAULTS))
    except Exception as error:
        message = f"cannot be judged ({type(error).__name__})"
        return (UpdateFault("unreadable", "update", message),)


def check_first(site: str, answered: Collection[str]) -> tuple[UpdateFault, ...]:
    """Why a reply does not count if its site has answered already; empty if it has not."""
    if site not in answered:
        return ()
    return (UpdateFault("duplicate", "site", f"{site} has answered already"),)


def update_norm(update: Arrays) -> float:
    """Euclidean norm over all floating-point tensors, in float64; infinite where that overflows."""
    with np.errstate(all="ignore"):
        squares = [_square_sum(array) for array in update.values() if array.dtype.kind == "f"]
    return math.sqrt(sum(squares))


def outlying_norms(norms: Mapping[str, float], ratio: float) -> dict[str, UpdateFault]:
    """The sites whose norm is more than ``ratio`` times the median of all, with the reason."""
    if not norms:
        return {}
    middle = median(norms.values())
    found = {site: _norm_fault(norm, None, ratio, middle) for site, norm in norms.items()}
    return {site: fault for site, fault in found.items() if fault is not None}


def _faults(
    update: object, metadata: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    unfit = [*_metadata_faults(metadata, expected, limits)]
    yield from unfit
    if not unfit and isinstance(metadata, dict):
        yield from _claim_faults(metadata, expected)
        yield from _number_faults(metadata, expected, limits)
    if expected.kind == "METRICS":
        yield from _metric_faults(update, "metrics", expected, limits)
        return
    hidden = [*_encrypted_faults(update, metadata, expected, limits)]
    yield from hidden
    plain = update if expected.encrypted is None else _without_ciphertexts(update)
    if expected.transfer is not None and _is_named(plain):
        misshapen = [*_form_faults(plain, expected.transfer, expected)]
        yield from misshapen
        if misshapen:
            return
        plain = restored(plain)
    unlike = [*_tensor_faults(plain, expected, limits)]
    yield from unlike
    if not unlike and isinstance(plain, dict):
        yield from _value_faults(plain, expected, limits)


# --- metadata


def _metadata_faults(
    metadata: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Anything but a small tree of plain finite values under known keys."""
    if type(metadata) is not dict:
        yield UpdateFault("metadata", "metadata", f"has to be an object, found {_shown(metadata)}")
        return
    allowed = limits.metadata_keys
    known = (*CLAIMS, *(METADATA_KEYS[expected.kind] if allowed is None else allowed))
    for key in metadata:
        if type(key) is not str or key not in known:
            yield UpdateFault("metadata", "metadata", f"unknown key {_shown(key)}")
    left = limits.metadata_bytes
    waiting: list[tuple[object, str, int]] = [(metadata, "metadata", 0)]
    while waiting:
        value, place, depth = waiting.pop()
        fault = _plain_fault(value, depth)
        if fault:
            yield UpdateFault("metadata", place, fault)
            return
        left -= _plain_bytes(value)
        if left < 0:
            message = f"has more than {limits.metadata_bytes} bytes"
            yield UpdateFault("metadata-size", "metadata", message)
            return
        waiting += _inside(value, place, depth + 1)


def _plain_fault(value: object, depth: int) -> str:
    """Why a value is none of the plain ones; empty if it is."""
    if type(value) in (dict, list, tuple):
        return "is nested too deeply" if depth > MAX_METADATA_DEPTH else ""
    if type(value) is str:
        return "" if value.isprintable() else "is a text with control characters"
    if type(value) is float:
        return "" if math.isfinite(value) else f"is not finite, found {value!r}"
    if type(value) is int:
        return "" if -LARGEST_INT <= value < LARGEST_INT else "is too large a number"
    return "" if value is None or type(value) is bool else f"is no plain value, {_shown(value)}"


def _plain_bytes(value: object) -> int:
    """About as many bytes as the value takes as JSON, without what is inside it."""
    if isinstance(value, dict):
        return 2 + sum(4 + len(key) for key in value if type(key) is str)
    if isinstance(value, list | tuple):
        return 2 + len(value)
    return 2 + len(value.encode()) if isinstance(value, str) else len(repr(value))


def _inside(value: object, place: str, depth: int) -> list[tuple[object, str, int]]:
    if isinstance(value, dict):
        return [
            (item, f"{place}.{key}"[:MAX_SHOWN], depth)
            if type(key) is str and key.isprintable()
            else (_NOT_PLAIN, f"{place}, name of a value", depth)
            for key, item in value.items()
        ]
    if isinstance(value, list | tuple):
        return [(item, f"{place}[{index}]", depth) for index, item in enumerate(value)]
    return []


_NOT_PLAIN = object()


def _claim_faults(metadata: Mapping[str, object], expected: Expected) -> Iterator[UpdateFault]:
    """A reply that belongs elsewhere, or was counted already."""
    awaited = {
        "site": expected.site,
        "job": expected.job,
        "kind": expected.kind,
        "round": expected.round,
        "base_model": expected.base_model,
    }
    for claim, value in awaited.items():
        found = metadata.get(claim)
        if value is not None and (type(found) is not type(value) or found != value):
            message = f"belongs to {_shown(found)}, not to {_shown(value)}"
            yield UpdateFault(claim, claim, message)
    yield from check_first(expected.site, expected.contributors)


def _number_faults(
    metadata: Mapping[str, Any], expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Steps, cases, rounds and metrics out of their range."""
    history = metadata.get("filter_history", ())
    if type(history) not in (list, tuple) or not all(map(is_name, history)):
        message = f"has to list names of filters, found {_shown(history)}"
        yield UpdateFault("metadata", "filter_history", message)
    if expected.kind == "WEIGHT_DIFF":
        most = min(limits.max_steps, _most_steps(metadata.get("report"), expected))
        yield from _count_fault(metadata.get("steps"), "steps", most)
        if "initial_metrics" in metadata:
            initial = metadata["initial_metrics"]
            yield from _metric_faults(initial, "initial_metrics", expected, limits)
        yield from _report_faults(metadata.get("report"), expected, limits)
    elif expected.kind == "WEIGHTS":
        yield from _count_fault(metadata.get("model_round"), "model_round", MAX_STEPS)
        yield from _metric_faults(metadata.get("metrics"), "metrics", expected, limits)
    elif "cases" in metadata:
        yield from _count_fault(metadata["cases"], "cases", MAX_STEPS)


def _most_steps(report: object, expected: Expected) -> int:
    """The steps that a round may have: the job's own number, or as epochs and cases allow.

    A handler may end an epoch early, so the last one may not be among those that are reported.
    """
    if expected.steps:
        return expected.steps
    epochs = report.get("epochs") if isinstance(report, dict) else None
    count = len(epochs) if type(epochs) is list else 0
    return min(count + 1, MAX_EPOCHS) * MAX_CASES


def _report_faults(
    report: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    if not isinstance(report, dict):
        yield UpdateFault("report", "report", "the contribution carries no report of the round")
        return
    for key in report:
        if key not in REPORT_KEYS:
            yield UpdateFault("report", "report", f"unknown key {_shown(key)}")
    for name in ("received_metrics", "local_metrics"):
        yield from _metric_faults(report.get(name), f"report.{name}", expected, limits)
    yield from _account_faults(report)


def _account_faults(report: Mapping[str, Any]) -> Iterator[UpdateFault]:
    """What a site tells of its work: it is stored and shown, so it holds numbers and plain names.

    What is missing is told where the report is read.
    """
    fits: Mapping[str, Callable[[Any], bool]] = {
        "process": is_name,
        "seconds": lambda value: _is_number(value) and value >= 0,
        "cases": _is_count,
        "built": lambda value: _maps_names_to(value, _is_count),
        "epochs": lambda value: type(value) is list and all(map(_is_epoch, value)),
    }
    for key, is_fit in fits.items():
        if key in report and not is_fit(report[key]):
            message = f"is no account of a round, found {_shown(report[key])}"
            yield UpdateFault("report", f"report.{key}", message)


def _is_epoch(value: object) -> bool:
    if type(value) is not dict or not set(value) <= {"epoch", "loss", "metrics"}:
        return False
    loss, metrics = value.get("loss"), value.get("metrics", {})
    numbers = _is_count(value.get("epoch")) and (loss is None or _is_number(loss))
    return numbers and _maps_names_to(metrics, _is_number)


def _maps_names_to(value: object, is_fit: Callable[[Any], bool]) -> bool:
    return type(value) is dict and all(is_name(k) and is_fit(v) for k, v in value.items())


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_STEPS


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _count_fault(value: object, place: str, most: int) -> Iterator[UpdateFault]:
    if type(value) is not int or not 0 < value <= most:
        message = f"has to be a whole number from 1 to {most}, found {_shown(value)}"
        yield UpdateFault(place, place, message)


def _metric_faults(
    metrics: object, place: str, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Metrics that cannot be compared, averaged and shown."""
    if type(metrics) is not dict:
        yield UpdateFault("metrics", place, f"has to be an object, found {_shown(metrics)}")
        return
    if len(metrics) > MAX_METRICS or not all(map(is_name, metrics)):
        message = f"has names that are none, or more than {MAX_METRICS}"
        yield UpdateFault("metrics", place, message)
        return
    names = expected.metric_names
    if expected.key_metric is not None and expected.key_metric not in metrics:
        message = f"the key metric {expected.key_metric!r} is missing, found {_listed(metrics)}"
        yield UpdateFault("metrics", place, message)
    elif names is not None and not set(metrics) <= set(names):
        message = f"may hold {_listed(names)}, found {_listed(metrics)}"
        yield UpdateFault("metrics", place, message)
    for name, value in metrics.items():
        low, high = limits.metric_ranges.get(name, (-MAX_METRIC, MAX_METRIC))
        if type(value) not in (int, float) or not low <= value <= high:
            message = f"has to be a number from {low:g} to {high:g}, found {_shown(value)}"
            yield UpdateFault("metrics", f"{place}.{name}", message)


# --- what is encrypted


def _encrypted_faults(
    update: object, metadata: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Ciphertexts as they are declared, and tensors in plain that have to come encrypted."""
    layout = expected.encrypted
    if layout is None or type(update) is not dict or not all(type(name) is str for name in update):
        return  # of what is no update, the rest of the guard tells
    for name in layout.tensors:
        if name in update:
            yield UpdateFault("encryption", name, "came in plain, and has to be encrypted")
    faults = [UpdateFault("encryption", "update", one) for one in part_faults(update)]
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
    weight, found = 1.0, float(update[WEIGHT][0])
    if expected.kind == "WEIGHT_DIFF":
        steps = metadata.get("steps") if type(metadata) is dict else None
        weight = steps * expected.factor if type(steps) is int else found
    if found != weight:
        message = f"is {found:g}; steps by the site's aggregation weight are {weight:g}"
        yield UpdateFault("encryption", WEIGHT, message)


def _without_ciphertexts(update: object) -> object:
    if type(update) is not dict or not all(type(name) is str for name in update):
        return update
    return plain_part(update)


# --- what is rounded


def _is_named(update: object) -> TypeGuard[dict[str, Any]]:
    return type(update) is dict and all(type(name) is str for name in update)


def _form_faults(update: Arrays, form: Rounding, expected: Expected) -> Iterator[UpdateFault]:
    """Tensors in another form than the job asks for; their values are judged once restored."""
    for place, message in islice(rounding_faults(update, form, expected.model), MAX_FAULTS):
        yield UpdateFault("transfer", _shown_name(place), message)


# --- tensors as they are declared


def _tensor_faults(
    update: object, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """Names, shapes, dtypes, layout and bytes; no value is read."""
    if type(update) is not dict:
        yield UpdateFault("tensors", "update", f"has to be an object, found {_shown(update)}")
        return
    if len(update) > len(expected.model) + MAX_FAULTS:
        message = f"has {len(update)} tensors; the network has {len(expected.model)}"
        yield UpdateFault("names", "update", message)
        return
    for name in update:
        if type(name) is not str:
            yield UpdateFault("names", "update", f"a tensor is called {_shown(name)}")
            return
        if name not in expected.model:
            yield UpdateFault("names", _shown_name(name), "not part of the network")
    if expected.model and not update:
        yield UpdateFault("names", "update", "has no tensor at all")
        return
    declared = 0
    for name, like in expected.model.items():
        if name not in update:
            if name not in expected.optional:
                yield UpdateFault("names", name, "missing")
            continue
        fault = _array_fault(update[name], like)
        if fault:
            yield UpdateFault(fault[0], name, fault[1])
        else:
            declared += like.nbytes
    if limits.max_bytes is not None and declared > limits.max_bytes:
        message = f"has {declared} bytes; {limits.max_bytes} is the most"
        yield UpdateFault("bytes", "update", message)


def _array_fault(value: object, like: npt.NDArray[Any]) -> tuple[str, str] | None:
    """The rule that an array breaks as it is declared, and what is wrong; None if nothing is.

    An array that passes has the bytes of the model's tensor, all of them there.
    """
    if type(value) is not np.ndarray:
        return "array", f"is no plain array, {_shown(value)}"
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
    """Values that are not finite, or that no training of the model could have led to."""
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
            steps = limits.max_steps if is_difference else None
            fault = _integer_fault(value, base, like, steps)
        if fault:
            spoilt = True
            yield UpdateFault(fault[0], name, fault[1])
    if is_difference and not spoilt:
        yield from _norm_faults(update, math.sqrt(most_there_is), expected, limits)


def _norm_faults(
    update: Arrays, most_there_is: float, expected: Expected, limits: UpdateLimits
) -> Iterator[UpdateFault]:
    """A norm beyond its bounds; ``most_there_is`` is more than it can be, and costs nothing."""
    middle, most = expected.median_norm, limits.max_norm
    bounded_by_others = limits.norm_ratio is not None and middle is not None
    if most is None and not bounded_by_others and most_there_is <= WIPED:
        return
    norm = update_norm(update)
    most = WIPED * (1 + update_norm(expected.model)) if most is None else most
    outlier = _norm_fault(norm, most, limits.norm_ratio, middle)
    if outlier is not None:
        yield outlier


def largest_magnitude(array: npt.NDArray[Any]) -> float:
    """The largest magnitude in an array; NaN or infinite if that is in it."""
    flat, largest = array.reshape(-1, order="A"), 0.0
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        low, high = float(block.min()), float(block.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return low + high
        largest = max(largest, -low, high)
    return largest


def _float_fault(
    value: npt.NDArray[Any],
    largest: float,
    base: npt.NDArray[Any] | None,
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
    value: npt.NDArray[Any], base: npt.NDArray[Any], like: npt.NDArray[Any], most: int | None
) -> tuple[str, str] | None:
    """A buffer that leaves its range, becomes negative, or moves by more than ``most``."""
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


def _square_sum(array: npt.NDArray[Any]) -> float:
    flat = array.reshape(-1)
    total = 0.0
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK].astype(np.float64)
        total += float(np.dot(block, block))
    return total


def _norm_fault(
    norm: float, most: float | None, ratio: float | None, middle: float | None
) -> UpdateFault | None:
    """A norm beyond a fixed bound, or beyond a multiple of the round's median."""
    if not math.isfinite(norm):
        return UpdateFault("norm", "update", "its norm is no finite number in float64")
    if most is not None and norm > most:
        message = f"its norm is {norm:.6g}; {most:g} is the most"
        return UpdateFault("norm", "update", message)
    if ratio is not None and middle is not None and norm > ratio * middle:
        message = f"its norm is {norm:.6g}, more than {ratio:g} times the median {middle:.6g}"
        return UpdateFault("norm", "update", message)
    return None


# --- texts


def _shown(value: object) -> str:
    """A value for a message: plain ones as they are, of all others only the type."""
    if type(value) is str:
        return _shown_name(value)
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int and -LARGEST_INT <= value < LARGEST_INT:
        return repr(value)
    return f"a {type(value).__name__[:MAX_SHOWN]}"


def _shown_name(name: str) -> str:
    return ascii(name[:MAX_SHOWN])


def _listed(names: Iterable[str]) -> str:
    return "[" + ", ".join(map(_shown_name, sorted(names)[:8])) + "]"
