"""The guard on an update that came rounded: first its form, then its numbers once restored."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fl_server.guard.tensors import update_norm
from fl_server.update_guard import Expected, UpdateLimits, check_update
from fl_server.updates import restored_update
from mmar_runtime.exchange.rounding import SCALES, restored, rounded
from mmar_runtime.exchange.rounding_forms import ROUNDINGS
from tests.fl_server.test_update_guard import CONTRIBUTION, metadata

MODEL = {
    "conv.weight": np.zeros((16, 32), np.float32),
    "conv.bias": np.zeros(16, np.float32),
    "norm.batches": np.array(7),
}
EXPECTED = replace(CONTRIBUTION, model=MODEL, transfer="int8")
LIMITS = UpdateLimits(metric_ranges={"dice": (0.0, 1.0)})
DIFFERENCE = {
    "conv.weight": np.linspace(-2, 2, 512, dtype=np.float32).reshape(16, 32),
    "conv.bias": np.ones(16, np.float32),
    "norm.batches": np.array(4),
}


def update() -> dict[str, Any]:
    return rounded(copy.deepcopy(DIFFERENCE), "int8")


def faults(update: Any, expected: Expected = EXPECTED, **limits: Any) -> list[tuple[str, str]]:
    found = check_update(update, metadata(), expected, replace(LIMITS, **limits))
    return [(one.rule, str(one)) for one in found]


@pytest.mark.parametrize("form", ROUNDINGS)
def test_a_rounded_contribution_has_no_fault(form: Any) -> None:
    assert faults(rounded(DIFFERENCE, form), replace(EXPECTED, transfer=form)) == []


def test_it_is_judged_by_the_numbers_that_are_restored_update() -> None:
    norm = update_norm(restored(update()))

    assert faults(update(), max_norm=norm) == []
    [(rule, told)] = faults(update(), max_norm=norm * 0.999)
    assert rule == "norm"
    assert told.startswith(f"update: its norm is {norm:.6g}")


def _in_plain(arrays: dict[str, Any]) -> None:
    arrays.update(DIFFERENCE)
    del arrays[SCALES + "conv.weight"]


def _in_another_form(arrays: dict[str, Any]) -> None:
    arrays.update(rounded(DIFFERENCE, "float16"))


def _too_long(arrays: dict[str, Any]) -> None:
    arrays["conv.weight"] = np.ones((2**10, 2**10), np.int8)


def _with_more_blocks(arrays: dict[str, Any]) -> None:
    arrays[SCALES + "conv.weight"] = np.ones(3, np.float32)


def _with_a_negative_scale(arrays: dict[str, Any]) -> None:
    arrays[SCALES + "conv.weight"][1] = -1


def _with_scales_of_its_own(arrays: dict[str, Any]) -> None:
    arrays[SCALES + "conv.bias"] = np.ones(1, np.float32)


def _too_large(arrays: dict[str, Any]) -> None:
    arrays[SCALES + "conv.weight"][:] = 3e38


def _with_a_bias_that_is_none(arrays: dict[str, Any]) -> None:
    arrays["conv.bias"][0] = np.nan


def _without(arrays: dict[str, Any]) -> None:
    del arrays["conv.weight"], arrays[SCALES + "conv.weight"]


@pytest.mark.parametrize(
    ("spoil", "rule", "told"),
    [
        (_in_plain, "transfer", "has to be int8, given float32"),
        (_in_another_form, "transfer", "has to be int8, given float16"),
        (_too_long, "transfer", "has to have the shape (16, 32), given (1024, 1024)"),
        (_with_more_blocks, "transfer", "has to have the shape (2,), given (3,)"),
        (_with_a_negative_scale, "transfer", "has a scale that is not a number from"),
        (_with_scales_of_its_own, "transfer", "belongs to no tensor that is rounded"),
        (_too_large, "finite", "conv.weight: values that are not finite"),
        (_with_a_bias_that_is_none, "finite", "conv.bias: values that are not finite"),
        (_without, "names", "conv.weight: missing"),
    ],
)
def test_what_is_wrong_with_it_is_told(
    spoil: Callable[[dict[str, Any]], None], rule: str, told: str
) -> None:
    arrays = update()
    spoil(arrays)

    assert any(rule == found and told in text for found, text in faults(arrays))


def test_numbers_of_float16_that_are_not_finite_are_found() -> None:
    arrays = rounded(DIFFERENCE, "float16")
    arrays["conv.weight"][0, 0] = np.inf

    [(rule, _)] = faults(arrays, replace(EXPECTED, transfer="float16"))

    assert rule == "finite"


def test_a_reply_of_another_round_is_known_as_such_whatever_its_form() -> None:
    rules = {rule for rule, _ in faults(DIFFERENCE, replace(EXPECTED, round=9))}

    assert rules == {"round", "transfer"}


def test_a_tensor_that_may_be_missing_may_be() -> None:
    arrays = update()
    _without(arrays)

    assert faults(arrays, replace(EXPECTED, optional={"conv.weight"})) == []


def test_a_job_that_rounds_nothing_takes_nothing_rounded() -> None:
    rules = {rule for rule, _ in faults(update(), replace(EXPECTED, transfer=None))}

    assert rules == {"names", "dtype"}


@pytest.mark.parametrize("arrays", [None, [], {1: 2}, {}, {SCALES: object()}, {"conv.weight": 1}])
def test_anything_else_is_a_fault_and_no_error(arrays: Any) -> None:
    assert faults(arrays)
    assert "unreadable" not in {rule for rule, _ in faults(arrays)}


def test_many_faults_are_told_in_part() -> None:
    arrays = {f"{SCALES}{number}": np.ones(1, np.float32) for number in range(10_000)}

    assert len(faults(arrays)) == 12


# --- what is added up


def test_what_is_restored_update_is_float32_again() -> None:
    came = {name: torch.from_numpy(array) for name, array in update().items()}

    found = restored_update(came)

    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "conv.weight": torch.float32,
        "conv.bias": torch.float32,
        "norm.batches": torch.int64,
    }
    assert found["conv.weight"].numpy().tobytes() == restored(update())["conv.weight"].tobytes()


def test_what_did_not_come_rounded_is_the_same_object() -> None:
    came = {"w": torch.ones(2)}

    assert restored_update(came) is came
