"""Weights as NVFlare sends them, and as filters and guards see them: tensors, and arrays.

NVFlare packs tensors faster than arrays, so they travel as tensors. Filters and guards
know numpy arrays. Both share their memory, so a conversion costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from mmar_runtime.exchange.tensor_files import StoredWeights, stored_of
from mmar_runtime.weights import Weights

IN_MESSAGE = 2**20
"""Bytes of tensors that go in the message itself; the receiver asks for all other tensors.

So a small model needs no second message, and a large model none for its small tensors.
"""

CARRIED = "mmar_carried_bytes"
"""Where they are counted while a message is packed."""

WHOLE = 64 * 2**20
PIECE = 16 * 2**20
"""A model of at most ``WHOLE`` bytes goes in one piece, a larger model in pieces of ``PIECE``.

The receiver asks for each piece; the sender holds a few of them.
"""


def arrays_of(weights: Weights) -> dict[str, np.ndarray[Any, Any]]:
    """Return arrays that share the tensors' memory."""
    return {name: tensor.numpy() for name, tensor in weights.items()}


def as_tensor(value: Any) -> torch.Tensor:
    """Return a tensor that shares the array's memory where that can be written to."""
    array = np.asarray(value)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def goes_in_message(packing: dict[str, Any], tensor: torch.Tensor) -> bool:
    """Return whether a tensor goes in the message itself; if so, it is counted there.

    Args:
        packing: facts about a message while it is packed, of this message alone.
        tensor: the next tensor.
    """
    carried: int = packing.get(CARRIED, 0) + tensor.nbytes
    if carried > IN_MESSAGE:
        return False
    packing[CARRIED] = carried
    return True


def piece_of(tensors: dict[str, torch.Tensor]) -> int:
    """Return bytes of a piece in which these tensors go."""
    return WHOLE if sum(tensor.nbytes for tensor in tensors.values()) <= WHOLE else PIECE


def pack(message: object) -> None:
    """Give a message that is about to leave its model as NVFlare sends it best."""
    change_data(message, as_sent)


def unpack(message: object) -> None:
    """Give a message that has come the arrays that guard, gate and filters know."""
    change_data(message, as_judged)


def stored_weights(message: object) -> StoredWeights | None:
    """Return the difference of weights that a message carries in files; None if it carries none so.

    Later changes of the message do not change the result.
    """
    dxo = message.get("DXO") if isinstance(message, dict) else None
    if not isinstance(dxo, dict) or dxo.get("kind") != "WEIGHT_DIFF":
        return None
    data = dxo.get("data")
    if type(data) is not dict or not all(type(value) is torch.Tensor for value in data.values()):
        return None
    places = {name: stored_of(tensor) for name, tensor in data.items()}
    if not any(places.values()):
        return None
    return StoredWeights({name: places[name] or tensor for name, tensor in data.items()})


def change_data(message: object, change: Callable[[object], object]) -> None:
    """Change the data of a message, if it has any; NVFlare's messages are dictionaries."""
    if not isinstance(message, dict):
        return
    dxo = message.get("DXO")
    if isinstance(dxo, dict) and "data" in dxo:
        message["DXO"] = {**dxo, "data": change(dxo["data"])}


def as_sent(data: object) -> object:
    """Return the tensors in place of the arrays of a model; other data as they are.

    Args:
        data: of a message.
    """
    if not isinstance(data, dict) or not all(type(value) is np.ndarray for value in data.values()):
        return data
    try:
        return {name: _tensor(array) for name, array in data.items()}
    except (TypeError, ValueError):  # a type of numbers that torch does not have
        return data


def as_judged(data: object) -> object:
    """Return the arrays in place of tensors; all other values stay as they are."""
    if type(data) is not dict:
        return data
    judged = dict(data)
    for name, value in data.items():
        if type(value) is torch.Tensor:
            # Not dense, or a type of numbers that numpy does not have: the tensor stays.
            with suppress(TypeError, RuntimeError):
                judged[name] = value.numpy()
    return judged


def _tensor(array: np.ndarray) -> torch.Tensor:
    base: object = array.base
    if (
        isinstance(base, torch.Tensor)
        and base.shape == array.shape
        and base.is_contiguous()
        and base.data_ptr() == array.ctypes.data
    ):
        return base  # so an array is the same tensor in each message
    if not (array.flags.c_contiguous and array.flags.writeable):
        array = array.copy(order="C")
    return torch.from_numpy(array)
