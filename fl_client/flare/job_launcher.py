"""Starts the process of a job at a site: again if it is killed, never past the site's limits."""

from __future__ import annotations

import logging
import math
import os
import shlex
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, JobConstants
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobHandleSpec, JobProcessArgs, JobReturnCode
from nvflare.apis.workspace import Workspace
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher
from nvflare.app_common.job_launcher.process_launcher import ProcessHandle
from nvflare.utils.job_launcher_utils import get_credential_env
from nvflare.utils.process_utils import ProcessAdapter, spawn_process

from fl_client.flare import job_process
from fl_client.flare.job_process import SCRATCH
from fl_client.jobs.meta import launch_faults
from fl_client.run_watch import SECONDS_BETWEEN_LOOKS, RunWatch
from mmar_runtime.audit import AUDIT_FILE, SHARED_FILES, AuditLog
from mmar_runtime.audit_keys import LogKey
from mmar_runtime.confinement.places import job_environment, make_scratch, remove_scratch
from mmar_runtime.policy.site_policy import site_policy

THROUGH_THE_SITE = {"NVFLARE_BACKBONE_CONN_GEN": "1"}
"""NVFlare's setting by which a process connects to its parent alone, and not to the server too."""

SECONDS_TO_STOP = 60.0
"""A run that goes past a limit has this time to end its iteration by itself; then it is killed."""

SHELL_SIGNAL = 128
"""A shell adds the number of the signal to this."""

SECONDS_TO_START_AGAIN = 1.0
QUICK = 60.0
"""A process that lives for less than these seconds is likely to be killed again."""
MOST_QUICK = 3
"""So many times in a row such a process is started again."""

log = logging.getLogger(__name__)


class JobHandle(ProcessHandle):
    """NVFlare's handle of a job's process; that somebody kills the process says nothing of the job.

    NVFlare ends the whole job where a site's process ends by a signal.
    """

    def __init__(self, adapter: ProcessAdapter) -> None:
        super().__init__(process_adapter=adapter)
        self._is_asked_to_end = False

    def terminate(self) -> None:
        """End the process, for NVFlare or for the site's limits."""
        self._is_asked_to_end = True
        super().terminate()

    @property
    def was_killed(self) -> bool:
        """Whether a signal has ended the process that nobody here has sent."""
        code = self.adapter.poll()
        return not self._is_asked_to_end and code is not None and (code < 0 or code > SHELL_SIGNAL)

    def poll(self) -> Any:
        """Return NVFlare's code of the end; of a process that was killed: unknown."""
        return JobReturnCode.UNKNOWN if self.was_killed else super().poll()


@dataclass(frozen=True, slots=True)
class _Process:
    """The process of a job at this site.

    Attributes:
        meta: of the job, as the server has sent it.
        began: when the job's first process was started; the site's limit of time counts from there.
        quick: processes before this that were killed soon after their starts, without another.
        handle: of the process.
        watch: ends soon after the process.
        started: when the process was started.
    """

    meta: dict[str, Any]
    began: float
    quick: int
    handle: JobHandle
    watch: threading.Thread
    started: float


