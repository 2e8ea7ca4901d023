"""The process of a job in a kit: what is left to it, and its end when it goes past a limit."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from nvflare.app_common.job_launcher.process_launcher import ProcessHandle

from fl_client.flare import job_launcher
from fl_client.flare.job_launcher import SCRATCH
from fl_client.privacy.ledger import PrivacyLedger
from fl_client.run_watch import RunWatch
from mmar_runtime.audit import AUDIT_FILE, verify_audit
from mmar_runtime.audit_keys import LogKey
from mmar_runtime.confinement.wall import kernel_wall
from mmar_runtime.policy.site_policy import Limits
from tests.conftest import write_json

JOB = "job-1"
IN_THE_PROCESS = """
import json, os, socket, sys
from pathlib import Path
from fl_client.flare.job_process import confine_job
from fl_client.privacy.ledger import PrivacyLedger
from mmar_runtime.audit_keys import LogKey

root, data, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
said = confine_job(root, site="site-1", job="job-1", parent=f"tcp://localhost:{port}")

def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"

log = root / "audit/mmar_audit.jsonl"
attempts = {
    "read the data": lambda: (data / "image").read_text(),
    "write the data": lambda: (data / "image").write_text(""),
    "read local": lambda: (root / "local/mmar_site_policy.json").read_text(),
    "write local": lambda: (root / "local/mmar_site_policy.json").write_text(""),
    "write startup": lambda: (root / "startup/sub_start.sh").write_text(""),
    "add to startup": lambda: (root / "startup/new").write_text(""),
    "write the run": lambda: (root / "job-1/new").write_text(""),
    "write another run": lambda: (root / "job-2/new").write_text(""),
    "read another run": lambda: (root / "job-2/model").read_text(),
    "add to the log": lambda: log.open("ab").write(b""),
    "empty the log": lambda: log.open("wb"),
    "remove the log": lambda: log.unlink(),
    "read the secret of the logs": lambda: (root / "audit/mmar_logs.secret").read_text(),
    "read its own key": lambda: (root / "job-1/audit.key").read_text(),
    "read the key of another job": lambda: (root / "job-2/audit.key").read_text(),
    "spend of the budget": lambda: PrivacyLedger(root, LogKey.of_run(root / "job-1", "job-1"))
        .spend(0.5, 1, job="job-1", round=1, filter="SVTPrivacy", data="a1"),
    "read beside the kit": lambda: (root.parent / "secret").read_text(),
    "connect to the site": lambda: socket.create_connection(("127.0.0.1", port)).close(),
    "connect elsewhere": lambda: socket.create_connection(("127.0.0.1", port + 1)).close(),
}
print(json.dumps({"said": said, "cwd": os.getcwd(), **{k: tried(v) for k, v in attempts.items()}}))
"""


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """As much of a site's kit as the process of a job sees, with two runs."""
    root = tmp_path / "kit"
    for folder in ("local", "startup", "audit", JOB, "job-2"):
        (root / folder).mkdir(parents=True)
    (tmp_path / "data").mkdir()
    for file in ("data/image", "secret", "kit/startup/sub_start.sh", "kit/job-2/model"):
        (tmp_path / file).write_text("x")
    job_launcher._make_logs(root)
    write_json(root / "local/environment.json", {"DATA_ROOT": str(tmp_path / "data")})
    allow(root)
    return root


def allow(root: Path, **policy: Any) -> None:
    path = write_json(root / "local/mmar_site_policy.json", {"policy_version": 1, **policy})
    path.chmod(0o600)


