"""The state of a process that a run's computation depends on, taken and restored as a value.

So several runs can take turns in one process, each as if it had the process to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mmar_runtime.workflows.resuming import random_state, restore_random
from mmar_runtime.workflows.session import Flags


@dataclass(frozen=True, slots=True)
class ProcessState:
    """PyTorch's process-wide settings, and the state of every random source.

    Attributes:
        flags: threads, cuDNN and TF32.
        random: of torch, numpy and Python.
    """

    flags: Flags
    random: Mapping[str, Any]

    @classmethod
    def now(cls) -> Self:
        """Return the state at this moment."""
        return cls(flags=Flags.now(), random=random_state())

    def restore(self) -> None:
        """Make the process be in this state."""
        self.flags.restore()
        restore_random(self.random)
