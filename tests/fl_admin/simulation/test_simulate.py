"""A simulation before it starts: what is checked, and what is laid out in its folder.

Whole runs are in tests/end_to_end.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fl_admin.jobs.job import Job
from fl_admin.simulation import simulate as module
from fl_admin.simulation.processes import MEMORY_OF_NVFLARE
from fl_admin.simulation.simulate import (
    RunFolder,
    SimulationPlan,
    plan_simulation,
    simulate,
)
from fl_client.jobs.classes import ALLOWED_CLASSES
from fl_server.record.files import read_run_record, write_run_record
from fl_server.record.values import RunRecord
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG
from mmar_runtime.flare import HANDOVER
from mmar_runtime.policy.site_policy import Outgoing, SitePolicy, read_site_policy, site_policy

Edited = Callable[[Path, Callable[[Any], object]], Path]


@pytest.fixture
def plan(job: Job, demo_data: Path) -> SimulationPlan:
    return plan_simulation(job, sites=2, rounds=5, data=demo_data, engine="nvflare")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", engine="nvflare")


# --- planning


def test_a_plan_has_the_sites_with_their_own_data(plan: SimulationPlan, demo_data: Path) -> None:
    assert plan.rounds == 5
    assert list(plan.sites) == ["site-1", "site-2"]
    for name, values in plan.sites.items():
        assert values["DATA_ROOT"] == str(demo_data / name)
        assert values["DATASET_JSON"] == str(demo_data / name / "dataset.json")


def test_without_a_number_the_jobs_own_rounds_are_planned(job: Job, demo_data: Path) -> None:
    assert plan_simulation(job, sites=1, data=demo_data).rounds == job.rounds


def test_the_cores_are_shared_out_over_the_sites(plan: SimulationPlan) -> None:
    """And each gets the same number, as it changes the last bits of sums."""
    expected = max(1, (os.cpu_count() or 1) // 2)

    assert [values["NUM_THREADS"] for values in plan.sites.values()] == [expected] * 2


def test_and_over_the_processes_of_a_site(
    job: Job, demo_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 12)

    plan = plan_simulation(job, sites=2, data=demo_data, overrides={"NUM_PROCESSES": 3})

    assert {values["NUM_THREADS"] for values in plan.sites.values()} == {2}


@pytest.mark.parametrize("processes", [0, True, "many"])
def test_a_number_of_processes_that_is_none_is_refused_before_anything_starts(
    job: Job, demo_data: Path, processes: Any
) -> None:
    with pytest.raises(ConfigError, match="NUM_PROCESSES: has to be a positive whole number"):
        plan_simulation(job, sites=2, data=demo_data, overrides={"NUM_PROCESSES": processes})


def test_what_the_loader_translates_is_told_once(plan: SimulationPlan) -> None:
    rules = [notice.rule for notice in plan.notices]

    assert rules
    assert len(rules) == len(set(rules))


def test_an_environment_gives_values_to_all_sites_and_to_single_ones(
    job: Job, demo_data: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment.json"
    sites = {"site-2": {"learning_rate": 0.5}}
    environment.write_text(json.dumps({"epochs": 7, "learning_rate": 0.1, "sites": sites}))

    plan = plan_simulation(job, sites=2, data=demo_data, environment=environment)

    assert [values["epochs"] for values in plan.sites.values()] == [7, 7]
    assert [values["learning_rate"] for values in plan.sites.values()] == [0.1, 0.5]


def test_data_win_over_the_environment_and_overrides_over_both(
    job: Job, demo_data: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment.json"
    environment.write_text('{"DATA_ROOT": "/nowhere", "learning_rate": 0.1}')
    overrides = {"learning_rate": 0.2}

    plan = plan_simulation(
        job, sites=1, data=demo_data, environment=environment, overrides=overrides
    )

    assert plan.sites["site-1"]["DATA_ROOT"] == str(demo_data / "site-1")
    assert plan.sites["site-1"]["learning_rate"] == 0.2


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "many"])
def test_a_number_of_threads_that_is_none_is_refused(
    job: Job, demo_data: Path, threads: Any
) -> None:
    with pytest.raises(ConfigError, match="NUM_THREADS: has to be a positive whole number"):
        plan_simulation(job, sites=2, data=demo_data, overrides={"NUM_THREADS": threads})


def test_a_number_of_epochs_that_is_none_is_refused_before_anything_starts(
    job: Job, demo_data: Path
) -> None:
    with pytest.raises(ConfigError, match="LOCAL_EPOCHS: has to be a positive whole number"):
        plan_simulation(job, sites=2, data=demo_data, overrides={"LOCAL_EPOCHS": 0})


def test_the_process_gets_the_least_of_the_sites_threads(
    job: Job, demo_data: Path, tmp_path: Path, folder: RunFolder
) -> None:
    environment = tmp_path / "environment.json"
    sites = {"site-1": {"NUM_THREADS": 10}, "site-2": {"NUM_THREADS": 9}}
    environment.write_text(json.dumps({"sites": sites}))

    plan = plan_simulation(job, sites=2, data=demo_data, environment=environment)

    assert module._process_env(plan, folder)["OMP_NUM_THREADS"] == "9"


def test_nvflares_processes_share_memory_and_take_it_in_large_pages_unless_the_user_says_otherwise(
    plan: SimulationPlan, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in MEMORY_OF_NVFLARE:
        monkeypatch.delenv(name, raising=False)
    nvflare, inline = replace(plan, engine="nvflare"), replace(plan, engine="inline")
    environment = partial(module._process_env, folder=folder)

    assert environment(nvflare).items() >= MEMORY_OF_NVFLARE.items()
    assert not environment(inline).keys() & MEMORY_OF_NVFLARE.keys()

    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    assert environment(nvflare)["MALLOC_ARENA_MAX"] == "8"


def test_nvflares_processes_hand_models_over_in_the_folder_of_their_run_alone(
    plan: SimulationPlan, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HANDOVER, "/of/another/run")

    found = module._process_env(replace(plan, engine="nvflare"), folder)

    assert found[HANDOVER] == str(folder.handover)


@pytest.mark.parametrize(("sites", "rounds"), [(0, None), (-1, 1), (1, 0)])
def test_no_site_or_no_round_is_refused(job: Job, sites: int, rounds: int | None) -> None:
    with pytest.raises(ConfigError, match="needs at least one site and one round"):
        plan_simulation(job, sites=sites, rounds=rounds)


def test_a_site_without_data_is_named(job: Job, demo_data: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no dataset\.json for site-4 in '"):
        plan_simulation(job, sites=4, data=demo_data)


def test_an_environment_of_another_name_is_refused(job: Job, tmp_path: Path) -> None:
    """A site of a real federation has it under this name; one name for all."""
    path = tmp_path / "values.json"
    path.write_text("{}")

    with pytest.raises(ConfigError, match=r"has to be called environment\.json"):
        plan_simulation(job, sites=1, environment=path)


def test_the_problems_of_all_sites_and_configs_are_told_together(
    job: Job, demo_data: Path, tmp_path: Path, edited: Edited
) -> None:
    data = shutil.copytree(demo_data, tmp_path / "data")
    for site in ("site-1", "site-2"):
        next((data / site / "imagesTr").glob("*case-1.nii.gz")).unlink()

    def misspell(document: Any) -> None:
        document["train"]["model"]["args"]["num_res_unit"] = 1
        del document["train"]["model"]["args"]["num_res_units"]

    edited(job.mmar.document("config_train.json"), misspell)
    edited(
        job.mmar.document(CLIENT_CONFIG),
        lambda document: document["executors"][0]["executor"].update(path="os.system"),
    )

    with pytest.raises(ConfigError) as caught:
        plan_simulation(job, sites=2, data=data)

    text = str(caught.value)
    for part in ("site-1-case-1", "site-2-case-1", "'num_res_unit'", "'os.system' is not among"):
        assert part in text
    assert text.count("Did you mean 'num_res_units'") == 1


def test_what_a_site_refuses_in_the_documents_is_refused_before_a_simulation(
    job: Job, demo_data: Path, edited: Edited
) -> None:
    edited(job.mmar.document(CLIENT_CONFIG), lambda document: document.update(handlers=[]))

    with pytest.raises(ConfigError, match=r"config_fed_client\.json: handlers: unknown key"):
        plan_simulation(job, sites=2, data=demo_data)


# --- the run's folder


def test_each_run_gets_the_next_free_folder(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path / "runs", engine="nvflare").root.name == "run-001"
    assert RunFolder.create(tmp_path / "runs", engine="nvflare").root.name == "run-002"


def test_earlier_runs_and_other_files_stay(tmp_path: Path) -> None:
    for name in ("run-041", "run-x", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").touch()

    assert RunFolder.create(tmp_path, engine="nvflare").root.name == "run-042"
    assert len(list(tmp_path.glob("*/kept"))) == 3


@pytest.mark.parametrize("name", ["my runs", "my\truns", "#runs", "lab's"])
def test_a_path_that_nvflare_splits_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="cannot simulate below a path with blanks"):
        RunFolder.create(tmp_path / name, engine="nvflare")
    assert not (tmp_path / name).exists()


def test_the_folder_holds_the_job_as_it_runs(plan: SimulationPlan, folder: RunFolder) -> None:
    module._prepare(plan, folder)

    copy = Job.open(folder.job)
    assert (copy.rounds, plan.job.rounds) == (5, 3)
    assert json.loads((folder.job / "meta.json").read_text())["min_clients"] == 2


def test_each_site_has_an_environment_that_mmar_evaluate_takes(
    plan: SimulationPlan, folder: RunFolder, demo_data: Path
) -> None:
    module._prepare(plan, folder)

    environment = json.loads(folder.environment("site-2").read_text())
    assert environment["DATA_ROOT"] == str(demo_data / "site-2")
    assert environment["PROCESSING_TASK"] == "segmentation"  # the job's own
    assert environment["NUM_THREADS"] == plan.sites["site-2"]["NUM_THREADS"]


def test_nvflare_finds_each_sites_values_and_the_allowed_classes(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    module._prepare(plan, folder)

    local = folder.flare / plan.job.name / "local"
    environment = json.loads((local / "environment.json").read_text())
    assert environment.pop("sites") == plan.sites
    assert "DATA_ROOT" not in environment  # the server gets what the sites share, and no data
    assert list(environment) == ["NUM_THREADS"]
    allowed = json.loads((local / "resources.json").read_text())["class_allow_list"]
    assert allowed == list(ALLOWED_CLASSES)


def test_the_sites_compute_with_the_planned_number_of_threads(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    threads = plan.sites["site-1"]["NUM_THREADS"]
    assert module._process_env(plan, folder)["OMP_NUM_THREADS"] == str(threads)


# --- after NVFlare


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

    record, matrix = module._collect(plan, folder, "interrupted")

    assert record is not None
    assert (record.status, record.failure, matrix) == ("failed", "interrupted", None)
    assert read_run_record(folder.results / "run_record.json") == record
    assert (folder.results / "report.html").is_file()


def test_a_run_without_a_round_leaves_no_record(plan: SimulationPlan, folder: RunFolder) -> None:
    assert module._collect(plan, folder, "interrupted") == (None, None)


def write_log(folder: RunFolder, text: str) -> None:
    folder.log.parent.mkdir(parents=True, exist_ok=True)
    folder.log.write_text(text)


def test_the_failure_names_the_site_and_its_error(plan: SimulationPlan, folder: RunFolder) -> None:
    write_log(folder, f"2030 - ERROR - Aborting {module.FATAL} no space left \nmore\n")
    for site in plan.sites:
        path = folder.flare / plan.job.name / site / "simulate_job/error-1.txt"
        path.parent.mkdir(parents=True)
        path.write_text("train: 1 problem:\n    no image\n\nTraceback ...")

    assert module._failure_text(plan, folder, 1) == (
        "site-1: train: 1 problem: no image; site-2: train: 1 problem: no image; no space left"
    )


def test_a_failure_without_a_reason_points_to_the_log(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    write_log(folder, "nothing to see\n")

    assert module._failure_text(plan, folder, 137) == (
        f"NVFlare ended with code 137; see {folder.log}"
    )


# --- NVFlare replaced by a process that does less


def replace_nvflare(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def command(plan: SimulationPlan, folder: RunFolder) -> list[str]:
        return [os.sys.executable, "-c", code]

    monkeypatch.setattr(module, "_command", command)


def test_a_run_that_ends_without_a_record_has_failed_even_if_nvflare_is_content(
    plan: SimulationPlan, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_nvflare(monkeypatch, "")

    result = simulate(plan, folder, view=lambda view: None)

    assert result.failure == "the run ended without a complete record"
    assert result.record is None


def test_so_has_one_whose_record_is_not_complete(
    plan: SimulationPlan, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_record(folder, plan)
    monkeypatch.setattr(module, "_prepare", lambda plan, folder: None)
    replace_nvflare(monkeypatch, "")

    result = simulate(plan, folder, view=lambda view: None)

    assert result.failure == "the run ended early"
    assert result.record is not None
    assert result.record.status == "failed"


def test_an_interrupted_run_leaves_no_process_and_a_failed_record(
    plan: SimulationPlan, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    running_record(folder, plan)
    monkeypatch.setattr(module, "_prepare", lambda plan, folder: None)
    pid = folder.root / "pid"
    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    replace_nvflare(monkeypatch, code)

    def interrupt_once_started(view: Any) -> None:
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(plan, folder, view=interrupt_once_started)

    assert not Path(f"/proc/{pid.read_text()}").exists()
    assert read_run_record(folder.results / "run_record.json").failure == "interrupted"


# --- the sites' policy


def test_every_simulated_site_has_the_given_policy(
    job: Job, demo_data: Path, tmp_path: Path
) -> None:
    policy = SitePolicy(outgoing=Outgoing(round_digits=2), signers=())
    plan = plan_simulation(job, sites=2, data=demo_data, policy=policy, engine="nvflare")
    folder = RunFolder.create(tmp_path / "runs", engine="nvflare")

    module._prepare(plan, folder)

    local = folder.flare / job.name / "local"
    assert site_policy(local) == policy
    assert read_site_policy(folder.policy) == policy


def test_a_job_that_the_policy_refuses_does_not_start(job: Job, demo_data: Path) -> None:
    with pytest.raises(ConfigError, match="'UNet' is denied by this site's policy"):
        plan_simulation(
            job, sites=2, data=demo_data, policy=SitePolicy(denied_components=("UNet",))
        )
