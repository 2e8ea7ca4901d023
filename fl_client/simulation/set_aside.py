"""Tensors of the sites whose turn it is not: in memory up to a bound, beyond it in files.

The tensors stay the objects that they are, so whoever holds one need not know; only their numbers
go, and come back to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


class SetAside:
    """Keeps the tensors of all sites of a process within a bound of memory.

    Args:
        bound: bytes that the tensors of all sites may take together.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._kept: dict[str, int] = {}
        self._gone: dict[str, list[torch.Tensor]] = {}

    def put(self, name: str, tensors: Iterable[torch.Tensor], file: Path) -> None:
        """Keep the tensors of a site if there is room, or else write them to the site's file."""
        held = list(tensors)
        size = sum(tensor.nbytes for tensor in held)
        self._kept.pop(name, None)
        if sum(self._kept.values()) + size <= self._bound:
            self._kept[name] = size
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        numbered = {str(index): tensor.data for index, tensor in enumerate(held)}
        save_file(
            {key: tensor.cpu().contiguous().clone() for key, tensor in numbered.items()}, file
        )
        for tensor in held:
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        self._gone[name] = held

    def take(self, name: str, file: Path) -> None:
        """Give the tensors of a site their numbers back."""
        if not (held := self._gone.pop(name, [])):
            return
        saved = load_file(file)
        for index, tensor in enumerate(held):
            tensor.data = saved[str(index)].to(tensor.device)
