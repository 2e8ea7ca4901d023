"""The guard: one valid contribution, and every way in which it could be spoilt."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fl_server.update_guard import MAX_STEPS, faults, is_finite_metric

Update = dict[str, torch.Tensor]

GLOBAL = {"conv.weight": torch.zeros(2, 3), "norm.batches": torch.tensor(0)}


def valid() -> Update:
    return {"conv.weight": torch.ones(2, 3), "norm.batches": torch.tensor(4)}


def test_a_valid_contribution_has_no_fault() -> None:
    assert faults(valid(), 12, GLOBAL) == ()


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda update: update.pop("norm.batches"), "norm.batches: missing"),
        (
            lambda update: update.update(extra=torch.ones(1)),
            "extra: not part of the network",
        ),
        (
            lambda update: update.update({"conv.weight": torch.ones(3, 2)}),
            "conv.weight: shape (2, 3), given (3, 2)",
        ),
        (
            # As many numbers, and broadcasting would take them.
            lambda update: update.update({"conv.weight": torch.ones(1, 3)}),
            "conv.weight: shape (2, 3), given (1, 3)",
        ),
        (
            lambda update: update.update({"conv.weight": torch.ones(2, 3, dtype=torch.float64)}),
            "conv.weight: torch.float32, given torch.float64",
        ),
        (
            lambda update: update.update({"norm.batches": torch.tensor(4.0)}),
            "norm.batches: torch.int64, given torch.float32",
        ),
        (
            lambda update: update["conv.weight"].__setitem__((1, 2), math.nan),
            "conv.weight: values that are not finite",
        ),
        (
            lambda update: update["conv.weight"].__setitem__((0, 0), -math.inf),
            "conv.weight: values that are not finite",
        ),
    ],
    ids=[
        "missing", "extra", "shape", "shape that broadcasts", "dtype", "dtype of a buffer", "NaN",
        "infinite",
    ],
)  # fmt: skip
def test_a_spoilt_tensor_is_named(spoil: Callable[[Update], object], fault: str) -> None:
    update = valid()
    spoil(update)

    assert faults(update, 12, GLOBAL) == (fault,)


def test_an_empty_contribution_lacks_everything() -> None:
    assert faults({}, 12, GLOBAL) == ("conv.weight: missing", "norm.batches: missing")


@pytest.mark.parametrize("steps", [1, MAX_STEPS])
def test_a_positive_whole_number_of_steps_is_accepted(steps: int) -> None:
    assert faults(valid(), steps, GLOBAL) == ()


@pytest.mark.parametrize(
    "steps", [True, False, 0, -1, MAX_STEPS + 1, 1.0, math.nan, "12", None, torch.tensor(3)]
)
def test_any_other_number_of_steps_is_refused(steps: Any) -> None:
    (fault,) = faults(valid(), steps, GLOBAL)

    assert fault.startswith("steps: has to be a whole number from 1 to 1000000000, found")


def test_all_faults_are_told_at_once() -> None:
    update = {"conv.weight": torch.full((2, 3), math.nan)}

    assert [fault.split(":")[0] for fault in faults(update, 0, GLOBAL)] == [
        "norm.batches",
        "steps",
        "conv.weight",
    ]


@pytest.mark.parametrize(
    ("value", "finite"),
    [(0.5, True), (0, True), (math.nan, False), (math.inf, False), (True, False), ("0.5", False)],
)
def test_a_metric_is_a_finite_number(value: Any, finite: bool) -> None:
    assert is_finite_metric(value) is finite
