"""Weights: read without running anything, loaded completely or not at all, compared bit by bit."""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mmar_runtime.errors import CheckpointError, WeightsError
from mmar_runtime.weights import (
    digest,
    load_into,
    mismatches,
    read_checkpoint,
    weights_of,
    write_checkpoint,
)

WEIGHTS = {"weight": torch.tensor([[2.0]]), "bias": torch.tensor([1.0])}


def line() -> torch.nn.Linear:
    """``y = 2 x + 1``."""
    network = torch.nn.Linear(1, 1)
    network.load_state_dict(WEIGHTS)
    return network


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


# --- Taken from a network and given to one ------------------------------------------------------


def test_weights_of_a_network_stay_what_they_were_when_it_trains_on() -> None:
    network = line()
    weights = weights_of(network)
    with torch.no_grad():
        network.weight.fill_(9.0)
    assert weights["weight"].tolist() == [[2.0]]
    assert not weights["weight"].requires_grad


def test_load_into_gives_the_network_copies() -> None:
    network = torch.nn.Linear(1, 1)
    weights = {name: tensor.clone() for name, tensor in WEIGHTS.items()}
    load_into(network, weights, source="site-1")
    weights["weight"].fill_(9.0)
    assert network(torch.tensor([3.0])).tolist() == [2.0 * 3 + 1]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda w: w.pop("bias"), "bias: missing"),
        (lambda w: w.update(scale=torch.ones(1)), "scale: not part of the network"),
        (lambda w: w.update(bias=torch.ones(2)), r"bias: shape \(1,\), given \(2,\)"),
        (lambda w: w.update(bias=torch.ones(())), r"bias: shape \(1,\), given \(\)"),
        (
            lambda w: w.update(bias=torch.ones(1, dtype=torch.float64)),
            "bias: torch.float32, given torch.float64",
        ),
    ],
    ids=["missing", "unknown", "shape", "scalar", "dtype"],
)
def test_weights_that_do_not_fit_are_named_and_none_is_loaded(
    change: Callable[[dict[str, torch.Tensor]], object], fault: str
) -> None:
    network = line()
    weights = {"weight": torch.tensor([[7.0]]), "bias": torch.tensor([7.0])}
    change(weights)
    with pytest.raises(WeightsError, match=fault) as raised:
        load_into(network, weights, source="site-1")
    assert "site-1" in str(raised.value)
    assert network(torch.tensor([3.0])).tolist() == [7.0]  # still 2 x + 1


def test_a_long_list_of_faults_is_cut() -> None:
    weights = {**WEIGHTS, **{f"layer_{number}": torch.ones(1) for number in range(10)}}
    with pytest.raises(WeightsError, match="and 4 more"):
        load_into(line(), weights, source="site-1")


def test_equal_names_shapes_and_dtypes_are_no_mismatch_whatever_the_values() -> None:
    assert mismatches(WEIGHTS, {name: tensor + 1 for name, tensor in WEIGHTS.items()}) == ()


# --- Compared ------------------------------------------------------------------------------------


def test_digest_does_not_depend_on_order_or_on_strides() -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    one = {"a": matrix, "b": torch.ones(1)}
    other = {"b": torch.ones(1), "a": matrix.t().contiguous().t()}
    assert not other["a"].is_contiguous()
    assert digest(one) == digest(other)


@given(number=st.integers(0, 2), bit=st.integers(0, 31))
def test_digest_changes_with_every_bit(number: int, bit: int) -> None:
    values = torch.tensor([0.0, 1.0, -2.5])
    flipped = values.clone()
    # As whole numbers, the bits of the floats can be told apart one by one.
    as_integers = flipped.view(torch.int32)
    as_integers[number] ^= torch.tensor(struct.unpack("i", struct.pack("I", 1 << bit))[0]).int()
    assert digest({"w": values}) != digest({"w": flipped})


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.zeros(4), "b": torch.zeros(0)},
        {},
    ],
    ids=["name", "shape", "dtype", "one more", "none"],
)
def test_digest_changes_with_names_shapes_and_dtypes(other: dict[str, torch.Tensor]) -> None:
    assert digest({"a": torch.zeros(4)}) != digest(other)


