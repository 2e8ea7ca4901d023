"""A workflow after training: the last global model is scored at every site, like all before it.

Each round scores the model that it starts from, so the last aggregate would stay without a score,
and could never be selected as the best.
"""

from __future__ import annotations

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from fl_server.flare.aggregator import aggregator_of
from fl_server.flare.audit import note
from fl_server.flare.exchange import (
    RefusedReply,
    failure_of,
    global_arrays,
    metrics_from,
)
from fl_server.flare.guard import reason_of
from fl_server.flare.run_recorder import ALL_SCORED, MODEL_SCORED
from fl_server.flare.wake import WakingController


class ScoreLastModel(WakingController):
    """Asks every site for the metrics of the last global model.

    Args:
        min_sites: scores to wait for.
        task_name: what the sites' executor knows the task as.
        timeout: seconds to wait; 0 means as long as it takes.
        aggregator_id: the component that has the guard of the job.
    """

    def __init__(
        self,
        min_sites: int,
        task_name: str = "score_model",
        timeout: int = 0,
        aggregator_id: str = "aggregator",
    ) -> None:
        super().__init__()
        self.aggregator_id = aggregator_id
        self.min_sites = min_sites
        self.task_name = task_name
        self.timeout = timeout

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to prepare."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Send the model, wait for the scores."""
        task = Task(
            name=self.task_name,
            data=DXO(DataKind.WEIGHTS, data=global_arrays(fl_ctx)).to_shareable(),
            timeout=self.timeout,
            result_received_cb=self._received,
        )
        self.broadcast_and_wait(
            task=task,
            fl_ctx=fl_ctx,
            min_responses=self.min_sites,
            wait_time_after_min_received=10,
            abort_signal=abort_signal,
        )
        if not abort_signal.triggered:
            self.fire_event(ALL_SCORED, fl_ctx)

    def _received(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        reply = self._judged(client_task.result, client_task.client.name, fl_ctx)
        fl_ctx.set_prop(AppConstants.VALIDATION_RESULT, reply, private=True, sticky=False)
        self.fire_event(MODEL_SCORED, fl_ctx)
        client_task.result = None

    def _judged(self, reply: Shareable, site: str, fl_ctx: FLContext) -> Shareable:
        """The reply, or what stands for one that was refused."""
        if failure_of(reply) is not None:
            return reply
        guard = aggregator_of(fl_ctx.get_engine(), self.aggregator_id).guard(fl_ctx)
        faults = guard.score_faults(reply, fl_ctx, site=site)
        if not faults:
            note(self, fl_ctx, "metrics-in", site=site, metrics=metrics_from(reply))
            return reply
        reason = reason_of(faults)
        self.log_warning(fl_ctx, f"score of {site} refused: {reason}")
        rules = sorted({fault.rule for fault in faults})
        note(self, fl_ctx, "reply-refused", site=site, rules=rules, reason=reason)
        return RefusedReply(reason, reply)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to put away."""

    def process_result_of_unknown_task(
        self,
        client: Client,
        task_name: str,
        client_task_id: str,
        result: Shareable,
        fl_ctx: FLContext,
    ) -> None:
        """A reply that came too late is not used."""
        self.log_warning(fl_ctx, f"late reply of {client.name} to {task_name} is not used")
