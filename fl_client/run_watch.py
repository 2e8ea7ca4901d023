"""What a run takes of its site while it runs, against the limits of the site's policy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from mmar_runtime.files import bytes_below
from mmar_runtime.policy.site_policy import Limits

GIB = 2**30
SECONDS_BETWEEN_LOOKS = 5.0
"""How old a measurement may be; a look goes through the files of the run."""


class RunWatch:
    """Measures one run.

    Args:
        run: the folder that it writes to.
        limits: of the site.
        process: the process that it is in; with a number, memory is measured too, of this process
            and all that it has started.
        clock: seconds by which the run's time is measured.
        began: when the run began by that clock; now if None.
    """

    def __init__(
        self,
        run: Path,
        limits: Limits,
        *,
        process: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        began: float | None = None,
    ) -> None:
        self._run = run
        self._limits = limits
        self._process = process
        self._clock = clock
        self._started = clock() if began is None else began
        self._looked = -math.inf
        self._too_much: str | None = None

    def passed_limit(self) -> str | None:
        """Return which limit the run is past, with both numbers; None while it is within all."""
        if time.monotonic() >= self._looked + SECONDS_BETWEEN_LOOKS:
            self._looked, self._too_much = time.monotonic(), self._takes_too_much()
        return self.time_is_over() or self._too_much

    def time_is_over(self) -> str | None:
        """Return the limit on time if the run is past it, without a look at files."""
        most = self._limits.wall_minutes
        minutes = (self._clock() - self._started) / 60
        return f"has run for limits.wall_minutes of this site, {most}" if minutes > most else None

    def _takes_too_much(self) -> str | None:
        for name, used, most in (
            ("disk_gib", bytes_below(self._run), self._limits.disk_gib),
            ("memory_gib", self._memory(), self._limits.memory_gib),
        ):
            if used > most * GIB:
                return f"takes {used} bytes; limits.{name} of this site is {most}"
        return None

    def _memory(self) -> int:
        """Return bytes of memory that the processes take; shared memory counts for each."""
        if self._process is None:
            return 0
        total = 0
        with suppress(psutil.Error):  # it has ended
            process = psutil.Process(self._process)
            for member in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    total += member.memory_info().rss
        return total
