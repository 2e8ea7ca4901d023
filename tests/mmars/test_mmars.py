"""Every MMAR beside this file by its own commands, unmodified, and what these leave behind."""

from __future__ import annotations

import configparser
import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.policy.extras_check import extras_check

MMARS = Path(__file__).resolve().parent
JOBS = MMARS.parents[1] / "jobs"

NAMES = sorted(folder.parent.name for folder in MMARS.glob("*/config"))
ROOTS = [*(MMARS / name for name in NAMES), *sorted(JOBS.glob("*/app"))]

Install = Callable[[str], Any]


# --- Without running them ------------------------------------------------------------------------


def _of(pattern: str) -> list[Any]:
    """Files of all MMARs, each with a name that says which MMAR it belongs to."""
    files = [(root, file) for root in ROOTS for file in sorted(root.glob(pattern))]
    return [
        pytest.param(file, id=f"{(root.parent if root.name == 'app' else root).name}/{file.stem}")
        for root, file in files
    ]


WORKFLOWS = [one for one in _of("config/config_*.json") if "config_fed_" not in str(one.id)]


@pytest.mark.parametrize("file", WORKFLOWS)
def test_every_workflow_loads_without_a_problem(file: Path) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    load: Any = load_train_config if "train" in document else load_evaluation_config

    config = load(
        Mmar.open(file.parents[1]),
        file=f"config/{file.name}",
        checks=[component_check(allow_code=True), extras_check],
    )

    assert config.scopes


@pytest.mark.parametrize("name", NAMES)
def test_every_mmar_is_complete(name: str) -> None:
    root = MMARS / name
    log = configparser.RawConfigParser()

    assert (root / "config/environment.json").is_file()
    assert (root / "commands/set_env.sh").is_file()
    assert (root / "docs/Readme.md").read_text(encoding="utf-8").startswith("# ")
    assert log.read(root / "resources/log.config")
    scripts = sorted((root / "commands").glob("*.sh"))
    assert len(scripts) > 1
    assert all(os.access(script, os.X_OK) for script in scripts)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_names_documents_that_are_there(name: str) -> None:
    root = MMARS / name
    for script in (root / "commands").glob("*.sh"):
        for file in re.findall(r"config/\w+\.json", script.read_text(encoding="utf-8")):
            assert (root / file).is_file(), f"{script.name}: {file}"


def test_the_old_dialect_is_written_in_two_of_them_only() -> None:
    """Elsewhere nothing is wired that the document does not say."""

    def is_wired(name: str) -> bool:
        notices = load_train_config(Mmar.open(MMARS / name)).notices
        return any(notice.rule == "wiring" for notice in notices)

    old = ["classification_2d_v4_0", "segmentation_3d_v4_0"]
    assert [name for name in NAMES if is_wired(name)] == old


# --- What a run leaves behind --------------------------------------------------------------------


def weights(file: Path) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = torch.load(file, weights_only=True)
    return found


