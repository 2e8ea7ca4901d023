"""What the server writes while the round goes on: in its order, by a thread of its own.

Lines of the audit log with their digests, the record and the models: nothing of it has to be there
before the sites get their next task, and all of it before the run ends. The order is that of the
calls, so the log tells what happened in the order in which it happened, and a record on the disk
never tells of a model that is not there yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

from mmar_runtime.errors import FederationError

LATER = "mmar_later"
"""Where the contexts of a run have it."""


class Later:
    """Does work in the order in which it was given.

    Attributes:
        failures: the reasons of what could not be done.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mmar-later")

    def do(self, work: Callable[[], object]) -> None:
        """Have work done in its turn; it tells of its errors itself."""
        self._thread.submit(work)

    def wait(self) -> None:
        """Return when all that was given is done."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        """Wait, and end the thread: NVFlare waits seconds for one that is left in its process."""
        self._thread.shutdown()


def begin(fl_ctx: FLContext) -> None:
    """From now on the run writes later; until ``finish``, and only if that will be called."""
    fl_ctx.set_prop(LATER, Later(), private=True, sticky=True)


def write_later(by: FLComponent, fl_ctx: FLContext, what: str, write: Callable[[], object]) -> None:
    """Have something written in its turn; at once where a run does not write later.

    Without it the run does not go on: an error ends the run with its reason.

    Args:
        by: the component that has it written.
        fl_ctx: of the job.
        what: is written, for the reason.
        write: writes it.
    """
    engine, later = fl_ctx.get_engine(), fl_ctx.get_prop(LATER)

    def panic(reason: str) -> None:
        by.system_panic(reason, engine.new_context())

    def work() -> None:
        try:
            write()
        except Exception as error:
            reason = f"{what} cannot be written: {error}"
            if not isinstance(later, Later):
                panic(reason)
                return
            later.failures.append(reason)
            # Whoever waits for this thread may hold what the end of the run needs.
            threading.Thread(target=panic, args=(reason,), daemon=True).start()

    if isinstance(later, Later):
        later.do(work)
    else:
        work()


def finish(fl_ctx: FLContext) -> None:
    """Wait for everything that is to be written.

    Raises:
        FederationError: something could not be written.
    """
    later = fl_ctx.get_prop(LATER)
    if isinstance(later, Later):
        later.wait()
        _raise_failure(later)


def end(fl_ctx: FLContext) -> None:
    """Wait for everything that is to be written; from now on the run writes at once again.

    Raises:
        FederationError: something could not be written.
    """
    later = fl_ctx.get_prop(LATER)
    if isinstance(later, Later):
        fl_ctx.set_prop(LATER, None, private=True, sticky=True)
        later.close()
        _raise_failure(later)


def _raise_failure(later: Later) -> None:
    if later.failures:
        raise FederationError(later.failures[0])
