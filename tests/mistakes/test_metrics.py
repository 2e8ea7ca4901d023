"""Metrics and classes: numbers that would be of something else than they seem to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.mistakes.planting import Mistake, Run, Workspace, assert_quiet

PAIR = "#monai.handlers.from_engine(['pred', 'label'])"


def trained(
    change: Callable[[Any], object], mmar: str = "masks"
) -> Callable[[Workspace], list[str]]:
    """Plant a change of the training's document."""

    def plant(workspace: Workspace) -> list[str]:
        workspace.edit(change, f"{mmar}/config/config_train.json")
        return workspace.train(mmar=mmar)

    return plant


def compared(*keys: str) -> Callable[[Workspace], list[str]]:
    """Let the key metric compare other entries."""
    output = f"#monai.handlers.from_engine({list(keys)})"
    return trained(lambda conf: key_metric(conf)["args"].update(output_transform=output))


def key_metric(conf: Any) -> Any:
    return conf["validate"]["key_metric"]


def added(name: str, mmar: str = "masks", **args: Any) -> Callable[[Workspace], list[str]]:
    """Add a metric to those of the validation."""
    spec = {"name": name, "log_label": "val_more", "args": {"output_transform": PAIR, **args}}
    return trained(lambda conf: conf["validate"]["additional_metrics"].append(spec), mmar)


def discrete(**args: Any) -> Callable[[Workspace], list[str]]:
    """Change how predictions and labels become classes."""
    return trained(lambda conf: conf["train"]["post_transforms"][1]["args"].update(args))


def loss(name: str, **args: Any) -> Callable[[Workspace], list[str]]:
    return trained(lambda conf: conf["train"].update(loss={"name": name, "args": args}))


ENTRIES = "validate.key_metric.args.output_transform"
ADDED = "validate.additional_metrics[1]"

MISTAKES = (
    Mistake(
        name="a label compared with itself is perfect",
        plant=compared("label", "label"),
        place=ENTRIES,
        remedy="Write from_engine(['pred', 'label'])",
    ),
    Mistake(
        name="a mask compared with the image",
        plant=compared("pred", "image"),
        place=ENTRIES,
        remedy="Write from_engine(['pred', 'label'])",
    ),
    Mistake(
        name="the metric gets all that the engine has",
        plant=trained(lambda conf: key_metric(conf)["args"].pop("output_transform")),
        place="config_train.json: validate",
        remedy="write output_transform",
    ),
    Mistake(
        name="argmax of the label is background everywhere",
        plant=discrete(argmax=True),
        place="train.post_transforms[1].args.argmax",
        remedy="Write [true, false]",
    ),
    Mistake(
        name="one-hot for the label alone",
        plant=discrete(to_onehot=[None, 2]),
        place="config_train.json: validate",
        remedy="write to_onehot of AsDiscreted for both",
    ),
    Mistake(
        name="a quantile for a percentile",
        plant=added("HausdorffDistance", percentile=0.95),
        place=f"{ADDED}.args.percentile",
        remedy="Write 95",
    ),
    Mistake(
        name="an unknown rate",
        plant=added("ConfusionMatrix", metric_name="sensitvity"),
        place=f"{ADDED}.args.metric_name",
        remedy="Did you mean 'sensitivity'",
    ),
    Mistake(
        name="an area under the curve of voxels",
        plant=added("ROCAUC"),
        place=f"{ADDED}.args.output_transform",
        remedy="For masks use MeanDice",
    ),
    Mistake(
        name="an area under the curve of decided classes",
        plant=trained(
            lambda conf: key_metric(conf)["args"].update(
                output_transform=PAIR.replace("pred", "pred_class")
            ),
            "pictures",
        ),
        place=ENTRIES,
        remedy="as it is after softmax or sigmoid",
    ),
    Mistake(
        name="masks of pictures that have one class each",
        plant=added("MeanDice", "pictures"),
        place="config_train.json: validate",
        remedy="for one class per case use Accuracy or ROCAUC",
    ),
    Mistake(
        name="a loss of fractions for what the network leaves",
        plant=loss("DiceLoss", to_onehot_y=True),
        place="train.loss",
        remedy='Write "softmax": true',
    ),
    Mistake(
        name="cross entropy of a label with a channel",
        plant=loss("CrossEntropyLoss"),
        place="config_train.json: train",
        remedy="takes a label without a channel",
    ),
    Mistake(
        name="a loss that repeats the label over the outputs",
        plant=loss("MSELoss"),
        place="config_train.json: train",
        remedy="with the channels of the label",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_told(mistake: Mistake, workspace: Workspace, run: Run) -> None:
    mistake.assert_told(workspace, run)


@pytest.mark.parametrize("mmar", ["masks", "pictures"])
def test_no_false_alarm(mmar: str, workspace: Workspace, run: Run) -> None:
    assert_quiet(run(*workspace.train(mmar=mmar)), MISTAKES)
