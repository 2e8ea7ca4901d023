"""Two sites that train differently, by values of their own, and one that comes when all is done.

Two simulations. In the first the second site has larger batches, processes that load, and more
epochs a round; the mean is one that can be worked out. In the second, which trains nothing, the
models of the first are evaluated at its sites and at a third one, and so is a model from elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_admin.cli.main import main
from fl_server.initial_model import initial_model
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights, digest, read_checkpoint
from tests.end_to_end.test_job_from_mmar import mmar

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


EPOCHS = {"site-1": 1, "site-2": 3}
"""The job asks for one; the second site has a number of its own."""

BATCH_SIZE = {"site-1": 1, "site-2": 2}
CASES = 2
STEPS = {site: EPOCHS[site] * CASES // BATCH_SIZE[site] for site in EPOCHS}
SAMPLES = {site: EPOCHS[site] * CASES for site in EPOCHS}
FACTOR = {"site-1": 1.0, "site-2": 4.0}
"""What the job gives the sites beside their samples."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run."""
    from tests.conftest import edit_json, write_mmar

    root = tmp_path_factory.mktemp("differ")
    source = write_mmar(root / "mmar")
    edit_json(source / "config/config_train.json", loader_by_variables)
    values: dict[str, dict[str, Any]] = {}
    for seed, site in enumerate(EPOCHS):
        data = write_mmar(root / site, seed=seed) / "data"
        values[site] = {"DATA_ROOT": str(data), "DATASET_JSON": str(data / "dataset.json")}
    # It validates after its last epoch alone, so its best model is its last one.
    values["site-2"] |= {"batch_size": 2, "num_workers": 1}
    values["site-2"] |= {"LOCAL_EPOCHS": EPOCHS["site-2"], "num_interval_per_valid": 3}
    environment = root / "environment.json"
    environment.write_text(json.dumps({"NUM_THREADS": 1, "sites": values}))
    made = mmar(
        "job", "create", source, "--out", root / "job", "--rounds", 1,
        "--aggregation-weights", "site-2=4",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr

    return simulated(root / "job", environment)


def simulated(job: Path, environment: Path, *words: object) -> Path:
    """The folder of a run that ended well."""
    options = ["-e", environment, "-w", job.parent / "runs", *words]
    done = mmar("simulate", job, *options, "--json")
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["folder"])


def loader_by_variables(document: dict[str, Any]) -> None:
    document.update(batch_size=1, num_workers=0)
    arguments = {"batch_size": "{batch_size}", "num_workers": "{num_workers}"}
    document["train"]["dataloader"]["args"].update(arguments)


@pytest.fixture(scope="module")
def outcomes(run: Path) -> dict[str, Any]:
    record = json.loads((run / "results/run_record.json").read_text())
    return dict(record["rounds"][0]["sites"])


def test_each_site_trains_as_many_epochs_as_it_has_decided(outcomes: dict[str, Any]) -> None:
    epochs = {site: [epoch["epoch"] for epoch in one["epochs"]] for site, one in outcomes.items()}

    assert epochs == {"site-1": [1], "site-2": [1, 2, 3]}


def test_its_steps_follow_from_its_own_batch_size(outcomes: dict[str, Any]) -> None:
    assert STEPS == {"site-1": 2, "site-2": 3}
    assert {site: one["steps"] for site, one in outcomes.items()} == STEPS


def test_its_weight_does_not(outcomes: dict[str, Any]) -> None:
    assert SAMPLES == {"site-1": 2, "site-2": 6}
    assert {site: one["samples"] for site, one in outcomes.items()} == SAMPLES
    weights = {site: SAMPLES[site] * FACTOR[site] for site in EPOCHS}
    assert {site: one["weight"] for site, one in outcomes.items()} == weights


