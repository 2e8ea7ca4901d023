"""Lines on stderr while cases are looked at."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


class Progress:
    """A line on stderr every few seconds, so that a long check does not look like a hang."""

    def __init__(self, every: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._started = self._shown = clock()

    def __call__(self, done: int, of: int) -> None:
        """Print a line after a case if the last line is ``every`` seconds old."""
        now = self._clock()
        if now - self._shown >= self._every and done < of:
            self._shown = now
            left = (now - self._started) / done * (of - done)
            print(f"case {done} of {of} ({left:.0f} s left)", file=sys.stderr)


def silent(done: int, of: int) -> None:
    """Report nothing."""
