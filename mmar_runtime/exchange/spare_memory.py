"""Memory of dropped tensors, for new tensors of the same size.

An operating system clears every page that it hands out, and takes pages back when a large tensor
goes. For tensors that come and go in each round, that takes several times as long as filling them.
"""

from __future__ import annotations

import threading
import weakref

import torch

LEAST = 2**16
"""Bytes; smaller tensors are left to the allocator, which keeps such memory itself."""


class SpareMemory:
    """Hands out memory that comes back by itself: when nobody has the tensor or a view any more.

    Attributes:
        bound: most spare bytes; memory that comes back beyond it is given up.
        bytes: that lie spare now.
    """

    def __init__(self, bound: int = 0) -> None:
        self.bound = bound
        self._spare: dict[int, list[torch.Tensor]] = {}
        self.bytes = 0
        # Whichever thread has the last reference gives the memory back, even within a call here.
        self._lock = threading.RLock()

    def empty_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a dense tensor of the same shape and dtype on the CPU, with any numbers in it."""
        if tensor.nbytes < LEAST:
            return torch.empty(tensor.shape, dtype=tensor.dtype)
        memory = self._taken(tensor.nbytes)
        # A tensor made of an array holds the array, and lets it go with its own memory.
        lent = memory.numpy()
        weakref.finalize(lent, self._come_back, memory).atexit = False
        return torch.from_numpy(lent).view(tensor.dtype).view(tensor.shape)

    def _taken(self, size: int) -> torch.Tensor:
        with self._lock:
            if self._spare.get(size):
                self.bytes -= size
                return self._spare[size].pop()
        return torch.empty(size, dtype=torch.uint8)

    def _come_back(self, memory: torch.Tensor) -> None:
        with self._lock:
            if self.bytes + memory.nbytes <= self.bound:
                self.bytes += memory.nbytes
                self._spare.setdefault(memory.nbytes, []).append(memory)
