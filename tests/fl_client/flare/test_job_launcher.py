"""How a site's launcher starts the process of a job: what it is given, and who watches it."""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobProcessArgs
from nvflare.apis.workspace import Workspace
from nvflare.app_common.job_launcher.process_launcher import ProcessHandle

from fl_client.flare import job_launcher
from fl_client.flare.job_launcher import ConfinedJobLauncher
from mmar_runtime.audit import AUDIT_FILE, SHARED_FILES
from tests.conftest import write_json

JOB = "job-1"
STARTED = ["/bin/sleep", "60"]
"""What runs in the place of the command, for as long as nobody kills it."""


@dataclass(slots=True)
class Started:
    """What the launcher has started."""

    command: list[str]
    environment: dict[str, str]
    handle: ProcessHandle | None = None


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("local", "startup", JOB):
        (tmp_path / folder).mkdir()
    allow(tmp_path)
    monkeypatch.setattr(job_launcher, "SECONDS_TO_STOP", 0.1)
    monkeypatch.setattr(job_launcher, "SECONDS_BETWEEN_LOOKS", 0.05)
    return tmp_path


def allow(kit: Path, **policy: Any) -> None:
    path = write_json(kit / "local/mmar_site_policy.json", {"policy_version": 1, **policy})
    path.chmod(0o600)


def launched(kit: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    """Start a job as NVFlare does in a site's process."""
    spawn, started = job_launcher.spawn_process, Started([], {})

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
    fl_ctx = FLContext()
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(kit)))
    fl_ctx.set_prop(FLContextKey.JOB_PROCESS_ARGS, arguments, private=True, sticky=False)
    started.handle = ConfinedJobLauncher().launch_job({"job_id": JOB}, fl_ctx)
    return started


def end(started: Started) -> None:
    assert started.handle
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

    assert started.handle
    started.handle.wait()  # for less than its 60 s
    log, last = kit / AUDIT_FILE, time.monotonic() + 10
    while not log.read_text() and time.monotonic() < last:
        time.sleep(0.05)
    assert json.loads(log.read_text())["event"] == "job-killed"


def test_the_logs_are_there_before_a_job_and_are_no_links(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(launched(kit, monkeypatch))
    assert {stat.S_IMODE((kit / one).stat().st_mode) for one in SHARED_FILES} == {0o600}

    (kit / AUDIT_FILE).unlink()
    os.symlink(kit / "local/mmar_site_policy.json", kit / AUDIT_FILE)
    with pytest.raises(OSError, match="symbolic links"):
        launched(kit, monkeypatch)
