"""Tensors that lie in a file: the same numbers, read when they are asked for."""

from __future__ import annotations

import copy
import gc
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, load_file

from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange import tensor_files as model_files
from mmar_runtime.exchange.tensor_files import (
    DTYPES,
    KeptFile,
    StoredWeights,
    packed_tensors,
    read_tensors,
    stored_of,
    stored_tensors,
    write_tensors,
)
from mmar_runtime.weights import digest

MAPS = Path("/proc/self/maps")
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

    found = read_tensors(path, keeper=None)

    stored = stored_tensors(path, keeper=None)
    assert digest({name: one.read() for name, one in stored.items()}) == digest(model)
    assert all(one.offset % one.dtype.itemsize == 0 for one in stored.values())
    assert {name: one.shape for name, one in found.items()} == {
        name: one.shape for name, one in model.items()
    }
    assert digest(found) == digest(model)


def test_the_file_is_what_the_library_reads_and_its_owners_alone(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", MODEL)

    assert digest(load_file(tmp_path / "file")) == digest(MODEL)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


@given(st.dictionaries(st.sampled_from("abcdef"), tensors, min_size=1))
def test_packed_tensors_are_what_the_library_reads(model: dict[str, torch.Tensor]) -> None:
    assert digest(load(packed_tensors(model))) == digest(model)


def test_a_tensor_that_is_not_dense_or_learns_is_packed_like_any_other() -> None:
    tensors = {"turned": MODEL["weight"].T, "learns": torch.ones(2, requires_grad=True)}

    assert digest(load(packed_tensors(tensors))) == digest(tensors)


def test_a_tensor_that_is_not_dense_is_written_as_one_that_is(tmp_path: Path) -> None:
    tensors = {
        "turned": MODEL["weight"].T,
        "spread": torch.ones(1).expand(3),
        "as it is": MODEL["count"],
    }
    write_tensors(tmp_path / "file", tensors)

    assert digest(read_tensors(tmp_path / "file", keeper=None)) == digest(tensors)


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


def test_a_type_that_the_format_has_not_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"torch\.complex128 cannot be written"):
        write_tensors(tmp_path / "file", {"w": torch.zeros(1, dtype=torch.complex128)})

    assert list(tmp_path.iterdir()) == []


def test_a_type_that_torch_has_not_is_an_error(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + b"0")

    with pytest.raises(WeightsError, match="F8_E8M0 cannot be read"):
        read_tensors(tmp_path / "file", keeper=None)


@pytest.mark.parametrize("cut", [0, 4, 20, -1], ids=["empty", "no length", "header", "numbers"])
def test_a_file_that_is_cut_off_is_an_error(tmp_path: Path, cut: int) -> None:
    write_tensors(tmp_path / "file", MODEL)
    whole = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(whole[:cut])

    with pytest.raises(SafetensorError):
        read_tensors(tmp_path / "file", keeper=None)


def test_a_part_of_a_tensor_does_not_lie_where_the_whole_does(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", MODEL)
    weight = read_tensors(tmp_path / "file", keeper=None)["weight"]

    assert stored_of(weight) is not None
    assert stored_of(weight[:1]) is None
    assert stored_of(weight + 1) is None


def test_what_is_written_into_a_tensor_stays_in_that_one(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", MODEL)
    stored = stored_tensors(tmp_path / "file", keeper=None)["weight"]

    stored.read()[0, 0] = 9

    assert stored.read()[0, 0] == 0


def test_a_file_stays_as_long_as_somebody_has_it_and_its_memory_longer(tmp_path: Path) -> None:
    offered = tmp_path / "0"
    write_tensors(offered, MODEL)
    own = KeptFile.of(offered)
    offered.unlink()

    stored = copy.deepcopy(stored_tensors(own.path, keeper=own))
    weight = stored["weight"].read()
    del own
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 1

    del stored
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(weight, MODEL["weight"])


@pytest.mark.skipif(not MAPS.is_file(), reason="the system does not list the mappings")
def test_a_file_is_mapped_once_for_all_its_tensors_and_kept_weights_map_none(
    tmp_path: Path,
) -> None:
    """The system has a bound on mappings, which many sites with many tensors would meet."""
    write_tensors(tmp_path / "file", {str(number): torch.ones(2) for number in range(50)})
    found = read_tensors(tmp_path / "file", keeper=None)
    assert all(torch.equal(one, torch.ones(2)) for one in found.values())
    assert MAPS.read_text().count(str(tmp_path)) == 1

    kept = StoredWeights({name: stored_of(one) or one for name, one in found.items()}).copy()
    del found
    assert MAPS.read_text().count(str(tmp_path)) == 0
    assert torch.equal(kept.pop("7"), torch.ones(2))
    assert "7" not in kept
    assert len(kept) == 49


def test_weights_in_a_file_are_read_anew_each_time_and_others_are_themselves(
    tmp_path: Path,
) -> None:
    write_tensors(tmp_path / "file", MODEL)
    stored = stored_tensors(tmp_path / "file", keeper=None)["weight"]
    weights = StoredWeights({"weight": stored, "count": MODEL["count"]})

    assert list(weights) == ["weight", "count"]
    assert digest(weights) == digest(MODEL)
    first, second = weights["weight"], weights["weight"]
    assert first.data_ptr() != second.data_ptr()
    assert weights["count"] is MODEL["count"]
    with pytest.raises(KeyError):
        weights["bias"]
