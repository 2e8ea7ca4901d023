"""A tiny data set for the data tools: volumes of 6 x 5 x 4 voxels and their data list.

Fixtures:
    data_set    a folder with ``dataset.json``: two training, one validation and one test case.
    change      ``change(file, **entries)`` sets entries of a data list.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

SHAPE = (6, 5, 4)
SPACING_MM = (1.0, 1.0, 2.5)


def write_volume(path: Path, voxels: Any, *, affine: Any = None) -> Path:
    """Write a NIfTI volume; ``affine`` maps voxels to mm, without it 1 x 1 x 2.5 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(
        nibabel.Nifti1Image(voxels, np.diag([*SPACING_MM, 1.0]) if affine is None else affine), path
    )
    return path


def image(seed: int) -> Any:
    return np.random.default_rng(seed).integers(-100, 100, SHAPE, dtype=np.int16)


def label() -> Any:
    """12 of 120 voxels are 1, the others 0."""
    voxels = np.zeros(SHAPE, dtype=np.uint8)
    voxels[1:4, 1:3, 1:3] = 1
    return voxels


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for number in (1, 2, 3, 4):
        write_volume(folder / f"images/case_{number}.nii.gz", image(number))
    for number in (1, 2, 3):
        write_volume(folder / f"labels/case_{number}.nii.gz", label())
    items = [
        {"image": f"images/case_{number}.nii.gz", "label": f"labels/case_{number}.nii.gz"}
        for number in (1, 2, 3)
    ]
    document = {
        "labels": {"0": "background", "1": "spleen"},
        "training": items[:2],
        "validation": items[2:],
        "test": ["images/case_4.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture
def change() -> Callable[..., None]:
    def change_document(file: Path, **entries: Any) -> None:
        document = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**document, **entries}), encoding="utf-8")

    return change_document


@pytest.fixture
def volume() -> Callable[..., Path]:
    return write_volume
