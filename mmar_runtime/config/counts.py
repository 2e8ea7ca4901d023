"""Numbers of a network that other parts have to fit: its axes, its outputs, the sides it halves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mmar_runtime.config.consistency import has_own_engine
from mmar_runtime.config.fit import Finding
from mmar_runtime.config.grids import transforms_of
from mmar_runtime.config.nodes import ComponentSpec, plain
from mmar_runtime.config.sections import Section, TrainConfig, WorkflowConfig

VOLUME_AXES = 3
PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")

WEIGHED = ("CrossEntropyLoss", "DiceCELoss", "DiceLoss", "FocalLoss")
WITH_BACKGROUND = ("CrossEntropyLoss", "DiceCELoss")
"""The losses with a weight for each class, and those that always want the background's too."""


def findings(
    config: WorkflowConfig, training: TrainConfig | None, outputs: int | None
) -> Iterator[Finding]:
    """Yield windows and weights that do not fit the network.

    Args:
        config: a workflow.
        training: the training of the same MMAR, whose network an evaluation may load.
        outputs: how many the network has; None if nobody knows.
    """
    source = config if training is None else training
    for network in (spec for scope in source.scopes.values() for spec in scope.specs("model")):
        for section in config.scopes.values() if network.path is None else ():
            yield from _windows(section, network)
            yield from _pictures(section, network)
    if isinstance(config, TrainConfig):
        yield from _several_outputs(config.train)
        if outputs is not None and outputs > 1:
            yield from _weights(config.train, outputs)


def _windows(section: Section, network: ComponentSpec) -> Iterator[Finding]:
    """Yield a sliding window of other axes than the network's, or of sides that it cannot halve."""
    axes, divisor = _argument(network, "spatial_dims"), _divisor(network)
    for inferer in section.specs("inferer"):
        roi = _argument(inferer, "roi_size")
        if inferer.title != "SlidingWindowInferer" or not isinstance(roi, list):
            continue
        place = inferer.args.location / "roi_size"
        if type(axes) is int and len(roi) not in (1, axes):
            message = f"has {len(roi)} axes, and {network.title} has {axes} ({network.location})"
            yield Finding(
                rule="window", place=place, message=message, advice="Write a length for each axis."
            )
        elif any(type(side) is int and side > 0 and side % divisor for side in roi):
            message = f"is {roi}, and {network.title} halves each side ({network.location.place})"
            advice = f"Write lengths that {divisor} divides."
            yield Finding(rule="window", place=place, message=message, advice=advice)


def _pictures(section: Section, network: ComponentSpec) -> Iterator[Finding]:
    """Yield a saver that writes one slice of a volume as a picture."""
    for spec in transforms_of(section, "post_transforms"):
        ending = _argument(spec, "output_ext")
        if ending in PICTURES and _argument(network, "spatial_dims") == VOLUME_AXES:
            yield Finding(
                rule="picture",
                place=spec.args.location / "output_ext",
                message=f"{ending} holds one slice, and {network.title} predicts volumes "
                f"({network.location})",
                advice="Write .nii.gz.",
            )


def _divisor(network: ComponentSpec) -> int:
    """Return by what the sides of an image have to be divisible; 1 if nothing is known."""
    strides = _argument(network, "strides")
    known = network.title == "UNet" and isinstance(strides, list)
    return math.prod(s for s in strides if type(s) is int) if known else 1


def _several_outputs(train: Section) -> Iterator[Finding]:
    """Yield a network that stacks outputs while it learns, beside a loss that takes one."""
    takes_several = any(
        loss.path is not None or loss.name == "DeepSupervisionLoss" for loss in train.specs("loss")
    )
    for network in train.specs("model") if not takes_several and not has_own_engine(train) else ():
        if network.title.lower() == "dynunet" and _argument(network, "deep_supervision") is True:
            yield Finding(
                rule="outputs",
                place=network.args.location / "deep_supervision",
                message="DynUNet stacks several outputs while it learns, and the loss takes one",
                advice="Write false; or give that loss an entry of its own, such as 'inner', and "
                'write {"name": "DeepSupervisionLoss", "args": {"loss": "@inner"}} for the loss.',
            )


def _weights(train: Section, outputs: int) -> Iterator[Finding]:
    """Yield a loss with another number of weights than the network has outputs."""
    for loss in train.specs("loss"):
        weights = _argument(loss, "weight")
        if loss.path is not None or loss.title not in WEIGHED or not isinstance(weights, list):
            continue
        without = loss.title not in WITH_BACKGROUND and not _argument(
            loss, "include_background", True
        )
        if len(weights) != (wanted := outputs - without):
            yield Finding(
                rule="weights",
                place=loss.args.location / "weight",
                message=f"has {len(weights)} weights, and the network has {outputs} outputs",
                advice=f"Write {wanted}, one for each class"
                + (" but the background." if without else "."),
            )


def _argument(spec: ComponentSpec, name: str, default: Any = None) -> Any:
    node = spec.args.items.get(name)
    return default if node is None else plain(node)
