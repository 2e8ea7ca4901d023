"""Sites dealt out over several processes; in each of them they take turns."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, cast

from safetensors.torch import load, save

from fl_admin.inline.tasks import Crew, Reply, Score, Task, Train, Validate
from fl_client.simulated_site import SubmittedModel
from fl_client.updates import LocalUpdate
from mmar_runtime.errors import FederationError
from mmar_runtime.weights import Weights

MakeCrew = Callable[..., Any]
"""``make(*arguments, names=...)``: the sites of these names, in the process that calls it."""


class SitesInWorkers:
    """A crew whose sites work in processes of their own, always the same sites in the same one.

    Which process runs a site changes no bit of what it computes.

    Args:
        names: of all sites.
        count: how many processes.
        make: makes the crew of some of the sites; a function of a module, called in each process.
        arguments: what it is called with; values that can be sent to a process.
    """

    def __init__(
        self, names: Sequence[str], count: int, make: MakeCrew, arguments: tuple[Any, ...]
    ) -> None:
        self.names = tuple(sorted(names))
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
                target=_work, args=(theirs, make, arguments, own), daemon=True
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
        replies: queue.Queue[tuple[str, Reply] | BaseException] = queue.Queue()
        for number in asked:
            names = [only] if only is not None else list(self.names[number :: len(self._workers)])
            threading.Thread(
                target=_ask_one, args=(self._workers[number], task, names, replies), daemon=True
            ).start()
        for _ in self.names if only is None else (only,):
            reply = replies.get()
            if isinstance(reply, BaseException):
                raise FederationError(f"a process that simulates sites has ended: {reply!r}")
            yield reply

    def close(self) -> None:
        """Have the processes end what their sites have opened, and themselves."""
        for worker in self._workers:
            with suppress(OSError):
                worker.send(None)
        for process in self._processes:
            process.join()


def _ask_one(
    worker: Connection,
    task: Task,
    names: list[str],
    replies: queue.Queue[tuple[str, Reply] | BaseException],
) -> None:
    try:
        worker.send((names, *_apart(task)))
        for _ in names:
            name, rest, tensors = worker.recv()
            replies.put((name, _together(rest, tensors)))
    except (EOFError, OSError) as error:
        replies.put(error)


def _work(
    server: Connection, make: MakeCrew, arguments: tuple[Any, ...], names: tuple[str, ...]
) -> None:
    """What a worker does until it is told to end, or whoever started it has ended."""
    end_on_sigterm()
    crew = make(*arguments, names=names)
    try:
        while (message := server.recv()) is not None:
            asked, rest, tensors = message
            task = _together(rest, tensors)
            for name in asked:
                for site, reply in cast(Crew, crew).ask(task, only=name):
                    server.send((site, *_apart(reply)))
    except EOFError:
        pass
    finally:
        crew.close()


def end_on_sigterm() -> None:
    """Let a process that is asked to end do so like one that fails: no file stays half written."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _apart(value: Any) -> tuple[Any, bytes]:
    """A task or a reply without its tensors, and those as safetensors."""
    if isinstance(value, LocalUpdate):
        return replace(value, difference={}), _packed(value.difference)
    if isinstance(value, SubmittedModel | Train | Score | Validate):
        return replace(value, weights={}), _packed(value.weights)
    return value, b""


def _together(value: Any, tensors: bytes) -> Any:
    if not tensors:
        return value
    weights = load(tensors)
    if isinstance(value, LocalUpdate):
        return replace(value, difference=weights)
    return replace(value, weights=weights)


def _packed(weights: Weights) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in weights.items()})
