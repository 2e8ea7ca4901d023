"""Models change between the form that is sent and the one that is judged, and nothing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DataKind

from mmar_runtime.exchange.arrays import (
    IN_MESSAGE,
    as_judged,
    as_sent,
    goes_in_message,
    stored_weights,
    unpack,
)
from mmar_runtime.exchange.tensor_files import read_tensors, write_tensors


def test_a_model_comes_back_as_it_was_in_the_same_memory() -> None:
    model = {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.ones(2, np.float16),
        "count": np.array(7),
        "mask": np.array([True, False]),
        "nothing": np.zeros((0, 3), np.float32),
    }

    sent = as_sent(model)
    judged = as_judged(sent)

    assert isinstance(sent, dict)
    assert isinstance(judged, dict)
    assert all(type(one) is torch.Tensor for one in sent.values())
    for name, array in model.items():
        assert judged[name].dtype == array.dtype
        np.testing.assert_array_equal(judged[name], array)
    judged["weight"][0, 0] = 9
    assert model["weight"][0, 0] == 9


def test_the_array_of_a_tensor_is_the_same_tensor_in_each_message_and_a_part_of_it_is_not() -> None:
    array = torch.arange(6.0).reshape(2, 3).numpy()
    model = {"whole": array, "part": array[1:], "other shape": array.reshape(3, 2)}

    sent, again = as_sent(model), as_sent(model)

    assert isinstance(sent, dict)
    assert isinstance(again, dict)
    assert sent["whole"] is again["whole"]
    assert sent["whole"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert sent["part"].tolist() == [[3, 4, 5]]
    assert sent["other shape"].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_weights_that_came_in_files_are_known_beside_the_arrays_that_are_judged(
    tmp_path: Path,
) -> None:
    write_tensors(tmp_path / "file", {"w": torch.ones(2)})
    came = {**read_tensors(tmp_path / "file", keeper=None), "count": torch.tensor(7)}
    message = {"DXO": {"kind": DataKind.WEIGHT_DIFF, "data": came}}

    stored = stored_weights(message)
    unpack(message)

    judged: Any = message["DXO"]["data"]
    assert {name: type(one) for name, one in judged.items()} == dict.fromkeys(
        ("w", "count"), np.ndarray
    )
    assert judged["w"].flags.writeable
    assert stored is not None
    assert {name: tensor.tolist() for name, tensor in stored.items()} == {"w": [1, 1], "count": 7}


@pytest.mark.parametrize(
    "message",
    [
        None,
        {},
        {"DXO": None},
        {"DXO": {"kind": "WEIGHT_DIFF", "data": [1]}},
        {"DXO": {"kind": "WEIGHT_DIFF", "data": {"w": torch.ones(2)}}},
    ],
)
def test_what_came_by_the_wire_or_is_no_model_is_not_known_as_files(message: object) -> None:
    assert stored_weights(message) is None


def test_neither_is_a_whole_model_or_one_with_something_else_in_it(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", {"w": torch.ones(2)})
    came = read_tensors(tmp_path / "file", keeper=None)

    assert stored_weights({"DXO": {"kind": "WEIGHT_DIFF", "data": came}}) is not None
    assert stored_weights({"DXO": {"kind": "WEIGHTS", "data": came}}) is None
    assert stored_weights({"DXO": {"kind": "WEIGHT_DIFF", "data": {**came, "t": "text"}}}) is None


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3).T, np.broadcast_to(np.float32(1), (2, 2))]
)
def test_an_array_that_is_not_dense_is_sent_as_one_that_is(array: np.ndarray) -> None:
    sent = as_sent({"a": array})

    assert isinstance(sent, dict)
    assert sent["a"].is_contiguous()
    np.testing.assert_array_equal(sent["a"].numpy(), array)


@pytest.mark.parametrize(
    "data", [{"dice": 0.5}, {"a": np.zeros(2), "b": 1}, {"a": np.array(["text"])}, None, [1]]
)
def test_what_is_no_model_is_sent_as_it_is(data: object) -> None:
    assert as_sent(data) is data


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2, dtype=torch.bfloat16),
        torch.eye(2).to_sparse(),
        torch.nn.Parameter(torch.zeros(2)),
        "text",
        None,
    ],
)
def test_what_has_no_array_is_left_for_the_guard_to_refuse(value: object) -> None:
    judged = as_judged({"a": value})

    assert isinstance(judged, dict)
    assert judged["a"] is value


def test_small_tensors_go_in_the_message_until_it_is_full() -> None:
    half = torch.zeros(IN_MESSAGE // 2, dtype=torch.uint8)
    one_more = torch.zeros(1)
    message: dict[str, object] = {}

    assert [goes_in_message(message, half) for _ in range(3)] == [True, True, False]
    assert not goes_in_message(message, one_more)
    assert goes_in_message({}, one_more)  # another message


def test_a_large_tensor_leaves_room_for_the_small_ones() -> None:
    message: dict[str, object] = {}

    assert not goes_in_message(message, torch.zeros(IN_MESSAGE + 1, dtype=torch.uint8))
    assert goes_in_message(message, torch.zeros(1))
