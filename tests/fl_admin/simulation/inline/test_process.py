"""The process of a simulation gives up its rights before it reads the job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_admin.simulation.inline.plan import InlinePlan
from mmar_runtime.confinement.wall import kernel_wall
from mmar_runtime.policy.site_policy import SitePolicy

pytestmark = pytest.mark.skipif(
    not kernel_wall().stands, reason=f"this kernel's wall is {kernel_wall()}"
)

IN_THE_PROCESS = """
import json, subprocess, sys
from pathlib import Path
from fl_admin.simulation.inline.plan import InlinePlan
from mmar_runtime.confinement.wall import forbid_programs

plan = InlinePlan.read(Path(sys.argv[1]))
said = plan.confine()

def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"

def start():
    subprocess.run([sys.executable, "-c", ""], check=True)

found = {
    "said": said,
    "data": tried(Path(plan.sites["site-1"]["DATA_ROOT"], "image").read_text),
    "run": tried(lambda: (plan.job.parent / "new").write_text("x")),
    "beside": tried(lambda: (plan.job.parents[1] / "new").write_text("x")),
    "start": tried(start),
}
forbid_programs()
print(json.dumps({**found, "start later": tried(start)}))
"""


def confined(folder: Path, *, workers: int) -> dict[str, Any]:
    """What a process of a simulation may do, as it says itself."""
    run = folder / "run"
    (run / "job").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "data/image").write_text("x")
    plan = InlinePlan(
        job=run / "job",
        results=run / "results",
        sites={"site-1": {"DATA_ROOT": str(folder / "data")}},
        folders={"site-1": run / "site-1"},
        policy=SitePolicy(confinement="required"),
        common={},
        workers=workers,
    )
    plan.write(run / "plan.json")
    command = [sys.executable, "-P", "-c", IN_THE_PROCESS, str(run / "plan.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_one_process_reads_the_data_writes_the_run_and_starts_nothing(tmp_path: Path) -> None:
    assert confined(tmp_path, workers=1) == {
        "said": str(kernel_wall()),
        "data": "done",
        "run": "done",
        "beside": "PermissionError",
        "start": "PermissionError",
        "start later": "PermissionError",
    }


def test_workers_are_started_first_and_then_no_program_more(tmp_path: Path) -> None:
    found = confined(tmp_path, workers=2)

    assert found["said"] == f"{kernel_wall()}; the interpreter can be started"
    assert (found["start"], found["start later"]) == ("done", "PermissionError")
    assert (found["run"], found["beside"]) == ("done", "PermissionError")
