"""The tasks that a site has done in a job: none is done twice, whatever a server asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmar_runtime.errors import PolicyError
from mmar_runtime.exchange.messages import TRAIN, VALIDATE
from mmar_runtime.names import NAME_FORM, is_name

DONE = "task-out"
"""The event of the site's audit log by which a task counts as done."""


class DoneTasks:
    """The tasks that a site has answered in one job, in whichever process.

    A task that was stopped or failed has reported nothing of the data, and may be asked for again.

    Args:
        lines: of the site's audit log, as far as they are of the job.
        rounds: that the job's documents ask for; None where they name none.
    """

    def __init__(self, lines: Iterable[Mapping[str, Any]], rounds: int | None) -> None:
        self._rounds = rounds
        self._round = 0
        self._once: set[str] = set()
        self._models: set[str] = set()
        for line in lines:
            if line.get("event") == DONE:
                self.add(str(line.get("task")), line.get("round", 0), str(line.get("model", "")))

    @property
    def evaluations(self) -> int:
        """How many tasks but those of training are done."""
        return len(self._once) + len(self._models)

    def require_new(self, task: str, round_number: int, model: str) -> None:
        """Judge a task before anything is done for it.

        Args:
            task: its name.
            round_number: of a training, counted from 1.
            model: the name of the model that is to be evaluated.

        Raises:
            PolicyError: the task is done already, or is not one of the job.
        """
        if task == TRAIN:
            if self._rounds is not None and round_number > self._rounds:
                raise PolicyError(f"round {round_number}; the job has {self._rounds} rounds")
            if round_number <= self._round:
                raise PolicyError(
                    f"round {round_number}; this site has done round {self._round} of this job"
                )
        elif task == VALIDATE:
            if not is_name(model):
                raise PolicyError(f"the name of the model has to be {NAME_FORM}")
            if model in self._models:
                raise PolicyError(f"this site has evaluated {model!r} in this job already")
        elif task in self._once:
            raise PolicyError(f"this site has done {task} in this job already")

    def add(self, task: str, round_number: int, model: str) -> None:
        """Remember a task; arguments as for ``require_new``."""
        if task == TRAIN:
            self._round = max(self._round, round_number)
        elif task == VALIDATE:
            self._models.add(model)
        else:
            self._once.add(task)