def test_the_new_model_is_the_mean_by_samples_and_by_the_factors_of_the_job(run: Path) -> None:
    """Of each site the difference between its own model and the first one is what it sent."""
    first = initial_model(Mmar.open(run / "job/app"), values={}).weights
    own = {site: weights_of(run, site) for site in EPOCHS}
    shares = {site: SAMPLES[site] * FACTOR[site] for site in EPOCHS}
    assert shares == {"site-1": 2, "site-2": 24}
    record = json.loads((run / "results/run_record.json").read_text())
    assert record["initial_weights_sha256"] == digest(first)

    found = weights_of(run, "FL_global_model")

    for name, start in first.items():
        moved = sum(
            (own[site][name] - start).to(torch.float64) * shares[site] for site in EPOCHS
        ) / sum(shares.values())
        assert torch.equal(found[name], (start.to(torch.float64) + moved).to(start.dtype))
        assert not torch.equal(own["site-1"][name], own["site-2"][name])


def weights_of(run: Path, model: str) -> Weights:
    return read_checkpoint(run / "results/models" / f"{model}.pt").weights


# --- a site that joins when the training is over

LATE = "site-3"
FOREIGN = "from-elsewhere"


@pytest.fixture(scope="module")
def later(run: Path, tmp_path_factory: pytest.TempPathFactory, open_policy: Path) -> Path:
    """The models of the run, and one of nobody's here, at three sites."""
    from tests.conftest import write_mmar

    root = run.parents[1]
    weights = weights_of(run, "FL_global_model")
    foreign = tmp_path_factory.mktemp("foreign") / "model.pt"
    torch.save({f"module.{name}": tensor / 2 for name, tensor in weights.items()}, foreign)
    made = mmar(
        "job", "validate", root / "mmar", "--out", root / "check", "--min-sites", 3,
        "--models-of", run, "--model", f"{FOREIGN}={foreign}",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    data = write_mmar(root / LATE, seed=7) / "data"
    values = json.loads((root / "environment.json").read_text())
    values["sites"][LATE] = {"DATA_ROOT": str(data), "DATASET_JSON": str(data / "dataset.json")}
    environment = root / "later" / "environment.json"
    environment.parent.mkdir()
    environment.write_text(json.dumps(values))
    return simulated(root / "check", environment, "--sites", 3, "--policy", open_policy)


def document(run: Path, name: str) -> Any:
    return json.loads((run / "results" / f"{name}.json").read_text())


def test_given_models_are_evaluated_at_every_site_and_nothing_is_trained(later: Path) -> None:
    record, matrix = document(later, "run_record"), document(later, "cross_site")

    assert (record["status"], record["rounds"], record["best_round"]) == ("complete", [], None)
    assert matrix["complete"]
    assert set(matrix["models"]) == {
        "FL_global_model", "best_FL_global_model", "site-1", "site-2", FOREIGN,
    }  # fmt: skip
    assert matrix["sites"] == [*EPOCHS, LATE]
    built = (later / "nvflare").rglob("*.pt")
    assert not list(built)


def test_where_both_have_evaluated_a_model_they_have_the_same_number(
    run: Path, later: Path
) -> None:
    before, after = document(run, "cross_site"), document(later, "cross_site")

    for model, row in before["cells"].items():
        assert {site: after["cells"][model][site] for site in EPOCHS} == row
        assert after["weights_sha256"][model] == before["weights_sha256"][model]
    assert after["evaluation_sha256"] == before["evaluation_sha256"]


def test_the_late_site_gets_its_numbers_by_itself_too(
    later: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    matrix = document(later, "cross_site")
    (kit,) = later.glob(f"nvflare/*/{LATE}")
    for model in matrix["models"]:
        file = later / "job/app/models" / f"{model}.safetensors"
        words = ["site", "validate", "--kit", str(kit), "--model", str(file), "--json"]
        assert main(words) == 0
        assert json.loads(capfd.readouterr().out)["metrics"] == matrix["cells"][model][LATE]


def test_the_two_matrices_become_one(run: Path, later: Path, tmp_path: Path) -> None:
    done = mmar("results", "merge", run, later, "--out", tmp_path / "merged", "--json")

    assert done.returncode == 0, done.stderr
    cells = json.loads(done.stdout)["cross_site"]["cells"]
    expected = document(later, "cross_site")["cells"]
    assert cells == expected
