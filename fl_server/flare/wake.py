"""NVFlare's workflows, but a site is told when a task stands ready, and replies are seen at once.

The tasks are NVFlare's own, as are their filters, their audit and what becomes of late or missing
replies. See ``fl_client.flare.wake`` for the other half.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task, TaskCompletionStatus
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.workflows.cross_site_model_eval import CrossSiteModelEval
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather

from fl_server.flare.audit import note
from fl_server.flare.exchange import own_names, size_and_digest, take_as_arrays
from fl_server.flare.guarded import GuardedCrossSiteEval
from mmar_runtime.exchange.arrays import pack
from mmar_runtime.flare.tensors import send_tensors

WAKE_TOPIC = "mmar.task_ready"
SECONDS_BETWEEN_LOOKS = 0.2
"""How soon an abort or a timeout is noticed; replies are noticed at once."""


class WakingController(Controller):
    """A controller that wakes the sites that a task is for; models travel as tensors."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        send_tensors(to_several=True)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Change models between the form that is sent and the one that is filtered and judged."""
        super().handle_event(event_type, fl_ctx)
        if event_type == EventType.BEFORE_TASK_DATA_FILTER:
            own_names(fl_ctx.get_prop(FLContextKey.TASK_DATA))
        elif event_type == EventType.AFTER_TASK_DATA_FILTER:
            pack(fl_ctx.get_prop(FLContextKey.TASK_DATA))
        elif event_type == EventType.BEFORE_TASK_RESULT_FILTER:
            take_as_arrays(fl_ctx)

    def broadcast(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: list[Client] | list[str] | None = None,
        min_responses: int = 1,
        wait_time_after_min_received: int = 0,
    ) -> None:
        """Schedule the task, then tell its sites; whoever is sent it is noted in the audit log."""
        task.before_task_sent_cb = self._noting(task.before_task_sent_cb)
        task.task_done_cb = _letting_go(task.task_done_cb)
        super().broadcast(task, fl_ctx, targets, min_responses, wait_time_after_min_received)
        names = [one.name if isinstance(one, Client) else one for one in targets or ()]
        fl_ctx.get_engine().send_aux_request(
            targets=names or None,
            topic=WAKE_TOPIC,
            request=Shareable(),
            timeout=0.0,
            fl_ctx=fl_ctx,
            optional=True,
        )

    def _noting(self, prepare: Callable[..., None] | None) -> Callable[..., None]:
        contents: dict[str, object] = {}

        def prepare_and_note(client_task: ClientTask, fl_ctx: FLContext) -> None:
            if prepare is not None:
                prepare(client_task=client_task, fl_ctx=fl_ctx)
            task = client_task.task
            if not contents:  # each site is sent the same
                contents.update(task=task.name, model=task.props.get(AppConstants.MODEL_OWNER))
                contents.update(size_and_digest(task.data, fl_ctx))
            note(self, fl_ctx, "task-out", site=client_task.client.name, **contents)

        return prepare_and_note

    def broadcast_and_wait(
        self,
        task: Task,
        fl_ctx: FLContext,
        targets: list[Client] | list[str] | None = None,
        min_responses: int = 1,
        wait_time_after_min_received: int = 0,
        abort_signal: Signal | None = None,
    ) -> None:
        """Schedule the task, and return as soon as NVFlare calls it complete."""
        replied = threading.Event()
        received = task.result_received_cb

        def note(client_task: ClientTask, fl_ctx: FLContext) -> None:
            try:
                if received is not None:
                    received(client_task=client_task, fl_ctx=fl_ctx)
            finally:
                replied.set()

        task.result_received_cb = note
        self.broadcast(task, fl_ctx, targets, min_responses, wait_time_after_min_received)
        while task.completion_status is None:
            if abort_signal is not None and abort_signal.triggered:
                self.cancel_task(task, completion_status=TaskCompletionStatus.ABORTED)
                return
            replied.wait(SECONDS_BETWEEN_LOOKS)
            replied.clear()
            # NVFlare's own thread looks five times a second. This takes the lock that the handling
            # of a reply holds, so what was just received is counted.
            self.communicator.check_tasks()

    def get_num_standing_tasks(self) -> int:
        """How many tasks wait for replies, those that are complete by now not counted."""
        self.communicator.check_tasks()
        count: int = super().get_num_standing_tasks()
        return count


def _letting_go(done: Callable[..., None] | None) -> Callable[..., None]:
    """A task and its replies name each other, so the model in it would stay for long."""

    def let_go(task: Task, fl_ctx: FLContext) -> None:
        try:
            if done is not None:
                done(task=task, fl_ctx=fl_ctx)
        finally:
            task.data = None

    return let_go


class WakingScatterAndGather(WakingController, ScatterAndGather):
    """NVFlare's ``ScatterAndGather`` without the sleep between rounds; arguments are the same."""


class WakingCrossSiteModelEval(GuardedCrossSiteEval, WakingController, CrossSiteModelEval):
    """NVFlare's ``CrossSiteModelEval`` with a guard, and without the sleep between models.

    Arguments are NVFlare's, and ``aggregator_id``.
    """


__all__ = ["WakingController", "WakingCrossSiteModelEval", "WakingScatterAndGather"]
