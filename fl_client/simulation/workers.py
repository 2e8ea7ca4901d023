"""Sites dealt out over several processes; in each of them they take turns.

Tensors go from one process to another as a file of safetensors, which the receiver maps into its
memory: all workers share one copy of a task's model, and none of it goes through a pipe. A file
lives until its receivers have mapped it, so hardly anything of it reaches the disk. The files lie
in the folder for temporary files: room for a model, and one for each process.
"""

from __future__ import annotations

import multiprocessing
import queue
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file

from fl_client.simulation.signals import end_on_sigterm, end_soon
from fl_client.simulation.sites import Sites
from mmar_runtime.confinement.wall import forbid_programs
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.messages import BestModel, Reply, Score, Task, Train, Update, Validate
from mmar_runtime.exchange.tensor_files import write_tensors
from mmar_runtime.weights import Weights

MakeSites = Callable[..., Any]
"""``make(*arguments, names=...)``: the sites of these names, in the process that calls it."""


class SitesInWorkers:
    """Sites that work in processes of their own, always the same sites in the same one.

    Which process runs a site changes no bit of what it computes.

    Args:
        names: of all sites.
        count: how many processes.
        make: makes some of the sites; a function of a module, called in each process.
        arguments: what it is called with; values that can be sent to a process.
        confined: whether the kernel confines this process. It gives up starting programs only
            once the workers run; each worker gives that up as it begins.
    """

    def __init__(
        self,
        names: Sequence[str],
        count: int,
        make: MakeSites,
        arguments: tuple[Any, ...],
        *,
        confined: bool = False,
    ) -> None:
        self.names = tuple(sorted(names))
        self._exchange = tempfile.TemporaryDirectory(prefix="exchange-")
        context = multiprocessing.get_context("spawn")
        self._workers: list[Connection] = []
        self._worker_of: dict[str, int] = {}
        self._processes = []
        for number in range(min(count, len(self.names))):
            # Dealt out like cards, so that contributions come about in the order of the names.
            own = self.names[number::count]
            self._worker_of.update(dict.fromkeys(own, number))
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work,
                args=(theirs, make, arguments, own, Path(self._exchange.name), confined),
                daemon=True,
            )
            process.start()
            theirs.close()
            self._workers.append(ours)
            self._processes.append(process)

    def ask(self, task: Task, *, only: str | None = None) -> Iterator[tuple[str, Reply]]:
        """Have every site, or only one, do a task; the replies, as they come.

        Raises:
            FederationError: a process has died.
        """
        asked = range(len(self._workers)) if only is None else [self._worker_of[only]]
        replies: queue.Queue[tuple[str, Any, Path | None] | BaseException] = queue.Queue()
        rest, file = _apart(task, Path(self._exchange.name))
        for number in asked:
            names = [only] if only is not None else list(self.names[number :: len(self._workers)])
            threading.Thread(
                target=_ask_one,
                args=(self._workers[number], (names, rest, file), len(names), replies),
                daemon=True,
            ).start()
        try:
            for _ in self.names if only is None else (only,):
                reply = replies.get()
                if isinstance(reply, BaseException):
                    raise FederationError(f"a process that simulates sites has ended: {reply!r}")
                # Mapped only now, so that of several replies no more than one is in memory.
                yield reply[0], _together(*reply[1:], is_last=True)
        finally:
            if file is not None:
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Have the processes end what their sites have opened, and themselves."""
        for worker in self._workers:
            with suppress(OSError):
                worker.send(None)
        for process in self._processes:
            process.join()
        self._exchange.cleanup()


def _ask_one(
    worker: Connection,
    message: tuple[list[str], Any, Path | None],
    count: int,
    replies: queue.Queue[tuple[str, Any, Path | None] | BaseException],
) -> None:
    try:
        worker.send(message)
        for _ in range(count):
            replies.put(worker.recv())
    except (EOFError, OSError) as error:
        replies.put(error)


def _work(
    server: Connection,
    make: MakeSites,
    arguments: tuple[Any, ...],
    names: tuple[str, ...],
    exchange: Path,
    confined: bool,
) -> None:
    """Work until a message ends this process, or the process that started it has ended."""
    if confined:
        forbid_programs()
    end_on_sigterm()
    sites = make(*arguments, names=names)
    try:
        while (message := server.recv()) is not None:
            asked, rest, file = message
            task = _together(rest, file)
            for name in asked:
                for site, reply in cast(Sites, sites).ask(task, only=name):
                    server.send((site, *_apart(reply, exchange)))
                    del reply  # it is in the file
            del task
    except EOFError:
        pass
    finally:
        sites.close()
        end_soon()


def _apart(value: Any, folder: Path) -> tuple[Any, Path | None]:
    """Return a task or a reply without its tensors, and the file with those, if it has any."""
    if isinstance(value, Update):
        return replace(value, difference={}), _written(value.difference, folder)
    if isinstance(value, BestModel | Train | Score | Validate):
        return replace(value, weights={}), _written(value.weights, folder)
    return value, None


def _together(value: Any, file: Path | None, *, is_last: bool = False) -> Any:
    """Return a task or a reply with its tensors.

    Args:
        value: without its tensors.
        file: what has them.
        is_last: whether nobody else reads the file; what is mapped outlives its name.
    """
    if file is None:
        return value
    weights = load_file(file)
    if is_last:
        file.unlink()
    if isinstance(value, Update):
        return replace(value, difference=weights)
    return replace(value, weights=weights)


def _written(weights: Weights, folder: Path) -> Path:
    path = folder / f"{uuid.uuid4().hex}.safetensors"
    write_tensors(path, weights)
    return path
