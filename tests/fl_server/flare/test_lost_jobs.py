"""Jobs that ran when the server's process ended; with real processes in
``tests/federation/test_console.py``."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.job_def import RunStatus
from nvflare.apis.storage import StorageException
from nvflare.apis.workspace import Workspace

from fl_server.flare.lost_jobs import LostJobs, await_end, end_record
from fl_server.record.files import read_run_record, write_run_record
from fl_server.record.recorder import SERVER_ENDED, finish_run
from fl_server.record.values import RunRecord
from fl_server.run_files import RECORD_FILE, RESULTS


class Job:
    job_id = "job-1"


class Jobs:
    """NVFlare's store of jobs, with one that runs."""

    def __init__(self) -> None:
        self.statuses: dict[str, RunStatus] = {}
        self.kept: dict[str, list[str]] = {}

    def fire_event(self, event_type: str, fl_ctx: object) -> None:
        """Nobody listens."""

    def get_component(self, name: str) -> Jobs:
        return self

    def get_jobs_by_status(self, statuses: list[RunStatus], fl_ctx: object) -> list[Job]:
        return [Job()] if RunStatus.RUNNING in statuses else []

    def save_workspace(self, job_id: str, folders: list[str], fl_ctx: object) -> None:
        (folder,) = map(Path, folders)
        self.kept[job_id] = sorted(str(one.relative_to(folder)) for one in folder.rglob("*"))

    def set_status(self, job_id: str, status: RunStatus, fl_ctx: object) -> None:
        self.statuses[job_id] = status


def running() -> RunRecord:
    return RunRecord(
        job="spleen", engine="nvflare", started=datetime(2030, 1, 1, tzinfo=UTC),
        key_metric="dice", rounds_asked=2, sites=("site-1",), min_sites=1, versions={},
        initial_weights_sha256="0" * 64,
    )  # fmt: skip


def started(kit: Path) -> Jobs:
    """What the store has once a server has started."""
    for folder in ("startup", "local"):
        (kit / folder).mkdir(exist_ok=True)
    jobs = Jobs()
    fl_ctx = FLContextManager(engine=jobs, identity_name="server", job_id="").new_context()
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(kit), "server", str(kit)))
    LostJobs().handle_event(EventType.SYSTEM_START, fl_ctx)
    deadline = time.monotonic() + 10
    while not jobs.statuses and time.monotonic() < deadline:
        time.sleep(0.01)
    return jobs


def test_such_a_job_is_ended_and_its_results_are_kept(tmp_path: Path) -> None:
    record = tmp_path / "job-1" / RESULTS / RECORD_FILE
    record.parent.mkdir(parents=True)
    write_run_record(record, running())

    jobs = started(tmp_path)

    assert jobs.statuses == {"job-1": RunStatus.FINISHED_ABNORMAL}
    assert jobs.kept == {"job-1": [RESULTS, f"{RESULTS}/{RECORD_FILE}"]}
    assert not (tmp_path / "job-1").exists()


def test_a_job_that_had_not_begun_is_ended_too(tmp_path: Path) -> None:
    jobs = started(tmp_path)

    assert (jobs.statuses, jobs.kept) == ({"job-1": RunStatus.FINISHED_ABNORMAL}, {})


def test_a_job_that_cannot_be_ended_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Job):
        job_id = "job-0"

    def end(self: Jobs, job_id: str, status: RunStatus, fl_ctx: object) -> None:
        if job_id == Broken.job_id:
            raise StorageException("no such job")
        self.statuses[job_id] = status

    monkeypatch.setattr(Jobs, "get_jobs_by_status", lambda *_: [Broken(), Job()])
    monkeypatch.setattr(Jobs, "set_status", end)

    assert started(tmp_path).statuses == {"job-1": RunStatus.FINISHED_ABNORMAL}


def test_a_record_says_that_the_run_has_ended_and_one_that_is_complete_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / RECORD_FILE
    end_record(path)  # there is none
    assert not path.exists()
    write_run_record(path, running())

    end_record(path)

    ended = read_run_record(path)
    assert (ended.status, ended.failure) == ("failed", SERVER_ENDED)
    other = finish_run(running(), "failed", "another reason", datetime(2030, 1, 2, tzinfo=UTC))
    write_run_record(path, other)
    end_record(path)
    assert read_run_record(path).failure == "another reason"


@pytest.mark.parametrize("named", [True, False])
def test_it_waits_for_the_processes_of_the_job_alone(tmp_path: Path, named: bool) -> None:
    """Somebody who watches the job names it in a command line too."""
    words: list[Any] = [tmp_path, "job-1"] if named else ["watch", "job-1"]
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)", *words])
    began = time.monotonic()

    await_end(tmp_path / "job-1")

    assert (time.monotonic() - began > 0.5) == named
    process.kill()
    process.wait()