def test_digest_takes_every_kind_of_tensor_that_a_network_holds() -> None:
    kinds = {
        "counter": torch.tensor(3),
        "mask": torch.tensor([True, False]),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "empty": torch.zeros(0),
    }
    changed = {**kinds, "counter": torch.tensor(4)}
    assert digest(kinds) == digest(dict(kinds)) != digest(changed)


# --- Read and written ----------------------------------------------------------------------------


def test_a_checkpoint_comes_back_with_its_train_conf(tmp_path: Path) -> None:
    train_conf = {"epochs": 2, "train": {"model": {"name": "UNet", "args": {"channels": [4, 8]}}}}
    write_checkpoint(tmp_path / "model.pt", WEIGHTS, train_conf)
    checkpoint = read_checkpoint(tmp_path / "model.pt")
    assert digest(checkpoint.weights) == digest(WEIGHTS)
    assert checkpoint.train_conf == train_conf


def test_bare_weights_are_a_checkpoint_without_train_conf(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "model.pt", WEIGHTS))
    assert digest(checkpoint.weights) == digest(WEIGHTS)
    assert checkpoint.train_conf is None


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert digest(read_checkpoint(tmp_path / "model.safetensors").weights) == digest(WEIGHTS)


def test_the_prefix_of_a_data_parallel_run_is_taken_off(tmp_path: Path) -> None:
    prefixed = {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}
    checkpoint = read_checkpoint(saved(tmp_path / "model.pt", {"model": prefixed}))
    assert sorted(checkpoint.weights) == ["bias", "weight"]


def test_a_network_whose_own_part_is_called_module_keeps_its_names(tmp_path: Path) -> None:
    weights = {"module.weight": torch.ones(1), "head.weight": torch.ones(1)}
    checkpoint = read_checkpoint(saved(tmp_path / "model.pt", weights))
    assert sorted(checkpoint.weights) == ["head.weight", "module.weight"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file of weights '.*model\.pt'"):
        read_checkpoint(tmp_path / "model.pt")


class Canary:
    """A pickle that makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.trace),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "the code has run"
    path = saved(tmp_path / "model.pt", {"model": WEIGHTS, "train_conf": Canary(trace)})
    with pytest.raises(CheckpointError, match="never unpickled"):
        read_checkpoint(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # so the canary would have sung


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(WEIGHTS, path)
    else:
        write_checkpoint(path, WEIGHTS, {})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(path)


@given(content=st.binary(max_size=64))
def test_whatever_a_file_holds_it_is_read_or_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {},
        {"model": {}},
        {"model": [torch.ones(1)]},
        {"epoch": 3},
        {"model": {"weight": 1.0}},
        {1: torch.ones(1)},
    ],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: object) -> None:
    path = saved(tmp_path / "model.pt", content)
    with pytest.raises(CheckpointError, match=r"model\.pt' holds (no weights|a list)"):
        read_checkpoint(path)


def test_a_write_that_fails_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    write_checkpoint(path, WEIGHTS, {})

    def fail(_: object, stream: Any) -> None:
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(path, {"weight": torch.zeros(1)}, {})
    assert digest(read_checkpoint(path).weights) == digest(WEIGHTS)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_compressed_weights_are_refused(tmp_path: Path) -> None:
    """The same numbers, packed a thousand times smaller: such a file could unpack to any size."""
    plain = saved(tmp_path / "plain.pt", {"weight": torch.zeros(1_000_000)})
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(plain) as parts, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for part in parts.infolist():
            out.writestr(part.filename, parts.read(part))
    assert packed.stat().st_size < plain.stat().st_size / 500

    assert read_checkpoint(plain).weights["weight"].numel() == 1_000_000
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(packed)


def test_torchscript_is_no_weights_whatever_it_is_called(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(line(), torch.zeros(1, 1)).save(path)

    with pytest.raises(CheckpointError, match="is TorchScript, which is code"):
        read_checkpoint(path)
