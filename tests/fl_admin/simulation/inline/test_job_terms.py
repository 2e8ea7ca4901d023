"""Which jobs the inline engine runs, and what it says of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_admin.jobs.job import Job
from fl_admin.simulation.inline.job_terms import job_terms
from fl_admin.simulation.simulate import plan_simulation
from fl_client.jobs.transfer import compacting
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG

PERCENTILE = "fl_client.flare.privacy.PercentilePrivacy"

Edited = Callable[[Path, Callable[[Any], object]], Path]


def test_the_terms_of_the_example_job(job: Job) -> None:
    terms = job_terms(job)

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
        job_terms(job)

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
        job_terms(job)

    assert message in str(caught.value)


def rounding(job: Job, edited: Edited, *, server: object, client: str) -> None:
    edited(job.mmar.document(SERVER_CONFIG), arguments(transfer=server))
    edited(
        job.mmar.document(CLIENT_CONFIG),
        lambda document: document.update(compacting(document, client)),
    )


def test_it_rounds_updates_as_the_filter_of_a_site_does(job: Job, edited: Edited) -> None:
    assert job_terms(job).transfer is None

    rounding(job, edited, server="int8", client="int8")

    assert job_terms(job).transfer == "int8"


def test_documents_that_ask_for_different_forms_are_refused(job: Job, edited: Edited) -> None:
    rounding(job, edited, server="int8", client="float16")

    with pytest.raises(ConfigError, match="transfer is 'float16' here, and 'int8' in config_fed_s"):
        job_terms(job)


def test_such_a_job_runs_on_nvflare_unless_inline_was_asked_for(
    job: Job, demo_data: Path, edited: Edited
) -> None:
    chain = {"tasks": ["train"], "filters": [{"path": PERCENTILE, "args": {}}]}
    edited(
        job.mmar.document(CLIENT_CONFIG),
        lambda document: document["task_result_filters"].append(chain),
    )

    plan = plan_simulation(job, sites=2, data=demo_data)

    assert plan.engine == "nvflare"
    assert "runs no filters" in plan.not_inline[0].message
    with pytest.raises(ConfigError, match="--engine nvflare"):
        plan_simulation(job, sites=2, data=demo_data, engine="inline")


def test_else_the_inline_engine_is_the_one(job: Job, demo_data: Path) -> None:
    plan = plan_simulation(job, sites=2, data=demo_data)

    assert (plan.engine, plan.not_inline, plan.workers) == ("inline", (), 1)


def test_several_processes_at_a_site_are_nvflares_too(
    job: Job, demo_data: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment.json"
    environment.write_text('{"sites": {"site-2": {"NUM_PROCESSES": 2}}}')

    plan = plan_simulation(job, sites=2, data=demo_data, environment=environment)

    assert plan.engine == "nvflare"
    assert [one.message for one in plan.not_inline] == ["NUM_PROCESSES needs NVFlare's simulator"]
    with pytest.raises(ConfigError, match="NUM_PROCESSES needs NVFlare's simulator"):
        plan_simulation(job, sites=2, data=demo_data, environment=environment, engine="inline")


def test_what_only_nvflares_simulator_has_is_told(job: Job, demo_data: Path) -> None:
    with pytest.raises(ConfigError, match="needs NVFlare's simulator"):
        plan_simulation(job, sites=2, data=demo_data, engine="inline", gpu="0")
    with pytest.raises(ConfigError, match="is for the inline engine"):
        plan_simulation(job, sites=2, data=demo_data, engine="nvflare", workers=2)
    with pytest.raises(ConfigError, match="has to be a positive whole number, found 0"):
        plan_simulation(job, sites=2, data=demo_data, workers=0)
