"""A simulation before it starts: what is checked, and which engine runs the job."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from fl_admin.jobs.job import Job
from fl_admin.simulation.engine import SimulationPlan
from fl_admin.simulation.inline_engine import InlineEngine
from fl_admin.simulation.nvflare_engine import NvflareEngine
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG
from mmar_runtime.policy.custom_check import code_hash
from mmar_runtime.policy.site_policy import (
    Byoc,
    SitePolicy,
)
from tests.fl_admin.simulation.conftest import planned

PERCENTILE = "fl_client.flare.privacy.PercentilePrivacy"

Edited = Callable[[Path, Callable[[Any], object]], Path]


def test_a_plan_has_the_sites_with_their_own_data(plan: SimulationPlan, demo_data: Path) -> None:
    assert plan.rounds == 5
    assert list(plan.sites) == ["site-1", "site-2"]
    for name, values in plan.sites.items():
        assert values["DATA_ROOT"] == str(demo_data / name)
        assert values["DATASET_JSON"] == str(demo_data / name / "dataset.json")


def test_without_a_number_the_jobs_own_rounds_are_planned(job: Job, demo_data: Path) -> None:
    assert planned(job, sites=1, data=demo_data).rounds == job.rounds


def test_the_cores_are_shared_out_over_the_sites(plan: SimulationPlan) -> None:
    """And each gets the same number, as it changes the last bits of sums."""
    expected = max(1, (os.cpu_count() or 1) // 2)

    assert [values["NUM_THREADS"] for values in plan.sites.values()] == [expected] * 2


def test_and_over_the_processes_of_a_site(
    job: Job, demo_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 12)

    plan = planned(job, sites=2, data=demo_data, overrides={"NUM_PROCESSES": 3})

    assert {values["NUM_THREADS"] for values in plan.sites.values()} == {2}


@pytest.mark.parametrize("processes", [0, True, "many"])
def test_a_number_of_processes_that_is_none_is_refused_before_anything_starts(
    job: Job, demo_data: Path, processes: Any
) -> None:
    with pytest.raises(ConfigError, match="NUM_PROCESSES: has to be a positive whole number"):
        planned(job, sites=2, data=demo_data, overrides={"NUM_PROCESSES": processes})


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

    plan = planned(job, sites=2, data=demo_data, environment=environment)

    assert [values["epochs"] for values in plan.sites.values()] == [7, 7]
    assert [values["learning_rate"] for values in plan.sites.values()] == [0.1, 0.5]


def test_data_win_over_the_environment_and_overrides_over_both(
    job: Job, demo_data: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment.json"
    environment.write_text('{"DATA_ROOT": "/nowhere", "learning_rate": 0.1}')
    overrides = {"learning_rate": 0.2}

    plan = planned(job, sites=1, data=demo_data, environment=environment, overrides=overrides)

    assert plan.sites["site-1"]["DATA_ROOT"] == str(demo_data / "site-1")
    assert plan.sites["site-1"]["learning_rate"] == 0.2


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "many"])
def test_a_number_of_threads_that_is_none_is_refused(
    job: Job, demo_data: Path, threads: Any
) -> None:
    with pytest.raises(ConfigError, match="NUM_THREADS: has to be a positive whole number"):
        planned(job, sites=2, data=demo_data, overrides={"NUM_THREADS": threads})


def test_a_number_of_epochs_that_is_none_is_refused_before_anything_starts(
    job: Job, demo_data: Path
) -> None:
    with pytest.raises(ConfigError, match="LOCAL_EPOCHS: has to be a positive whole number"):
        planned(job, sites=2, data=demo_data, overrides={"LOCAL_EPOCHS": 0})


@pytest.mark.parametrize(
    ("sites", "rounds", "option"), [(0, None, "sites"), (-1, 1, "sites"), (1, 0, "rounds")]
)
def test_no_site_or_no_round_is_refused(
    job: Job, sites: int, rounds: int | None, option: str
) -> None:
    with pytest.raises(ConfigError, match=f"--{option}: has to be a positive whole number, found"):
        planned(job, sites=sites, rounds=rounds)


def test_more_least_sites_than_sites_are_refused(job: Job, demo_data: Path) -> None:
    with pytest.raises(ConfigError, match="--min-sites: has to be from 1 to --sites, 2; found 3"):
        planned(job, sites=2, min_sites=3, data=demo_data)


def test_a_faulty_data_list_is_named_with_its_site(
    job: Job, demo_data: Path, tmp_path: Path
) -> None:
    """Each site has a file of the same name."""
    shutil.copytree(demo_data, tmp_path / "data")
    (tmp_path / "data/site-2/dataset.json").write_text("{")

    with pytest.raises(ConfigError) as caught:
        planned(job, sites=2, data=tmp_path / "data")
    [problem] = caught.value.problems
    assert str(problem.location) == f"site-2: {tmp_path}/data/site-2/dataset.json"


def test_a_label_that_does_not_fit_is_named_with_its_site_and_file(
    job: Job, demo_data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(demo_data, tmp_path / "data")
    site = data / "site-2"
    item = json.loads((site / "dataset.json").read_text())["training"][0]
    label = nibabel.load(site / item["label"])
    voxels = np.asarray(label.dataobj) * 7
    nibabel.save(nibabel.Nifti1Image(voxels, label.affine), site / item["label"])

    with pytest.raises(ConfigError) as raised:
        planned(job, sites=2, data=data)

    [problem] = raised.value.problems
    assert str(problem).startswith(f"site-2: {site / 'dataset.json'}: training[0].label: holds 7 (")
    assert str(site / item["label"]) in problem.message


def test_a_value_that_neither_job_nor_sites_use_is_refused(job: Job, demo_data: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(job, sites=2, data=demo_data, overrides={"learning_rat": 0.1, "LOCAL_EPOCHS": 1})

    assert [str(problem) for problem in caught.value.problems] == [
        "--set: learning_rat: nothing here uses the variable 'learning_rat'. "
        "Did you mean 'learning_rate'?"
    ]


def test_sites_that_take_no_part_are_told(
    job: Job, demo_data: Path, tmp_path: Path, edited: Edited
) -> None:
    sites = tmp_path / "environment.json"
    sites.write_text(json.dumps({"sites": {"hospital": {}}}))
    edited(job.folder / "meta.json", lambda meta: meta.update(min_clients=3))

    fewer = planned(job, sites=2, data=demo_data, environment=sites).notices
    assert [str(notice) for notice in fewer[:2]] == [
        "of the sites at hand, hospital, site-3 take no part (--sites)",
        "the job needs 3 sites (min_clients), and this run has 2 (--sites)",
    ]
    assert not [one for one in planned(job, sites=3, data=demo_data).notices if "sites" in one.rule]


def test_a_site_without_data_is_named(job: Job, demo_data: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no dataset\.json for site-4 in '"):
        planned(job, sites=4, data=demo_data)


def test_an_environment_of_another_name_is_refused(job: Job, tmp_path: Path) -> None:
    """A site of a real federation has it under this name; one name for all."""
    path = tmp_path / "values.json"
    path.write_text("{}")

    with pytest.raises(ConfigError, match=r"has to be called environment\.json"):
        planned(job, sites=1, environment=path)


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
        planned(job, sites=2, data=data)

    text = str(caught.value)
    for part in ("site-1-case-1", "site-2-case-1", "'num_res_unit'", "'os.system' is not among"):
        assert part in text
    assert text.count("Did you mean 'num_res_units'") == 1


def test_what_a_site_refuses_in_the_documents_is_refused_before_a_simulation(
    job: Job, demo_data: Path, edited: Edited
) -> None:
    edited(job.mmar.document(CLIENT_CONFIG), lambda document: document.update(handlers=[]))

    with pytest.raises(ConfigError, match=r"config_fed_client\.json: handlers: unknown key"):
        planned(job, sites=2, data=demo_data)


def test_a_factor_of_a_site_that_is_not_simulated_is_refused(
    job: Job, demo_data: Path, edited: Edited
) -> None:
    edited(
        job.mmar.document(SERVER_CONFIG),
        lambda server: server["workflows"][0]["args"].update(aggregation_weights={"site-3": 2}),
    )

    with pytest.raises(ConfigError, match="'site-3' is no site of this run; its sites: site-1, "):
        planned(job, sites=2, data=demo_data)


def test_a_job_that_the_policy_refuses_does_not_start(job: Job, demo_data: Path) -> None:
    with pytest.raises(ConfigError, match="'UNet' is denied by this site's policy"):
        planned(job, sites=2, data=demo_data, policy=SitePolicy(denied_components=("UNet",)))


def test_code_that_the_sites_have_not_approved_is_refused_and_approved_code_is_not(
    job: Job, demo_data: Path
) -> None:
    job.mmar.custom.mkdir()
    (job.mmar.custom / "own.py").write_text("class Own:\n    pass\n")
    byoc = Byoc(mode="by_hash", approved=())

    with pytest.raises(ConfigError, match="custom: is code that this site has not allowed: its"):
        planned(job, sites=2, data=demo_data, policy=SitePolicy(byoc=byoc))

    approved = replace(byoc, approved=(code_hash(job.mmar.custom),))
    planned(job, sites=2, data=demo_data, policy=SitePolicy(byoc=approved))


# --- which engine runs the job


def test_such_a_job_runs_on_nvflare_unless_inline_was_asked_for(
    job: Job, demo_data: Path, edited: Edited
) -> None:
    chain = {"tasks": ["train"], "filters": [{"path": PERCENTILE, "args": {}}]}
    edited(
        job.mmar.document(CLIENT_CONFIG),
        lambda document: document["task_result_filters"].append(chain),
    )

    plan = planned(job, sites=2, data=demo_data)

    assert plan.engine == NvflareEngine()
    assert "runs no filters" in plan.not_inline[0].message
    with pytest.raises(ConfigError, match="--engine nvflare"):
        planned(job, sites=2, data=demo_data, engine="inline")


def test_else_the_inline_engine_is_the_one(job: Job, demo_data: Path) -> None:
    plan = planned(job, sites=2, data=demo_data)

    assert (plan.engine, plan.not_inline) == (InlineEngine(workers=1), ())


def test_several_processes_at_a_site_are_nvflares_too(
    job: Job, demo_data: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment.json"
    environment.write_text('{"sites": {"site-2": {"NUM_PROCESSES": 2}}}')

    plan = planned(job, sites=2, data=demo_data, environment=environment)

    assert plan.engine == NvflareEngine()
    assert [problem.message for problem in plan.not_inline] == [
        "NUM_PROCESSES needs NVFlare's simulator"
    ]
    with pytest.raises(ConfigError, match="NUM_PROCESSES needs NVFlare's simulator"):
        planned(job, sites=2, data=demo_data, environment=environment, engine="inline")


def test_what_only_nvflares_simulator_has_is_told(job: Job, demo_data: Path) -> None:
    with pytest.raises(ConfigError, match="needs NVFlare's simulator"):
        planned(job, sites=2, data=demo_data, engine="inline", gpu="0")
    with pytest.raises(ConfigError, match="is for the inline engine"):
        planned(job, sites=2, data=demo_data, engine="nvflare", workers=2)
    with pytest.raises(ConfigError, match="has to be a positive whole number, found 0"):
        planned(job, sites=2, data=demo_data, workers=0)
