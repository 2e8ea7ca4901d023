"""A planned simulation of the example job, and the folder of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fl_admin.jobs.job import Job
from fl_admin.simulation.engine import SimulationPlan
from fl_admin.simulation.plan import SimulationRequest, plan_simulation
from fl_admin.simulation.run_folder import RunFolder


def planned(job: Job, **request: Any) -> SimulationPlan:
    return plan_simulation(SimulationRequest(job=job, **request))


@pytest.fixture
def plan(job: Job, demo_data: Path) -> SimulationPlan:
    return planned(job, sites=2, rounds=5, data=demo_data, engine="nvflare")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs")
