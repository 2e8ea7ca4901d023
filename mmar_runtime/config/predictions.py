"""What a prediction is after each post transform: how many channels, and of which meaning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mmar_runtime.config.grids import (
    COPIER,
    INVERTER,
    argument_of,
    texts_of,
    title_of,
    transforms_of,
)
from mmar_runtime.config.nodes import ComponentSpec, WeightsFile
from mmar_runtime.config.nodes import Literal as LiteralNode
from mmar_runtime.config.sections import EvaluationConfig, Section, TrainConfig, WorkflowConfig

OUTPUT_ARGUMENTS = ("out_channels", "num_classes", "out_chns")
"""Arguments by which networks take the number of their outputs."""

ACTIVATION, DISCRETE = "Activationsd", "AsDiscreted"

Meaning = Literal["raw", "sigmoid", "softmax", "classes", "one-hot", "mask", "unknown"]
"""``classes`` are the numbers of the classes in one channel; ``mask`` is 0 or 1 in each channel."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """An entry of a case on its way through the post transforms.

    Attributes:
        outputs: how many outputs the network has; None if the config does not say so.
        channels: how many channels the entry has; None if that is unknown.
        meaning: of a channel's values.
        by: the transform that gave it this meaning.
        inverted_by: the transform that last brought it back to the grid of the file.
    """

    outputs: int | None
    channels: int | None
    meaning: Meaning
    by: ComponentSpec | None = None
    inverted_by: ComponentSpec | None = None


def outputs_of(config: WorkflowConfig, training: TrainConfig | None) -> int | None:
    """Return how many outputs the network of a config has; None if it does not say so.

    Args:
        config: a workflow.
        training: the training of the same MMAR, which knows the network of a file of weights.
    """
    if isinstance(config, TrainConfig):
        specs = config.train.specs("model")
    elif isinstance(config, EvaluationConfig) and not _has_own_network(config):
        specs = () if training is None else training.train.specs("model")
    else:
        specs = tuple(spec for scope in config.scopes.values() for spec in scope.specs("model"))
    for spec in specs[:1]:
        for name in OUTPUT_ARGUMENTS:
            node = spec.args.items.get(name)
            if isinstance(node, LiteralNode) and type(node.value) is int:
                return node.value
    return None


def _has_own_network(config: EvaluationConfig) -> bool:
    return not isinstance(config.section.entries.get("model"), WeightsFile)


def predictions_of(section: Section, outputs: int | None) -> dict[str, list[Prediction]]:
    """Return the stages of the prediction and of its copies, by key, the last stage last."""
    stages = {"pred": [Prediction(outputs, outputs, "raw")]}
    for spec in transforms_of(section, "post_transforms"):
        title, keys = title_of(spec), texts_of(spec, "keys")
        if title == COPIER:
            for key, name in zip(keys, texts_of(spec, "names"), strict=False):
                if key in stages:
                    stages[name] = [stages[key][-1]]
        for key in keys:
            if key in stages and (stage := _after(stages[key][-1], spec, key)) is not None:
                stages[key].append(stage)
    return stages


def _after(before: Prediction, spec: ComponentSpec, key: str) -> Prediction | None:
    """Return the stage that a transform makes; None if it changes nothing of it."""
    title = title_of(spec)
    if not title:
        return replace(before, channels=None, meaning="unknown", by=spec)
    if title == ACTIVATION:
        for name in ("softmax", "sigmoid"):
            if argument_of(spec, key, name) is True:
                meaning: Meaning = "softmax" if name == "softmax" else "sigmoid"
                return replace(before, meaning=meaning, by=spec)
        return None
    if title == INVERTER:
        return replace(before, inverted_by=spec)
    return _discrete(before, spec, key) if title == DISCRETE else None


def _discrete(before: Prediction, spec: ComponentSpec, key: str) -> Prediction | None:
    stage = before
    if argument_of(spec, key, "argmax") is True:
        stage = replace(stage, channels=1, meaning="classes", by=spec)
    classes = argument_of(spec, key, "to_onehot")
    if type(classes) is int:
        stage = replace(stage, channels=classes, meaning="one-hot", by=spec)
    threshold = argument_of(spec, key, "threshold")
    if isinstance(threshold, int | float) and not isinstance(threshold, bool):
        stage = replace(stage, meaning="mask", by=spec)
    return None if stage is before else stage
