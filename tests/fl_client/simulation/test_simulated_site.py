"""A site of a simulation: what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_client.progress import ProgressFile
from fl_client.simulation import simulated_site
from fl_client.simulation.shared_storage import SharedStorage
from fl_client.simulation.simulated_site import JobWork, SimulatedSite
from fl_client.site import Site
from mmar_runtime.weights import Weights


def test_a_site_that_could_not_judge_the_job_does_no_task_at_all(
    site: Site, received: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Site) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(simulated_site, "mmar_problems", fail)
    one = SimulatedSite(
        site,
        work=JobWork(),
        progress=ProgressFile(tmp_path / "progress.jsonl"),
        process="p",
        storage=SharedStorage(),
    )

    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            one.score(received)
