"""Sites that take turns in one process, each as if it had the process to itself."""

from __future__ import annotations

import logging
import traceback
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fl_client.progress import ProgressFile
from fl_client.simulation.set_aside import SetAside
from fl_client.simulation.shared_storage import SharedStorage
from fl_client.simulation.simulated_site import JobWork, SimulatedSite
from fl_client.site import Site
from fl_client.status_words import status_word
from mmar_runtime.errors import RunAborted
from mmar_runtime.exchange.messages import (
    Failure,
    Reply,
    Score,
    Submit,
    Task,
    Train,
    Validate,
    name_of,
)
from mmar_runtime.workflows.process_state import ProcessState

logger = logging.getLogger(__name__)

MEMORY = 2**30
ASIDE = "set_aside.safetensors"


class SitesInTurn:
    """The sites of this process; one after another does a task.

    Args:
        sites: all of them.
        folders: site name -> where its run writes.
        work: what the job asks of each.
        memory: bytes that optimizers and best models of all of them may take together; of more,
            those of a site lie in its folder until its next turn.
    """

    def __init__(
        self,
        sites: Iterable[Site],
        folders: Mapping[str, Path],
        work: JobWork,
        *,
        memory: int = MEMORY,
    ) -> None:
        process, storage = uuid.uuid4().hex[:12], SharedStorage()
        self._folders = folders
        self._tasks = {
            site.name: SimulatedSite(
                site,
                work=work,
                progress=ProgressFile(folders[site.name] / "progress.jsonl"),
                process=process,
                storage=storage,
            )
            for site in sorted(sites, key=lambda one: one.name)
        }
        self._states: dict[str, ProcessState] = {}
        self._fresh = ProcessState.now()
        self._present: str | None = None
        self._aside = SetAside(memory)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(self._tasks)

    def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
        """Have every site, or only one, do a task; the replies, as they come."""
        for name in self.names if only is None else (only,):
            yield name, self.reply(name, task)

    def reply(self, name: str, task: Task) -> Reply:
        """What a site answers; whatever goes wrong there becomes a status word."""
        self._enter(name)
        try:
            return _done(self._tasks[name], task)
        except RunAborted:
            return Failure(status="")
        except Exception as error:
            return self._failed(name, task, error)

    def close(self) -> None:
        """End what the sites have opened."""
        for name, tasks in self._tasks.items():
            with self._as(name):
                tasks.close()

    def _enter(self, name: str) -> None:
        """Make the process what this site has left behind, or new."""
        if self._present == name:
            return
        if self._present is not None:
            self._states[self._present] = ProcessState.now()
            tensors = self._tasks[self._present].tensors()
            self._aside.put(self._present, tensors, self._folders[self._present] / ASIDE)
        self._states.get(name, self._fresh).restore()
        self._aside.take(name, self._folders[name] / ASIDE)
        self._present = name

    @contextmanager
    def _as(self, name: str) -> Iterator[None]:
        self._enter(name)
        yield

    def _failed(self, name: str, task: Task, error: Exception) -> Failure:
        """Keep the error's text at the site; the server gets one word and a reference to it."""
        reference, word = uuid.uuid4().hex[:8], status_word(error)
        title = name_of(task)
        text = "".join(traceback.format_exception(error))
        path = self._folders[name] / f"error-{reference}.txt"
        path.write_text(f"{title}: {error}\n\n{text}", encoding="utf-8")
        logger.error("%s: %s in task %s; its text is in %s", name, word, title, path.name)
        return Failure(status=f"{word} (reference {reference})")


def _done(tasks: SimulatedSite, task: Task) -> Reply:
    match task:
        case Train():
            return tasks.train(task.weights, task.round_number, timeout=task.timeout)
        case Score():
            return tasks.score(task.weights, timeout=task.timeout)
        case Submit():
            return tasks.submit()
        case Validate():
            return tasks.validate(
                task.weights, task.owner, is_global=task.is_global, timeout=task.timeout
            )
