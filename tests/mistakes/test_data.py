"""Data sets: files, grids, values of labels and lists that do not fit the task."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from tests.mistakes.planting import Mistake, Run, Workspace, assert_quiet

SIDE = 16
FIRST = "case_1"
"""The first case to train on."""


def label() -> Any:
    voxels = np.zeros((SIDE,) * 3, dtype=np.uint8)
    voxels[4:10, 4:10, 4:10] = 1
    return voxels


def in_order(workspace: Workspace, mmar: str = "masks") -> list[str]:
    """Train with the first case in the first batch."""
    workspace.edit(
        lambda conf: conf["train"]["dataloader"]["args"].update(shuffle=False),
        f"{mmar}/config/config_train.json",
    )
    return workspace.train(mmar=mmar)


def written(kind: str, voxels: Any, affine: Any = None) -> Callable[[Workspace], list[str]]:
    """Write another image or label of the first case; 1 mm a voxel unless ``affine`` says more."""

    def plant(workspace: Workspace) -> list[str]:
        volume = nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine)
        nibabel.save(volume, workspace.masks / f"data/{FIRST}_{kind}.nii.gz")
        return in_order(workspace)

    return plant


def listed(
    change: Callable[[Any], object], mmar: str = "masks"
) -> Callable[[Workspace], list[str]]:
    """Plant a change of the data list."""

    def plant(workspace: Workspace) -> list[str]:
        workspace.edit(change, f"{mmar}/data/dataset.json")
        return workspace.train(mmar=mmar)

    return plant


def replaced(change: Callable[[Path], object], file: str) -> Callable[[Workspace], list[str]]:
    """Plant a change of a file of the data."""

    def plant(workspace: Workspace) -> list[str]:
        change(workspace.root / file)
        return in_order(workspace, file.partition("/")[0])

    return plant


META = """NDims = 3
DimSize = 16 16 16
ElementSpacing = 1 1 2
Offset = 0 0 0
ElementType = MET_UCHAR
ElementDataFile = LOCAL
"""


def meta_image(workspace: Workspace) -> list[str]:
    """Write the first label as a MetaImage whose slices are 2 mm apart."""
    (workspace.masks / "data/label.mha").write_bytes(META.encode() + label().tobytes("F"))
    return listed(lambda lists: lists["training"][0].update(label="label.mha"))(workspace)


def copy_of_image(path: Path) -> None:
    shutil.copy(path.with_name(path.name.replace("label", "image")), path)


def coloured(path: Path) -> None:
    Image.open(path).convert("RGBA").save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


IMAGE, LABEL = f"masks/data/{FIRST}_image.nii.gz", f"masks/data/{FIRST}_label.nii.gz"
PICTURE = "pictures/data/training_0.png"
PLACE = "dataset.json: training[0].label"

MISTAKES = (
    Mistake(
        name="a label on a grid of its own",
        plant=written("label", label(), np.diag([2, 2, 2, 1])),
        place=PLACE,
        remedy="Resample one of the two",
    ),
    Mistake(
        name="a label turned round",
        plant=written("label", label(), np.diag([-1, 1, 1, 1])),
        place=PLACE,
        remedy="Resample one of the two",
    ),
    Mistake(
        name="a MetaImage on a grid of its own",
        plant=meta_image,
        place=f"{PLACE}: '",
        remedy="Resample one of the two",
    ),
    Mistake(
        name="a mask of 0 and 255",
        plant=written("label", label() * 255),
        place=PLACE,
        remedy="AsDiscreted with threshold 0.5",
    ),
    Mistake(
        name="a label whose background is not a number",
        plant=written("label", np.where(label() == 1, 1, np.nan).astype(np.float32)),
        place=f"{PLACE}: holds nan (3880 voxels) in",
        remedy="Classes are whole numbers",
    ),
    Mistake(
        name="a label in one-hot form",
        plant=written("label", np.stack([1 - label(), label()], -1)),
        place=PLACE,
        remedy="one number per voxel",
    ),
    Mistake(
        name="a copy of the image for a label",
        plant=replaced(copy_of_image, LABEL),
        place=PLACE,
        remedy="Name the file of the label",
    ),
    Mistake(
        name="a class for a label of voxels",
        plant=listed(lambda lists: lists["training"][0].update(label=1)),
        place=PLACE,
        remedy="Name the file of the label",
    ),
    Mistake(
        name="one label for two images",
        plant=listed(lambda lists: lists["training"][0].update(label="case_2_label.nii.gz")),
        place="dataset.json: training[1].label",
        remedy="Name a label for each image",
        code=0,
    ),
    Mistake(
        name="an image that is in both lists",
        plant=listed(lambda lists: lists["validation"].append(lists["training"][0])),
        place="dataset.json: validation[1]",
        remedy="says nothing about new images",
        code=0,
    ),
    Mistake(
        name="another name of the list",
        plant=listed(lambda lists: lists.update(train=lists.pop("training"))),
        place="dataset.json: holds no list 'training'",
        remedy="Did you mean 'train'",
    ),
    Mistake(
        name="no case to validate",
        plant=listed(lambda lists: lists.update(validation=[])),
        place="dataset.json: validation",
        remedy="disable the ValidationHandler",
    ),
    Mistake(
        name="an image without values",
        plant=written("image", np.full((SIDE,) * 3, np.nan, np.float32)),
        place="case_1_image.nii.gz are infinite or not a number",
        remedy="Replace them, or leave the case out",
    ),
    Mistake(
        name="half an image",
        plant=replaced(cut, IMAGE),
        place="dataset.json: training[0].image",
        remedy="copy it anew",
    ),
    Mistake(
        name="classes from 1",
        plant=listed(
            lambda lists: [item.update(label=item["label"] + 1) for item in lists["training"]],
            "pictures",
        ),
        place="dataset.json: training[1].label",
        remedy="Classes count from 0",
    ),
    Mistake(
        name="a class in quotes",
        plant=listed(lambda lists: lists["training"][0].update(label="0"), "pictures"),
        place=PLACE,
        remedy="Write 0 without quotes",
    ),
    Mistake(
        name="one picture in colours",
        plant=replaced(coloured, PICTURE),
        place="dataset.json: training[0].image",
        remedy="Set in_channels to 4",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


@pytest.mark.parametrize("mmar", ["masks", "pictures"])
def test_no_false_alarm(mmar: str, workspace: Workspace, run: Run) -> None:
    workspace.edit(lambda lists: lists.update(name="of our own"), f"{mmar}/data/dataset.json")

    assert_quiet(run(*workspace.train(mmar=mmar)), MISTAKES)
