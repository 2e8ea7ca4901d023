"""MMARs as the catalogue of Clara Train 4.0 and 4.1 had them: their whole life, untouched.

Each is trained once by its own command; the tests look at what its other commands make of that.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from fl_admin.cli.main import main

pytestmark = pytest.mark.slow

Install = Callable[[str], Any]


def evaluate(app: Any, workflow: str, *values: str) -> int:
    """Run an evaluation here, with the values that the MMAR's command gives."""
    words = ["-m", str(app.root), "-c", f"config/config_{workflow}.json", "--set"]
    return main(["evaluate", *words, *values, *app.options.split()])


OF_CHECKPOINT = ("dont_load_ts_model=True", "dont_load_ckpt_model=False")
OF_TORCHSCRIPT = ("dont_load_ts_model=False", "dont_load_ckpt_model=True")


def table(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def metrics(app: Any) -> dict[str, float]:
    return {name: float(value) for name, value, *_ in table(app.root / "eval/metrics.csv")}


# --- 4.0: several findings in a picture ----------------------------------------------------------


@pytest.fixture(scope="module")
def classification(lasting_mmar: Install) -> Any:
    app = lasting_mmar("classification_2d_v4_0")
    app.run("train.sh", "0")
    return app


def probabilities(app: Any, case: dict[str, Any] | str) -> list[float]:
    """What the network says of a picture, without MONAI's transforms: rows first, as 4.0 had it."""
    name = case if isinstance(case, str) else case["image"]
    pixels = np.asarray(Image.open(app.root / "data" / name)).astype(np.float32)
    image = torch.from_numpy((pixels - pixels.min()) / (pixels.max() - pixels.min()))
    small = torch.nn.functional.interpolate(
        image.permute(2, 0, 1)[None], size=(32, 32), mode="bilinear", align_corners=True
    )
    network = torch.jit.load(app.root / "models/model.ts").eval()
    with torch.no_grad():
        found: list[float] = torch.sigmoid(network(small))[0].tolist()
    return found


def area_under_the_curve(scores: list[float], labels: list[int]) -> float:
    """How often a case with the finding scores higher than one without."""
    present = [score for score, label in zip(scores, labels, strict=True) if label]
    absent = [score for score, label in zip(scores, labels, strict=True) if not label]
    pairs = [(one > other) + 0.5 * (one == other) for one in present for other in absent]
    return sum(pairs) / len(pairs)


def test_pictures_are_classified_as_by_hand(classification: Any) -> None:
    app = classification
    cases = app.json("config/dataset_0.json")

    exported = app.run("export.sh")
    app.run("infer.sh")

    assert "tested and looks good" in exported
    rows = table(app.root / "eval/predictions.csv")
    assert [Path(row[0]).name for row in rows] == cases["test"]
    for case, row in zip(cases["test"], rows, strict=True):
        assert [float(cell) for cell in row[1:]] == pytest.approx(
            probabilities(app, case), abs=1e-5
        )


@pytest.mark.parametrize("model", [OF_CHECKPOINT, OF_TORCHSCRIPT])
def test_metrics_of_several_findings_are_those_by_hand(
    classification: Any, model: tuple[str, str]
) -> None:
    app = classification
    cases = app.json("config/dataset_0.json")["validation"]
    if not (app.root / "models/model.ts").exists():
        app.run("export.sh")

    assert evaluate(app, "validation", *model) == 0

    found = [probabilities(app, case) for case in cases]
    labels = [case["label"] for case in cases]
    areas = [
        area_under_the_curve([row[column] for row in found], [row[column] for row in labels])
        for column in range(3)
    ]
    right = [
        [score >= 0.5 for score in row] == [bool(number) for number in label]
        for row, label in zip(found, labels, strict=True)
    ]
    assert metrics(app) == pytest.approx(
        {"val_auc": sum(areas) / 3, "val_acc": sum(right) / 5}, abs=1e-5
    )


def test_a_federation_trains_it_and_validates_across_sites(
    classification: Any, tmp_path: Path
) -> None:
    app = classification
    for site in ("site-1", "site-2"):
        shutil.copytree(app.root / "data", tmp_path / "data" / site)
        shutil.copy(app.root / "config/dataset_0.json", tmp_path / "data" / site / "dataset.json")
    data, runs = str(tmp_path / "data"), tmp_path / "runs"

    words = ["--sites", "2", "--rounds", "1", "--data", data, "-w", str(runs)]
    assert main(["simulate", str(app.root), *words]) == 0

    cells = json.loads((runs / "run-001/results/cross_site.json").read_text())
    assert {"FL_global_model", "site-1", "site-2"} <= {*_texts(cells)}


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in _texts(item))]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


# --- 4.1: several classes in a volume ------------------------------------------------------------


@pytest.fixture(scope="module")
def segmentation(lasting_mmar: Install) -> Any:
    app = lasting_mmar("multi_class_v4_1")
    app.run("train.sh")
    return app


def volume(file: Path) -> Any:
    return nibabel.load(file)


def saved(app: Any, case: str) -> np.ndarray[Any, Any]:
    """The voxels of a prediction, which lies on the grid of its image."""
    file = volume(app.root / f"eval/{case}_image/{case}_image_seg.nii.gz")
    image = volume(app.root / f"data/{case}_image.nii.gz")
    assert file.shape == image.shape
    np.testing.assert_allclose(file.affine, image.affine, atol=1e-4)
    return np.asarray(file.dataobj)


def test_each_class_is_measured_as_it_is_written(segmentation: Any) -> None:
    app = segmentation

    assert evaluate(app, "validation", *OF_CHECKPOINT) == 0

    of_classes = []
    for row in table(app.root / "eval/val_mean_dice_raw.csv")[1:]:
        case = Path(row[0]).name.removesuffix("_image.nii.gz")
        found = saved(app, case)
        label = np.asarray(volume(app.root / f"data/{case}_label.nii.gz").dataobj)
        dice = [
            2 * ((found == value) & (label == value)).sum()
            / ((found == value).sum() + (label == value).sum())
            for value in (1, 2, 3)
        ]  # fmt: skip
        assert [float(cell) for cell in row[1:4]] == pytest.approx(dice, abs=1e-5)
        of_classes.append(dice)
    means = np.mean(of_classes, axis=0)
    measured = metrics(app)
    assert measured["val_mean_dice"] == pytest.approx(means.mean(), abs=1e-5)
    assert [measured[f"val_dice_class{number}"] for number in (1, 2, 3)] == pytest.approx(
        list(means), abs=1e-5
    )


def test_its_torchscript_says_the_same(segmentation: Any) -> None:
    app = segmentation
    assert evaluate(app, "inference", *OF_CHECKPOINT) == 0
    of_checkpoint = saved(app, "test_0")

    app.run("export.sh")
    shutil.rmtree(app.root / "eval")
    assert evaluate(app, "inference", *OF_TORCHSCRIPT) == 0

    assert np.array_equal(saved(app, "test_0"), of_checkpoint)
