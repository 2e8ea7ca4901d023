"""Tensors in a file, each of which is read when it is asked for, and takes no memory else."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open

from mmar_runtime.errors import WeightsError
from mmar_runtime.files import link

EVEN = 8
"""Bytes: a multiple of it is where numbers of any type may begin."""

DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64", torch.bool: "BOOL",
}  # fmt: skip
"""The types of numbers -> their names in the safetensors format."""

TYPES = {name: dtype for dtype, name in DTYPES.items()}
PLACE = "mmar_place"
"""The attribute of a tensor of ``read_tensors`` that holds its place."""


class KeptFile:
    """A file that is deleted when nobody has this any more.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        weakref.finalize(self, path.unlink, missing_ok=True)

    @classmethod
    def of(cls, path: Path) -> KeptFile:
        """Return a second name for a file that another process may delete but never changes."""
        own = path.with_name(uuid.uuid4().hex)
        link(path, own, flush=False)
        return cls(own)


class KeptFolder:
    """A folder that is deleted with its files when nobody has this any more.

    Args:
        folder: taken to a new place.
        place: the folder in which that is.
    """

    def __init__(self, folder: Path, place: Path) -> None:
        outer = Path(tempfile.mkdtemp(prefix="mmar-", dir=place))
        weakref.finalize(self, shutil.rmtree, outer, ignore_errors=True)
        self.path = folder.rename(outer / folder.name)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A dense tensor in a file.

    Attributes:
        path: the file, which is never changed.
        offset: bytes before its first number.
        shape: of the tensor.
        dtype: of its numbers.
        keeper: the object that keeps the file.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    keeper: object

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def read(self) -> torch.Tensor:
        """Return the tensor, with the file as its memory: a page of it is read when it is needed.

        Each call maps this part of the file anew. Changes of the tensor stay in this mapping
        alone.
        """
        if not self.nbytes:
            return torch.empty(self.shape, dtype=self.dtype)
        return self.in_memory(_mapped(self.path, self.offset, self.nbytes))

    def in_memory(self, numbers: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return the tensor whose bytes these are."""
        return torch.from_numpy(numbers).view(self.dtype).view(self.shape)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return this object: a copy would have a file that nobody keeps."""
        return self


class StoredWeights(MutableMapping[str, torch.Tensor]):
    """Weights of which those in a file are read anew each time, and let go of by who asked.

    So they take no memory, and of the system's mappings, which are bounded, none but those in use.

    Args:
        tensors: those in files, and such as are in memory anyway.
    """

    def __init__(self, tensors: Mapping[str, StoredTensor | torch.Tensor]) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return the tensor of this name."""
        tensor = self._tensors[name]
        return tensor.read() if isinstance(tensor, StoredTensor) else tensor

    def __setitem__(self, name: str, tensor: torch.Tensor) -> None:
        """Have a tensor of this name."""
        self._tensors[name] = tensor

    def __delitem__(self, name: str) -> None:
        """Have it no longer."""
        del self._tensors[name]

    def __contains__(self, name: object) -> bool:
        """Return whether there is a tensor of this name; none is read."""
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        """Return the names."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._tensors)

    def copy(self) -> StoredWeights:
        """Return a copy that may be changed; read no tensor."""
        return StoredWeights(self._tensors)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a new file in the safetensors format from the tensors' own memory.

    The library's ``save_file`` waits for the disk, which such a file never needs to reach.

    Args:
        path: where no file is yet; it is its owner's alone.
        tensors: a copy is written of a tensor that is not dense.

    Raises:
        OSError: it cannot be written; nothing of it is left.
        WeightsError: the format has no such type of numbers.
    """
    with open(
        path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600)
    ) as file:
        try:
            for part in _parts(tensors):
                _write(file, part)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def packed_tensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Return the safetensors format of tensors, for which their memory is read once.

    The library's ``save`` takes twice as long for small tensors, and copies large ones twice.

    Raises:
        WeightsError: the format has no such type of numbers.
    """
    return b"".join(_parts(tensors))


def _parts(tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """Yield the header of the format, then the numbers of each tensor.

    A tensor that is not dense, or on another device, is copied when its turn comes.
    """
    header, end = {}, 0
    # With the widest numbers first, every tensor begins at a place that its type allows.
    in_order = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    for name, tensor in in_order:
        if tensor.dtype not in DTYPES:
            raise WeightsError(f"a tensor of {tensor.dtype} cannot be written to a file")
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % EVEN)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in in_order:
        yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def stored_tensors(path: Path, *, keeper: object) -> dict[str, StoredTensor]:
    """Return the tensors of a file in the safetensors format, in the order in which they lie there.

    The library judges the header: the tensors fill the file after it, without a gap.

    Raises:
        OSError: there is no such file.
        SafetensorError: it is damaged.
        WeightsError: a tensor is of a type that torch does not have.
    """
    tensors, offset = {}, 0
    with safe_open(path, framework="np") as file:
        for name in file.offset_keys():
            part = file.get_slice(name)
            dtype = TYPES.get(part.get_dtype())
            if dtype is None:
                raise WeightsError(f"a tensor of {part.get_dtype()} cannot be read from a file")
            tensors[name] = StoredTensor(path, offset, tuple(part.get_shape()), dtype, keeper)
            offset += tensors[name].nbytes
    header = path.stat().st_size - offset
    return {
        name: replace(tensor, offset=header + tensor.offset) for name, tensor in tensors.items()
    }


def read_tensors(path: Path, *, keeper: object) -> dict[str, torch.Tensor]:
    """Return the tensors of a file that is mapped once; raise like ``stored_tensors``.

    Each knows its place; see ``stored_of``.
    """
    stored = stored_tensors(path, keeper=keeper)
    memory = _mapped(path, 0, path.stat().st_size)
    tensors = {}
    for name, place in stored.items():
        tensors[name] = place.in_memory(memory[place.offset : place.offset + place.nbytes])
        setattr(tensors[name], PLACE, place)
    return tensors


def stored_of(tensor: torch.Tensor) -> StoredTensor | None:
    """Return the place of a whole tensor of ``read_tensors``; None for all other tensors."""
    place: StoredTensor | None = getattr(tensor, PLACE, None)
    return place


def _mapped(path: Path, offset: int, size: int) -> npt.NDArray[np.uint8]:
    # As a plain array: numpy's own class would do more at each slice.
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="c", offset=offset, shape=(size,)))


def _write(file: FileIO, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:  # a call of the system writes 2 GiB at most
        rest = rest[file.write(rest) :]
