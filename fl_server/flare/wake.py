"""A controller that wakes its sites when a task is ready; models travel as tensors.

The tasks are NVFlare's own, as are their filters. See ``fl_client.flare.wake`` for the other half.
"""

from __future__ import annotations

from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import Task
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable

from fl_server.flare.exchange import own_names, take_as_arrays
from mmar_runtime.exchange.arrays import pack
from mmar_runtime.flare.tensors import send_tensors
from mmar_runtime.flare.wire import WAKE_TOPIC


class WakingController(Controller):
    """Wakes the sites that a task is for."""

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
        """Schedule the task, then tell its sites."""
        super().broadcast(task, fl_ctx, targets, min_responses, wait_time_after_min_received)
        names = [site.name if isinstance(site, Client) else site for site in targets or ()]
        fl_ctx.get_engine().send_aux_request(
            targets=names or None,
            topic=WAKE_TOPIC,
            request=Shareable(),
            timeout=0.0,
            fl_ctx=fl_ctx,
            optional=True,
        )
