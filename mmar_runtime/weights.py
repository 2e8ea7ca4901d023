"""Weights of a network: parameter name -> CPU tensor; read, written, compared."""

from __future__ import annotations

import hashlib
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mmar_runtime.errors import CheckpointError, WeightsError
from mmar_runtime.files import write_atomically
from mmar_runtime.names import ENCRYPTED_PREFIX

Weights = Mapping[str, torch.Tensor]
"""Parameters and buffers of a network by name, dense, on the CPU, owned by their holder."""

BLOCK = 2**15
"""Numbers that are worked on at a time, where several steps follow each other.

They stay in the processor's cache. It is the most that torch leaves to one thread, too: to wake
others for each step of a block would take longer than the step, and much longer on a busy machine.
"""

PARALLEL_PREFIX = "module."
DAMAGED_ADVICE = "Copy the file again, or name another one with --set MMAR_CKPT=..., or --model."
MAX_LISTED = 6
MISSING_WEIGHTS_ADVICE = (
    "Train first, or name another file with --set MMAR_CKPT=..., --model_path or --model."
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The content of a file of weights.

    Attributes:
        weights: the network's weights.
        train_conf: the training configuration that the file carries, or None.
    """

    weights: Weights
    train_conf: Mapping[str, Any] | None


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of a network's weights on the CPU; later training does not change it."""
    return {name: copy_of(tensor) for name, tensor in network.state_dict().items()}


def copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return a dense copy on the CPU; no later change of the tensor changes it."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def load_into(network: torch.nn.Module, weights: Weights, *, source: str) -> None:
    """Give a network these weights: every tensor, by name, shape and dtype, or none at all.

    Args:
        network: changed in place, on the device where it is.
        weights: not kept; the network gets copies.
        source: where the weights come from, for the error.

    Raises:
        WeightsError: with the tensors that are missing, unknown, or of another shape or dtype.
    """
    faults = mismatches(network.state_dict(), weights)
    if faults:
        listed = "\n".join(f"    {fault}" for fault in faults[:MAX_LISTED])
        more = f"\n    ... and {len(faults) - MAX_LISTED} more" if len(faults) > MAX_LISTED else ""
        raise WeightsError(
            f"the weights from {source} do not fit the network; none were loaded:\n{listed}{more}"
        )
    network.load_state_dict(dict(weights))


def load_fitting(network: torch.nn.Module, weights: Weights, *, source: str) -> tuple[str, ...]:
    """Give a network the tensors that fit by name, shape and dtype; return all others.

    Raises:
        WeightsError: not a single tensor fits.
    """
    state = network.state_dict()
    fitting = {
        name: tensor
        for name, tensor in weights.items()
        if name in state and tensor.shape == state[name].shape and tensor.dtype == state[name].dtype
    }
    if not fitting:
        raise WeightsError(f"not one tensor from {source} fits the network; none were loaded")
    network.load_state_dict({**state, **fitting})
    return mismatches(state, weights)


def mismatches(expected: Weights, given: Weights) -> tuple[str, ...]:
    """Return where two sets of weights differ in names, shapes or dtypes; empty if nowhere."""
    faults = [f"{name}: missing" for name in expected if name not in given]
    faults += [f"{name}: not part of the network" for name in given if name not in expected]
    for name, tensor in expected.items():
        other = given.get(name)
        if other is None:
            continue
        if tensor.shape != other.shape:
            faults.append(f"{name}: shape {tuple(tensor.shape)}, given {tuple(other.shape)}")
        elif tensor.dtype != other.dtype:
            faults.append(f"{name}: {tensor.dtype}, given {other.dtype}")
    return tuple(faults)


def not_finite(weights: Weights) -> Iterator[str]:
    """Return the names of the tensors that hold NaN or an infinity."""
    return (name for name, tensor in weights.items() if not is_finite(tensor.detach()))


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether no number in it is NaN or an infinity."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    # Each such number spoils the sum; a sum of finite numbers can overflow, but seldom does.
    if math.isfinite(tensor.sum().item()):
        return True
    low, high = torch.aminmax(tensor)
    return math.isfinite(low.item()) and math.isfinite(high.item())


def blocks(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the numbers of a dense tensor, in its memory, taken apart into blocks of ``BLOCK``."""
    numbers = tensor.view(-1)
    if numbers.numel() <= BLOCK:
        return (numbers,)  # split takes several times as long, and most tensors are small
    parts: tuple[torch.Tensor, ...] = numbers.split(BLOCK)
    return parts


def digest(weights: Weights) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes, in the order of the names.

    Two digests are equal exactly if the weights are equal to the last bit.
    """
    total = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().to("cpu").contiguous()
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def read_checkpoint(path: Path, *, part: str = "model") -> Checkpoint:
    """Return the weights in a ``.pt`` or ``.safetensors`` file.

    A ``.pt`` file may hold ``{"model": weights, "train_conf": ...}`` as Clara wrote it, or bare
    weights; names with the ``module.`` of a data-parallel run lose it. Nothing but tensors and
    plain values is ever unpickled.

    Args:
        path: the file.
        part: the entry that holds the weights, where the file has several.

    Raises:
        CheckpointError: no such file, unreadable, or without weights in it.
    """
    if not path.is_file():
        raise CheckpointError(
            f"there is no file of weights {str(path)!r}\n    {MISSING_WEIGHTS_ADVICE}"
        )
    content = _load(path)
    train_conf = content.get("train_conf")
    weights = content.get(part, content)
    if any(str(name).startswith(ENCRYPTED_PREFIX) for name in content):
        raise CheckpointError(
            f"{str(path)!r} holds encrypted weights; 'mmar site decrypt' makes a checkpoint of "
            "them, at a site that has the keys"
        )
    if (
        not isinstance(weights, Mapping)
        or not weights
        or not all(isinstance(name, str) for name in weights)
        or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values())
    ):
        held = ", ".join(map(repr, islice(content, MAX_LISTED))) or "nothing"
        raise CheckpointError(
            f"{str(path)!r} holds no weights: expected a mapping from names to tensors, bare or "
            f"under {part!r}; it holds {held}\n    Save the weights under {part!r}."
        )
    spoilt = next((name for name, tensor in weights.items() if _has_nan(tensor)), None)
    if spoilt is not None:
        raise CheckpointError(
            f"{str(path)!r}: {spoilt} is not a number\n    The training that wrote it has failed: "
            "take an earlier file, or train again with a lower learning rate."
        )
    return Checkpoint(
        weights=without_parallel_prefix(weights),
        train_conf=train_conf if isinstance(train_conf, Mapping) else None,
    )


def _has_nan(tensor: torch.Tensor) -> bool:
    """Return whether a number of a tensor is NaN; infinity may be meant, as in a mask."""
    return tensor.is_floating_point() and not is_finite(tensor) and bool(tensor.isnan().any())


def _load(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size == 0:
        raise CheckpointError(f"{str(path)!r} is empty\n    {DAMAGED_ADVICE}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        refuse_packed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own text recommends to read the file unsafely.
        raise CheckpointError(
            f"{str(path)!r} is damaged, or holds more than tensors and plain values, which is "
            f"never unpickled here\n    {DAMAGED_ADVICE}"
        ) from error
    except Exception as error:  # a damaged file makes the readers raise anything, IndexError too
        text = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{str(path)!r} cannot be read: {text}\n    {DAMAGED_ADVICE}"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{str(path)!r} holds a {type(content).__name__}, not a mapping")
    return content


def refuse_packed(path: Path) -> None:
    """Refuse a ``.pt`` file that is TorchScript, or has compressed parts.

    A few kilobytes of those can unpack to any size, and PyTorch never writes them for weights.

    Raises:
        CheckpointError: the file is of that format.
    """
    if not zipfile.is_zipfile(path):
        return  # the format before PyTorch 1.6 has no parts
    with zipfile.ZipFile(path) as archive:
        if any(part.filename.endswith("/constants.pkl") for part in archive.infolist()):
            raise CheckpointError(
                f"{str(path)!r} is TorchScript, which is code, and not weights; an evaluation "
                "names it by ts_path"
            )
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise CheckpointError(
                f"{str(path)!r} is a compressed archive, which PyTorch does not write; it could "
                "unpack to any size"
            )


def without_parallel_prefix(weights: Weights) -> Weights:
    """Return the weights without ``module.``, which data-parallel wrappers put before a name."""
    if not all(name.startswith(PARALLEL_PREFIX) for name in weights):
        return weights
    return {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in weights.items()}


def write_checkpoint(
    path: Path, weights: Weights, train_conf: Mapping[str, Any], *, flush: bool = True
) -> None:
    """Write ``{"model": weights, "train_conf": ...}`` as a ``.pt`` file, whole or not at all.

    Without ``flush``, a power cut soon after may lose it.
    """
    content = {"model": dict(weights), "train_conf": dict(train_conf)}
    write_atomically(path, lambda stream: torch.save(content, stream), flush=flush)
