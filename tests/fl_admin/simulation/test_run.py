"""A run: what is laid out in its folder, and what is left after its process.

Whole runs are in tests/end_to_end.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fl_admin.jobs.job import Job
from fl_admin.simulation import run as module
from fl_admin.simulation.engine import SimulationPlan
from fl_admin.simulation.nvflare_engine import NvflareEngine
from fl_admin.simulation.run import collect, prepare, process_environment, simulate
from fl_admin.simulation.run_folder import RunFolder
from fl_server.record.files import read_run_record, write_run_record
from fl_server.record.values import RunRecord
from tests.fl_admin.simulation.conftest import planned


def test_the_folder_holds_the_job_as_it_runs(plan: SimulationPlan, folder: RunFolder) -> None:
    prepare(plan, folder)

    copy = Job.open(folder.job)
    assert (copy.rounds, plan.job.rounds) == (5, 3)
    assert json.loads((folder.job / "meta.json").read_text())["min_clients"] == 2


def test_each_site_has_an_environment_that_mmar_evaluate_takes(
    plan: SimulationPlan, folder: RunFolder, demo_data: Path
) -> None:
    prepare(plan, folder)

    environment = json.loads(folder.environment("site-2").read_text())
    assert environment["DATA_ROOT"] == str(demo_data / "site-2")
    assert environment["PROCESSING_TASK"] == "segmentation"  # the job's own
    assert environment["NUM_THREADS"] == plan.sites["site-2"]["NUM_THREADS"]


def test_the_sites_compute_with_the_planned_number_of_threads(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    threads = plan.sites["site-1"]["NUM_THREADS"]
    assert process_environment(plan, folder)["OMP_NUM_THREADS"] == str(threads)


def test_the_process_gets_the_least_of_the_sites_threads(
    job: Job, demo_data: Path, tmp_path: Path, folder: RunFolder
) -> None:
    environment = tmp_path / "environment.json"
    sites = {"site-1": {"NUM_THREADS": 10}, "site-2": {"NUM_THREADS": 9}}
    environment.write_text(json.dumps({"sites": sites}))

    plan = planned(job, sites=2, data=demo_data, environment=environment)

    assert process_environment(plan, folder)["OMP_NUM_THREADS"] == "9"


# --- after the process


def running_record(folder: RunFolder, plan: SimulationPlan) -> Path:
    """What the server has written when it is interrupted in round 1."""
    record = RunRecord(
        job=plan.job.name,
        engine="nvflare",
        started=datetime.now(UTC),
        key_metric="val_mean_dice",
        rounds_asked=5,
        sites=("site-1", "site-2"),
        min_sites=2,
        versions={},
        initial_weights_sha256="0" * 64,
    )
    path = folder.flare / plan.job.name / "server/simulate_job/results/run_record.json"
    write_run_record(path, record)
    return path


def test_a_run_that_stopped_early_has_a_failed_record_and_a_report(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    running_record(folder, plan)

    record, matrix = collect(plan, folder, "interrupted")

    assert record is not None
    assert (record.status, record.failure, matrix) == ("failed", "interrupted", None)
    assert read_run_record(folder.results / "run_record.json") == record
    assert (folder.results / "report.html").is_file()


def test_a_run_without_a_round_leaves_no_record(plan: SimulationPlan, folder: RunFolder) -> None:
    assert collect(plan, folder, "interrupted") == (None, None)


# --- the engine replaced by a process that does less


@dataclass(frozen=True, slots=True, kw_only=True)
class Program(NvflareEngine):
    """NVFlare's engine with another program in the place of the simulator."""

    code: str

    def command(self, plan: SimulationPlan, folder: RunFolder) -> list[str]:
        return [sys.executable, "-c", self.code]


def test_a_run_that_ends_without_a_record_has_failed_even_if_nvflare_is_content(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    result = simulate(replace(plan, engine=Program(code="")), folder, view=lambda view: None)

    assert result.failure == "the run ended without a complete record"
    assert result.record is None


def test_so_has_one_whose_record_is_not_complete(
    plan: SimulationPlan, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_record(folder, plan)
    monkeypatch.setattr(module, "prepare", lambda plan, folder: None)
    result = simulate(replace(plan, engine=Program(code="")), folder, view=lambda view: None)

    assert result.failure == "the run ended early"
    assert result.record is not None
    assert result.record.status == "failed"


def test_an_interrupted_run_leaves_no_process_and_a_failed_record(
    plan: SimulationPlan, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_record(folder, plan)
    monkeypatch.setattr(module, "prepare", lambda plan, folder: None)
    pid = folder.root / "pid"
    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    plan = replace(plan, engine=Program(code=code))

    def interrupt_once_started(view: Any) -> None:
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(plan, folder, view=interrupt_once_started)

    assert not Path(f"/proc/{pid.read_text()}").exists()
    assert read_run_record(folder.results / "run_record.json").failure == "interrupted"
