"""Jobs that ran when the server's process ended: they end with it, and their results stay.

NVFlare 2.9 leaves such a job running for ever: nobody can abort it or fetch what it has left.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, SystemComponents
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import Job, RunStatus
from nvflare.apis.workspace import Workspace

from fl_server.record.files import read_run_record, write_run_record
from fl_server.record.recorder import SERVER_ENDED, finish_run
from fl_server.run_files import RECORD_FILE, RESULTS

SECONDS_TO_END = 20.0
"""Less than whoever watches the job waits before it calls the job lost."""

SECONDS_BETWEEN_LOOKS = 0.5


class LostJobs(FLComponent):
    """In the server's own process: ends what an earlier process has left running."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Look for such jobs once, at the start, before the server takes any job."""
        if event_type != EventType.SYSTEM_START:
            return
        jobs = fl_ctx.get_engine().get_component(SystemComponents.JOB_MANAGER)
        lost = jobs.get_jobs_by_status([RunStatus.RUNNING, RunStatus.DISPATCHED], fl_ctx)
        threading.Thread(target=self._end_all, args=(lost, fl_ctx.clone()), daemon=True).start()

    def _end_all(self, jobs: Sequence[Job], fl_ctx: FLContext) -> None:
        for job in jobs:
            self._end(job, fl_ctx)

    def _end(self, job: Job, fl_ctx: FLContext) -> None:
        """Keep what the job has left, then end it."""
        jobs = fl_ctx.get_engine().get_component(SystemComponents.JOB_MANAGER)
        workspace: Workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
        run = Path(workspace.get_run_dir(job.job_id))
        await_end(run)
        try:
            if run.is_dir():
                end_record(run / RESULTS / RECORD_FILE)
                jobs.save_workspace(job.job_id, [str(run)], fl_ctx)
                shutil.rmtree(run)
            jobs.set_status(job.job_id, RunStatus.FINISHED_ABNORMAL, fl_ctx)
            self.log_warning(fl_ctx, f"job {job.job_id} is ended: {SERVER_ENDED}")
        except Exception as error:  # the store raises its own kinds, and the next job has to end
            self.log_error(fl_ctx, f"job {job.job_id} cannot be ended: {error}")


def await_end(run: Path) -> None:
    """Return when no process of a job is left here; it ends by itself without the server's."""
    last, of_the_job = time.monotonic() + SECONDS_TO_END, {run.name, str(run.parent)}
    while time.monotonic() < last and any(of_the_job <= words for words in _command_lines()):
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _command_lines() -> Iterator[Set[str]]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            yield {*process.cmdline()}


def end_record(path: Path) -> None:
    """Have a record that says that the run goes on say why it has ended; nothing without a record.

    Raises:
        FederationError: the record is damaged.
        OSError: it cannot be written.
    """
    if not path.is_file():
        return
    record = read_run_record(path)
    if record.status == "running":
        write_run_record(path, finish_run(record, "failed", SERVER_ENDED, datetime.now(UTC)))
