"""How a site's launcher starts the process of a job: what it is given, and who watches it."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobHandleSpec, JobProcessArgs, JobReturnCode
from nvflare.apis.workspace import Workspace

from fl_client.flare import job_launcher
from fl_client.flare.job_launcher import MOST_QUICK, ConfinedJobLauncher, JobHandle
from fl_client.flare.job_process import SCRATCH
from fl_client.run_watch import RunWatch
from mmar_runtime.audit import AUDIT_FILE, SHARED_FILES
from tests.conftest import write_json

JOB = "job-1"
STARTED = ["/bin/sleep", "60"]
"""What runs in the place of the command, for as long as nobody kills it."""


@dataclass(slots=True)
class Started:
    """What the launcher has started; NVFlare's engine, as far as it starts jobs."""

    launcher: ConfinedJobLauncher
    fl_ctx: FLContext
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    handles: list[JobHandleSpec] = field(default_factory=list)

    @property
    def handle(self) -> JobHandle:
        """Of the newest process."""
        assert isinstance(self.handles[-1], JobHandle)
        return self.handles[-1]

    def start_app(self, job_id: str, meta: dict[str, Any]) -> str:
        assert meta["job_id"] == job_id
        self.handles.append(self.launcher.launch_job(meta, self.fl_ctx))
        return "Start the client app..."

    def kill(self) -> None:
        """Kill the process from outside, and do what NVFlare does at its end."""
        os.kill(self.handle.adapter.pid, signal.SIGKILL)
        self.handle.wait()
        self.launcher.handle_event(EventType.JOB_COMPLETED, self.fl_ctx)


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("local", "startup", JOB):
        (tmp_path / folder).mkdir()
    allow(tmp_path)
    monkeypatch.setattr(job_launcher, "SECONDS_TO_STOP", 0.1)
    monkeypatch.setattr(job_launcher, "SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(job_launcher, "SECONDS_TO_START_AGAIN", 0.01)
    return tmp_path


def allow(kit: Path, **policy: Any) -> None:
    path = write_json(kit / "local/mmar_site_policy.json", {"policy_version": 1, **policy})
    path.chmod(0o600)


def launched(kit: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    """Start a job as NVFlare does in a site's process."""
    fl_ctx = FLContext()
    spawn, started = job_launcher.spawn_process, Started(ConfinedJobLauncher(), fl_ctx)

    def spawned(command: list[str], environment: dict[str, str]) -> object:
        started.command, started.environment = command, environment
        return spawn(STARTED, environment)

    monkeypatch.setattr(job_launcher, "spawn_process", spawned)
    arguments = {
        JobProcessArgs.EXE_MODULE: ("-m", "nvflare.private.fed.app.client.worker_process"),
        JobProcessArgs.WORKSPACE: ("-m", str(kit)),
        JobProcessArgs.JOB_ID: ("-n", JOB),
        JobProcessArgs.AUTH_TOKEN: ("-t", "a token"),
    }
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(kit)))
    fl_ctx.set_prop(FLContextKey.JOB_PROCESS_ARGS, arguments, private=True, sticky=False)
    fl_ctx.set_prop(FLContextKey.CURRENT_JOB_ID, JOB, private=True, sticky=False)
    monkeypatch.setattr(fl_ctx, "get_engine", lambda: started)
    started.start_app(JOB, {"job_id": JOB})
    return started


def await_processes(started: Started, count: int) -> None:
    last = time.monotonic() + 10
    while len(started.handles) < count and time.monotonic() < last:
        time.sleep(0.01)
    assert len(started.handles) == count


def end(started: Started) -> None:
    started.handle.terminate()
    started.handle.wait()


def test_a_job_starts_in_our_module_with_a_clean_environment(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracker")

    started = launched(kit, monkeypatch)

    end(started)
    assert started.command[1:] == ["-m", "fl_client.flare.job_process", "-m", str(kit), "-n", JOB]
    assert not {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_URI"} & started.environment.keys()
    assert started.environment["HOME"] == str(kit / JOB / "scratch/home")
    assert "a token" in started.environment.values()  # NVFlare's own, which no command line shows


@pytest.mark.parametrize(("confinement", "through"), [("preferred", "1"), ("off", None)])
def test_a_confined_job_reaches_the_server_through_its_site(
    kit: Path, monkeypatch: pytest.MonkeyPatch, confinement: str, through: str | None
) -> None:
    allow(kit, confinement=confinement, egress=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracker")

    started = launched(kit, monkeypatch)

    end(started)
    assert started.environment.get("NVFLARE_BACKBONE_CONN_GEN") == through
    assert started.environment["MLFLOW_TRACKING_URI"] == "https://tracker"


def test_a_job_is_watched_from_its_start(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow(kit, limits={"disk_gib": 1})
    with (kit / JOB / "large").open("wb") as stream:
        stream.truncate(2**30 + 1)  # takes no blocks, but has the size

    started = launched(kit, monkeypatch)

    started.handle.wait()  # for less than its 60 s
    log, last = kit / AUDIT_FILE, time.monotonic() + 10
    while not log.read_text() and time.monotonic() < last:
        time.sleep(0.05)
    assert json.loads(log.read_text())["event"] == "job-killed"


def test_a_process_that_is_killed_is_started_again_and_says_nothing_of_the_job(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVFlare would end the whole job for a process that a signal has ended."""
    started = launched(kit, monkeypatch)
    first = started.handle

    started.kill()
    await_processes(started, 2)

    assert first.poll() == JobReturnCode.UNKNOWN
    assert started.handle.adapter.pid != first.adapter.pid
    assert (kit / JOB / SCRATCH).is_dir()  # what the first has left was cleared before
    end(started)


def test_a_process_that_was_asked_to_end_stays_ended(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = launched(kit, monkeypatch)

    end(started)
    started.launcher.handle_event(EventType.JOB_COMPLETED, started.fl_ctx)

    time.sleep(0.1)
    assert len(started.handles) == 1
    assert started.handle.poll() == JobReturnCode.EXECUTION_ERROR


def test_what_is_killed_again_and_again_stays_ended(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = launched(kit, monkeypatch)

    for number in range(2, MOST_QUICK + 2):
        started.kill()
        await_processes(started, number)
    started.kill()

    time.sleep(0.1)
    assert len(started.handles) == MOST_QUICK + 1


def test_the_time_of_a_job_counts_from_its_first_process(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = []

    class Watch(RunWatch):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            began.append(named["began"])
            super().__init__(*arguments, **named)

    monkeypatch.setattr(job_launcher, "RunWatch", Watch)
    started = launched(kit, monkeypatch)

    started.kill()
    await_processes(started, 2)

    end(started)
    assert began[0] == began[1]


def test_the_logs_are_there_before_a_job_and_are_no_links(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(launched(kit, monkeypatch))
    assert {stat.S_IMODE((kit / one).stat().st_mode) for one in SHARED_FILES} == {0o600}

    (kit / AUDIT_FILE).unlink()
    os.symlink(kit / "local/mmar_site_policy.json", kit / AUDIT_FILE)
    with pytest.raises(OSError, match="symbolic links"):
        launched(kit, monkeypatch)
