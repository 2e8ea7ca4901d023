"""Starts the ranks of a site, asks all of them together, notices when one ends, and ends them all.

They are told what torchrun would tell them, but there is no torchrun: its agent would listen on
every network of the machine, and would stand between this process and the death of a rank.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # from C++, not in __all__

from fl_client.ranks.connection import receive, send
from fl_client.ranks.messages import error_from
from mmar_runtime.errors import LaunchError, ProcessLostError, RunAborted
from mmar_runtime.workflows.observing import ShouldStop

COMMAND = (sys.executable, "-P", "-m", "fl_client.ranks.main")
"""Without ``-P`` Python would import from the working directory, where a job's files may lie."""

START_SECONDS = 300.0
"""Within this time all ranks have to be ready. They read no data for that, only libraries."""

LOOK_SECONDS = 0.1
"""How often it is asked whether a rank has ended and whether to stop."""

AGREE_SECONDS = 2.0
"""When one rank has failed, the others have this time to tell the same; they may wait for it."""

STOP_SECONDS = 5.0
"""When the ranks are asked to stop, they have this time to end their iteration."""

CLOSE_SECONDS = 10.0
"""At the end, the ranks have this time to close what they have open."""

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    connection: Connection


class Ranks:
    """Processes that do each task together. If one is lost, all are ended.

    Args:
        count: how many.
        setup: what each is told first.
        logs: the folder of ``rank-<number>.log``, which gets what a rank prints.
        should_stop: asked while they work.
        start_seconds: within this time they have to be ready.

    Raises:
        LaunchError: they did not start.
        MmarError: what a rank found wrong.
        RunAborted: ``should_stop`` said so.
    """

    def __init__(
        self,
        count: int,
        setup: Mapping[str, Any],
        *,
        logs: Path,
        should_stop: ShouldStop,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._logs = logs
        self._should_stop = should_stop
        self._number = 0
        self._in_step = False
        # By this store they find each other. It has to listen where nobody else can reach it, and
        # PyTorch would listen everywhere if it opened the port itself.
        with socket.socket() as listening:
            listening.bind((LOOPBACK, 0))
            listening.listen()
            port = listening.getsockname()[1]
            self._store: TCPStore | None = TCPStore(
                LOOPBACK,
                port,
                is_master=True,
                wait_for_workers=False,
                master_listen_fd=listening.detach(),
            )
        self._ranks: list[_Rank] = []
        try:
            for number in range(count):
                self._ranks.append(self._start(number, count, port))
            self._send_all(setup)
            self._gather(0, most=start_seconds)
        except BaseException:
            self.end()
            raise

    @property
    def pids(self) -> list[int]:
        """The processes' numbers in the system, by rank; none once they have ended."""
        return [rank.process.pid for rank in self._ranks]

    @property
    def alive(self) -> bool:
        """Whether all are there for another task."""
        return bool(self._ranks) and not any(map(_ended, self._ranks))

    def ask(self, kind: str, **task: Any) -> dict[str, Any]:
        """Have all ranks do a task; returns the first one's answer.

        If all fail in the same way, they stay: none of them waits for another. Else all are ended.

        Raises:
            ProcessLostError: one has ended; all have now.
            RunAborted: ``should_stop`` said so.
            Exception: what a rank raised, of the same kind as far as it is one of ours.
        """
        self._number += 1
        self._send_all({"kind": kind, "number": self._number, **task})
        try:
            return self._gather(self._number)
        except BaseException:
            if not self._in_step:
                self.end()
            raise

    def close(self) -> None:
        """End the ranks; they may close what they have open before."""
        if self.alive:
            self._number += 1
            self._send_all({"kind": "close", "number": self._number})
            with suppress(LaunchError, ProcessLostError, RunAborted):  # they end now anyway
                self._gather(self._number, most=CLOSE_SECONDS)
        self.end()

    def end(self) -> None:
        """End the ranks and all that they have started, at once."""
        ranks, self._ranks = self._ranks, []
        self._store = None
        for rank in ranks:
            with suppress(ProcessLookupError):  # its data loaders may outlive a rank
                os.killpg(rank.process.pid, signal.SIGKILL)
        for rank in ranks:
            rank.process.wait()
            rank.connection.close()

    def _start(self, number: int, count: int, port: int) -> _Rank:
        ours, theirs = Pipe()
        environment = {
            # One machine only: nothing has to listen on any network. A site may say otherwise.
            "GLOO_SOCKET_IFNAME": "lo",
            "NCCL_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            **os.environ,
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": LOOPBACK,
            "MASTER_PORT": str(port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        with theirs, self._log(number).open("ab") as log:
            process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return _Rank(number, process, ours)

    def _log(self, number: int) -> Path:
        return self._logs / f"rank-{number}.log"

    def _send_all(self, message: Mapping[str, Any]) -> None:
        for rank in self._ranks:
            with suppress(OSError):  # it has ended, which is noticed where its answer is missed
                send(rank.connection, message)

    def _gather(self, number: int, *, most: float | None = None) -> dict[str, Any]:
        """Wait for the answers of all ranks to a task; ``most`` seconds if that is given."""
        answers: dict[int, dict[str, Any]] = {}
        started, failed, stopped = time.monotonic(), None, None
        self._in_step = False
        while len(answers) < len(self._ranks):
            self._receive(answers, number)
            now = time.monotonic()
            if failed is None and any("error" in answer for answer in answers.values()):
                failed = now
            if stopped is None and self._should_stop():
                self._send_all({"kind": "abort", "number": number})
                stopped = now
            if failed is not None and now > failed + AGREE_SECONDS:
                break
            if stopped is not None and now > stopped + STOP_SECONDS:
                raise RunAborted("stopped in the middle of an iteration")
            if most is not None and now > started + most:
                raise self._too_slow(answers, most)
        self._in_step = _all_the_same(answers.values(), len(self._ranks))
        has_failed = any({"error", "aborted"} & answer.keys() for answer in answers.values())
        if stopped is not None and has_failed:
            raise RunAborted("stopped between two iterations")
        # What differs began with whoever was the first to tell.
        for rank in sorted(answers) if self._in_step else answers:
            answer = answers[rank]
            if "error" in answer:
                raise error_from(answer["error"], f"process {rank} of {len(self._ranks)}")
        return answers[0]

    def _receive(self, answers: dict[int, dict[str, Any]], number: int) -> None:
        """Take what has come in meanwhile.

        Raises:
            ProcessLostError, LaunchError: a rank has ended without an answer.
        """
        waiting = [rank for rank in self._ranks if rank.number not in answers]
        ended = [rank for rank in waiting if _ended(rank)]  # before, so that no last word is missed
        ready = wait([rank.connection for rank in waiting], LOOK_SECONDS)
        for rank in waiting:
            if rank.connection not in ready:
                continue
            try:
                answer = receive(rank.connection)
            except (EOFError, OSError):
                with suppress(subprocess.TimeoutExpired):
                    rank.process.wait(LOOK_SECONDS)
                ended.append(rank)
            else:
                if answer["number"] == number:
                    answers[rank.number] = answer
        for rank in ended:
            if rank.number not in answers:
                raise self._lost(rank, answers, starting=number == 0)

    def _lost(
        self, lost: _Rank, answers: Mapping[int, Mapping[str, Any]], *, starting: bool
    ) -> Exception:
        """Return what to say of a rank that has ended."""
        count = len(self._ranks)
        what = (
            f"process {lost.number} of {count}, counted from 0, {_how(lost.process.poll())}; the "
            f"others were ended too. What it printed is in {self._log(lost.number).name} here."
        )
        error: Exception
        if starting:
            error = LaunchError(f"{what} It had not begun to work yet.")
        else:
            error = ProcessLostError(f"{what} The next task starts all of them anew.")
        error.add_note(
            f"the end of {self._log(lost.number).name}:\n{self._last_words(lost.number)}"
        )
        for rank, answer in answers.items():
            if "error" in answer:
                error.add_note(f"process {rank}:\n{answer['error']['traceback']}")
        return error

    def _last_words(self, number: int) -> str:
        with self._log(number).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
            return log.read().decode(errors="replace")

    def _too_slow(self, answers: Mapping[int, object], most: float) -> LaunchError:
        missing = [rank.number for rank in self._ranks if rank.number not in answers]
        listed = ", ".join(map(str, missing))
        logs = ", ".join(self._log(number).name for number in missing)
        return LaunchError(
            f"process {listed} of {len(self._ranks)}, counted from 0, was not ready within "
            f"{most:g} seconds; all were ended. See {logs} here. If it was still importing, the "
            "disk with the libraries is slow, and the next task may succeed. If it waited for the "
            "others, look at GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME of the site's environment: "
            "they have to name an interface of this machine, such as lo"
        )


def _ended(rank: _Rank) -> bool:
    return rank.process.poll() is not None


def _how(code: int | None) -> str:
    """Return how a process has ended, in words."""
    if code is None:
        return "has closed its connection"
    if code >= 0:
        return f"has ended with exit code {code}"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return "was killed (SIGKILL), by hand or by the system for want of memory: see dmesg"
    return f"was ended by {name}"


def _all_the_same(answers: Iterable[Mapping[str, Any]], count: int) -> bool:
    """Return whether all ranks have come to the same end, so that none waits for another."""
    ends = [(answer.get("aborted"), answer.get("error", {}).get("causes")) for answer in answers]
    return len(ends) == count and all(end == ends[0] for end in ends)
