"""A site asks for a task when the server says that one is ready, not before and not much later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from fl_client.flare.wake import MAX_READY, WakeListener
from mmar_runtime.flare.wire import WAKE_TOPIC

LONG = 60.0
"""Seconds that no test waits: whoever waits for them hangs."""


@dataclass
class EngineStandIn:
    """Keeps the handler of messages as NVFlare's engine does."""

    handlers: dict[str, Callable[..., Shareable]] = field(default_factory=dict)

    def get_clients(self) -> list[Client]:
        return [Client("site-1", ""), Client("site-2", "")]

    def register_aux_message_handler(self, topic: str, message_handle_func: Any) -> None:
        self.handlers[topic] = message_handle_func

    def wake(self, fl_ctx: FLContext, *, sender: str = "project", job: str = "job") -> Shareable:
        peer = FLContextManager(engine=self, identity_name=sender, job_id=job).new_context()
        fl_ctx.set_peer_context(peer)
        return self.handlers[WAKE_TOPIC](WAKE_TOPIC, Shareable(), fl_ctx)


@pytest.fixture
def engine() -> EngineStandIn:
    return EngineStandIn()


@pytest.fixture
def fl_ctx(engine: EngineStandIn) -> FLContext:
    return FLContextManager(engine=engine, identity_name="site-1", job_id="job").new_context()


def started(fl_ctx: FLContext, **waits: float) -> WakeListener:
    listener = WakeListener(**waits)
    listener.handle_event(EventType.ABOUT_TO_START_RUN, fl_ctx)
    return listener


def pull(listener: WakeListener, fl_ctx: FLContext) -> threading.Thread:
    """A site that is about to ask; the thread ends when it may."""
    thread = threading.Thread(
        target=listener.handle_event, args=(EventType.BEFORE_PULL_TASK, fl_ctx), daemon=True
    )
    thread.start()
    return thread


def test_it_waits_for_the_servers_message(engine: EngineStandIn, fl_ctx: FLContext) -> None:
    listener = started(fl_ctx, max_wait=LONG, idle_wait=LONG)
    asking = pull(listener, fl_ctx)
    asking.join(0.3)
    assert asking.is_alive()

    engine.wake(fl_ctx)

    asking.join(LONG)
    assert not asking.is_alive()


@pytest.mark.parametrize("sender", [{"sender": "site-2"}, {"sender": "site-1"}, {"job": "another"}])
def test_nobody_but_the_server_of_the_job_wakes_a_site(
    engine: EngineStandIn, fl_ctx: FLContext, sender: dict[str, str]
) -> None:
    listener = started(fl_ctx, max_wait=LONG, idle_wait=LONG)
    asking = pull(listener, fl_ctx)

    assert engine.wake(fl_ctx, **sender).get_return_code() == ReturnCode.BAD_PEER_CONTEXT

    asking.join(0.3)
    assert asking.is_alive()
    assert engine.wake(fl_ctx).get_return_code() == ReturnCode.OK
    asking.join(LONG)
    assert not asking.is_alive()


def test_a_site_that_knows_no_others_does_not_wake_itself(
    engine: EngineStandIn, fl_ctx: FLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "get_clients", lambda: None)
    started(fl_ctx)

    assert engine.wake(fl_ctx, sender="site-1").get_return_code() == ReturnCode.BAD_PEER_CONTEXT
    assert engine.wake(fl_ctx).get_return_code() == ReturnCode.OK


def test_a_flood_of_messages_makes_a_site_ask_only_a_few_times(
    engine: EngineStandIn, fl_ctx: FLContext
) -> None:
    listener = started(fl_ctx, max_wait=LONG, idle_wait=LONG)
    for _ in range(1000):
        engine.wake(fl_ctx)

    for _ in range(MAX_READY):
        listener.handle_event(EventType.BEFORE_PULL_TASK, fl_ctx)
    asking = pull(listener, fl_ctx)

    asking.join(0.3)
    assert asking.is_alive()
    engine.wake(fl_ctx)
    asking.join(LONG)


def test_two_tasks_that_stand_ready_are_asked_for_without_a_wait(
    engine: EngineStandIn, fl_ctx: FLContext
) -> None:
    """The second message comes while the site works on the first task."""
    listener = started(fl_ctx, max_wait=LONG, idle_wait=LONG)
    engine.wake(fl_ctx)
    engine.wake(fl_ctx)

    listener.handle_event(EventType.BEFORE_PULL_TASK, fl_ctx)
    listener.handle_event(EventType.BEFORE_PULL_TASK, fl_ctx)

    third = pull(listener, fl_ctx)
    third.join(0.3)
    assert third.is_alive()
    engine.wake(fl_ctx)
    third.join(LONG)


def test_an_abort_ends_the_wait(fl_ctx: FLContext) -> None:
    stop = Signal()
    fl_ctx.set_prop(FLContextKey.RUN_ABORT_SIGNAL, stop, private=True, sticky=True)
    listener = started(fl_ctx, max_wait=LONG, idle_wait=LONG)
    asking = pull(listener, fl_ctx)

    stop.trigger(True)

    asking.join(LONG)
    assert not asking.is_alive()


def test_a_server_that_never_wakes_is_asked_all_the_same(fl_ctx: FLContext) -> None:
    listener = started(fl_ctx, max_wait=LONG, idle_wait=0.0)

    asking = pull(listener, fl_ctx)

    asking.join(LONG)
    assert not asking.is_alive()


def test_after_a_message_was_lost_the_site_asks_in_the_end(
    engine: EngineStandIn, fl_ctx: FLContext
) -> None:
    listener = started(fl_ctx, max_wait=0.0, idle_wait=LONG)
    engine.wake(fl_ctx)
    listener.handle_event(EventType.BEFORE_PULL_TASK, fl_ctx)

    asking = pull(listener, fl_ctx)  # nothing has come for this one

    asking.join(LONG)
    assert not asking.is_alive()
