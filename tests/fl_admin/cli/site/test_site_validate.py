"""``mmar site validate``: a model on a site's own data, by the values and the policy of its kit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fl_admin.cli.main import main
from fl_server.initial_model import initial_model
from mmar_runtime.exchange.job_documents import EXECUTOR
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights, write_checkpoint

MakeMmar = Callable[..., Path]
Edited = Callable[[Path, Callable[[Any], object]], Path]

DICE, ACCURACY = "val_mean_dice", "val_acc"
JOB = "3f6b2c1e-0000-4000-8000-000000000001"


@pytest.fixture
def kit(tmp_path: Path, make_mmar: MakeMmar) -> Path:
    """A site's kit that has run one job; the site's data lie beside it."""
    root = tmp_path / "kit"
    for part in ("startup", "local"):
        (root / part).mkdir(parents=True)
    write(root / "startup/fed_client.json", {"client": {"fqsn": "hospital-a"}})
    data = make_mmar(tmp_path / "own", seed=3) / "data"
    write(
        root / "local/environment.json",
        {"DATA_ROOT": str(data), "DATASET_JSON": str(data / "dataset.json"), "NUM_THREADS": 1},
    )
    add_job(root, make_mmar, JOB, name="spleen")
    return root


def write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document))


def add_job(kit: Path, make_mmar: MakeMmar, job_id: str, *, name: str) -> Path:
    app = make_mmar(kit / job_id / "app_hospital-a")
    write(app / "config/config_fed_client.json", {"executors": []})
    write(kit / job_id / "meta.json", {"name": name})
    return app


@pytest.fixture
def weights(kit: Path) -> Weights:
    return initial_model(Mmar.open(kit / JOB / "app_hospital-a"), values={}).weights


@pytest.fixture
def model(tmp_path: Path, weights: Weights) -> Path:
    path = tmp_path / "FL_global_model.pt"
    write_checkpoint(path, weights, {})
    return path


Validate = Callable[..., Any]


@pytest.fixture
def validate(kit: Path, capfd: pytest.CaptureFixture[str]) -> Validate:
    """``validate(*words)``: the JSON of the command on this kit."""

    def run(*words: object) -> Any:
        code = main(["site", "validate", "--kit", str(kit), "--json", *map(str, words)])
        printed = capfd.readouterr()
        assert code == 0, printed.err
        return json.loads(printed.out)

    return run


def test_the_sites_data_decide_by_the_job_that_the_kit_has_run(
    validate: Validate, model: Path
) -> None:
    found = validate("--model", model)

    assert found["site"] == "hospital-a"
    assert found["by"] == f"job {JOB} (spleen)"
    assert found["key_metric"] == DICE
    assert set(found["metrics"]) == {DICE, ACCURACY}
    assert found["cases"] == 1


def test_safetensors_and_pt_with_or_without_a_wrapper_give_the_same(
    validate: Validate, model: Path, weights: Weights, tmp_path: Path
) -> None:
    bare, safe = tmp_path / "bare.pt", tmp_path / "model.safetensors"
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, bare)
    save_file(dict(weights), safe)

    results = [validate("--model", file)["metrics"] for file in (model, bare, safe)]

    assert results[0] == results[1] == results[2]


def test_keyed_values_are_read_as_in_a_simulation(
    kit: Path, validate: Validate, model: Path, edited: Edited
) -> None:
    before = validate("--model", model)

    def under_the_name(document: dict[str, Any]) -> None:
        own = dict(document)
        document.clear()
        document.update(DATA_ROOT="/elsewhere", sites={"hospital-a": own, "other": {}})

    edited(kit / "local/environment.json", under_the_name)
    assert validate("--model", model) == before


def test_the_policy_of_the_kit_rounds_and_withholds(
    kit: Path, validate: Validate, model: Path
) -> None:
    whole = validate("--model", model)["metrics"]
    outgoing = {"metrics": [ACCURACY], "round_digits": 3}
    write(kit / "local/mmar_site_policy.json", {"policy_version": 1, "outgoing": outgoing})

    accuracy = whole[ACCURACY]
    rounded = {**accuracy, "value": round(accuracy["value"], 3)}
    assert validate("--model", model)["metrics"] == {ACCURACY: rounded}


def test_too_few_cases_are_told_by_no_number(
    kit: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    policy = {"policy_version": 1, "cross_site": {"min_cases": 2}}
    write(kit / "local/mmar_site_policy.json", policy)

    assert main(["site", "validate", "--kit", str(kit), "--model", str(model)]) == 2
    printed = capfd.readouterr()
    assert "persons in the validation list (cross_site.min_cases): 1; " in printed.err
    assert printed.out == ""


def test_code_that_the_site_has_not_allowed_does_not_run(
    kit: Path, model: Path, edited: Edited, capfd: pytest.CaptureFixture[str]
) -> None:
    app = kit / JOB / "app_hospital-a"
    (app / "custom").mkdir()
    (app / "custom/mine.py").write_text("raise SystemExit('it ran')")
    edited(
        app / "config/config_cross_validation.json",
        lambda document: document.update(inferer={"path": "mine.Inferer"}),
    )

    assert main(["site", "validate", "--kit", str(kit), "--model", str(model)]) == 2
    assert "'mine.Inferer' is code" in capfd.readouterr().err


def test_a_job_that_the_site_would_not_take_part_in_is_refused_as_a_whole(
    kit: Path, model: Path, edited: Edited, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a federation no task of it is done here, whatever document the fault is in."""
    edited(
        kit / JOB / "app_hospital-a/config/config_train.json",
        lambda document: document["train"].update(loss={"path": "mine.Loss"}),
    )

    assert main(["site", "validate", "--kit", str(kit), "--model", str(model)]) == 2
    assert "config_train.json: train.loss" in capfd.readouterr().err