def table(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def metrics(root: Path) -> dict[str, float]:
    """``eval/metrics.csv``: a row for each metric."""
    return {name: float(value) for name, value, *_ in table(root / "eval/metrics.csv")}


def stats(mmar: Any, folder: str = "models") -> dict[str, Any]:
    found: dict[str, Any] = mmar.json(f"{folder}/train_stats.json")
    assert set(found) == {
        "rank", "current_epoch", "current_iteration", "total_epochs", "total_iterations",
        "best_validation_epoch", "best_validation_metric",
    }  # fmt: skip
    return found


def assert_trained(
    mmar: Any, *, epochs: int, iterations: int, final: str = "final_model.pt"
) -> None:
    """The best and the last model are there, with the configuration that made them."""
    found = stats(mmar)
    assert (found["current_epoch"], found["total_epochs"]) == (epochs, epochs)
    assert (found["current_iteration"], found["total_iterations"]) == (iterations, iterations)
    assert 1 <= found["best_validation_epoch"] <= epochs
    assert 0 <= found["best_validation_metric"] <= 1
    best, last = weights(mmar.root / "models/model.pt"), weights(mmar.root / "models" / final)
    assert set(best) == {"model", "train_conf"}
    assert {"model", "optimizer", "train_conf"} <= set(last) or {"model", "train_conf"} == set(last)
    assert best["model"].keys() == last["model"].keys()
    assert best["train_conf"]["train"]["model"] == last["train_conf"]["train"]["model"]


def volume(file: Path) -> Any:
    import nibabel

    return nibabel.load(file)


def assert_same_grid(prediction: Path, image: Path) -> None:
    """The voxels of the prediction are those of the image, at the same places in mm."""
    found, given = volume(prediction), volume(image)
    assert found.shape == given.shape
    np.testing.assert_allclose(found.affine, given.affine, atol=1e-4)
    np.testing.assert_allclose(found.header.get_zooms(), given.header.get_zooms(), atol=1e-4)


def dice(prediction: Path, label: Path) -> float:
    """Twice the common voxels by the voxels of both."""
    one, other = (np.asarray(volume(file).dataobj) > 0.5 for file in (prediction, label))
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def events(folder: Path) -> list[Path]:
    return list(folder.glob("events.out.tfevents.*"))


# --- Segmentation --------------------------------------------------------------------------------


@pytest.mark.slow
def test_segmentation_in_the_4_1_dialect(mmar: Install) -> None:
    app = mmar("segmentation_3d")
    data, found = app.root / "data", app.root / "eval"

    trained = app.run("train.sh")
    assert_trained(app, epochs=2, iterations=4)
    assert events(app.root / "models")
    assert "Train Config Result" in trained
    assert "Num Epochs: 2" in trained  # what the command sets, not what the document says
    assert re.search(r"Conv3d +\(2, 4, 8, 8, 8\)", trained)  # network_summary

    app.run("validate_ckpt.sh")
    of_checkpoint = metrics(app.root)
    assert list(of_checkpoint) == ["val_mean_dice", "val_acc"]
    raw = table(found / "val_mean_dice_raw.csv")
    assert raw[0] == ["filename", "class1", "mean"]
    assert [Path(row[0]).name for row in raw[1:]] == [
        "validation_0_image.nii.gz",
        "validation_1_image.nii.gz",
    ]
    assert table(found / "val_mean_dice_summary.csv")[0][:3] == ["class", "mean", "median"]
    for number, row in enumerate(raw[1:]):
        case = f"validation_{number}"
        prediction = found / f"{case}_image" / f"{case}_image_trans.nii.gz"
        assert_same_grid(prediction, data / f"{case}_image.nii.gz")
        # What was measured is what was written.
        assert dice(prediction, data / f"{case}_label.nii.gz") == pytest.approx(
            float(row[1]), abs=1e-5
        )

    exported = app.run("export.sh")
    assert "tested and looks good" in exported
    (found / "metrics.csv").unlink()

    validated = app.run("validate.sh")
    assert "loaded TorchScript model from path" in validated
    assert metrics(app.root) == pytest.approx(of_checkpoint, abs=1e-5)

    app.run("infer.sh")
    assert_same_grid(
        found / "test_0_image" / "test_0_image_trans.nii.gz", data / "test_0_image.nii.gz"
    )
    assert not list(found.glob("**/*.tmp"))


@pytest.mark.slow
def test_segmentation_in_several_processes(mmar: Install, free_port: int) -> None:
    app = mmar("segmentation_3d")

    app.run("train_multi_gpu.sh", MASTER_PORT=str(free_port))

    assert_trained(app, epochs=2, iterations=2)  # each process has one of the two batches


@pytest.mark.slow
def test_segmentation_in_the_4_0_dialect(mmar: Install) -> None:
    app = mmar("segmentation_3d_v4_0")
    data, found = app.root / "data", app.root / "eval"

    trained = app.run("train.sh", "0")  # the number of a GPU, at the end of --set
    assert_trained(app, epochs=2, iterations=2)  # two of four cases are in the smart cache
    assert "SmartCacheDataset" in trained
    assert "the references are now written down" in trained

    app.run("validate_ckpt.sh", "0")
    assert list(metrics(app.root)) == ["val_mean_dice", "val_acc"]
    raw = table(found / "val_mean_dice_raw.csv")
    assert raw[0] == ["filename", "class1", "mean"]
    for number, row in enumerate(raw[1:]):
        case = f"validation_{number}"
        prediction = found / f"{case}_image" / f"{case}_image_seg.nii.gz"
        assert_same_grid(prediction, data / f"{case}_image.nii.gz")
        # What was measured is what was written, next to the label as it lies on disk.
        written = dice(prediction, data / f"{case}_label.nii.gz")
        assert written == pytest.approx(float(row[1]), abs=1e-5)

    app.run("infer.sh")
    assert_same_grid(
        found / "test_0_image" / "test_0_image_seg.nii.gz", data / "test_0_image.nii.gz"
    )


@pytest.mark.slow
def test_several_classes_slice_by_slice(mmar: Install) -> None:
    app = mmar("multi_class_slices")
    found = app.root / "eval"

    trained = app.run("train.sh")
    assert_trained(app, epochs=2, iterations=4)
    assert (app.root / "models/checkpoint_epoch=2.pt").is_file()  # save_interval
    assert not (app.root / "models/checkpoint_epoch=1.pt").exists()  # n_saved
    assert "parameters" in trained  # network_summary

    app.run("validate_ckpt.sh")
    raw = table(found / "val_mean_dice_raw.csv")
    assert raw[0] == ["filename", "class1", "class2", "mean"]  # without the background
    assert all(0 <= float(value) <= 1 for row in raw[1:] for value in row[1:])
    prediction = found / "validation_0_image" / "validation_0_image_seg.nii.gz"
    assert_same_grid(prediction, app.root / "data/validation_0_image.nii.gz")
    voxels = np.asarray(volume(prediction).dataobj)
    assert voxels.dtype == np.uint8
    assert set(np.unique(voxels)) <= {0, 1, 2}


@pytest.mark.slow
def test_an_ensemble_of_two_networks(mmar: Install) -> None:
    app = mmar("ensemble")

    for fold in ("0", "1"):
        app.run("train.sh", fold)
        found = stats(app, f"models/fold_{fold}")
        assert found["best_validation_epoch"] is None  # there is no section validate
    first, second = (weights(app.root / f"models/fold_{fold}/final_model.pt") for fold in (0, 1))
    assert all(first[name].shape == second[name].shape for name in first)  # bare weights: one entry
    assert any((first[name] != second[name]).any() for name in first)

    report = app.run("validate.sh")
    assert list(metrics(app.root)) == ["val_mean_dice", "val_acc"]
    assert "MeanEnsembled" in report
    case = "validation_1_image"
    assert_same_grid(app.root / f"eval/{case}_ensemble.nii.gz", app.root / f"data/{case}.nii.gz")


@pytest.mark.slow
def test_fine_tuning_starts_from_the_checkpoint(mmar: Install) -> None:
    import torch
    from monai.networks.nets import UNet

    app = mmar("fine_tuning")
    document = app.json("config/config_train.json")
    torch.manual_seed(1)
    pretrained = UNet(**document["train"]["model"]["args"]).state_dict()
    (app.root / "models").mkdir()
    torch.save(pretrained, app.root / "models/pretrained.pt")  # bare weights

    app.run("finetune.sh")

    assert_trained(app, epochs=1, iterations=2)
    tuned = weights(app.root / "models/final_model.pt")["model"]
    assert tuned.keys() == pretrained.keys()
    for name, weight in pretrained.items():
        torch.testing.assert_close(tuned[name], weight, rtol=0, atol=1e-5)  # learning rate 1e-6
    assert any((tuned[name] != weight).any() for name, weight in pretrained.items())


# --- Other tasks ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_classification_with_labels_that_are_values(mmar: Install) -> None:
    app = mmar("classification_2d")

    app.run("train.sh")
    assert_trained(app, epochs=2, iterations=4)

    app.run("validate_ckpt.sh")
    assert list(metrics(app.root)) == ["val_auc", "val_acc"]

    app.run("infer.sh")
    rows = table(app.root / "eval/predictions.csv")
    assert [Path(row[0]).name for row in rows] == [f"test_{number}.png" for number in range(4)]
    for _, left, right in rows:
        assert float(left) + float(right) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_training_with_clicks(mmar: Install) -> None:
    app = mmar("click_training")

    app.run("train.sh")

    assert_trained(app, epochs=2, iterations=4, final="model_final.pt")
    assert not (app.root / "models/final_model.pt").exists()  # the document names the file
    first = weights(app.root / "models/model.pt")["model"]["model.0.conv.weight"]
    assert first.shape[1] == 3  # image and two maps of clicks


@pytest.mark.slow
def test_a_gan(mmar: Install) -> None:
    app = mmar("gan")

    trained = app.run("train.sh")

    found = weights(app.root / "models/final_model.pt")
    assert set(found) == {"generator", "discriminator", "train_conf"}
    assert stats(app)["current_iteration"] == 4
    assert "generator_loss: " in trained
    assert events(app.root / "models")


# --- Code of the MMAR's own ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_network_and_a_loss_of_ones_own(mmar: Install) -> None:
    import torch

    app = mmar("own_components")

    trained = app.run("train.sh")
    assert_trained(app, epochs=2, iterations=4)
    kept = weights(app.root / "models/model.pt")["train_conf"]["train"]["model"]
    assert kept["path"] == "networks.bypass.BypassNet"
    assert kept["args"]["dimensions"] == 3  # the class's own name for it
    assert " - own - INFO - epoch 2, object weight 5\n" in trained  # as log.config has it

    app.run("export.sh")
    network = torch.jit.load(app.root / "models/model.ts")
    assert network(torch.zeros(1, 1, 10, 12, 14)).shape == (1, 2, 10, 12, 14)

    app.run("validate_ckpt.sh")
    assert list(metrics(app.root)) == ["val_mean_dice"]


@pytest.mark.slow
def test_a_trainer_and_nothing_else(mmar: Install) -> None:
    app = mmar("own_workflow")

    trained = app.run("train.sh")

    losses = app.json("models/losses.json")
    assert len(losses) == 30
    assert losses[-1] < 0.01 < losses[0]
    assert weights(app.root / "models/model.pt")["model"]["weight"].item() == pytest.approx(
        2, abs=0.1
    )
    assert " - line_fit - INFO - epoch 30: loss" in trained  # as log.config has it
    # What such a trainer does is not counted, and not said to be nothing.
    assert stats(app)["total_epochs"] is stats(app)["current_iteration"] is None
    assert "iterations in" not in trained
