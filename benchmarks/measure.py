"""Runs a command and watches it with all that it starts: seconds and memory."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SECONDS_BETWEEN_SAMPLES = 0.1
SHARE = 0.05
"""Of the time, what watching may take: a look at many pages of memory stops their owner."""

LINES_TOLD = 30
"""Of what a command said, should it fail: its log goes with the folder of the benchmark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a command took.

    Attributes:
        seconds: wall time.
        born: time of day at which its process began.
        peak_pss: MiB of its whole tree; memory that processes share counts once.
        peak_rss: the same, where it counts in each of them.
        processes: most of them at a time.
        of_process: command line of each process -> MiB, the most that it had.
    """

    seconds: float
    born: float
    peak_pss: float
    peak_rss: float
    processes: int
    of_process: Mapping[str, float]


def measure(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    with log.open("wb") as stream:
        started = time.perf_counter()
        process = subprocess.Popen(
            list(command), stdout=stream, stderr=subprocess.STDOUT, env=environment
        )
        watched = psutil.Process(process.pid)
        born = watched.create_time()
        peaks = {"pss": 0.0, "rss": 0.0, "count": 0.0}
        own: dict[str, float] = {}
        done = threading.Event()
        thread = threading.Thread(target=_watch, args=(watched, peaks, own, done))
        thread.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        done.set()
        thread.join()
    if code != 0:
        last = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-LINES_TOLD:])
        raise RuntimeError(f"{' '.join(command)}\nended with code {code}:\n{last}")
    return Measured(
        seconds=seconds,
        born=born,
        peak_pss=peaks["pss"],
        peak_rss=peaks["rss"],
        processes=int(peaks["count"]),
        of_process=own,
    )


def _watch(
    process: psutil.Process,
    peaks: dict[str, float],
    own: dict[str, float],
    done: threading.Event,
) -> None:
    pause = SECONDS_BETWEEN_SAMPLES
    while not done.wait(pause):
        began = time.thread_time()
        found = {"pss": 0.0, "rss": 0.0, "count": 0.0}
        try:
            tree = [process, *process.children(recursive=True)]
        except psutil.Error:
            continue
        for member in tree:
            try:
                memory = member.memory_full_info()
                words = " ".join(member.cmdline())
            except psutil.Error:
                continue
            own[words] = max(own.get(words, 0.0), memory.rss / 2**20)
            found["pss"] += memory.pss / 2**20
            found["rss"] += memory.rss / 2**20
            found["count"] += 1
        for name, value in found.items():
            peaks[name] = max(peaks[name], value)
        pause = max(SECONDS_BETWEEN_SAMPLES, (time.thread_time() - began) / SHARE)
