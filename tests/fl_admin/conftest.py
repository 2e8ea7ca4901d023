"""The example job on made-up data of three sites, read-only; and a copy of it to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fl_admin.demo_data import write_demo_data
from fl_admin.jobs.job import Job

EXAMPLE = Path(__file__).resolve().parents[2] / "jobs" / "spleen_ct_segmentation"


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``site-1`` to ``site-3`` with a data list each; leave it as it is."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(folder, sites=3)
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A copy of the example job."""
    return Job.open(shutil.copytree(EXAMPLE, tmp_path / "job"))
