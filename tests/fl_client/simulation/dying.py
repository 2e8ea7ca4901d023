"""Sites that die of their first task, for the process of a worker."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from mmar_runtime.exchange.messages import Reply, Task


class DyingSites:
    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)

    def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
        os._exit(1)

    def close(self) -> None:
        """Nothing to end."""


def dying_sites(*, names: Collection[str]) -> DyingSites:
    return DyingSites(names)
