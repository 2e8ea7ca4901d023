"""Tensors that lie in a file: the same numbers, read when they are asked for."""

from __future__ import annotations

import gc
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from mmar_runtime import model_files
from mmar_runtime.model_files import (
    DTYPES,
    KeptFile,
    StoredTensor,
    StoredWeights,
    read_tensors,
    write_tensors,
)
from mmar_runtime.weights import digest

MODEL = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(7)}

tensors = st.builds(
    lambda dtype, shape: (torch.rand(shape) * 200).to(dtype),
    st.sampled_from(sorted(DTYPES, key=str)),
    st.lists(st.integers(0, 3), max_size=3),
)


@given(st.dictionaries(st.sampled_from("abcdef"), tensors, min_size=1))
def test_tensors_of_any_type_and_shape_come_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, model: dict[str, torch.Tensor]
) -> None:
    path = tmp_path_factory.mktemp("model") / "file"
    write_tensors(path, model)

    found = {name: one.read() for name, one in read_tensors(path, keeper=None).items()}

    assert {name: one.shape for name, one in found.items()} == {
        name: one.shape for name, one in model.items()
    }
    assert digest(found) == digest(model)


def test_the_file_is_what_the_library_reads_and_its_owners_alone(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", MODEL)

    assert digest(load_file(tmp_path / "file")) == digest(MODEL)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "file", MODEL)

    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_is_left_of_a_file_that_cannot_be_written_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_files, "_write", full)

    with pytest.raises(OSError, match="No space left"):
        write_tensors(tmp_path / "file", MODEL)

    assert list(tmp_path.iterdir()) == []


def test_what_is_written_into_a_tensor_stays_in_that_one(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", MODEL)
    stored = read_tensors(tmp_path / "file", keeper=None)["weight"]

    stored.read()[0, 0] = 9

    assert stored.read()[0, 0] == 0


def test_a_file_stays_as_long_as_somebody_has_it_and_its_memory_longer(tmp_path: Path) -> None:
    offered = tmp_path / "0"
    write_tensors(offered, MODEL)
    own = KeptFile.of(offered)
    offered.unlink()

    stored = read_tensors(own.path, keeper=own)
    weight = stored["weight"].read()
    del own
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 1

    del stored
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(weight, MODEL["weight"])


def test_weights_in_a_file_are_read_anew_each_time_and_others_are_themselves(
    tmp_path: Path,
) -> None:
    write_tensors(tmp_path / "file", MODEL)
    stored = StoredTensor(tmp_path / "file", "weight", None)
    weights = StoredWeights({"weight": stored, "count": MODEL["count"]})

    assert list(weights) == ["weight", "count"]
    assert digest(weights) == digest(MODEL)
    first, second = weights["weight"], weights["weight"]
    assert first.data_ptr() != second.data_ptr()
    assert weights["count"] is MODEL["count"]
    with pytest.raises(KeyError):
        weights["bias"]
