"""``mmar evaluate`` as a user meets it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import pytest
import torch
from monai.networks.nets import UNet

from fl_admin.cli.main import main
from mmar_runtime.metrics import significant

pytestmark = pytest.mark.usefixtures("warm")

Edited = Callable[[Path, Callable[[Any], object]], Path]


@pytest.fixture
def trained_mmar(tiny_mmar: Path) -> Path:
    """The tiny MMAR with a checkpoint of random weights."""
    torch.manual_seed(0)
    network = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=[4, 8], strides=[2])
    torch.save({"model": network.state_dict()}, tiny_mmar / "models/model.pt")
    return tiny_mmar


@pytest.fixture
def saving_mmar(trained_mmar: Path, edited: Edited) -> Path:
    """The same, and its predictions are saved, of which MONAI tells on stdout."""
    save = {"name": "SaveImaged", "args": {"keys": "pred", "output_dir": "{MMAR_EVAL_OUTPUT_PATH}"}}
    edited(
        trained_mmar / "config/config_validation.json",
        lambda conf: conf["post_transforms"].append(save),
    )
    return trained_mmar


def test_an_evaluation_prints_the_metrics_and_where_the_rest_is(
    trained_mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "-m", str(trained_mmar)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines[:5]] == [
        "val_mean_dice",
        "    over 1 case",
        lines[2],
        "val_acc",
        "    over 1 case",
    ]
    assert re.fullmatch(r"    class1 \d\.\d{4} over 1", lines[2])
    assert lines[-2].startswith("1 cases in ")
    assert lines[-1] == f"output: {trained_mmar}/eval"


def test_old_constructs_are_announced(
    trained_mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", "-m", str(trained_mmar)])
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert "LoadImaged" in notes[0]


def test_the_numbers_as_json_are_those_in_the_csv(
    trained_mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "-m", str(trained_mmar), "--json"]) == 0
    metrics = json.loads(capfd.readouterr().out)["metrics"]
    written = (trained_mmar / "eval/metrics.csv").read_text().split()
    values = {line.split(",")[0]: float(line.split(",")[1]) for line in written}
    assert values == {label: metric["value"] for label, metric in metrics.items()}


@pytest.mark.slow
def test_json_is_all_that_a_process_prints_on_stdout(saving_mmar: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "fl_admin.cli.main", "evaluate", "-m", str(saving_mmar), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["cases"] == 1
    assert "writing:" in finished.stderr


def test_a_saved_prediction_lies_where_the_image_lies(saving_mmar: Path) -> None:
    assert main(["evaluate", "-m", str(saving_mmar)]) == 0
    [saved] = (saving_mmar / "eval").rglob("*.nii.gz")
    prediction = nibabel.load(saved)
    image = nibabel.load(saving_mmar / "data/case_3_image.nii.gz")
    assert prediction.shape == (*image.shape, 2)  # one-hot, as the config says
    assert (prediction.affine == image.affine).all()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["MMAR_CKPT=models/other.pt"], "there is no file of weights"),
        (["dont_load_ckpt_model=True"], "exactly one entry has to be enabled, found 0 of 2"),
        (["dont_load_ts_model=False"], "exactly one entry has to be enabled, found 2 of 2"),
        (["DATA_ROOT=nowhere"], "there is no data folder '"),
    ],
)
def test_a_fault_is_told_without_traceback(
    trained_mmar: Path, capfd: pytest.CaptureFixture[str], values: list[str], told: str
) -> None:
    assert main(["evaluate", "-m", str(trained_mmar), "--set", *values]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert told in err
    assert "Traceback" not in err


def test_a_training_document_is_refused_with_advice(
    trained_mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "-m", str(trained_mmar), "-c", "config/config_train.json"]) == 2
    assert "Use 'mmar train' for it" in capfd.readouterr().err


def test_what_train_has_written_can_be_evaluated(
    tiny_mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-m", str(tiny_mmar), "--json"]) == 0
    best = json.loads(capfd.readouterr().out)["best_metric"]
    assert main(["evaluate", "-m", str(tiny_mmar), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["metrics"]["val_mean_dice"]["value"] == best


# --- the numbers that would leave a site


def evaluated(mmar: Path, capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, float]:
    assert main(["evaluate", "-m", str(mmar), "--json", *words]) == 0
    metrics = json.loads(capfd.readouterr().out)["metrics"]
    return {label: metric["value"] for label, metric in metrics.items()}


def test_a_sites_policy_rounds_and_withholds_as_the_federation_sees_it(
    trained_mmar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "mmar_site_policy.json"
    outgoing = {"metrics": ["val_mean_dice"], "round_digits": 2}
    policy.write_text(json.dumps({"policy_version": 1, "outgoing": outgoing}))

    exact = evaluated(trained_mmar, capfd)
    rounded = evaluated(trained_mmar, capfd, "--policy", str(policy))

    assert exact["val_mean_dice"] != significant(exact["val_mean_dice"], 2)
    assert rounded == {"val_mean_dice": significant(exact["val_mean_dice"], 2)}


def test_a_policy_with_a_fault_is_told_before_anything_runs(
    trained_mmar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "mmar_site_policy.json"
    policy.write_text('{"policy_version": 1, "outgoing": {"round_digits": -1}}')

    assert main(["evaluate", "-m", str(trained_mmar), "--policy", str(policy)]) == 2

    assert "mmar_site_policy.json: outgoing.round_digits" in capfd.readouterr().err
