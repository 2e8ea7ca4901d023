"""An MMAR as Clara Train 4.0 had it, untouched: it trains and validates, and so does its upgrade.

Nothing in it is connected, its components are MONAI's of 2021, and two handlers of its validation
do what transforms do today.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from mmar_runtime.weights import read_checkpoint

BOTH = ["image", "label"]
PRED_AND_LABEL = "lambda x: (x['pred'], x['label'])"


def spec(name: str, /, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args}


def data(key: str, **loader: Any) -> dict[str, Any]:
    return {
        "dataset": {
            "name": "CacheDataset",
            "data_list_file_path": "{DATASET_JSON}",
            "data_file_base_dir": "{DATA_ROOT}",
            "data_list_key": key,
            "args": {"cache_rate": 1.0, "progress": False},
        },
        "dataloader": spec("DataLoader", num_workers=0, **loader),
    }


def preprocessing() -> list[dict[str, Any]]:
    """Half the resolution, so that a prediction has to be brought back to the image's own."""
    return [
        spec("LoadImaged", keys=BOTH),
        spec("Spacingd", keys=BOTH, pixdim=[2.0, 2.0, 2.0], mode=["bilinear", "nearest"]),
        spec("AddChanneld", keys=BOTH),
        spec("ScaleIntensityRanged", keys="image", a_min=-100, a_max=250, b_min=0.0, b_max=1.0),
    ]


def postprocessing() -> list[dict[str, Any]]:
    return [
        spec("Activationsd", keys="pred", softmax=True),
        spec(
            "AsDiscreted",
            keys=["label", "pred"],
            argmax=[False, True],
            to_onehot=True,
            n_classes=2,
        ),
    ]


def metrics() -> list[dict[str, Any]]:
    return [
        {
            "name": "MeanDice",
            "log_label": "val_mean_dice",
            "is_key_metric": True,
            "args": {"include_background": False, "output_transform": PRED_AND_LABEL},
        },
        {
            "name": "Accuracy",
            "log_label": "val_acc",
            "args": {"output_transform": PRED_AND_LABEL},
        },
    ]


TRAIN = {
    "epochs": 2,
    "num_interval_per_valid": 1,
    "learning_rate": 1e-2,
    "multi_gpu": False,
    "amp": True,
    "determinism": {"random_seed": 0},
    "cudnn_benchmark": False,
    "dont_load_ckpt_model": True,
    "train": {
        "loss": spec("DiceLoss", to_onehot_y=True, softmax=True),
        "optimizer": spec("Adam", lr="{learning_rate}"),
        "lr_scheduler": spec("StepLR", step_size=5000, gamma=0.1),
        "model": spec(
            "UNet", dimensions=3, in_channels=1, out_channels=2, channels=[4, 8], strides=[2]
        ),
        "pre_transforms": [
            *preprocessing(),
            spec("RandFlipd", keys=BOTH, prob=0.5, spatial_axis=0),
            spec("ToTensord", keys=BOTH),
        ],
        **data("training", batch_size=2, shuffle=True),
        "inferer": {"name": "SimpleInferer"},
        "handlers": [
            {
                "name": "CheckpointLoader",
                "disabled": "{dont_load_ckpt_model}",
                "args": {"load_path": "{MMAR_CKPT}", "load_dict": ["model"]},
            },
            spec("LrScheduleHandler", print_lr=True),
            spec("ValidationHandler", epoch_level=True, interval="{num_interval_per_valid}"),
            {
                "name": "CheckpointSaver",
                "rank": 0,
                "args": {
                    "save_dir": "{MMAR_CKPT_DIR}",
                    "save_dict": ["model", "optimizer", "lr_scheduler", "train_conf"],
                    "save_final": True,
                    "save_interval": 50,
                },
            },
            {
                "name": "StatsHandler",
                "rank": 0,
                "args": {"tag_name": "train_loss", "output_transform": "lambda x: x['loss']"},
            },
        ],
        "post_transforms": postprocessing(),
        "metrics": [
            {
                "name": "Accuracy",
                "log_label": "train_acc",
                "is_key_metric": True,
                "args": {"output_transform": PRED_AND_LABEL},
            }
        ],
        "trainer": spec("SupervisedTrainer", max_epochs="{epochs}"),
    },
    "validate": {
        # The other way round here, as some documents of the time had it.
        "pre_transforms": [
            *({"ref": "LoadImaged"}, {"ref": "AddChanneld"}, {"ref": "Spacingd"}),
            *({"ref": "ScaleIntensityRanged"}, {"ref": "ToTensord"}),
        ],
        **data("validation", batch_size=1),
        "inferer": spec("SlidingWindowInferer", roi_size=[8, 8, 8], sw_batch_size=1, overlap=0.0),
        "handlers": [
            spec("StatsHandler", output_transform="lambda x: None"),
            {
                "name": "CheckpointSaver",
                "rank": 0,
                "args": {
                    "save_dir": "{MMAR_CKPT_DIR}",
                    "save_dict": ["model", "train_conf"],
                    "save_key_metric": True,
                },
            },
        ],
        "post_transforms": [{"ref": "Activationsd"}, {"ref": "AsDiscreted"}],
        "metrics": metrics(),
        "evaluator": {"name": "SupervisedEvaluator"},
    },
}

