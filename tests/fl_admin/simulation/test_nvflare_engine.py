"""What NVFlare's simulator reads, and what its failures say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fl_admin.at_server.job_results import FATAL
from fl_admin.jobs.job import Job
from fl_admin.simulation import run as module
from fl_admin.simulation.engine import SimulationPlan
from fl_admin.simulation.nvflare_engine import NvflareEngine
from fl_admin.simulation.processes import MEMORY_OF_NVFLARE
from fl_admin.simulation.run_folder import RunFolder
from fl_client.jobs.classes import ALLOWED_CLASSES
from mmar_runtime.errors import ConfigError
from mmar_runtime.flare import HANDOVER
from mmar_runtime.policy.site_policy import (
    Outgoing,
    SitePolicy,
    read_site_policy,
    site_policy,
)
from tests.fl_admin.simulation.conftest import planned


@pytest.mark.parametrize("name", ["my runs", "my\truns", "#runs", "lab's"])
def test_a_path_that_nvflare_splits_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="cannot simulate below a path with blanks"):
        NvflareEngine().new_folder(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_nvflare_finds_each_sites_values_and_the_allowed_classes(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    plan.engine.prepare(plan, folder)

    local = folder.flare / plan.job.name / "local"
    environment = json.loads((local / "environment.json").read_text())
    assert environment.pop("sites") == plan.sites
    assert "DATA_ROOT" not in environment  # the server gets what the sites share, and no data
    assert list(environment) == ["NUM_THREADS"]
    allowed = json.loads((local / "resources.json").read_text())["class_allow_list"]
    assert allowed == list(ALLOWED_CLASSES)


def test_every_simulated_site_has_the_given_policy(
    job: Job, demo_data: Path, tmp_path: Path
) -> None:
    policy = SitePolicy(outgoing=Outgoing(round_digits=2), signers=())
    plan = planned(job, sites=2, data=demo_data, policy=policy, engine="nvflare")
    folder = RunFolder.create(tmp_path / "runs")

    module.prepare(plan, folder)

    local = folder.flare / job.name / "local"
    assert site_policy(local) == policy
    assert read_site_policy(folder.policy) == policy


def test_its_processes_share_memory_in_large_pages_unless_the_user_says_otherwise(
    folder: RunFolder,
) -> None:
    environment = NvflareEngine().environment

    assert environment({}, folder).items() >= MEMORY_OF_NVFLARE.items()
    assert environment({"MALLOC_ARENA_MAX": "8"}, folder)["MALLOC_ARENA_MAX"] == "8"


def test_its_processes_pass_models_on_in_the_folder_of_their_run_alone(folder: RunFolder) -> None:
    environment = NvflareEngine().environment({HANDOVER: "/of/another/run"}, folder)

    assert environment[HANDOVER] == str(folder.handover)


def test_the_gpus_are_in_the_command_if_there_are_any(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    assert NvflareEngine(gpu="0,1").command(plan, folder)[-2:] == ["--gpu", "0,1"]
    assert "--gpu" not in NvflareEngine().command(plan, folder)


def write_log(folder: RunFolder, text: str) -> None:
    folder.log("nvflare").parent.mkdir(parents=True, exist_ok=True)
    folder.log("nvflare").write_text(text)


def test_the_failure_names_the_site_and_its_error(plan: SimulationPlan, folder: RunFolder) -> None:
    write_log(folder, f"2030 - ERROR - Aborting {FATAL} no space left \nmore\n")
    for site in plan.sites:
        path = folder.flare / plan.job.name / site / "simulate_job/error-1.txt"
        path.parent.mkdir(parents=True)
        path.write_text("train: 1 problem:\n    no image\n\nTraceback ...")

    assert plan.engine.failure(plan, folder, 1) == (
        "site-1: train: 1 problem: no image; site-2: train: 1 problem: no image; no space left"
    )


def test_a_failure_without_a_reason_points_to_the_log(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    write_log(folder, "nothing to see\n")

    assert plan.engine.failure(plan, folder, 137) == (
        f"NVFlare ended with code 137; see {folder.log('nvflare')}"
    )
