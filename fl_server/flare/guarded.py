"""Cross-site validation takes from a site only what the guard has let through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from fl_server.flare.aggregator import aggregator_of
from fl_server.flare.audit import note
from fl_server.flare.exchange import (
    RefusedReply,
    cookie,
    failure_of,
    metrics_from,
    size_and_digest,
)
from fl_server.flare.guard import reason_of
from fl_server.update_guard import UpdateFault, check_first
from mmar_runtime.errors import FederationError


class GuardedCrossSiteEval(Controller):
    """Judges each reply before NVFlare's workflow keeps it, sends it on, or enters it anywhere.

    To be put before NVFlare's ``CrossSiteModelEval`` among the bases of a class. A reply that is
    refused becomes a failed one, which that workflow passes over.

    Args:
        aggregator_id: the component that has the guard of the job.
        **arguments: NVFlare's.
    """

    def __init__(self, aggregator_id: str = "aggregator", **arguments: Any) -> None:
        super().__init__(**arguments)
        self.aggregator_id = aggregator_id
        self._submitted: set[str] = set()
        self._validated: dict[str, set[str]] = {}
        """Each model that was sent out -> the sites that have answered."""

    def start_controller(self, fl_ctx: FLContext) -> None:
        """A job without a guard does not start."""
        try:
            aggregator_of(fl_ctx.get_engine(), self.aggregator_id).guard(fl_ctx)
        except FederationError as error:
            self.system_panic(f"no guard for the replies of the sites: {error}", fl_ctx)
            return
        super().start_controller(fl_ctx)

    def broadcast(self, task: Task, fl_ctx: FLContext, *args: Any, **kwargs: Any) -> None:
        """Send a task whose replies are judged before NVFlare's workflow gets them."""
        owner = task.props.get(AppConstants.MODEL_OWNER)
        if owner is not None:
            self._validated.setdefault(owner, set())
        task.result_received_cb = self._judging(task.result_received_cb)
        super().broadcast(task, fl_ctx, *args, **kwargs)

    def _judging(self, received: Callable[..., None]) -> Callable[..., None]:
        def judge(client_task: ClientTask, fl_ctx: FLContext) -> None:
            task = client_task.task
            owner = task.props.get(AppConstants.MODEL_OWNER)
            reply = self._judged(client_task.result, client_task.client.name, owner, fl_ctx)
            client_task.result = reply
            received(client_task=client_task, fl_ctx=fl_ctx)

        return judge

    def process_result_of_unknown_task(
        self,
        client: Client,
        task_name: str,
        client_task_id: str,
        result: Shareable,
        fl_ctx: FLContext,
    ) -> None:
        """A reply that nobody waits for any more is judged in the same way."""
        owner = None
        if task_name == AppConstants.TASK_VALIDATION:
            claimed = cookie(result, AppConstants.MODEL_OWNER)
            if not isinstance(claimed, str) or claimed not in self._validated:
                self.log_warning(fl_ctx, f"{client.name} evaluated a model that was not sent")
                return
            owner = claimed
        reply = self._judged(result, client.name, owner, fl_ctx)
        super().process_result_of_unknown_task(client, task_name, client_task_id, reply, fl_ctx)

    def _judged(
        self, reply: Shareable, site: str, owner: str | None, fl_ctx: FLContext
    ) -> Shareable:
        """The reply, or what stands for one that failed or was refused.

        Args:
            reply: as it came.
            site: its sender.
            owner: the model that was to be evaluated; None if one was to be submitted.
            fl_ctx: of the reply.
        """
        try:
            faults = self._faults(reply, site, owner, fl_ctx)
        except Exception as error:
            self.log_exception(fl_ctx, f"the reply of {site} cannot be judged")
            faults = (
                UpdateFault("unreadable", "reply", f"cannot be judged ({type(error).__name__})"),
            )
        if faults:
            reason = reason_of(faults)
            self.log_warning(fl_ctx, f"reply of {site} refused: {reason}")
            rules = sorted({fault.rule for fault in faults})
            note(self, fl_ctx, "reply-refused", site=site, model=owner, rules=rules, reason=reason)
            reply = RefusedReply(reason, reply)
        if owner is not None:
            # The workflow takes the model's name from here, which the site could have changed.
            reply.set_cookie_jar({AppConstants.MODEL_OWNER: owner})
        return reply

    def _faults(
        self, reply: Shareable, site: str, owner: str | None, fl_ctx: FLContext
    ) -> tuple[UpdateFault, ...]:
        """Why a reply must not be used; what is good is noted."""
        answered = self._submitted if owner is None else self._validated[owner]
        if failure_of(reply) is not None:
            faults = check_first(site, answered)
        else:
            guard = aggregator_of(fl_ctx.get_engine(), self.aggregator_id).guard(fl_ctx)
            judge = guard.model_faults if owner is None else guard.validation_faults
            faults = judge(reply, fl_ctx, site=site, answered=answered)
            if not faults:
                self._note(reply, site, owner, fl_ctx)
        answered.add(site)
        return faults

    def _note(self, reply: Shareable, site: str, owner: str | None, fl_ctx: FLContext) -> None:
        if owner is None:
            note(self, fl_ctx, "model-in", site=site, **size_and_digest(reply, fl_ctx))
        else:
            note(self, fl_ctx, "metrics-in", site=site, model=owner, metrics=metrics_from(reply))
