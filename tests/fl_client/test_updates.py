"""A site sends differences; one that is not a number, or does not fit, is never sent."""

from __future__ import annotations

import math

import pytest
import torch

from fl_client.updates import weight_difference
from mmar_runtime.errors import WeightsError

RECEIVED = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}


def test_the_difference_is_local_minus_received_in_the_weights_own_dtypes() -> None:
    found = weight_difference({"w": torch.tensor([1.5, 0.0]), "n": torch.tensor(7)}, RECEIVED)

    assert found["w"].tolist() == [1.5 - 1, 0 - 2]
    assert found["n"].item() == 7 - 3
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "w": torch.float32,
        "n": torch.int64,
    }


def test_both_are_left_as_they_are_unless_the_local_ones_may_be_used_up() -> None:
    local = {"w": torch.tensor([1.5, 0.0]), "n": torch.tensor(7)}

    weight_difference(local, RECEIVED)
    assert local["w"].tolist() == [1.5, 0]

    found = weight_difference(local, RECEIVED, in_place=True)
    assert local["w"].tolist() == found["w"].tolist() == [0.5, -2]
    assert local["n"].item() == found["n"].item() == 4
    assert RECEIVED["w"].tolist() == [1, 2]


def test_a_tensor_with_two_names_is_subtracted_from_once_under_each() -> None:
    tied = torch.tensor([5.0, 6.0])
    received = {"encoder": torch.tensor([1.0, 2.0]), "decoder": torch.tensor([1.0, 2.0])}

    found = weight_difference({"encoder": tied, "decoder": tied}, received, in_place=True)

    assert [one.tolist() for one in found.values()] == [[4, 4], [4, 4]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_not_sent(value: float) -> None:
    local = {**RECEIVED, "w": torch.tensor([1.0, value])}

    with pytest.raises(WeightsError, match="not finite, in w; nothing is sent"):
        weight_difference(local, RECEIVED)


@pytest.mark.parametrize(
    ("local", "fault"),
    [
        ({"w": RECEIVED["w"]}, "n: missing"),
        ({**RECEIVED, "x": torch.zeros(1)}, "x: not part of the network"),
        ({**RECEIVED, "w": torch.zeros(3)}, r"w: shape \(2,\), given \(3,\)"),
        ({**RECEIVED, "w": RECEIVED["w"].double()}, r"w: torch\.float32, given torch\.float64"),
    ],
)
def test_weights_of_another_network_have_no_difference(
    local: dict[str, torch.Tensor], fault: str
) -> None:
    with pytest.raises(WeightsError, match=fault):
        weight_difference(local, RECEIVED)
