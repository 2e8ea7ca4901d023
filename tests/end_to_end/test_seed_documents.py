"""The two documents that Clara Train 4.1 printed for its spleen model run unchanged on real CT.

The MMAR is made of the documents as they are; nothing but ``--set`` values and the site's own
``environment.json`` is added. The volume is resampled to 2 mm first, because the documents crop
96 voxels a side and the original has 32 slices.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, SaveImage, Spacingd

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared"
DOCUMENTS = SHARED / "seeds" / "002_c8cd16a695eae29e.txt"
CT = SHARED / "data" / "spleen"

SPACING = (2.0, 2.0, 2.0)
"""Voxel size in mm."""

TRAIN_NOTICES = (
    *("ToTensord", "LoadImaged", "CheckpointSaver writes the best", "the last model"),
    *("is the same image as", "what CropForegroundd cuts off"),
)
EVALUATE_NOTICES = (
    *("ToTensord", "LoadImaged"),
    *("val_mean_dice is another measure in training", "val_acc: measured on another grid"),
)

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def documents(text: str) -> list[dict[str, Any]]:
    """Every JSON object in a text, outermost ones only, in their order."""
    found, decoder, start = [], json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            end = start + 1
        else:
            found.append(value)
        start = text.find("{", end)
    return found


@pytest.fixture(scope="module")
def spleen_mmar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MMAR of the two documents, with one real CT volume at 2 mm."""
    if not CT.is_dir():
        pytest.skip("the CT volume is not in ../shared/data/spleen")
    root = tmp_path_factory.mktemp("spleen") / "mmar"
    data, config = root.parent / "data", root / "config"
    config.mkdir(parents=True)
    found = documents(DOCUMENTS.read_text(encoding="utf-8"))
    [train] = [one for one in found if {"train", "epochs"} <= one.keys()]
    [validation] = [one for one in found if {"model", "evaluator"} <= one.keys()]
    write_json(config / "config_train.json", train)
    write_json(config / "config_validation.json", validation)
    write_json(config / "environment.json", environment(data))
    write_data(data)
    return root


def environment(data: Path) -> dict[str, Any]:
    """What a site says about itself, as Clara's own ``environment.json`` does."""
    return {
        "DATA_ROOT": str(data),
        "DATASET_JSON": str(data / "dataset.json"),
        "PROCESSING_TASK": "segmentation",
        "INPUT_CHANNELS": 1,
        "OUTPUT_CHANNELS": 2,
        "TRAIN_DATALIST_KEY": "training",
        "VAL_DATALIST_KEY": "validation",
        "MMAR_EVAL_OUTPUT_PATH": "eval",
        "MMAR_CKPT_DIR": "models",
        "MMAR_CKPT": "models/model.pt",
        "MMAR_TORCHSCRIPT": "models/model.ts",
    }


def write_data(folder: Path) -> None:
    """The CT and its label resampled to 2 mm, and a list that uses them for everything."""
    [image], [label] = (sorted((CT / name).glob("*.nii.gz")) for name in ("imagesTr", "labelsTr"))
    keys = ["image", "label"]
    resample = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            Spacingd(keys, pixdim=SPACING, mode=("bilinear", "nearest")),
        ]
    )
    case = resample({"image": str(image), "label": str(label)})
    for key in keys:
        save = SaveImage(
            output_dir=folder,
            output_postfix=key,
            output_dtype="int16",
            resample=False,
            separate_folder=False,
            print_log=False,
        )
        save(case[key])
    item = {key: f"{image.name.removesuffix('.nii.gz')}_{key}.nii.gz" for key in keys}
    write_json(folder / "dataset.json", {"training": [item], "validation": [item]})


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def mmar(command: str, root: Path, *values: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    arguments = [sys.executable, "-m", "fl_admin.cli.main", command, "-m", str(root)]
    return subprocess.run(
        [*arguments, "--set", *values],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_documents_train_and_evaluate_unchanged(spleen_mmar: Path) -> None:
    trained = mmar(
        "train", spleen_mmar, "epochs=1", "num_interval_per_valid=1", "learning_rate=0.001"
    )

    assert trained.returncode == 0, trained.stderr
    assert_one_notice_for_each(TRAIN_NOTICES, trained.stderr)
    assert "trained 1 iterations" in trained.stdout
    best = re.search(r"best val_mean_dice: (0\.\d{4}) in epoch 1", trained.stdout)
    assert best is not None
    for name in ("model.pt", "final_model.pt"):
        assert_trained_network(spleen_mmar / "models" / name)

    evaluated = mmar(
        "evaluate", spleen_mmar, "dont_load_ts_model=True", "dont_load_ckpt_model=False"
    )

    assert evaluated.returncode == 0, evaluated.stderr
    assert_one_notice_for_each(EVALUATE_NOTICES, evaluated.stderr)
    metrics = {
        name: float(value)
        for name, value in re.findall(r"^(val_\w+): ([\d.]+)$", evaluated.stdout, re.MULTILINE)
    }
    assert sorted(metrics) == ["val_acc", "val_mean_dice"]
    assert all(0 <= value <= 1 for value in metrics.values())
    with open(spleen_mmar / "eval/metrics.csv", newline="") as stream:
        assert {name: float(value) for name, value, *_ in csv.reader(stream)} == metrics
    assert_prediction_fits_the_image(spleen_mmar)


def assert_one_notice_for_each(rules: tuple[str, ...], stderr: str) -> None:
    found = [line for line in stderr.splitlines() if line.startswith("note: ")]
    for rule in rules:
        assert len([line for line in found if rule in line]) == 1, (rule, found)
    assert len(found) == len(rules), found


def assert_trained_network(path: Path) -> None:
    """The checkpoint can be read without trusting it, and says what network it is of."""
    content = torch.load(path, weights_only=True)
    model = content["train_conf"]["train"]["model"]
    assert model["name"] == "UNet"
    assert model["args"]["channels"] == [16, 32, 64, 128, 256]
    assert model["args"]["out_channels"] == 2
    assert content["train_conf"]["train"]["optimizer"]["args"]["lr"] == 0.001
    assert all(torch.isfinite(tensor).all() for tensor in content["model"].values())


def assert_prediction_fits_the_image(root: Path) -> None:
    """Same voxels, same place: one can be laid over the other in any viewer."""
    [saved] = (root / "eval").rglob("*.nii.gz")
    [original] = (root.parent / "data").glob("*_image.nii.gz")
    prediction, image = nibabel.load(saved), nibabel.load(original)
    assert prediction.shape == image.shape
    np.testing.assert_allclose(prediction.affine, image.affine)
    assert set(np.unique(prediction.get_fdata())) <= {0.0, 1.0}
