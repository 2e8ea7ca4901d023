"""Weights of which a part is encrypted: which tensors, how they travel, how they lie on a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from mmar_runtime.config.location import Location
from mmar_runtime.errors import CheckpointError, ConfigError, WeightsError
from mmar_runtime.exchange.encrypted_files import read_encrypted_model, write_encrypted_model
from mmar_runtime.exchange.encryption import (
    ARRAYS,
    CIPHERTEXT_BYTES,
    CIPHERTEXTS,
    LAYOUT,
    LENGTHS,
    VALUES,
    WEIGHT,
    EncryptedPart,
    Layout,
    is_encrypted,
    layout_of,
    part_faults,
    plain_part,
)
from mmar_runtime.weights import read_checkpoint

NETWORK = {
    "conv.weight": np.zeros((2, 3), np.float32),
    "conv.bias": np.zeros((), np.float32),
    "norm.running_var": np.ones(2, np.float64),
    "norm.num_batches_tracked": np.array(3),
}
PLACE = Location("config_fed_client.json") / "encrypt_layers"


def layout(*patterns: str) -> Layout:
    return layout_of(NETWORK, list(patterns), PLACE)


def part(**changes: Any) -> EncryptedPart:
    values = {"layout": layout("*"), "weight": 2.0, "ciphertexts": (b"abc",), **changes}
    return EncryptedPart(**values)


# --- which tensors


def test_a_star_means_every_floating_point_tensor_and_no_counter() -> None:
    assert list(layout("*").tensors) == ["conv.bias", "conv.weight", "norm.running_var"]
    assert list(layout("conv.*").tensors) == ["conv.bias", "conv.weight"]


def test_tensors_of_pytorch_have_the_same_layout() -> None:
    tensors = {name: torch.from_numpy(array) for name, array in NETWORK.items()}

    assert layout_of(tensors, ["*"], PLACE) == layout("*")


@pytest.mark.parametrize("pattern", ["encoder.*", "norm.num_batches_tracked"])
def test_a_name_that_fits_nothing_that_can_be_encrypted_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"encrypt_layers\[0\]: fits no tensor"):
        layout(pattern)


def test_what_is_not_to_be_encrypted_cannot_be_named() -> None:
    with pytest.raises(ConfigError, match=r"encrypt_layers\[0\]: begins with '!'"):
        layout("!conv.*")


def test_a_layout_is_read_back_and_has_one_text() -> None:
    assert Layout.read(layout("*").text) == layout("*")
    assert layout("*").text == layout("conv.*", "norm.*").text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"a":["float32",[0]]}',
        b'{"a":["int64",[2]]}',
        b'{"a":["float32",[2]]} ',
        b'{"a":["no type",[2]]}',
        b'{"a":["float32",[2.5]]}',
        b'{"a":["float32",[-2]],"b":["float32",[2]]}',
        b'{"a":["float32",[true]]}',
        b"[" * 10_000,
    ],
)
def test_what_is_no_layout_is_refused(text: bytes) -> None:
    with pytest.raises(WeightsError, match="list of encrypted tensors"):
        Layout.read(text)


def test_ciphertexts_hold_as_many_values_as_have_room_beside_the_one() -> None:
    def of(count: int) -> int:
        return Layout(tensors={"a": ("float32", (count,))}).ciphertexts

    assert [of(1), of(VALUES), of(VALUES + 1)] == [1, 1, 2]


# --- a row of numbers


def test_tensors_become_one_row_and_come_back_in_shape_and_dtype() -> None:
    row = layout("*").joined({**NETWORK, "conv.bias": np.array(7, np.float32)})
    back = layout("*").parted(row)

    assert row.tolist() == [7, 0, 0, 0, 0, 0, 0, 1, 1]
    assert {n: (a.dtype, a.shape) for n, a in back.items()} == {
        name: (NETWORK[name].dtype, NETWORK[name].shape) for name in layout("*").tensors
    }


def test_a_missing_tensor_or_one_of_another_shape_makes_no_row() -> None:
    with pytest.raises(WeightsError, match=r"norm\.running_var is to be encrypted"):
        layout("*").joined({name: NETWORK[name] for name in ("conv.weight", "conv.bias")})
    with pytest.raises(WeightsError, match=r"conv.weight is to be encrypted: shape \(2, 3\)"):
        layout("*").joined({**NETWORK, "conv.weight": np.zeros((3, 2), np.float32)})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_a_row_that_its_tensors_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(WeightsError, match=r"not finite, in conv\.weight"):
        layout("conv.*").parted(np.array([0, 0, value, 0, 0, 0, 0.0]))


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(WeightsError, match="8 numbers were decrypted, 9 were expected"):
        layout("*").parted(np.zeros(8))


# --- on the way


def test_a_part_travels_as_four_arrays() -> None:
    arrays = part().arrays

    assert list(part_faults(arrays)) == []
    assert EncryptedPart.of(arrays) == part()
    assert is_encrypted(arrays)
    assert not is_encrypted(NETWORK)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (LAYOUT, None),
        (LAYOUT, np.zeros(0, np.uint8)),
        (LAYOUT, np.zeros((2, 2), np.uint8)),
        (WEIGHT, np.array([np.nan])),
        (WEIGHT, np.array([0.0])),
        (WEIGHT, np.array([1.0, 2.0])),
        (WEIGHT, np.array([1.0], np.float32)),
        (LENGTHS, np.array([-3, 6])),
        (LENGTHS, np.array([4])),
        (LENGTHS, np.array([CIPHERTEXT_BYTES + 1])),
        (LENGTHS, np.array([2**62, 2**62, 2**62, 2**62 + 3])),
        (LENGTHS, np.zeros(0, np.int64)),
        (CIPHERTEXTS, np.zeros(4, np.uint8)),
        (CIPHERTEXTS, np.zeros(6, np.uint8)[::2]),
        (CIPHERTEXTS, b"abc"),
    ],
)
def test_arrays_that_do_not_fit_together_are_no_part(name: str, value: Any) -> None:
    arrays = {**part().arrays, name: value}

    assert list(part_faults(arrays))
    with pytest.raises(WeightsError, match="cannot be used"):
        EncryptedPart.of(arrays)


def test_as_many_ciphertexts_as_the_tensors_take() -> None:
    with pytest.raises(WeightsError, match="2 ciphertexts came; the tensors take 1"):
        EncryptedPart.of(part(ciphertexts=(b"abc", b"d")).arrays)


ANY_ARRAY = st.one_of(
    st.none(),
    st.binary(max_size=8),
    of_numpy.arrays(
        dtype=st.sampled_from([np.uint8, np.int64, np.float64, np.float32]),
        shape=of_numpy.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=5),
    ),
)


@given(arrays=st.dictionaries(st.sampled_from(list(ARRAYS)), ANY_ARRAY))
def test_whatever_comes_is_a_part_or_refused(arrays: dict[str, Any]) -> None:
    """No other error, and nothing that is no part passes."""
    whole = {**part().arrays, **arrays}
    try:
        found = EncryptedPart.of(whole)
    except WeightsError:
        return
    assert {name: one.tobytes() for name, one in found.arrays.items()} == {
        name: one.tobytes() for name, one in whole.items()
    }


# --- on a disk


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weights = {name: torch.from_numpy(array) for name, array in part().arrays.items()}
    path = tmp_path / "FL_global_model.encrypted.safetensors"
    write_encrypted_model(path, {**weights, "n": torch.tensor(3)}, {"train": {"model": "UNet"}})
    return path


def test_a_model_is_read_back_whole(model: Path) -> None:
    found = read_encrypted_model(model)

    assert plain_part(found.weights) == {"n": torch.tensor(3)}
    assert EncryptedPart.of({n: t.numpy() for n, t in found.weights.items() if n != "n"}) == part()
    assert found.train_conf == {"train": {"model": "UNet"}}


def test_whoever_takes_it_for_a_checkpoint_is_told_how_to_get_one(model: Path) -> None:
    with pytest.raises(CheckpointError, match="holds encrypted weights; 'mmar site decrypt'"):
        read_checkpoint(model)


def test_another_file_is_no_encrypted_model(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no model")

    with pytest.raises(CheckpointError, match="cannot be read"):
        read_encrypted_model(tmp_path / "text")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_encrypted_model(tmp_path / "nowhere")