def test_the_newest_job_is_taken_unless_another_is_named(
    kit: Path, validate: Validate, model: Path, make_mmar: MakeMmar
) -> None:
    newer = add_job(kit, make_mmar, "newer", name="liver")
    os.utime(newer / "config", ns=(2**62, 2**62))

    assert validate("--model", model)["by"] == "job newer (liver)"
    assert validate("--model", model, "--job", JOB)["by"] == f"job {JOB} (spleen)"


def test_a_job_that_is_not_here_is_answered_with_those_that_are(
    kit: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["site", "validate", "--kit", str(kit), "--model", str(model), "--job", "1234"]

    assert main(words) == 2
    told = capfd.readouterr().err
    assert "this kit has run no job '1234'" in told
    assert f"There are: {JOB} (spleen)." in told


def test_an_mmar_of_the_sites_own_is_taken_by_its_folder(
    validate: Validate, model: Path, make_mmar: MakeMmar, tmp_path: Path
) -> None:
    own = make_mmar(tmp_path / "mmar")

    found = validate("--model", model, "--mmar", own)

    assert found["by"] == str(own)
    assert found["metrics"] == validate("--model", model)["metrics"]
    assert not (own / "eval").exists()


def test_what_the_handlers_write_is_gone_unless_a_folder_is_named(
    kit: Path, validate: Validate, model: Path, tmp_path: Path
) -> None:
    before = sorted(kit.rglob("*"))
    found = validate("--model", model, "--out", tmp_path / "validated")

    assert sorted(kit.rglob("*")) == before
    written = {path.name for path in (tmp_path / "validated").iterdir()}
    assert {"validation.json", "metrics.csv"} <= written
    assert json.loads((tmp_path / "validated/validation.json").read_text()) == found


def test_nothing_is_written_over(
    kit: Path, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine.txt").write_text("mine")
    words = ["--model", str(model), "--out", str(tmp_path / "taken")]

    assert main(["site", "validate", "--kit", str(kit), *words]) == 2
    assert "is there already" in capfd.readouterr().err


def test_weights_of_another_network_are_refused_by_the_first_differences(
    kit: Path, weights: Weights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, *_ = weights
    write_checkpoint(tmp_path / "other.pt", {**weights, first: torch.zeros(1)}, {})

    code = main(["site", "validate", "--kit", str(kit), "--model", str(tmp_path / "other.pt")])

    assert code == 2
    told = capfd.readouterr().err
    assert "do not fit the network; none were loaded" in told
    assert f"{first}: shape" in told


def test_weights_that_are_not_finite_are_refused_as_in_a_federation(
    kit: Path, weights: Weights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, *_ = weights
    spoilt = {**weights, name: torch.full_like(weights[name], float("nan"))}
    write_checkpoint(tmp_path / "nan.pt", spoilt, {})

    code = main(["site", "validate", "--kit", str(kit), "--model", str(tmp_path / "nan.pt")])

    assert code == 2
    assert f"nan.pt': {name} is not a number" in capfd.readouterr().err


def share(kit: Path, names: list[str]) -> None:
    executor = {"path": EXECUTOR, "args": {"shared_names": names}}
    document = {"executors": [{"tasks": ["train"], "executor": executor}]}
    write(kit / JOB / "app_hospital-a/config/config_fed_client.json", document)


def test_of_a_job_that_shares_some_tensors_it_says_which_are_missing(
    kit: Path, weights: Weights, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shared, missing, *_ = weights
    share(kit, [shared])
    write_checkpoint(tmp_path / "shared.pt", {shared: weights[shared]}, {})

    code = main(["site", "validate", "--kit", str(kit), "--model", str(tmp_path / "shared.pt")])

    assert code == 2
    told = capfd.readouterr().err
    assert f"{missing}: missing" in told
    assert f"The sites of this job share {shared} only." in told
    assert "Name a file that holds the whole network." in told


def test_a_whole_network_of_such_a_job_is_evaluated(
    kit: Path, validate: Validate, model: Path, weights: Weights
) -> None:
    before = validate("--model", model)["metrics"]
    share(kit, [next(iter(weights))])

    assert validate("--model", model)["metrics"] == before


@pytest.mark.parametrize(
    ("file", "told"), [("fed_admin.json", "of an admin"), ("fed_server.json", "of a server")]
)
def test_the_kit_of_somebody_else_is_refused(
    kit: Path, model: Path, file: str, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write(kit / "startup" / file, {})

    assert main(["site", "validate", "--kit", str(kit), "--model", str(model)]) == 2
    assert told in capfd.readouterr().err


def test_a_folder_that_is_no_kit_is_refused(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", "validate", "--kit", str(tmp_path), "--model", str(model)]) == 2
    assert "is not a site's kit" in capfd.readouterr().err

    words = ["--kit", str(tmp_path / "nowhere"), "--model", str(model)]
    assert main(["site", "validate", *words]) == 2
    assert "does not exist" in capfd.readouterr().err


def test_the_printed_number_has_every_digit(
    kit: Path, validate: Validate, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = validate("--model", model)

    assert main(["site", "validate", "--kit", str(kit), "--model", str(model)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert f"{DICE}: {found['metrics'][DICE]['value']!r}" in lines
    assert lines[-1].startswith("1 cases at hospital-a in ")


def test_the_model_is_only_read(validate: Validate, model: Path) -> None:
    before = model.read_bytes()

    validate("--model", model)

    assert model.read_bytes() == before
