"""How a site's run goes on, as lines of JSON that whoever is allowed to may follow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmar_runtime.files import finite
from mmar_runtime.metrics import values_of
from mmar_runtime.results import EpochReport, EvaluationResult

SECONDS_BETWEEN_ITERATIONS = 0.3
"""Iterations come faster than anybody reads; at most one line in this time tells of one."""


class ProgressFile:
    """An observer that appends one JSON object for each event to a file of the run.

    It holds numbers only: no file names, no texts from data.

    Attributes:
        round_number: the round that the next events belong to.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.round_number = 0
        self._clock = clock
        self._last_iteration = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)

    def task(self, name: str, *, model: str = "") -> None:
        """Write that the site begins a task."""
        self._write("task", task=name, model=model)

    def iteration(self, *, epoch: int, epochs: int, done: int, of: int, loss: float | None) -> None:
        """Write that an iteration of training is complete."""
        now = self._clock()
        if now - self._last_iteration >= SECONDS_BETWEEN_ITERATIONS:
            self._last_iteration = now
            self._write("iteration", epoch=epoch, epochs=epochs, done=done, of=of, loss=loss)

    def epoch(self, report: EpochReport, *, epochs: int) -> None:
        """Write that an epoch of training is complete."""
        self._write("epoch", epochs=epochs, **report.as_dict())

    def validation(self, result: EvaluationResult, *, epoch: int) -> None:
        """Write that a validation is complete."""
        self._write(
            "validation",
            epoch=epoch,
            key_metric=result.key_metric,
            metrics=values_of(result.metrics),
        )

    def _write(self, kind: str, **values: Any) -> None:
        event = {"time": self._clock(), "round": self.round_number, "kind": kind, **values}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite(event), allow_nan=False) + "\n")
