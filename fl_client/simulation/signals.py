"""How the processes of a simulation end."""

from __future__ import annotations

import gc
import signal
import sys


def end_on_sigterm() -> None:
    """Let a process that is asked to end do so like one that fails: no file stays half written."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def end_soon() -> None:
    """Free what nobody needs any more, and keep the rest until the process is gone.

    The interpreter would look through the modules of torch and MONAI several times at its end, for
    seconds, and a process that is asked to end has only so many.
    """
    gc.collect()
    gc.freeze()
