"""A process with everything it starts: watched while it runs, ended without a rest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

SECONDS_TO_END = 5.0

MEMORY_OF_NVFLARE = {"MALLOC_ARENA_MAX": "2", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Variables for glibc's malloc in a process that sends and receives models by NVFlare.

The dozens of threads of such a process share what malloc else keeps for each of them. And memory
is asked for in large pages: each model takes new memory several times on its way, and clearing that
in small pages takes longer than filling it. Other C libraries know neither variable.
"""


class ProcessTree:
    """A started command and its descendants, remembered while they can still be found.

    A grandchild whose parent has died is no longer in the tree, so ``look`` or ``wait`` has to be
    called now and then; whatever was seen once is ended in the end.
    """

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,
        )
        self._seen: set[psutil.Process] = {psutil.Process(self._process.pid)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def look(self) -> int | None:
        """Remember the descendants of this moment; returns the exit code once there is one."""
        for process in list(self._seen):
            try:
                self._seen.update(process.children(recursive=True))
            except psutil.NoSuchProcess:
                continue
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Wait for the command's end, for so long at most; its exit code, None while it runs."""
        try:
            return self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return self.look()

    def end(self) -> None:
        """End every process of the tree: asked first, then forced. Returns when none is left."""
        try:
            self.look()
            _each(self._seen, "terminate")
            psutil.wait_procs(self._seen, timeout=SECONDS_TO_END)
        finally:  # also where a second Ctrl-C interrupts the waiting
            _each(self._seen, "kill")
            psutil.wait_procs(self._seen, timeout=SECONDS_TO_END)
            self._process.wait()
            self._log.close()


def _each(processes: Iterable[psutil.Process], action: str) -> None:
    for process in processes:
        try:
            getattr(process, action)()
        except psutil.NoSuchProcess:
            continue
