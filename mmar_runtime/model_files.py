"""Tensors in a file, each of which is read when it is asked for, and takes no memory else."""

from __future__ import annotations

import json
import os
import uuid
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import torch
from safetensors import safe_open

from mmar_runtime.files import link

EVEN = 8
"""Bytes: a multiple of it is where numbers of any type may begin."""

DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
    torch.complex64: "C64", torch.bool: "BOOL",
}  # fmt: skip
"""What the safetensors format calls the types of numbers."""


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
        """A name of one's own for a file that another may delete; it must never be changed."""
        own = path.with_name(uuid.uuid4().hex)
        link(path, own, flush=False)
        return cls(own)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A dense tensor in a file.

    Attributes:
        path: a file in the safetensors format.
        name: of the tensor in it.
        keeper: whatever keeps the file there.
    """

    path: Path
    name: str
    keeper: object

    def read(self) -> torch.Tensor:
        """The tensor, with the file as its memory: a page of it is read when it is needed.

        Each call maps the file anew. What is written into the tensor stays in this one alone.
        """
        with safe_open(self.path, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(self.name)
        return tensor


class StoredWeights(Mapping[str, torch.Tensor]):
    """Weights of which those in a file are read anew each time, and let go of by who asked.

    Args:
        tensors: those in files, and such as are in memory anyway.
    """

    def __init__(self, tensors: Mapping[str, StoredTensor | torch.Tensor]) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> torch.Tensor:
        """The tensor of this name."""
        found = self._tensors[name]
        return found.read() if isinstance(found, StoredTensor) else found

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._tensors)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a new file in the safetensors format from the tensors' own memory.

    The library's ``save_file`` waits for the disk, which such a file never needs to reach.

    Args:
        path: where no file is yet; it is its owner's alone.
        tensors: dense, on the CPU, of the types in ``DTYPES``.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    header, end = {}, 0
    # With the widest numbers first, none of them lies where its type may not begin.
    in_order = sorted(tensors.items(), key=lambda one: -one[1].element_size())
    for name, tensor in in_order:
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % EVEN)
    with open(path, "xb", buffering=0, opener=_private) as file:
        try:
            _write(file, len(text).to_bytes(8, "little") + text)
            for _, tensor in in_order:
                _write(file, tensor.reshape(-1).view(torch.uint8).numpy().data)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _write(file: FileIO, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:  # a call of the system writes 2 GiB at most
        rest = rest[file.write(rest) :]


def read_tensors(path: Path, *, keeper: object) -> dict[str, StoredTensor]:
    """The tensors of a file; none of them is read yet."""
    with safe_open(path, framework="pt") as file:
        return {name: StoredTensor(path, name, keeper) for name in file.keys()}  # noqa: SIM118


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