def confined(root: Path) -> dict[str, str]:
    """What came of each attempt in a process of a job."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        command = [sys.executable, "-P", "-c", IN_THE_PROCESS]
        done = subprocess.run(
            [*command, str(root), str(root.parent / "data"), str(port)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    came: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return came


@pytest.mark.skipif(not kernel_wall().stands, reason=f"this kernel's wall is {kernel_wall()}")
def test_a_job_reads_the_sites_data_and_writes_its_own_run(kit: Path) -> None:
    (kit / "startup/client.key").write_text("a private key")
    key = LogKey.of_kit(kit)
    assert key is not None
    for job in (JOB, "job-2"):
        key.give(kit / job, job)

    came = confined(kit)

    assert came.pop("said") == str(kernel_wall())
    assert came.pop("cwd") == str(kit / JOB)
    assert {what for what, how in came.items() if how == "done"} == {
        "read the data",
        "read local",
        "write the run",
        "add to the log",
        "read its own key",
        "spend of the budget",
        "connect to the site",
    }
    assert PrivacyLedger(kit, key).account().spent == 0.5
    assert verify_audit(kit / AUDIT_FILE, key).status == "intact"
    line = json.loads((kit / AUDIT_FILE).read_text())
    assert (line["event"], line["confinement"]) == ("job-confined", str(kernel_wall()))


def test_a_site_can_leave_its_jobs_unconfined(kit: Path) -> None:
    allow(kit, confinement="off")

    came = confined(kit)

    assert came["said"].startswith("off: ")
    assert came["read beside the kit"] == came["remove the log"] == "done"


def test_a_run_past_a_limit_is_killed_from_outside(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_launcher, "SECONDS_TO_STOP", 0.1)
    monkeypatch.setattr(job_launcher, "SECONDS_BETWEEN_LOOKS", 0.05)
    with (kit / JOB / "large").open("wb") as stream:
        stream.truncate(2**30 + 1)  # takes no blocks, but has the size
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    watch = RunWatch(kit / JOB, Limits(disk_gib=1), process=process.pid)

    job_launcher._watch(ProcessHandle(process=process), watch, kit, kit / JOB)

    assert process.wait(5) == -9
    line = json.loads((kit / AUDIT_FILE).read_text())
    assert (line["event"], line["job"]) == ("job-killed", JOB)
    assert line["reason"] == "takes 1073741825 bytes; limits.disk_gib of this site is 1"


@pytest.mark.parametrize("fault", ["no log can be written", "no file can be measured"])
def test_a_run_is_killed_whatever_fails_meanwhile(
    kit: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(job_launcher, "SECONDS_TO_STOP", 0.1)
    monkeypatch.setattr(job_launcher, "SECONDS_BETWEEN_LOOKS", 0.05)

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, fault)

    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    watch = RunWatch(kit / JOB, Limits(wall_minutes=1), process=process.pid)
    if fault == "no log can be written":
        monkeypatch.setattr(job_launcher.AuditLog, "append", fails)
        watch._started -= 61
    else:
        monkeypatch.setattr(watch, "passed_limit", fails)

    with contextlib.suppress(OSError):
        job_launcher._watch(ProcessHandle(process=process), watch, kit, kit / JOB)

    assert process.wait(5) == -9


def test_a_run_past_a_limit_has_time_to_end_by_itself(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_launcher, "SECONDS_BETWEEN_LOOKS", 0.05)
    process = subprocess.Popen(["sleep", "0.5"], start_new_session=True)
    watch = RunWatch(kit / JOB, Limits(wall_minutes=1), process=process.pid)
    watch._started -= 61

    job_launcher._watch(ProcessHandle(process=process), watch, kit, kit / JOB)

    assert process.wait(5) == 0
    assert (kit / AUDIT_FILE).read_text() == ""


def test_a_run_within_its_limits_ends_by_itself(kit: Path) -> None:
    (kit / JOB / SCRATCH).mkdir()
    process = subprocess.Popen(["true"], start_new_session=True)
    time.sleep(0.2)
    watch = RunWatch(kit / JOB, Limits(), process=process.pid)

    job_launcher._watch(ProcessHandle(process=process), watch, kit, kit / JOB)

    assert process.wait(5) == 0  # its exit code was left for NVFlare
    assert (kit / AUDIT_FILE).read_text() == ""
    assert not (kit / JOB / SCRATCH).exists()


def test_memory_and_time_of_a_run_have_bounds_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('started', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as small:
        assert small.stdout
        assert small.stdout.readline() == b"started\n"
        watch = RunWatch(tmp_path, Limits(memory_gib=1), process=small.pid)
        assert 2**20 < watch._memory() < 2**30
        assert watch.passed_limit() is None

    assert RunWatch(tmp_path, Limits(wall_minutes=1)).passed_limit() is None
    late = RunWatch(tmp_path, Limits(wall_minutes=1))
    late._started -= 61
    assert late.passed_limit() == "has run for limits.wall_minutes of this site, 1"
