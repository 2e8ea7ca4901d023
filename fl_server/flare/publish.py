"""The last workflow of a job: its results are written, and a run that falls short fails."""

from __future__ import annotations

from nvflare.apis.client import Client
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from fl_server.flare.run_recorder import keeper_of


class PublishResults(Controller):
    """Writes the run record and the matrix; fails the job if anything that was asked is missing.

    Args:
        recorder_id: the component that kept the record.
    """

    def __init__(self, recorder_id: str = "recorder") -> None:
        super().__init__()
        self.recorder_id = recorder_id

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to prepare."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Publish; a shortfall ends the job as failed."""
        keeper = keeper_of(fl_ctx.get_engine(), self.recorder_id)
        missing = keeper.publish(fl_ctx)
        if missing:
            self.system_panic("; ".join(missing), fl_ctx)

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
