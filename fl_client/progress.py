"""How a site's run goes on, as lines of JSON that whoever is allowed to may follow."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmar_runtime.finite import finite
from mmar_runtime.results import EpochReport, EvaluationResult

TASK = re.compile(r'"kind": "task", "task": "(\w+)"')
"""What each line on a task holds."""

SECONDS_BETWEEN_ITERATIONS = 0.3
"""Iterations come faster than anybody reads; at most one line in this time tells of one."""


class ProgressFile:
    """An observer that appends one JSON object for each event to a file of the run.

    It holds numbers only: no file names, no texts from data.

    Attributes:
        round_number: the round that the next events belong to.
        tasks: how often each task has begun in this run, in earlier processes of it too.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.round_number = 0
        self._clock = clock
        self._last_iteration = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.tasks = _tasks_in(path)

    def task(self, name: str, *, model: str = "") -> None:
        """The site begins a task."""
        self.tasks[name] += 1
        self._write("task", task=name, model=model)

    def iteration(self, *, epoch: int, epochs: int, done: int, of: int, loss: float | None) -> None:
        """An iteration of training is complete."""
        now = self._clock()
        if now - self._last_iteration >= SECONDS_BETWEEN_ITERATIONS:
            self._last_iteration = now
            self._write("iteration", epoch=epoch, epochs=epochs, done=done, of=of, loss=loss)

    def epoch(self, report: EpochReport, *, epochs: int) -> None:
        """An epoch of training is complete."""
        self._write("epoch", epochs=epochs, **report.as_dict())

    def validation(self, result: EvaluationResult, *, epoch: int) -> None:
        """A validation is complete."""
        self._write(
            "validation", epoch=epoch, key_metric=result.key_metric, metrics=dict(result.metrics)
        )

    def _write(self, kind: str, **values: Any) -> None:
        event = {"time": self._clock(), "round": self.round_number, "kind": kind, **values}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite(event), allow_nan=False) + "\n")


def _tasks_in(path: Path) -> Counter[str]:
    """The tasks that a file lists; a line that a process left half written names none."""
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []
    return Counter(found[1] for line in lines if (found := TASK.search(line)))
