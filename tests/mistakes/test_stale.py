"""No success of nothing, and none of something stale: weights, caches and results of before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from fl_admin.cli.main import main
from tests.mistakes.planting import TRAIN, VALIDATION, Mistake, Run, Workspace, assert_quiet

Plant = Callable[[Workspace], list[str]]


def trained(change: Callable[[Workspace], object], then: Plant) -> Plant:
    """Train well, change something, and run a second command."""

    def plant(workspace: Workspace) -> list[str]:
        assert main(workspace.train()) == 0
        change(workspace)
        return then(workspace)

    return plant


def changed(change: Callable[[Any], object]) -> Plant:
    """Plant a change of the training's document."""

    def plant(workspace: Workspace) -> list[str]:
        workspace.edit(change)
        return workspace.train()

    return plant


def resumed(workspace: Workspace) -> list[str]:
    return [*workspace.train("epochs=2"), "--resume"]


def evaluated(workspace: Workspace) -> list[str]:
    return workspace.evaluate()


def tuned(workspace: Workspace) -> list[str]:
    return workspace.train("dont_load_ckpt_model=False")


def spoilt(change: Callable[[Any], Any]) -> Plant:
    """Evaluate weights whose file has another content."""

    def rewrite(workspace: Workspace) -> None:
        import torch

        file = workspace.masks / "models/model.pt"
        torch.save(change(torch.load(file, weights_only=True)), file)

    return trained(rewrite, evaluated)


def not_a_number(content: Any) -> Any:
    content["model"]["model.0.conv.bias"] *= float("nan")
    return content


def larger_network(workspace: Workspace) -> None:
    workspace.edit(lambda conf: conf["train"]["model"]["args"].update(channels=[8, 16]))


def fewer_cases(workspace: Workspace) -> None:
    workspace.edit(lambda lists: lists["training"].pop(), "masks/data/dataset.json")


def cases_of_one_name(workspace: Workspace) -> list[str]:
    """Evaluate two cases in folders of their own, and save the predictions without folders."""
    data = workspace.masks / "data"
    for folder in ("a", "b"):
        (data / folder).mkdir()
        for kind in ("image", "label"):
            shutil.copy(data / f"case_3_{kind}.nii.gz", data / folder / f"{kind}.nii.gz")
    cases = [{kind: f"{folder}/{kind}.nii.gz" for kind in ("image", "label")} for folder in "ab"]
    workspace.edit(lambda lists: lists.update(validation=cases), "masks/data/dataset.json")
    args = {"keys": "pred", "output_dir": "{MMAR_EVAL_OUTPUT_PATH}", "separate_folder": False}
    saver = {"name": "SaveImaged", "args": args}
    document = f"masks/config/{VALIDATION}"
    workspace.edit(lambda conf: conf["post_transforms"].append(saver), document)
    return workspace.evaluate()


def without(handler: str, *sections: str) -> Callable[[Any], object]:
    def change(conf: Any) -> None:
        for name in sections:
            handlers = conf[name]["handlers"]
            handlers[:] = [each for each in handlers if each["name"] != handler]

    return change


def another_network_across_sites(workspace: Workspace) -> list[str]:
    document = "masks/config/config_cross_validation.json"
    workspace.edit(lambda conf: conf["model"]["args"].update(channels=[8, 16]), document)
    return workspace.simulate("--data", workspace.sites())


def otherwise_prepared(workspace: Workspace) -> None:
    document = f"masks/config/{VALIDATION}"
    workspace.edit(lambda conf: conf["pre_transforms"][2]["args"].update(minv=-1), document)


def emptied(workspace: Workspace) -> None:
    (workspace.masks / "models/model.pt").write_bytes(b"")


MISTAKES = (
    Mistake(
        name="nothing writes the weights",
        plant=changed(without("CheckpointSaver", "train", "validate")),
        place="train.handlers",
        remedy="Add a CheckpointSaver",
        code=0,
    ),
    Mistake(
        name="files of weights without weights",
        plant=changed(
            lambda conf: conf["validate"]["handlers"][1]["args"].update(
                save_dict={"train_conf": "@conf"}
            )
        ),
        place="validate.handlers[1].args.save_dict",
        remedy='Add "model": "@model"',
    ),
    Mistake(
        name="a validation after the end",
        plant=lambda workspace: workspace.train("num_interval_per_valid=5"),
        place="train.handlers[2].args.interval",
        remedy="Set the interval, 5, to 1 or less",
        code=0,
    ),
    Mistake(
        name="no batch is full",
        plant=changed(
            lambda conf: conf["train"]["dataloader"]["args"].update(batch_size=4, drop_last=True)
        ),
        place="train.dataloader",
        remedy="Set a smaller batch_size",
    ),
    Mistake(
        name="an evaluation before any training",
        plant=evaluated,
        place="masks/models/model.pt",
        remedy="Train first",
    ),
    Mistake(
        name="an empty file of weights",
        plant=trained(emptied, evaluated),
        place="masks/models/model.pt' is empty",
        remedy="Copy the file again",
    ),
    Mistake(
        name="weights that are not a number",
        plant=spoilt(not_a_number),
        place="model.0.conv.bias is not a number",
        remedy="take an earlier file",
    ),
    Mistake(
        name="weights by another framework's name",
        plant=spoilt(lambda content: {"state_dict": content["model"]}),
        place="masks/models/model.pt' holds no weights",
        remedy="Save the weights under 'model'",
    ),
    Mistake(
        name="weights of another network",
        plant=trained(larger_network, tuned),
        place="masks/models/model.pt' do not fit the network",
        remedy="Give the network the arguments that it had then",
    ),
    Mistake(
        name="a training resumed with another list",
        plant=trained(fewer_cases, resumed),
        place="different: data.train.training",
        remedy="start anew without --resume",
    ),
    Mistake(
        name="images prepared otherwise than for the weights",
        plant=trained(otherwise_prepared, evaluated),
        place=f"{VALIDATION}: pre_transforms[2]",
        remedy="Write equal transforms",
        code=0,
    ),
    Mistake(
        name="two predictions in one file",
        plant=trained(lambda workspace: None, cases_of_one_name),
        place=f"{VALIDATION}: post_transforms[2]",
        remedy='Write "data_root_dir"',
    ),
    Mistake(
        name="another network across sites",
        plant=another_network_across_sites,
        place=f"({TRAIN}: train.model)",
        remedy="Copy 'model' of the train section here",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


def test_no_false_alarm(workspace: Workspace, run: Run) -> None:
    assert_quiet(run(*workspace.train()), MISTAKES)
    assert_quiet(run(*resumed(workspace)), MISTAKES)
    assert_quiet(run(*tuned(workspace)), MISTAKES)
    assert_quiet(run(*evaluated(workspace)), MISTAKES)
