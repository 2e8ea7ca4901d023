"""The tasks that a site has done in a job: none is done twice, whatever a server asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmar_runtime.errors import PolicyError
from mmar_runtime.exchange.messages import (
    TRAIN,
    VALIDATE,
    Task,
    Train,
    Validate,
    name_of,
)
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
                self._add(line)

    @property
    def evaluations(self) -> int:
        """How many tasks but those of training are done."""
        return len(self._once) + len(self._models)

    def require_new(self, task: Task) -> None:
        """Judge a task before the site does anything for it.

        Raises:
            PolicyError: the site has done the task already, or the job has no such task.
        """
        match task:
            case Train(round_number=number):
                if self._rounds is not None and number > self._rounds:
                    raise PolicyError(f"round {number}; the job has {self._rounds} rounds")
                if number <= self._round:
                    raise PolicyError(
                        f"round {number}; this site has done round {self._round} of this job"
                    )
            case Validate(owner=model):
                if not is_name(model):
                    raise PolicyError(f"the name of the model has to be {NAME_FORM}")
                if model in self._models:
                    raise PolicyError(f"this site has evaluated {model!r} in this job already")
            case _:
                if name_of(task) in self._once:
                    raise PolicyError(f"this site has done {name_of(task)} in this job already")

    def add(self, task: Task) -> None:
        """Remember a task that is done."""
        self._add({"task": name_of(task), **facts_of(task)})

    def _add(self, line: Mapping[str, Any]) -> None:
        name = str(line.get("task"))
        if name == TRAIN:
            self._round = max(self._round, line.get("round", 0))
        elif name == VALIDATE:
            self._models.add(str(line.get("model", "")))
        else:
            self._once.add(name)


def facts_of(task: Task) -> dict[str, Any]:
    """Return what tells a task from others of its name, as the audit log has it."""
    match task:
        case Train():
            return {"round": task.round_number}
        case Validate():
            return {"model": task.owner}
        case _:
            return {}
