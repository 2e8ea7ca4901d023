"""Sites that take turns in one process, each as if it had the process to itself."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from fl_client.local_work import LocalWork
from fl_client.memory.done_tasks import DoneTasks
from fl_client.progress import ProgressFile
from fl_client.run_watch import RunWatch
from fl_client.shared_storage import SharedStorage
from fl_client.simulation.set_aside import SetAside
from fl_client.site import Site
from fl_client.site_session import SiteSession
from fl_client.site_tasks import LocalTasks
from fl_client.status_words import keep_error, status_word
from mmar_runtime.errors import RunAborted
from mmar_runtime.exchange.messages import Failure, Reply, Task, Update, name_of
from mmar_runtime.exchange.rounding import rounded
from mmar_runtime.exchange.rounding_forms import Rounding
from mmar_runtime.workflows.observing import ShouldStop
from mmar_runtime.workflows.process_state import ProcessState

logger = logging.getLogger(__name__)

MEMORY = 2**30
ASIDE = "set_aside.safetensors"


class TurnClock:
    """The seconds of a site's turns: the clock stands still while other sites work."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None

    def __call__(self) -> float:
        """Return the seconds of all turns so far."""
        now = time.monotonic()
        return self._before + now - (now if self._since is None else self._since)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Run the clock for one turn."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._before, self._since = self(), None


class InTurn:
    """A site that shares a process with others.

    Args:
        site: the site.
        folder: where the site's run writes.
        work: what the job asks of each site.
        process: an opaque name of the process, for reports.
        storage: memory that the networks of the process share.
    """

    def __init__(
        self, site: Site, folder: Path, work: LocalWork, *, process: str, storage: SharedStorage
    ) -> None:
        self.folder = folder
        self.clock = TurnClock()
        self.state: ProcessState | None = None
        self._tasks: LocalTasks | None = None

        def make_tasks(
            site: Site, work: LocalWork, progress: ProgressFile, should_stop: ShouldStop
        ) -> LocalTasks:
            self._tasks = LocalTasks(
                site,
                work=work,
                process=process,
                observer=progress,
                should_stop=should_stop,
                storage=storage,
            )
            return self._tasks

        self.session = SiteSession(
            site,
            work,
            make_tasks,
            progress=ProgressFile(folder / "progress.jsonl"),
            done=DoneTasks((), rounds=None),
            watch=RunWatch(folder, site.policy.limits, clock=self.clock),
        )

    def tensors(self) -> Iterator[torch.Tensor]:
        """Return what takes memory while the site waits for its next turn."""
        return self._tasks.tensors() if self._tasks is not None else iter(())


class SitesInTurn:
    """The sites of this process; one after another does a task.

    Args:
        sites: all of them.
        folders: site name -> where its run writes.
        work: what the job asks of each.
        rounding: the form in which large tensors of an update leave; None for as they are.
        memory: bytes that optimizers and best models of all sites may take together; the rest is
            in the folders of the sites until their next turns.
    """

    def __init__(
        self,
        sites: Iterable[Site],
        folders: Mapping[str, Path],
        work: LocalWork,
        *,
        rounding: Rounding | None = None,
        memory: int = MEMORY,
    ) -> None:
        process, storage = uuid.uuid4().hex[:12], SharedStorage()
        self._sites = {
            site.name: InTurn(site, folders[site.name], work, process=process, storage=storage)
            for site in sorted(sites, key=lambda site: site.name)
        }
        self._rounding = rounding
        self._fresh = ProcessState.now()
        self._current: str | None = None
        self._aside = SetAside(memory)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(self._sites)

    def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
        """Have every site, or only one, do a task; the replies, as they come."""
        for name in self.names if only is None else (only,):
            yield name, self.reply(name, task)

    def reply(self, name: str, task: Task) -> Reply:
        """Return a site's answer; an error becomes a status word, and its text stays there."""
        site = self._switch_to(name)
        try:
            with site.clock.turn():
                return _as_sent(site.session.do(task), self._rounding)
        except RunAborted:
            return Failure(status="")
        except Exception as error:
            title, word = name_of(task), status_word(error)
            reference, place = keep_error(error, task=title, run=site.folder)
            logger.error("%s: %s in task %s; its text is in %s", name, word, title, place)
            return Failure(status=f"{word} (reference {reference})")

    def close(self) -> None:
        """End what the sites have opened."""
        for name in self.names:
            self._switch_to(name).session.close()

    def _switch_to(self, name: str) -> InTurn:
        """Make the process what the site has left, or new for its first turn."""
        site = self._sites[name]
        if self._current == name:
            return site
        if self._current is not None:
            last = self._sites[self._current]
            last.state = ProcessState.now()
            self._aside.put(self._current, last.tensors(), last.folder / ASIDE)
        (site.state or self._fresh).restore()
        self._aside.take(name, site.folder / ASIDE)
        self._current = name
        return site


def _as_sent(reply: Reply, rounding: Rounding | None) -> Reply:
    """Return a reply as the job has it sent: an update in the job's rounding."""
    if rounding is None or not isinstance(reply, Update):
        return reply
    sent = rounded({name: tensor.numpy() for name, tensor in reply.difference.items()}, rounding)
    difference = {name: torch.from_numpy(array) for name, array in sent.items()}
    return replace(reply, difference=difference)
