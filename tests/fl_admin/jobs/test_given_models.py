"""``mmar job validate``: checkpoints from anywhere become a job that has them evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fl_admin.cli.main import main
from fl_admin.jobs.job import Job
from fl_admin.simulation.plan import SimulationRequest, plan_simulation
from fl_client.job_check import check_job
from fl_server.initial_model import initial_model
from fl_server.record.files import write_run_record
from fl_server.record.values import RunRecord
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights, digest, write_checkpoint

Edited = Callable[[Path, Callable[[Any], object]], Path]
Refused = Callable[..., str]


@pytest.fixture
def weights(tiny_mmar: Path) -> Weights:
    return initial_model(Mmar.open(tiny_mmar), values={}).weights


@pytest.fixture
def checkpoint(tmp_path: Path, weights: Weights) -> Path:
    path = tmp_path / "ours.pt"
    write_checkpoint(path, weights, {})
    return path


def made(mmar: Path, out: Path, *words: object) -> Job:
    assert main(["job", "validate", str(mmar), "--out", str(out), *map(str, words)]) == 0
    return Job.open(out)


@pytest.fixture
def refused(tiny_mmar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """``refused(*words)``: what is said of them; nothing of the job is left."""

    def run(*words: object) -> str:
        out = tmp_path / "refused"
        assert main(["job", "validate", str(tiny_mmar), "--out", str(out), *map(str, words)]) == 2
        assert not out.exists()
        return capfd.readouterr().err

    return run


def test_each_model_travels_as_safetensors_with_the_same_bits(
    tiny_mmar: Path, tmp_path: Path, checkpoint: Path, weights: Weights
) -> None:
    bare = tmp_path / "bare.pt"
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, bare)

    job = made(tiny_mmar, tmp_path / "job", "--model", f"ours={checkpoint}", f"theirs={bare}")

    travelling = {path.name for path in job.mmar.models.iterdir()}
    assert travelling == {"ours.safetensors", "theirs.safetensors"}
    for name in travelling:
        assert digest(load_file(job.mmar.models / name)) == digest(weights)


def test_the_job_trains_nothing_and_asks_for_nothing_but_evaluations(
    tiny_mmar: Path, tmp_path: Path, checkpoint: Path
) -> None:
    job = made(tiny_mmar, tmp_path / "job", "--model", f"ours={checkpoint}", "--min-sites", 3)

    client = json.loads(job.mmar.document(CLIENT_CONFIG).read_text())
    terms = job.documents.terms
    assert job.documents.federation["models"] == ["ours"]
    assert [one["tasks"] for one in client["executors"]] == [["validate"]]
    assert (job.trains, job.rounds) == (False, 0)
    assert (terms.rounds, terms.min_sites) == (0, 3)


def test_a_site_with_the_default_policy_takes_it(
    tiny_mmar: Path, tmp_path: Path, checkpoint: Path
) -> None:
    job = made(tiny_mmar, tmp_path / "job", "--model", f"ours={checkpoint}")

    assert check_job(job.folder).problems == ()


def test_the_weights_that_a_training_would_start_from_stay_at_home(
    tiny_mmar: Path, tmp_path: Path, checkpoint: Path, edited: Edited
) -> None:
    """The training is not run, so a job without that file is whole."""
    edited(
        tiny_mmar / "config/config_train.json",
        lambda document: document.update(dont_load_ckpt_model=False),
    )

    job = made(tiny_mmar, tmp_path / "job", "--model", f"ours={checkpoint}")

    assert [path.name for path in job.mmar.models.iterdir()] == ["ours.safetensors"]


def test_the_models_of_a_run_keep_their_names_the_global_ones_first(
    tiny_mmar: Path, tmp_path: Path, weights: Weights
) -> None:
    for name in ("site-1", "best_FL_global_model", "FL_global_model", "a-site"):
        write_checkpoint(tmp_path / "run-001/results/models" / f"{name}.pt", weights, {})

    job = made(tiny_mmar, tmp_path / "job", "--models-of", tmp_path / "run-001")

    assert job.documents.federation["models"] == [
        "FL_global_model",
        "best_FL_global_model",
        "a-site",
        "site-1",
    ]


def test_the_models_of_a_run_that_shares_a_part_of_the_network_are_refused(
    refused: Refused, tmp_path: Path, weights: Weights
) -> None:
    first, *_ = weights
    results = tmp_path / "3f6b/workspace/results"
    write_checkpoint(results / "models/FL_global_model.pt", {first: weights[first]}, {})
    record = RunRecord(
        job="shares",
        engine="nvflare",
        started=datetime.now(UTC),
        key_metric="val_mean_dice",
        rounds_asked=1,
        sites=("site-1",),
        min_sites=1,
        versions={},
        initial_weights_sha256="0" * 64,
        shared_names=(first,),
    )
    write_run_record(results / "run_record.json", record)

    assert "shared a part of the network" in refused("--models-of", tmp_path / "3f6b")


def test_a_model_of_another_network_is_refused_with_its_first_differences(
    refused: Refused, tmp_path: Path, weights: Weights
) -> None:
    first, *_ = weights
    write_checkpoint(tmp_path / "other.pt", {**weights, first: torch.zeros(1)}, {})

    told = refused("--model", f"other={tmp_path / 'other.pt'}")
    assert "--model: other: " in told
    assert f"does not fit the network: {first}: shape" in told


def test_all_faults_of_all_models_are_told_at_once(
    refused: Refused, tmp_path: Path, weights: Weights
) -> None:
    name, *_ = weights
    spoilt = {**weights, name: torch.full_like(weights[name], float("inf"))}
    write_checkpoint(tmp_path / "spoilt.pt", spoilt, {})
    (tmp_path / "text.pt").write_text("no weights")

    told = refused(
        "--model", f"spoilt={tmp_path / 'spoilt.pt'}", f"text={tmp_path / 'text.pt'}",
        f"gone={tmp_path / 'gone.pt'}",
    )  # fmt: skip
    assert told.startswith("mmar: 3 problems")
    assert f"holds values that are not finite, in {name!r}" in told
    assert "--model: gone: there is no file of weights" in told
    assert "name another file with" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no model is named"),
        (["--model", "model.pt"], "'model.pt' is not NAME=FILE"),
        (["--model", "a=one.pt", "a=two.pt"], "two models are called 'a'"),
        (["--model", "SRV_a=one.pt"], "'SRV_a' is not a name of a model"),
        (["--model", "../a=one.pt"], "'../a' is not a name of a model"),
        (["--model", "a=one.pt", "--min-sites", "0"], "min_sites"),
        (["--models-of", "nowhere"], "there is no 'models' in 'nowhere'"),
    ],
)
def test_what_cannot_be_asked_so(refused: Refused, words: list[str], told: str) -> None:
    assert told in refused(*words)


def test_what_it_will_do_can_be_shown(
    tiny_mmar: Path, tmp_path: Path, checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = made(tiny_mmar, tmp_path / "job", "--model", f"ours={checkpoint}")
    capfd.readouterr()

    assert main(["job", "show", str(job.folder)]) == 0

    lines = [line.split(":", 1) for line in capfd.readouterr().out.splitlines()]
    told = {title: rest[0].strip() for title, *rest in lines if rest}
    assert told["evaluates"] == "ours"
    assert told["default policy"] == "accepted"
    assert "rounds" not in told


def test_a_simulation_of_it_has_no_rounds(
    tiny_mmar: Path, tmp_path: Path, checkpoint: Path
) -> None:
    job = made(tiny_mmar, tmp_path / "job", "--model", f"ours={checkpoint}")
    root = tiny_mmar / "data"
    data = {"DATA_ROOT": str(root), "DATASET_JSON": str(root / "dataset.json")}

    request = SimulationRequest(job=job, sites=2, overrides=data)

    assert plan_simulation(request).rounds == 0
    with pytest.raises(ConfigError, match="it has no rounds"):
        plan_simulation(replace(request, rounds=3))


def test_sites_need_no_training_data_for_it(
    tiny_mmar: Path, tmp_path: Path, checkpoint: Path
) -> None:
    job = made(tiny_mmar, tmp_path / "job", "--model", f"ours={checkpoint}")
    (tiny_mmar / "data/case_1_image.nii.gz").unlink()
    root = tiny_mmar / "data"

    data = {"DATA_ROOT": str(root), "DATASET_JSON": str(root / "dataset.json")}
    plan_simulation(SimulationRequest(job=job, sites=2, overrides=data))
