"""The sites of a simulation, as whoever carries the run sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from mmar_runtime.exchange.messages import Reply, Task


class Sites(Protocol):
    """The sites of a simulation."""

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""

    def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
        """Have every site, or only one, do a task; the replies, as they come."""
