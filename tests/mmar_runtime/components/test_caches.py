"""Files of a cache on disk are named after all that made them, so nothing stale is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from mmar_runtime.components.builder import BuildContext, ComponentBuilder
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.mmar import Mmar

Edited = Callable[[Path, Callable[[Any], object]], Path]


def first_image(root: Path) -> Any:
    """The first case as the validation prepares it, from the cache if it is there."""
    config = load_train_config(Mmar.open(root))
    builder = ComponentBuilder(config, BuildContext(device=torch.device("cpu")))
    return builder.get("validate", "dataset")[0]["image"].numpy()


def cached(root: Path) -> int:
    return len(list((root / "cache").glob("*.pt")))


def test_other_transforms_and_changed_files_are_prepared_anew(
    tiny_mmar: Path, edited: Edited
) -> None:
    file = tiny_mmar / "config/config_train.json"

    def persistent(conf: Any) -> None:
        dataset = conf["validate"]["dataset"]
        dataset["name"] = "PersistentDataset"
        dataset["args"] = {"transform": "@pre_transforms", "cache_dir": str(tiny_mmar / "cache")}

    def scaled(most: float) -> Callable[[Any], None]:
        args = {"keys": "image", "minv": 0.0, "maxv": most}

        def change(conf: Any) -> None:
            steps = conf["validate"]["pre_transforms"]
            index = next(i for i, step in enumerate(steps) if "ScaleIntensityd" in step.values())
            steps[index] = {"name": "ScaleIntensityd", "args": args}

        return change

    edited(file, persistent)
    edited(file, scaled(1.0))
    assert first_image(tiny_mmar).max() == 1.0
    assert first_image(tiny_mmar).max() == 1.0
    assert cached(tiny_mmar) == 1  # read again, not made again

    edited(file, scaled(3.0))
    assert first_image(tiny_mmar).max() == 3.0

    image = tiny_mmar / "data/case_3_image.nii.gz"
    nibabel.save(
        nibabel.Nifti1Image(np.eye(16, dtype=np.int16)[None].repeat(16, 0), np.eye(4)), image
    )
    assert first_image(tiny_mmar)[0, 0, 0, 1] == 0.0
    assert cached(tiny_mmar) == 3
