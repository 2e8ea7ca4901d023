"""Parts that are each right and do not fit one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.mistakes.planting import VALIDATION, Mistake, Run, Workspace, assert_quiet

Change = Callable[[Any], object]


def trained(change: Change) -> Callable[[Workspace], list[str]]:
    """Spoil the training, and run it."""

    def plant(workspace: Workspace) -> list[str]:
        workspace.edit(change)
        return workspace.train()

    return plant


def args(section: Any, title: str) -> Any:
    """Return the arguments of a transform."""
    transforms = [*section["pre_transforms"], *section["post_transforms"]]
    return next(spec["args"] for spec in transforms if spec.get("name") == title)


def _evaluated(change: Change) -> Callable[[Workspace], list[str]]:
    """Spoil the evaluation of the model, and run it; no model is asked for before."""

    def plant(workspace: Workspace) -> list[str]:
        workspace.edit(change, f"masks/config/{VALIDATION}")
        return [*workspace.evaluate(), "-c", f"config/{VALIDATION}"]

    return plant


INVERT = {
    "name": "Invertd",
    "args": {"keys": "pred", "transform": "@pre_transforms", "orig_keys": "img"},
}
VOLUME_AS_PICTURE = {
    "name": "SaveImaged",
    "args": {"keys": "pred", "output_dir": "{MMAR_EVAL_OUTPUT_PATH}", "output_ext": ".png"},
}
EARLY_SAVER = {
    "name": "SaveImaged",
    "args": {"keys": "pred", "output_dir": "{MMAR_EVAL_OUTPUT_PATH}"},
}

MISTAKES = (
    Mistake(
        name="key of a transform misspelled",
        plant=trained(lambda conf: args(conf["train"], "ScaleIntensityd").update(keys="img")),
        place="config_train.json: train.pre_transforms[2].args.keys",
        remedy="Did you mean 'image'?",
    ),
    Mistake(
        name="key of a post transform misspelled",
        plant=trained(lambda conf: args(conf["train"], "Activationsd").update(keys="preds")),
        place="config_train.json: train.post_transforms[0].args.keys",
        remedy="Did you mean 'pred'?",
    ),
    Mistake(
        name="label of a crop that no case has",
        plant=trained(
            lambda conf: args(conf["train"], "RandCropByPosNegLabeld").update(label_key="labels")
        ),
        place="config_train.json: train.pre_transforms[3].args.label_key",
        remedy="Did you mean 'label'?",
    ),
    Mistake(
        name="inversion by an entry that does not exist",
        plant=_evaluated(lambda conf: conf["post_transforms"].insert(1, INVERT)),
        place="config_validation.json: post_transforms[1].args.orig_keys",
        remedy="Did you mean 'image'?",
    ),
    Mistake(
        name="label in a window of intensities",
        plant=trained(
            lambda conf: conf["train"]["pre_transforms"].insert(
                2,
                {
                    "name": "ScaleIntensityRanged",
                    "args": {
                        **{"keys": ["image", "label"], "a_min": -57, "a_max": 164},
                        **{"b_min": 0.0, "b_max": 1.0, "clip": True},
                    },
                },
            )
        ),
        place="config_train.json: train.pre_transforms[2]",
        remedy="Take 'label' out of its keys",
    ),
    Mistake(
        name="validation without post transforms",
        plant=trained(lambda conf: conf["validate"].update(post_transforms=[])),
        place="config_train.json: validate.key_metric",
        remedy="Put AsDiscreted with argmax and to_onehot into",
    ),
    Mistake(
        name="window of two axes for a network of three",
        plant=trained(
            lambda conf: conf["validate"].update(
                inferer={
                    "name": "SlidingWindowInferer",
                    "args": {"roi_size": [8, 8], "sw_batch_size": 1},
                }
            )
        ),
        place="config_train.json: validate.inferer.args.roi_size",
        remedy="Write a length for each axis",
    ),
    Mistake(
        name="window that the network cannot halve",
        plant=trained(
            lambda conf: conf["validate"].update(
                inferer={
                    "name": "SlidingWindowInferer",
                    "args": {"roi_size": [9, 9, 9], "sw_batch_size": 1},
                }
            )
        ),
        place="config_train.json: validate.inferer.args.roi_size",
        remedy="Write lengths that 2 divides",
    ),
    Mistake(
        name="scheduler that no handler steps",
        plant=trained(lambda conf: conf["train"]["handlers"].pop(1)),
        place="train.lr_scheduler",
        remedy='Write "@lr_scheduler" where it belongs',
        code=0,
    ),
    Mistake(
        name="metric of the image",
        plant=trained(
            lambda conf: conf["validate"]["key_metric"]["args"].update(
                output_transform="#monai.handlers.from_engine(['image', 'label'])"
            )
        ),
        place="config_train.json: validate.key_metric.args.output_transform",
        remedy="Write from_engine(['pred', 'label'])",
    ),
    Mistake(
        name="volumes saved as pictures",
        plant=_evaluated(lambda conf: conf["post_transforms"].append(VOLUME_AS_PICTURE)),
        place="config_validation.json: post_transforms[2].args.output_ext",
        remedy="Write .nii.gz",
    ),
    Mistake(
        name="one network, several outputs",
        plant=trained(
            lambda conf: conf["train"]["model"].update(
                name="DynUNet",
                args={
                    **{
                        "spatial_dims": 3,
                        "in_channels": 1,
                        "out_channels": 2,
                        "filters": [4, 8, 8],
                    },
                    **{"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "deep_supervision": True},
                    "upsample_kernel_size": [2, 2],
                },
            )
        ),
        place="config_train.json: train.model.args.deep_supervision",
        remedy="Write false",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


def test_no_false_alarm(workspace: Workspace, run: Run) -> None:
    assert_quiet(run(*workspace.train()), MISTAKES)
    assert_quiet(run(*workspace.evaluate()), MISTAKES)


def test_a_saver_before_the_classes_are_decided(workspace: Workspace, run: Run) -> None:
    run(*workspace.train())
    workspace.edit(
        lambda conf: conf["post_transforms"].insert(0, EARLY_SAVER), f"masks/config/{VALIDATION}"
    )

    ended = run(*workspace.evaluate())

    assert ended.code == 0
    assert "post_transforms[0]" in ended.text
    assert "Put SaveImaged last" in ended.text
