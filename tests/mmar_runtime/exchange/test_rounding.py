"""Rounded differences: how far off a number may be, what stays as it is, what is no such form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.rounding import (
    BLOCK,
    LARGEST,
    LEAST_SCALE,
    SCALES,
    SLAB,
    is_rounded,
    restored,
    rounded,
    rounding_faults,
)
from mmar_runtime.exchange.rounding_forms import ROUNDINGS, Rounding
from tests.rounding import error_bound

Array = np.ndarray[Any, Any]

FLOAT32 = float(np.finfo(np.float32).max)
TINIEST = float(np.float32(2.0**-149))
forms = pytest.mark.parametrize("form", ROUNDINGS)


def matrix(*numbers: float, size: int = BLOCK) -> Array:
    """Two rows that begin with these numbers; the rest is zero."""
    flat = np.zeros(size, np.float32)
    flat[: len(numbers)] = numbers
    return flat.reshape(2, -1)


def through(array: Array, form: Rounding) -> Array:
    """What arrives of a difference."""
    found = restored(rounded({"w": array}, form))
    assert found.keys() == {"w"}
    return found["w"]


# --- by hand


def test_int8_counts_in_steps_of_a_127th_of_the_largest_in_a_block() -> None:
    sent = rounded({"w": matrix(127.0, -127.0, 1.0, 0.49, 2.5, 3.5)}, "int8")

    assert sent["w"].dtype == np.int8
    assert sent["w"].shape == (2, BLOCK // 2)
    assert sent["w"].reshape(-1)[:6].tolist() == [127, -127, 1, 0, 2, 4]  # ties go to even
    assert sent[SCALES + "w"].tolist() == [1.0]
    assert restored(sent)["w"].reshape(-1)[:6].tolist() == [127, -127, 1, 0, 2, 4]


def test_each_block_has_a_scale_of_its_own_and_the_last_may_be_short() -> None:
    array = matrix(254.0, size=BLOCK + 2)
    array[1, -1] = 0.127

    sent = rounded({"w": array}, "int8")

    assert sent[SCALES + "w"] == pytest.approx([2.0, 0.001], rel=1e-4)
    assert restored(sent)["w"][1, -1] == pytest.approx(0.127, rel=1e-4)


def test_float16_has_a_power_of_two_as_its_scale_so_that_nothing_overflows() -> None:
    sent = rounded({"w": matrix(3e30, 1.0, 1e25)}, "float16")

    assert sent["w"].dtype == np.float16
    assert np.log2(sent[SCALES + "w"][0]) == 102 - 15  # 3e30 lies between 2^101 and 2^102
    assert restored(sent)["w"].reshape(-1)[:3] == pytest.approx([3e30, 0, 1e25], rel=2**-11)


def test_it_takes_half_the_bytes_or_a_quarter_and_the_scales() -> None:
    array = np.ones((64, 64), np.float32)

    sizes = {
        form: sum(a.nbytes for a in rounded({"w": array}, form).values()) for form in ROUNDINGS
    }

    assert sizes == {"float16": 4096 * 2 + 16 * 4, "int8": 4096 + 16 * 4}


# --- what stays as it is


@forms
@pytest.mark.parametrize(
    "array",
    [
        np.ones(BLOCK * 4, np.float32),  # a bias, or the variance of a batch norm
        np.ones((2, BLOCK // 2 - 1), np.float32),
        np.ones((BLOCK, 2), np.float64),
        np.ones((BLOCK, 2), np.float16),
        np.ones((BLOCK, 2), np.int64),
        np.array(7),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_other_tensors_are_not_touched(array: Array, form: Rounding) -> None:
    sent = rounded({"w": array}, form)

    assert sent == {"w": array} or sent["w"] is array
    assert restored(sent)["w"] is array
    assert not error_bound(array, form).any()


@forms
def test_zero_stays_zero_and_the_sender_keeps_its_numbers(form: Rounding) -> None:
    array = matrix(127.0, -1.0, 64.0)
    before = array.copy()

    found = through(array, form)

    assert (found == array).all()
    assert (array == before).all()
    assert not through(matrix(), form).any()


# --- how far off


def magnitudes(form: Rounding) -> st.SearchStrategy[float]:
    most = LARGEST[form]
    return st.one_of(
        st.floats(-most, most, width=32),
        st.floats(-1, 1, width=32),
        st.sampled_from([0.0, -0.0, TINIEST, -TINIEST, 2.0**-126, 2.0**-127, most, -most]),
    )


@st.composite
def differences(draw: st.DrawFn, form: Rounding) -> Array:
    """A matrix of about one block, filled with few numbers, so that large ones meet tiny ones."""
    columns = draw(st.integers(BLOCK // 2, BLOCK))
    numbers = draw(of_numpy.arrays(np.float32, (9,), elements=magnitudes(form)))
    scale = np.float32(2.0 ** draw(st.integers(-149, 0)))
    spread = draw(st.integers(1, 2 * columns))
    return np.resize(np.repeat(numbers * scale, spread), (2, columns))


@forms
@given(data=st.data())
def test_no_number_is_off_by_more_than_its_bound(data: st.DataObject, form: Rounding) -> None:
    array = data.draw(differences(form))

    found = through(array, form)

    error = np.abs(found.astype(np.float64) - array.astype(np.float64))
    assert (error <= error_bound(array, form)).all()
    assert np.isfinite(found).all()


@forms
@given(data=st.data())
def test_what_was_rounded_is_not_changed_by_rounding_it_again(
    data: st.DataObject, form: Rounding
) -> None:
    once = through(data.draw(differences(form)), form)

    assert through(once, form).tobytes() == once.tobytes()


@given(st.floats(2.0**-100, 2.0**100, width=32))
@example(float(np.nextafter(np.float32(2), np.float32(0))))
def test_the_bounds_are_those_of_the_page(largest: float) -> None:
    array = matrix(largest, largest / 3, largest / 2**35)

    half, eight = (error_bound(array, form).reshape(-1) for form in ROUNDINGS)

    assert half[0] == largest / 2**11
    assert half[2] == largest / 2**39
    assert eight[:3].tolist() == [largest / 253] * 3


@forms
@pytest.mark.parametrize("size", [BLOCK, BLOCK + 2, 7 * BLOCK, SLAB, SLAB + 2, 2 * SLAB + 2])
def test_any_length_arrives_whole(size: int, form: Rounding) -> None:
    array = np.random.default_rng(size).normal(size=size).astype(np.float32).reshape(2, -1)

    found = through(array, form)

    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert (np.abs(found - array) <= error_bound(array, form)).all()
    assert (found != 0).mean() > 0.95


def test_the_order_of_an_arrays_memory_changes_nothing() -> None:
    array = np.random.default_rng(0).normal(size=(17, 31)).astype(np.float32)

    for form in ROUNDINGS:
        one, other = (rounded({"w": a}, form) for a in (array, np.asfortranarray(array)))
        assert one["w"].tobytes() == other["w"].tobytes()
        assert one[SCALES + "w"].tobytes() == other[SCALES + "w"].tobytes()


@given(of_numpy.arrays(np.float32, (2, 128), elements=magnitudes("float16")))
def test_rounding_to_float16_is_that_of_numpy(array: Array) -> None:
    sent = rounded({"w": array}, "float16")

    [scale] = sent[SCALES + "w"]
    assert sent["w"].tobytes() == (array / scale).astype(np.float16).tobytes()
    assert restored(sent)["w"].tobytes() == (sent["w"].astype(np.float32) * scale).tobytes()


@forms
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_sent(number: float, form: Rounding) -> None:
    with pytest.raises(WeightsError, match=r"conv\.weight: a difference that is not finite"):
        rounded({"conv.weight": matrix(1.0, number)}, form)


def test_float16_ends_a_little_before_float32_and_int8_does_not() -> None:
    with pytest.raises(WeightsError, match=r"or larger than 3\.4e\+38, cannot be sent as float16"):
        rounded({"w": matrix(FLOAT32)}, "float16")
    assert through(matrix(FLOAT32, -FLOAT32), "int8").max() == pytest.approx(FLOAT32, rel=1e-4)
    assert through(matrix(LARGEST["float16"]), "float16").max() == LARGEST["float16"]


# --- what is no such form

MODEL = {"w": matrix(), "b": np.zeros(3, np.float32), "other": matrix()}


def sent(form: Rounding) -> dict[str, Any]:
    return {**rounded(MODEL, form)}


@forms
def test_rounded_arrays_have_no_fault(form: Rounding) -> None:
    assert list(rounding_faults(sent(form), form, MODEL)) == []
    without = {name: a for name, a in sent(form).items() if "other" not in name}
    # Others judge whether a tensor may be missing.
    assert list(rounding_faults(without, form, MODEL)) == []


def _in_float32(arrays: dict[str, Any]) -> None:
    arrays["w"] = MODEL["w"]


def _too_short(arrays: dict[str, Any]) -> None:
    arrays["w"] = arrays["w"][:, 1:].copy()


def _of_one_byte(arrays: dict[str, Any]) -> None:
    arrays["w"] = np.broadcast_to(arrays["w"][:1, :1], arrays["w"].shape)


def _a_list(arrays: dict[str, Any]) -> None:
    arrays["w"] = arrays["w"].tolist()


def _without_scales(arrays: dict[str, Any]) -> None:
    del arrays[SCALES + "w"]


def _more_scales(arrays: dict[str, Any]) -> None:
    arrays[SCALES + "w"] = np.ones(2, np.float32)


def _one_for_many(arrays: dict[str, Any]) -> None:
    arrays[SCALES + "w"] = np.array(1.0, np.float32)


def _of_float64(arrays: dict[str, Any]) -> None:
    arrays[SCALES + "w"] = np.ones(1)


def scale_of(value: float) -> Callable[[dict[str, Any]], None]:
    def spoil(arrays: dict[str, Any]) -> None:
        arrays[SCALES + "w"] = np.full(1, value, np.float32)

    spoil.__name__ = f"scale of {value}"
    return spoil


def _scales_of_a_vector(arrays: dict[str, Any]) -> None:
    arrays[SCALES + "b"] = np.ones(1, np.float32)


def _scales_of_nothing(arrays: dict[str, Any]) -> None:
    arrays[SCALES + "x"] = np.ones(1, np.float32)


def _scales_alone(arrays: dict[str, Any]) -> None:
    del arrays["w"]


@forms
@pytest.mark.parametrize(
    ("spoil", "place", "told"),
    [
        (_in_float32, "w", "given float32"),
        (_too_short, "w", "has to have the shape (2, 128), given (2, 127)"),
        (_of_one_byte, "w", "is not dense"),
        (_a_list, "w", "has to be an array of"),
        (_without_scales, "@scales/w", "has to be an array of float32"),
        (_more_scales, "@scales/w", "has to have the shape (1,), given (2,)"),
        (_one_for_many, "@scales/w", "has to have the shape (1,), given ()"),
        (_of_float64, "@scales/w", "has to be float32, given float64"),
        (scale_of(0.0), "@scales/w", "is not a number from"),
        (scale_of(-1.0), "@scales/w", "is not a number from"),
        (scale_of(float("nan")), "@scales/w", "is not a number from"),
        (scale_of(float("inf")), "@scales/w", "is not a number from"),
        (scale_of(LEAST_SCALE / 2), "@scales/w", "is not a number from"),
        (_scales_of_a_vector, "@scales/b", "belongs to no tensor that is rounded"),
        (_scales_of_nothing, "@scales/x", "belongs to no tensor that is rounded"),
        (_scales_alone, "@scales/w", "belongs to no tensor that is rounded"),
    ],
)
def test_anything_else_is_told(
    spoil: Callable[[dict[str, Any]], None], place: str, told: str, form: Rounding
) -> None:
    arrays = sent(form)
    spoil(arrays)

    [(found, message)] = rounding_faults(arrays, form, MODEL)

    assert found == place
    assert told in message


def test_one_form_is_not_the_other() -> None:
    for form, other in zip(ROUNDINGS, reversed(ROUNDINGS), strict=True):
        faults = [*rounding_faults(sent(form), other, MODEL)]
        assert [name for name, _ in faults] == ["w", "other"]
        assert all(message == f"has to be {other}, given {form}" for _, message in faults)


def test_which_tensors_are_rounded() -> None:
    assert is_rounded(np.dtype(np.float32), (16, 16))
    assert is_rounded(np.dtype(np.float32), (8, 4, 3, 3, 3))
    assert not is_rounded(np.dtype(np.float32), (256,))
    assert not is_rounded(np.dtype(np.float32), (15, 16))
    assert not is_rounded(np.dtype(np.float64), (16, 16))
