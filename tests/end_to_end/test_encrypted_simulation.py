"""Two sites, two rounds, once in plain and once encrypted: the same models, but for the last digit.

The optimizer is SGD: Adam makes large steps of what is noise in a gradient, so that one digit of
the first round would be seen in the second.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.exchange.encrypted_files import read_encrypted_model
from mmar_runtime.exchange.encryption import EncryptedPart, plain_part
from mmar_runtime.exchange.metric_messages import metrics_from
from mmar_runtime.metrics import values_of
from mmar_runtime.weights import Weights, read_checkpoint
from tests.conftest import as_it_leaves

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SITES = ["site-1", "site-2"]
MODELS = ["FL_global_model", "best_FL_global_model", *SITES]
LAYERS = "*.weight"

Edited = Callable[[Path, Callable[[Any], object]], Path]


def mmar(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fl_admin.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def use_sgd(document: Any) -> None:
    document["train"]["optimizer"]["name"] = "SGD"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, open_policy: Path) -> dict[str, Path]:
    """Both runs' folders."""
    from tests.conftest import edit_json, write_mmar

    root = tmp_path_factory.mktemp("encrypted")
    (root / "data").mkdir()
    for seed, site in enumerate(SITES):
        (write_mmar(root / site, seed=seed) / "data").rename(root / "data" / site)
    source = write_mmar(root / "mmar")
    edit_json(source / "config" / "config_train.json", use_sgd)
    found = {}
    for name, options in (("plain", []), ("encrypted", ["--encrypt-layers", LAYERS])):
        done = mmar(
            "simulate", source, "--data", root / "data", "--rounds", 2, "--json",
            "--aggregation-weights", "site-2=3", "--policy", open_policy,
            "-w", root / name, *options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert ("keeps all keys on this machine" in done.stderr) == (name == "encrypted")
        found[name] = root / name / "run-001"
    return found


def model(run: Path, name: str) -> Path:
    return run / "results" / "models" / f"{name}.encrypted.safetensors"


@pytest.fixture(scope="module")
def decrypted(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a checkpoint of each model of the encrypted run."""
    folder = tmp_path_factory.mktemp("decrypted")
    run = runs["encrypted"]
    [kit] = (run / "nvflare").iterdir()
    for name in MODELS:
        words = ["--kit", kit, "--model", model(run, name), "--out", folder / f"{name}.pt"]
        done = mmar("site", "decrypt", *words)
        assert done.returncode == 0, done.stderr
    return folder


def document(run: Path, name: str) -> Any:
    return json.loads((run / "results" / f"{name}.json").read_text())


def test_both_runs_are_complete(runs: dict[str, Path]) -> None:
    for run in runs.values():
        assert document(run, "run_record")["status"] == "complete"
        assert sorted(document(run, "cross_site")["cells"]) == MODELS


def far(one: Weights, other: Weights) -> float:
    """The largest difference, as a part of the largest number of its tensor."""
    return max(
        ((tensor.double() - other[name].double()).abs().max() / other[name].abs().max()).item()
        for name, tensor in one.items()
    )


@pytest.mark.parametrize("name", MODELS)
def test_each_model_is_that_of_the_plain_run(
    runs: dict[str, Path], decrypted: Path, name: str
) -> None:
    plain = read_checkpoint(runs["plain"] / "results" / "models" / f"{name}.pt")
    found = read_checkpoint(decrypted / f"{name}.pt")

    assert {n: (t.dtype, t.shape) for n, t in found.weights.items()} == {
        n: (t.dtype, t.shape) for n, t in plain.weights.items()
    }
    assert far(found.weights, plain.weights) < 1e-5
    assert found.train_conf == plain.train_conf


def test_what_is_not_encrypted_is_there_in_plain_and_nothing_else(runs: dict[str, Path]) -> None:
    weights = read_encrypted_model(model(runs["encrypted"], "FL_global_model")).weights
    part = EncryptedPart.of({name: tensor.numpy() for name, tensor in weights.items()})

    assert all(name.endswith(".weight") for name in part.layout.tensors)
    assert plain_part(weights)
    assert not any(name.endswith(".weight") for name in plain_part(weights))


def test_scores_and_matrix_are_those_of_the_plain_run(runs: dict[str, Path]) -> None:
    plain, found = (document(run, "cross_site")["cells"] for run in runs.values())

    for name in MODELS:
        for site in SITES:
            one, other = (metrics_from(cells[name][site]) for cells in (found, plain))
            assert values_of(one) == pytest.approx(values_of(other), abs=1e-3)


def test_mmar_evaluate_takes_the_decrypted_model(
    runs: dict[str, Path], decrypted: Path, tmp_path: Path
) -> None:
    run = runs["encrypted"]
    done = mmar(
        "evaluate", "-m", run / "job/app", "-c", "config/config_cross_validation.json",
        "-e", run / "sites/site-1/environment.json",
        "--json", "--set", "dont_load_ckpt_model=False",
        f"MMAR_CKPT={decrypted / 'FL_global_model.pt'}", f"MMAR_EVAL_OUTPUT_PATH={tmp_path}",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    cell = document(run, "cross_site")["cells"]["FL_global_model"]["site-1"]
    assert as_it_leaves(json.loads(done.stdout)["metrics"]) == cell


def test_sites_log_what_they_encrypt(runs: dict[str, Path]) -> None:
    for site in SITES:
        [log] = runs["encrypted"].glob(f"nvflare/*/{site}/audit/mmar_audit.jsonl")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        sent = [one for one in lines if one["event"] == "reply-encrypted"]

        assert len(sent) == 3  # two rounds and the best model
        assert all(one["encrypted_bytes"] > 0 for one in sent)
