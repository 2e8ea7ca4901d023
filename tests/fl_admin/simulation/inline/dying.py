"""A crew that dies of its first task, for the process of a worker."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from fl_admin.simulation.inline.tasks import Reply, Task


class DyingCrew:
    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)

    def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
        os._exit(1)

    def close(self) -> None:
        """Nothing to end."""


def dying_crew(*, names: Collection[str]) -> DyingCrew:
    return DyingCrew(names)