VALIDATION = {
    "amp": True,
    "dont_load_ts_model": True,
    "dont_load_ckpt_model": False,
    "model": [
        {"ts_path": "{MMAR_TORCHSCRIPT}", "disabled": "{dont_load_ts_model}"},
        {"ckpt_path": "{MMAR_CKPT}", "disabled": "{dont_load_ckpt_model}"},
    ],
    "pre_transforms": [*preprocessing(), spec("ToTensord", keys=BOTH)],
    **data("validation", batch_size=1),
    "inferer": spec("SlidingWindowInferer", roi_size=[8, 8, 8], sw_batch_size=1, overlap=0.0),
    "handlers": [
        {
            "name": "CheckpointLoader",
            "disabled": "{dont_load_ckpt_model}",
            "args": {"load_path": "{MMAR_CKPT}", "load_dict": ["model"]},
        },
        spec("StatsHandler", output_transform="lambda x: None"),
        spec("TransformInverter", output_keys="pred", batch_keys="image", num_workers=0),
        spec(
            "SegmentationSaver",
            output_dir="{MMAR_EVAL_OUTPUT_PATH}",
            batch_transform="lambda x: x['image_meta_dict']",
            output_transform="lambda x: x['pred']",
        ),
        spec(
            "MetricsSaver",
            save_dir="{MMAR_EVAL_OUTPUT_PATH}",
            metrics=["val_mean_dice", "val_acc"],
            metric_details=["val_mean_dice"],
            batch_transform="lambda x: x['image_meta_dict']",
            summary_ops="*",
        ),
    ],
    "post_transforms": postprocessing(),
    "metrics": metrics(),
    "evaluator": {"name": "SupervisedEvaluator"},
}


@pytest.fixture
def old_mmar(tiny_mmar: Path) -> Path:
    for name, document in (("config_train.json", TRAIN), ("config_validation.json", VALIDATION)):
        (tiny_mmar / "config" / name).write_text(json.dumps(document), encoding="utf-8")
    return tiny_mmar


def files(root: Path) -> list[str]:
    folders = (root / "models", root / "eval")
    return sorted(str(path.relative_to(root)) for folder in folders for path in folder.rglob("*.*"))


def test_it_trains_and_validates(old_mmar: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import nibabel
    import numpy as np

    assert main(["train", "-m", str(old_mmar)]) == 0
    out, err = capfd.readouterr()
    assert "best val_mean_dice" in out
    assert "note: 4.0 connected components by itself" in err
    assert (old_mmar / "models" / "model.pt").is_file()
    assert (old_mmar / "models" / "final_model.pt").is_file()

    assert main(["evaluate", "-m", str(old_mmar), "--json"]) == 0
    values = json.loads(capfd.readouterr().out)["metrics"]
    with (old_mmar / "eval" / "metrics.csv").open(encoding="utf-8") as stream:
        written = {name: float(value) for name, value, *_ in csv.reader(stream)}
    assert written["val_mean_dice"] == pytest.approx(values["val_mean_dice"]["value"], abs=1e-4)
    # The metrics saw 8x8x8 voxels of 2 mm; what is saved has the image's own 16x16x16 of 1 mm.
    saved = nibabel.load(old_mmar / "eval" / "case_3_image" / "case_3_image_seg.nii.gz")
    assert saved.shape[:3] == (16, 16, 16)
    assert np.array_equal(saved.affine, np.eye(4))
    assert set(np.unique(saved.get_fdata())) <= {0.0, 1.0}


def test_its_upgrade_trains_to_the_same_weights(
    old_mmar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    upgraded = Path(shutil.copytree(old_mmar, tmp_path / "upgraded"))
    assert main(["upgrade", str(upgraded), "--write"]) == 0
    assert "wrote 3 documents" in capfd.readouterr().out

    notes = []
    for root in (old_mmar, upgraded):
        assert main(["train", "-m", str(root)]) == 0
        assert main(["evaluate", "-m", str(root)]) == 0
        notes.append(capfd.readouterr().err.count("note: "))

    assert notes[0] > 10
    assert notes[1] == 0
    found = [read_checkpoint(root / "models" / "final_model.pt") for root in (old_mmar, upgraded)]
    old, new = (checkpoint.weights for checkpoint in found)
    assert old.keys() == new.keys()
    assert all((old[name] == new[name]).all() for name in old)
    assert files(old_mmar) == files(upgraded)
