"""An evaluation and an inference as the catalogue of Clara Train 4.0 wrote them, voxel by voxel.

The network of this MMAR answers with its input, above and below one half. So a prediction has to
be the label itself, on the grid of the file on disk: any axis, flip or crop that was put back
wrongly shows.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from fl_admin.cli.main import main

NETWORK = """
import torch

class Threshold(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(1))

    def forward(self, image):
        return torch.cat([0.5 - image, image - 0.5], 1) * self.factor * 100
"""
ARGMAX = "__import__('monai').transforms.AsDiscrete(argmax=True{})"
INVERTED = "(x['pred_inverted'][0][None].detach().cpu())"
SHAPE = 12, 10, 8
OBLIQUE = np.array(
    [[0.0, -1.2, 0.3, 40.0], [0.9, 0.0, 0.0, -30.0], [0.0, 0.3, 1.4, 5.0], [0.0, 0.0, 0.0, 1.0]]
)


def document(key: str, keys: list[str], **more: Any) -> dict[str, Any]:
    """The document of one list: what 4.0 did not say is left for the runtime to supply."""
    saver = {
        "output_dir": "{MMAR_EVAL_OUTPUT_PATH}",
        "resample": False,
        "batch_transform": "lambda x: x['image_meta_dict']",
        "output_transform": f"lambda x: {ARGMAX.format('')}{INVERTED}",
    }
    inverter = {"output_keys": ["pred"], "batch_keys": "image", "nearest_interp": True}
    return {
        "model": {"path": "threshold.Threshold"},
        "pre_transforms": [
            {"name": "LoadImaged", "args": {"keys": keys}},
            {"name": "AddChanneld", "args": {"keys": keys}},
            {"name": "Orientationd", "args": {"keys": "image", "axcodes": "PLI"}},
            {"name": "CropForegroundd", "args": {"keys": "image", "source_key": "image"}},
            {"name": "Flipd", "args": {"keys": "image", "spatial_axis": 1}},
            {"name": "ToTensord", "args": {"keys": keys}},
        ],
        "dataset": {
            "name": "Dataset",
            "data_list_file_path": "{DATASET_JSON}",
            "data_file_base_dir": "{DATA_ROOT}",
            "data_list_key": key,
        },
        "dataloader": {"name": "DataLoader", "args": {"batch_size": 1, "num_workers": 0}},
        "inferer": {"name": "SimpleInferer"},
        "handlers": [
            {
                "name": "CheckpointLoader",
                "args": {"load_path": "{MMAR_CKPT}", "load_dict": ["model"]},
            },
            {"name": "TransformInverter", "args": inverter},
            {"name": "SegmentationSaver", "args": saver},
        ],
        "post_transforms": [{"name": "Activationsd", "args": {"keys": "pred", "softmax": True}}],
        "evaluator": {"name": "SupervisedEvaluator"},
        **more,
    }


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    one_hot = f"{ARGMAX.format(', to_onehot=True, n_classes=2')}{INVERTED}"
    dice = {
        "include_background": False,
        "output_transform": f"lambda x: ({one_hot}, x['label'].detach().cpu())",
    }
    metric = {"name": "MeanDice", "log_label": "val_dice", "is_key_metric": True, "args": dice}
    documents = {
        "config_validation": document("validation", ["image", "label"], metrics=[metric]),
        "config_inference": document("test", ["image"]),
        "environment": {
            "DATA_ROOT": str(tmp_path),
            "DATASET_JSON": "dataset.json",
            "MMAR_CKPT": "models/model.pt",
            "MMAR_EVAL_OUTPUT_PATH": "eval",
        },
    }
    for name in ("config", "models", "custom"):
        (tmp_path / name).mkdir()
    for name, content in documents.items():
        (tmp_path / f"config/{name}.json").write_text(json.dumps(content))
    (tmp_path / "custom/threshold.py").write_text(NETWORK)
    torch.save({"model": {"factor": torch.ones(1)}}, tmp_path / "models/model.pt")
    random = np.random.default_rng(0)
    label = np.zeros(SHAPE, np.uint8)
    label[2:9, 3:7, 1:6] = random.integers(0, 2, size=(7, 4, 5))
    label[2, 3, 1] = label[8, 6, 5] = 1  # so that the foreground reaches its corners
    for name, voxels in (("image", label.astype(np.float32)), ("label", label)):
        nibabel.save(nibabel.Nifti1Image(voxels, OBLIQUE), tmp_path / f"{name}.nii.gz")
    lists = {"validation": [{"image": "image.nii.gz", "label": "label.nii.gz"}]}
    (tmp_path / "dataset.json").write_text(json.dumps({**lists, "test": ["image.nii.gz"]}))
    return tmp_path


def otherwise(document: dict[str, Any]) -> dict[str, Any]:
    """The same evaluation in other words of 2021."""
    text = json.dumps(document).replace("pred_inverted", "pred_back")
    text = text.replace("[0][None].detach().cpu()", "[0].unsqueeze(0)")
    other: dict[str, Any] = json.loads(text)
    for handler in other["handlers"]:
        if handler["name"] == "TransformInverter":
            handler["args"] |= {"postfix": "back", "post_func": "lambda x: x", "device": "cpu"}
        if handler["name"] == "SegmentationSaver":
            picked = "lambda x: x['pred_back'][0].unsqueeze(0).argmax(dim=1, keepdim=True)"
            handler["args"]["output_transform"] = picked
    return other


@pytest.mark.parametrize("workflow", ["validation", "inference"])
def test_other_words_of_the_same_give_the_same_voxels(archive: Path, workflow: str) -> None:
    file = archive / f"config/config_{workflow}.json"
    file.write_text(json.dumps(otherwise(json.loads(file.read_text()))))

    assert main(["evaluate", "-m", str(archive), "-c", f"config/{file.name}"]) == 0

    saved: Any = nibabel.load(archive / "eval/image/image_seg.nii.gz")
    label: Any = nibabel.load(archive / "label.nii.gz")
    assert np.array_equal(np.asarray(saved.dataobj), np.asarray(label.dataobj))
    assert np.allclose(saved.affine, label.affine, atol=1e-5)


@pytest.mark.parametrize("workflow", ["validation", "inference"])
def test_the_inverted_prediction_is_the_label_on_disk(
    archive: Path, workflow: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "-m", str(archive), "-c", f"config/config_{workflow}.json"]

    assert main(command) == 0

    label = nibabel.load(archive / "label.nii.gz")
    saved = nibabel.load(archive / "eval/image/image_seg.nii.gz")
    assert np.array_equal(np.asarray(saved.dataobj), np.asarray(label.dataobj))
    assert np.allclose(saved.affine, label.affine, atol=1e-5)
    measured = re.search(r"^val_dice: +1(\.0+)?\b", capsys.readouterr().out, re.MULTILINE)
    assert (measured is not None) == (workflow == "validation")
