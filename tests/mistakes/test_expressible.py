"""Wishes that the grammar knows, written wrongly: several images, early stops, weights, lists."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.mistakes.planting import Mistake, Run, Workspace, assert_quiet
from tests.mistakes.test_fit import trained

LIST = "masks/data/dataset.json"
CSV_HEAD = "list,image,label\n"
CSV_ROWS = (
    "training,case_1_image.nii.gz,case_1_label.nii.gz\n"
    "validation,case_3_image.nii.gz,case_3_label.nii.gz\n"
)
BY_CSV = "DATASET_JSON=data/dataset.csv"


def _items(lists: Any) -> list[Any]:
    return [*lists["training"], *lists["validation"]]


def with_two_images(workspace: Workspace, *, joined: bool = True) -> None:
    """Give each case t1 and t2 in place of an image, and let the network take both."""

    def name_both(lists: Any) -> None:
        for item in _items(lists):
            item["t1"] = item["t2"] = item.pop("image")

    def read_both(conf: Any) -> None:
        pre = conf["train"]["pre_transforms"]
        for spec in pre[:2]:
            spec["args"]["keys"] = ["t1", "t2", "label"]
        pre[2]["args"]["keys"] = ["t1", "t2"]
        if joined:
            joining = {"name": "ConcatItemsd", "args": {"keys": ["t1", "t2"], "name": "image"}}
            pre.insert(3, joining)
            conf["validate"]["pre_transforms"].insert(3, {"ref": "ConcatItemsd"})
        conf["train"]["model"]["args"]["in_channels"] = 2

    workspace.edit(name_both, LIST)
    workspace.edit(read_both)
    workspace.edit(
        lambda environment: environment.update(DATA_ROOT=str(workspace.masks / "data")),
        "masks/config/environment.json",
    )


def _not_joined(workspace: Workspace) -> list[str]:
    with_two_images(workspace, joined=False)
    return workspace.train()


def _one_of_two(workspace: Workspace) -> list[str]:
    with_two_images(workspace)
    workspace.edit(lambda lists: lists["training"][1].pop("t2"), LIST)
    return workspace.train()


def _channels_as_files(workspace: Workspace) -> list[str]:
    """Keep each channel in a file of its own, as nnU-Net does, and name neither."""
    for image in (workspace.masks / "data").glob("*_image.nii.gz"):
        for channel in ("0000", "0001"):
            shutil.copy(image, image.with_name(image.name.replace(".nii", f"_{channel}.nii")))
        image.unlink()
    return workspace.train()


def stops_by(metric: str, *, section: str = "validate") -> Callable[[Any], None]:
    """Let a training end when a metric gets no better."""
    score = f"lambda engine: engine.state.metrics['{metric}']"
    handler = {"name": "EarlyStopHandler", "args": {"patience": 1, "score_function": score}}
    return lambda conf: conf[section]["handlers"].append(handler)


def by_csv(text: str) -> Callable[[Workspace], list[str]]:
    """Write the list as a table, and train."""

    def plant(workspace: Workspace) -> list[str]:
        (workspace.masks / "data/dataset.csv").write_text(text, encoding="utf-8")
        return workspace.train(BY_CSV)

    return plant


def _word_without_number(workspace: Workspace) -> list[str]:
    def change(lists: Any) -> None:
        for item in _items(lists):
            item["label"] = ("left", "right")[item["label"]]

    workspace.edit(change, "pictures/data/dataset.json")
    return workspace.train(mmar="pictures")


MISTAKES = (
    Mistake(
        name="two images that nothing joins",
        plant=_not_joined,
        place="config_train.json: train.pre_transforms[3].args.keys",
        remedy="Allowed: 'label', 't1', 't2'",
    ),
    Mistake(
        name="second image missing in one case",
        plant=_one_of_two,
        place="dataset.json: training[1]",
        remedy="Name the file in the list",
    ),
    Mistake(
        name="channels in files that the list does not name",
        plant=_channels_as_files,
        place="dataset.json: training[0].image",
        remedy="name them all in an array",
    ),
    Mistake(
        name="early stop by a metric of another section",
        plant=trained(stops_by("val_mean_dice", section="train")),
        place="config_train.json: train.handlers",
        remedy="no metric of this section is called 'val_mean_dice'",
    ),
    Mistake(
        name="early stop by a metric misspelled",
        plant=trained(stops_by("val_meandice")),
        place="config_train.json: validate.handlers[2].args.score_function",
        remedy="Did you mean 'val_mean_dice'?",
    ),
    Mistake(
        name="weights of three classes for two outputs",
        plant=trained(lambda conf: conf["train"]["loss"]["args"].update(weight=[1.0, 2.0, 3.0])),
        place="config_train.json: train.loss.args.weight",
        remedy="Write 2, one for each class",
    ),
    Mistake(
        name="weights as a text",
        plant=trained(lambda conf: conf["train"]["loss"]["args"].update(weight="1,2")),
        place="config_train.json: train.loss.args.weight",
        remedy="Allowed: a number",
    ),
    Mistake(
        name="no step for accumulated gradients",
        plant=trained(lambda conf: conf["train"]["trainer"]["args"].update(accumulation_steps=0)),
        place="config_train.json: train.trainer.args.accumulation_steps",
        remedy="1 is the least",
    ),
    Mistake(
        name="validation that is asked for and not there",
        plant=trained(lambda conf: conf.pop("validate")),
        place="config_train.json: train.handlers[2].args.validator",
        remedy="@evaluator",
    ),
    Mistake(
        name="table without the column of lists",
        plant=by_csv(CSV_HEAD.replace("list", "split") + CSV_ROWS),
        place="dataset.csv: holds no list 'training'",
        remedy="A column 'list' says which list a row belongs to",
    ),
    Mistake(
        name="table with a cell too many",
        plant=by_csv(CSV_HEAD + CSV_ROWS.replace("\n", ",\n", 1)),
        place="dataset.csv: line 2",
        remedy="has 4 cells and not 3",
    ),
    Mistake(
        name="words as labels that nothing numbers",
        plant=_word_without_number,
        place="dataset.json: training[0].label",
        remedy="number it in 'labels' of the list",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


@pytest.mark.filterwarnings("ignore:'.*_delta' is deprecated")  # MONAI's handler names them so
def test_no_false_alarm(workspace: Workspace, run: Run) -> None:
    workspace.edit(stops_by("val_mean_dice"))
    workspace.edit(lambda conf: conf["train"]["loss"]["args"].update(weight=[1.0, 2.0]))
    assert_quiet(run(*by_csv(CSV_HEAD + CSV_ROWS)(workspace)), MISTAKES)

    with_two_images(workspace)
    assert_quiet(run(*workspace.train()), MISTAKES)
