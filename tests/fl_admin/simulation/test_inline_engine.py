"""Which jobs the inline engine runs, what it says of others, and what it reads and writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_admin.jobs.job import Job
from fl_admin.kits.site_kit import SiteKit
from fl_admin.simulation.engine import SimulationPlan
from fl_admin.simulation.inline_engine import InlineEngine, inline_terms
from fl_admin.simulation.run import prepare
from fl_admin.simulation.run_folder import RunFolder
from fl_client.jobs.rounding import with_rounding
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG
from mmar_runtime.policy.site_policy import (
    site_policy,
)
from tests.fl_admin.simulation.conftest import planned

Edited = Callable[[Path, Callable[[Any], object]], Path]


def test_the_terms_of_the_example_job(job: Job) -> None:
    terms = inline_terms(job)

    assert (terms.rounds, terms.min_sites) == (3, 2)
    assert (terms.local_epochs, terms.steps_aggregation) == (3, 0)
    assert (terms.train_timeout, terms.validation_timeout) == (0, 6000)


def arguments(**values: object) -> Callable[[Any], object]:
    """A change of the workflow's arguments."""
    return lambda document: document["workflows"][0]["args"].update(values)


REFUSED: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "component": (
        SERVER_CONFIG,
        lambda document: document["components"].append({"id": "x", "path": "some.Thing"}),
        "does not know 'some.Thing'",
    ),
    "workflow": (
        SERVER_CONFIG,
        lambda document: document["workflows"][0].update(path="some.Workflow"),
        "names no FederationController",
    ),
    "own aggregator": (
        SERVER_CONFIG,
        arguments(aggregator={"path": "own.Median"}),
        "does not know the argument 'aggregator'",
    ),
    "encryption": (
        SERVER_CONFIG,
        arguments(encrypt_layers=["*"]),
        "does not know the argument 'encrypt_layers'",
    ),
    "filter": (
        CLIENT_CONFIG,
        lambda document: document["task_result_filters"].append(
            {"tasks": ["train"], "filters": [{"path": "some.Filter"}]}
        ),
        "runs no filters",
    ),
    "executor": (
        CLIENT_CONFIG,
        lambda document: document["executors"][0]["executor"].update(path="some.Executor"),
        "stands for one fl_client.flare.executor.MmarExecutor",
    ),
    "tasks": (
        CLIENT_CONFIG,
        lambda document: document["executors"][0].update(tasks=["train"]),
        "with the tasks train, score_model, submit_model, validate",
    ),
    "rounds": (
        SERVER_CONFIG,
        lambda document: document["workflows"][0]["args"].pop("num_rounds"),
        "this one names no num_rounds",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_does_not_know_is_refused_with_the_way_out(
    job: Job, edited: Edited, name: str
) -> None:
    file, change, message = REFUSED[name]
    edited(job.mmar.document(file), change)

    with pytest.raises(ConfigError) as caught:
        inline_terms(job)

    assert message in str(caught.value)
    assert "--engine nvflare" in str(caught.value)


UNKNOWN: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "workflow": (SERVER_CONFIG, arguments(momentum=0.9), "momentum: is not an argument of a job"),
    "executor": (
        CLIENT_CONFIG,
        lambda document: document["executors"][0]["executor"]["args"].update(processes=2),
        "processes: is not an argument of a job",
    ),
    "contradiction": (
        SERVER_CONFIG,
        arguments(shared_names=["a"]),
        "shared_names: is ['b'] here, and ['a'] in config_fed_server.json",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_term_that_no_engine_knows_is_refused(job: Job, edited: Edited, name: str) -> None:
    file, change, message = UNKNOWN[name]
    edited(
        job.mmar.document(CLIENT_CONFIG),
        lambda document: document["executors"][0]["executor"]["args"].update(shared_names=["b"]),
    )
    edited(job.mmar.document(file), change)

    with pytest.raises(ConfigError) as caught:
        inline_terms(job)

    assert message in str(caught.value)


def rounding(job: Job, edited: Edited, *, server: object, client: str) -> None:
    edited(job.mmar.document(SERVER_CONFIG), arguments(transfer=server))
    edited(
        job.mmar.document(CLIENT_CONFIG),
        lambda document: document.update(with_rounding(document, client)),
    )


def test_it_rounds_updates_as_the_filter_of_a_site_does(job: Job, edited: Edited) -> None:
    assert inline_terms(job).transfer is None

    rounding(job, edited, server="int8", client="int8")

    assert inline_terms(job).transfer == "int8"


def test_documents_that_ask_for_different_forms_are_refused(job: Job, edited: Edited) -> None:
    rounding(job, edited, server="int8", client="float16")

    with pytest.raises(ConfigError, match="transfer is 'float16' here, and 'int8' in config_fed_s"):
        inline_terms(job)


# --- a run of the inline engine


@pytest.fixture
def plan(job: Job, demo_data: Path) -> SimulationPlan:
    return planned(job, sites=2, data=demo_data)


def test_each_site_has_a_copy_of_the_app_in_a_folder_like_a_kit(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    prepare(plan, folder)

    for site in plan.sites:
        kit = SiteKit.open(plan.engine.kit(plan, folder, site))
        assert (kit.name, kit.job(None).name) == (site, plan.job.name)
        assert site_policy(kit.root / "local") == plan.policy


def test_the_process_has_no_variable_of_its_own(folder: RunFolder) -> None:
    assert InlineEngine().environment({"PATH": "/bin"}, folder) == {"PATH": "/bin"}


def test_its_runs_are_followed_in_the_folders_of_the_sites(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    follower = plan.engine.follower(plan, folder)
    follower.progress["site-1"].parent.mkdir(parents=True)
    event = {"kind": "task", "round": 2, "task": "train", "model": ""}
    follower.progress["site-1"].write_text(json.dumps(event) + "\n")

    view = follower.look()

    assert (view.sites["site-1"].task, view.sites["site-1"].round_number) == ("train", 2)
    assert view.record is None


def test_a_failure_names_the_sites_and_then_the_process(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    for site in plan.sites:
        folder.site(site).mkdir(parents=True)
        (folder.site(site) / "error-1.txt").write_text("train: no image\n\nTraceback ...")
    (folder.root / "error.txt").write_text("no space left\n\nTraceback ...")

    assert plan.engine.failure(plan, folder, 1) == (
        "site-1: train: no image; site-2: train: no image; no space left"
    )


def test_the_errors_of_sites_are_known_though_the_run_ended_well(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    folder.site("site-2").mkdir(parents=True, exist_ok=True)
    (folder.site("site-2") / "error-1.txt").write_text("train: a.nii is damaged\n\nTraceback ...")

    assert InlineEngine().site_errors(plan, folder) == ["site-2: train: a.nii is damaged"]


def test_a_failure_without_an_error_points_to_the_log(
    plan: SimulationPlan, folder: RunFolder
) -> None:
    log = folder.root / "logs" / "inline.log"
    assert plan.engine.failure(plan, folder, 137) == f"the run ended with code 137; see {log}"
