"""A site that sleeps until the server says that there is a task for it.

NVFlare's sites ask for tasks at fixed times, so a round waits for the next time somebody asks. Here
the server sends a message without content when it has a task, and the site asks then. Nothing but
the moment changes: tasks, filters, audit and replies are NVFlare's, and a message that is lost only
means that the site asks a little later.
"""

from __future__ import annotations

import contextlib
import threading
import time

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply

from mmar_runtime.flare.wire import WAKE_TOPIC

SECONDS_BETWEEN_LOOKS = 0.1
"""How soon a sleeping site notices that its job was aborted."""

MAX_READY = 256
"""Messages that count at a time: cross-site validation has a task ready for each model."""


class WakeListener(FLComponent):
    """Holds back the next question for a task until the server has one.

    Args:
        max_wait: seconds after which the site asks anyway, once the server has shown that it wakes.
        idle_wait: the same before that, and where the server never does.
    """

    def __init__(self, max_wait: float = 2.0, idle_wait: float = 0.5) -> None:
        super().__init__()
        self.max_wait = max_wait
        self.idle_wait = idle_wait
        # Each task has a message of its own, so several that stand ready are not one.
        self._ready = threading.BoundedSemaphore(MAX_READY)
        for _ in range(MAX_READY):
            self._ready.acquire()
        self._woken = False

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Listen from the start of the run on; wait before each question."""
        if event_type == EventType.ABOUT_TO_START_RUN:
            engine = fl_ctx.get_engine()
            engine.register_aux_message_handler(topic=WAKE_TOPIC, message_handle_func=self._wake)
        elif event_type == EventType.BEFORE_PULL_TASK:
            self._wait(fl_ctx)

    def _wake(self, topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:
        if not _is_of_the_server(fl_ctx):
            return make_reply(ReturnCode.BAD_PEER_CONTEXT)
        self._woken = True
        with contextlib.suppress(ValueError):  # so many are ready that one more changes nothing
            self._ready.release()
        return make_reply(ReturnCode.OK)

    def _wait(self, fl_ctx: FLContext) -> None:
        stop = fl_ctx.get_run_abort_signal()
        last = time.monotonic() + (self.max_wait if self._woken else self.idle_wait)
        while not self._ready.acquire(timeout=SECONDS_BETWEEN_LOOKS):
            if time.monotonic() >= last or (stop is not None and stop.triggered):
                return


def _is_of_the_server(fl_ctx: FLContext) -> bool:
    """Return whether the sender of a message is in the same job, and is not one of its sites.

    NVFlare has verified who speaks through the server. What a handler gets is the sender's own
    word, so ``MAX_READY`` bounds what a site with another word could do.
    """
    peer = fl_ctx.get_peer_context()
    if peer is None or peer.get_job_id() != fl_ctx.get_job_id():
        return False
    sites = {client.name for client in fl_ctx.get_engine().get_clients() or ()}
    return peer.get_identity_name() not in {*sites, fl_ctx.get_identity_name()}
