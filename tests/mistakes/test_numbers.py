"""Numbers and texts in documents: of another type, out of range, or in another unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.mistakes.planting import Mistake, Run, Workspace, assert_quiet

BOTH = ["image", "label"]


def given(*values: str) -> Callable[[Workspace], list[str]]:
    return lambda workspace: workspace.train(*values)


def argument(section: str, entry: str, **args: Any) -> Callable[[Workspace], list[str]]:
    """Give an entry other arguments."""

    def plant(workspace: Workspace) -> list[str]:
        workspace.edit(lambda conf: conf[section][entry]["args"].update(args))
        return workspace.train()

    return plant


def transform(name: str, keys: object = BOTH, **args: Any) -> Callable[[Workspace], list[str]]:
    """Put a transform before the crop."""
    spec = {"name": name, "args": {"keys": keys, **args}}

    def plant(workspace: Workspace) -> list[str]:
        workspace.edit(lambda conf: conf["train"]["pre_transforms"].insert(3, spec))
        return workspace.train()

    return plant


def crop(**args: Any) -> Callable[[Workspace], list[str]]:
    def plant(workspace: Workspace) -> list[str]:
        workspace.edit(lambda conf: conf["train"]["pre_transforms"][3]["args"].update(args))
        return workspace.train()

    return plant


ADDED = "train.pre_transforms[3]"

MISTAKES = (
    Mistake(
        name="a decimal comma",
        plant=given("learning_rate=1,5e-3"),
        place="train.optimizer.args.lr",
        remedy="Allowed: a number from 0",
    ),
    Mistake(
        name="epochs that are true",
        plant=given("epochs=true"),
        place="train.trainer.args.max_epochs",
        remedy="Write a whole number",
    ),
    Mistake(
        name="a learning rate of nothing",
        plant=given("learning_rate=0"),
        place="train.optimizer.args.lr",
        remedy="no weight changes",
        code=0,
    ),
    Mistake(
        name="a number in quotes",
        plant=argument("train", "dataloader", batch_size="2"),
        place="train.dataloader.args.batch_size",
        remedy="without quotes",
    ),
    Mistake(
        name="an overlap in percent",
        plant=argument("validate", "inferer", overlap=25),
        place="validate.inferer.args.overlap",
        remedy="Allowed: a number from 0 to 0.95",
    ),
    Mistake(
        name="a schedule without a step",
        plant=argument("train", "lr_scheduler", step_size=0),
        place="train.lr_scheduler.args.step_size",
        remedy="1 is the least",
    ),
    Mistake(
        name="a probability in percent",
        plant=transform("RandFlipd", prob=50, spatial_axis=0),
        place=f"{ADDED}.args.prob",
        remedy="Allowed: a number from 0 to 1",
    ),
    Mistake(
        name="an axis that images do not have",
        plant=transform("RandFlipd", prob=1, spatial_axis=3),
        place=f"config_train.json: {ADDED}: RandFlipd",
        remedy="both count from 0",
    ),
    Mistake(
        name="a window of intensities upside down",
        plant=transform("ScaleIntensityRanged", "image", a_min=300, a_max=-100, b_min=0, b_max=1),
        place=f"{ADDED}.args.a_min",
        remedy="Let a_max be above a_min",
    ),
    Mistake(
        name="percentiles as fractions",
        plant=transform(
            "ScaleIntensityRangePercentilesd", "image", lower=0.01, upper=0.99, b_min=0, b_max=1
        ),
        place=f"{ADDED}.args.upper",
        remedy="Write 99",
    ),
    Mistake(
        name="degrees for radians",
        plant=transform("RandRotated", prob=1, range_x=15, mode=["bilinear", "nearest"]),
        place=f"{ADDED}.args.range_x",
        remedy="15 degrees are 0.2618",
        code=0,
    ),
    Mistake(
        name="an orientation with two ends of one axis",
        plant=transform("Orientationd", axcodes="RLS"),
        place=f"{ADDED}.args.axcodes",
        remedy="one of L and R",
    ),
    Mistake(
        name="a crop of two axes",
        plant=crop(spatial_size=[8, 8]),
        place=f"config_train.json: {ADDED}",
        remedy="one number for each axis",
    ),
    Mistake(
        name="a crop larger than the images",
        plant=crop(spatial_size=[32, 32, 32]),
        place=f"{ADDED}.args.spatial_size",
        remedy="crop less",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


@pytest.mark.parametrize(
    "plant",
    [
        transform("RandZoomd", prob=1, min_zoom=1, max_zoom=1, mode=["trilinear", "nearest"]),
        transform(
            "ScaleIntensityRangePercentilesd", "image", lower=0.5, upper=99.5, b_min=0, b_max=1
        ),
        transform("RandRotated", prob=1, range_x=3.14, mode=["bilinear", "nearest"]),
        transform("Orientationd", axcodes="PLI"),
    ],
    ids=["zoom", "percentiles", "half a turn", "axes"],
)
def test_no_false_alarm(
    plant: Callable[[Workspace], list[str]], workspace: Workspace, run: Run
) -> None:
    assert_quiet(run(*plant(workspace)), MISTAKES)