class ConfinedJobLauncher(ClientProcessJobLauncher):
    """NVFlare's launcher of processes, with a clean environment, our module, and a watch.

    A process that somebody has killed, or the system for want of memory, is started again. It goes
    on from what the site has stored of its last rounds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._jobs: dict[str, _Process] = {}

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Offer itself for a job; without a launcher NVFlare does not start the job.

        The server sends the metadata apart from the app, so nobody has judged them here before.
        """
        if event_type == EventType.JOB_COMPLETED:
            self._ended(fl_ctx.get_prop(FLContextKey.CURRENT_JOB_ID), fl_ctx.get_engine())
        if event_type == EventType.BEFORE_JOB_LAUNCH:
            faults = [*launch_faults(fl_ctx.get_prop(FLContextKey.JOB_META))]
            for fault in faults:
                log.error("a job is not started: %s: %s", fault.location, fault.message)
            if faults:
                return
        super().handle_event(event_type, fl_ctx)

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> JobHandleSpec:
        """Start the process of a job; returns NVFlare's handle of it."""
        workspace: Workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
        root, job = Path(workspace.get_root_dir()), job_meta[JobConstants.JOB_ID]
        run = Path(workspace.get_run_dir(job))
        if earlier := self._jobs.get(job):
            earlier.watch.join()  # it clears the scratch folder
        _make_logs(root)
        make_scratch(run / SCRATCH)
        policy = site_policy(root / "local")
        environment = job_environment(os.environ, run / SCRATCH, egress=policy.egress)
        if policy.confinement != "off":
            environment |= THROUGH_THE_SITE
        environment |= get_credential_env(fl_ctx.get_prop(FLContextKey.JOB_PROCESS_ARGS))
        command = shlex.split(self.get_command(job_meta, fl_ctx))
        handle, now = JobHandle(spawn_process(command, environment)), time.monotonic()
        began, quick = (earlier.began, earlier.quick) if earlier else (now, 0)
        limits = RunWatch(run, policy.limits, process=handle.adapter.pid, began=began)
        watch = threading.Thread(target=_watch, args=(handle, limits, root, run), daemon=True)
        self._jobs[job] = _Process(dict(job_meta), began, quick, handle, watch, now)
        watch.start()
        return handle

    def _ended(self, job: str, engine: Any) -> None:
        """Start a job's process again if somebody has killed it."""
        this = self._jobs.pop(job, None)
        if this is None or not this.handle.was_killed:
            return
        quick = this.quick + 1 if time.monotonic() - this.started < QUICK else 0
        if quick > MOST_QUICK:
            log.error("the process of job %s was killed again and again; it stays ended", job)
            return
        self._jobs[job] = replace(this, quick=quick)

        def start() -> None:
            log.warning("the process of job %s was killed; it is started again", job)
            try:
                told = engine.start_app(job, dict(this.meta))
            except Exception:
                log.exception("job %s cannot be started again", job)
            else:
                log.info("job %s: %s", job, told)

        # NVFlare's own thread reports the end first.
        timer = threading.Timer(SECONDS_TO_START_AGAIN, start)
        timer.daemon = True
        timer.start()

    def get_command(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> str:
        """Return NVFlare's command with our module in the place of NVFlare's."""
        # Made for this job alone. NVFlare may refuse to set a new property, and says so in a log.
        arguments = fl_ctx.get_prop(FLContextKey.JOB_PROCESS_ARGS)
        arguments[JobProcessArgs.EXE_MODULE] = ("-m", job_process.__name__)
        return str(super().get_command(job_meta, fl_ctx))


def _make_logs(root: Path) -> None:
    """Make the site's logs, so that a job can add lines to them without a right to the folder."""
    for name in SHARED_FILES:
        (root / name).parent.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(root / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))


def _watch(handle: ProcessHandle, watch: RunWatch, root: Path, run: Path) -> None:
    """Kill a run that goes past a limit and does not stop; clear its scratch folder at its end.

    The process of the job cannot reach this thread: it is in the process of the site.
    """
    killed_at = math.inf
    while _is_running(handle.adapter.pid):
        if (reason := _passed_limit(watch)) is None:
            killed_at = math.inf
        elif killed_at == math.inf:
            killed_at = time.monotonic() + SECONDS_TO_STOP
        if time.monotonic() > killed_at:
            handle.terminate()  # before anything is written: the disk may be what is full
            remove_scratch(run / SCRATCH)
            log.error("the job in %s was killed: %s", run.name, reason)
            audit = AuditLog(root / AUDIT_FILE, LogKey.of_kit(root))
            audit.append("job-killed", job=run.name, reason=reason)
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)
    remove_scratch(run / SCRATCH)


def _passed_limit(watch: RunWatch) -> str | None:
    """Return which limit a run is past; a run that hides its files from the site is past one."""
    try:
        return watch.passed_limit()
    except OSError as error:
        return f"cannot be measured: {error.strerror}"


def _is_running(number: int) -> bool:
    """Return whether a process has not ended yet; its end is left for NVFlare to collect."""
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
