"""Documents of another time: Clara Train 3.x and 4.x, MONAI's earlier names, and its bundles."""

from __future__ import annotations

from typing import Any

import pytest

from tests.mistakes.planting import VALIDATION, Mistake, Run, Workspace, assert_quiet
from tests.mistakes.test_fit import args, trained


def _renamed(conf: Any, old: str, new: str) -> None:
    """Give an argument of the network its former name."""
    network = conf["train"]["model"]["args"]
    network[old] = network.pop(new)


def _bundle(conf: Any) -> None:
    network = conf["train"]["model"]
    conf["train"]["model"] = {"_target_": network["name"], **network["args"]}


def _loaded_by(conf: Any, title: str) -> None:
    conf["train"]["pre_transforms"][0]["name"] = title


def _as_3(conf: Any) -> None:
    conf["train"]["image_pipeline"] = {"name": "SegmentationImagePipeline", "args": {}}


def _evaluation_for_training(workspace: Workspace) -> list[str]:
    return [*workspace.train(), "-c", f"config/{VALIDATION}"]


def _training_for_evaluation(workspace: Workspace) -> list[str]:
    return [*workspace.evaluate(), "-c", "config/config_train.json"]


MISTAKES = (
    Mistake(
        name="document of 3.x",
        plant=trained(_as_3),
        place="config_train.json: train.image_pipeline",
        remedy="Write the document anew",
    ),
    Mistake(
        name="MONAI bundle",
        plant=trained(_bundle),
        place="config_train.json: train.model",
        remedy="write 'name', and the rest into 'args'",
    ),
    Mistake(
        name="loader that MONAI has removed",
        plant=trained(lambda conf: _loaded_by(conf, "LoadNumpyd")),
        place="config_train.json: train.pre_transforms[0].name",
        remedy="Use LoadImaged",
    ),
    Mistake(
        name="metric of an early MONAI",
        plant=trained(lambda conf: conf["validate"]["key_metric"].update(name="ComputeMeanDice")),
        place="config_train.json: validate.key_metric.name",
        remedy="Use the metric MeanDice",
    ),
    Mistake(
        name="argument that was never there",
        plant=trained(lambda conf: _renamed(conf, "spatial_dim", "spatial_dims")),
        place="config_train.json: train.model.args.spatial_dim",
        remedy="Did you mean 'spatial_dims'?",
    ),
    Mistake(
        name="argument renamed",
        plant=trained(lambda conf: _renamed(conf, "dimensions", "spatial_dims")),
        place="config_train.json: train.model",
        remedy="the argument 'dimensions' is now 'spatial_dims'",
        code=0,
    ),
    Mistake(
        name="weights of a loss that weigh more today",
        plant=trained(
            lambda conf: conf["train"].update(
                loss={
                    "name": "DiceCELoss",
                    "args": {"to_onehot_y": True, "softmax": True, "ce_weight": [1.0, 2.0]},
                }
            )
        ),
        place="config_train.json: train.loss.args.ce_weight",
        remedy="it weighs the Dice part as well now",
        code=0,
    ),
    Mistake(
        name="one-hot as a truth value",
        plant=trained(lambda conf: args(conf["train"], "AsDiscreted").update(to_onehot=True)),
        place="config_train.json: train.post_transforms[1]",
        remedy="use `to_onehot=num_classes`",
    ),
    Mistake(
        name="evaluation document for a training",
        plant=_evaluation_for_training,
        place="config_validation.json: evaluator",
        remedy="Use 'mmar evaluate' for it",
    ),
    Mistake(
        name="training document for an evaluation",
        plant=_training_for_evaluation,
        place="config_train.json: train",
        remedy="Use 'mmar train' for it",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


def test_no_false_alarm(workspace: Workspace, run: Run) -> None:
    assert_quiet(run(*workspace.train()), MISTAKES)


@pytest.mark.filterwarnings("ignore:inverse has been called")  # no step here moves a voxel
@pytest.mark.parametrize("postfix", [None, "inv"])
def test_an_inverter_with_any_postfix_is_translated(
    workspace: Workspace, run: Run, postfix: str | None
) -> None:
    inverter = {"transform": "@pre_transforms", "loader": "@dataloader", "output_keys": "pred"}
    key = f"pred_{postfix or 'inverted'}"
    saver = {"output_dir": "{MMAR_EVAL_OUTPUT_PATH}", "output_transform": f"lambda x: x['{key}']"}

    def change(conf: Any) -> None:
        conf["handlers"] += [
            {
                "name": "TransformInverter",
                "args": inverter if postfix is None else {**inverter, "postfix": postfix},
            },
            {"name": "SegmentationSaver", "args": saver},
        ]

    run(*workspace.train())
    workspace.edit(change, f"masks/config/{VALIDATION}")

    ended = run(*workspace.evaluate())

    assert ended.code == 0, ended.text
    assert len(list((workspace.masks / "eval").rglob("*_seg.nii.gz"))) == 1
