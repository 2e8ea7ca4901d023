"""What a configuration expects of images and labels: classes, channels, sizes.

Only what is certain is said. A transform that is not known here may change a label's values or an
image's size, and then nothing is expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmar_runtime.config.consistency import has_own_engine
from mmar_runtime.config.fit import NOISE
from mmar_runtime.config.grids import (
    CUTTING,
    INTERPOLATING,
    LOADER,
    MOVING,
    argument_of,
    texts_of,
    title_of,
    transforms_of,
)
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec
from mmar_runtime.config.predictions import OUTPUT_ARGUMENTS
from mmar_runtime.config.sections import Section, WorkflowConfig

IMAGE, LABEL = "image", "label"
PRE, POST = "pre_transforms", "post_transforms"

SCALING = frozenset(
    {
        "AdjustContrastd", "MaskIntensityd", "RandCoarseDropoutd", "ScaleIntensityd",
        "ScaleIntensityRangePercentilesd", "ScaleIntensityRanged", "ShiftIntensityd",
        "ThresholdIntensityd",
    }
)  # fmt: skip
"""Further transforms that change values and leave size, position and channels."""

STORAGE = (
    *("CastToTyped", "EnsureTyped", "FromMetaTensord", "ToDeviced", "ToNumpyd", "ToTensord"),
    *("ToMetaTensord", "SelectItemsd", "DeleteItemsd", "Identityd", "SimulateDelayd"),
)
LOADING = (LOADER, "EnsureChannelFirstd")
MIRRORING = ("Flipd", "RandFlipd", "RandAxisFlipd")
"""Transforms that put voxels in another order in a volume of the same size."""

BY_POSITION = frozenset({"Orientationd", "Spacingd", "ResampleToMatchd", "SpatialResampled"})
"""Transforms whose result depends on the position in the header."""

RESAMPLING = frozenset({"Spacingd", "Resized", "ResampleToMatchd", "SpatialResampled"})

PLACING = CUTTING | MOVING | INTERPOLATING.keys()
"""Transforms that move voxels, and leave the values of a label as its interpolation does."""

KEEPS_LABELS = PLACING | {*STORAGE, *LOADING}
KEEPS_CHANNELS = KEEPS_LABELS | NOISE | SCALING
KEEPS_SIZES = frozenset({*STORAGE, *LOADING, *MIRRORING, *NOISE, *SCALING})

ONE_HOT_LOSSES = frozenset(
    {
        "AsymmetricUnifiedFocalLoss", "DiceCELoss", "DiceFocalLoss", "DiceLoss", "FocalLoss",
        "GeneralizedDiceFocalLoss", "GeneralizedDiceLoss", "HausdorffDTLoss", "LogHausdorffDTLoss",
        "TverskyLoss", "UnifiedFocalLoss",
    }
)  # fmt: skip
"""Losses that make a channel of each class of a label, where ``to_onehot_y`` is true."""

BINARY_LOSSES = ONE_HOT_LOSSES | {"BCEWithLogitsLoss", "BCELoss"}
IGNORED_CLASS = -100
"""The class that PyTorch's cross entropy leaves out, unless ``ignore_index`` says another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBound:
    """The classes that a place in a configuration has room for.

    Attributes:
        classes: how many, counted from 0.
        place: the argument that says so.
        ignored: a value besides them that counts for nothing; None for none.
        one_channel: whether a label needs to have a single channel.
        fractions: whether values between 0 and 1 may be meant.
        index: whether a label that is a value has to be a whole number, and neither a list nor 1.0.
    """

    classes: int
    place: Location
    ignored: int | None = None
    one_channel: bool = True
    fractions: bool = False
    index: bool = False

    def refused(self, value: float) -> bool:
        """Return whether a label must not hold a value."""
        if self.fractions and 0 <= value <= 1:
            return False
        whole = float(value).is_integer()
        return not (whole and (0 <= value < self.classes or value == self.ignored))


def label_bounds(config: WorkflowConfig, section: Section) -> tuple[LabelBound, ...]:
    """Return the bounds of a section's label values, as its data list has them."""
    if has_own_engine(section) or not _label_stays(section):
        return ()
    return (*_loss_bounds(config, section), *_post_bounds(section))


def _loss_bounds(config: WorkflowConfig, section: Section) -> Iterator[LabelBound]:
    outputs = network_number(config, OUTPUT_ARGUMENTS)
    for loss in section.specs("loss"):
        if outputs is None or loss.path is not None:
            return
        count, place = outputs
        one_hot = argument(loss, "to_onehot_y") is True
        if loss.name == "CrossEntropyLoss" and count > 1:
            ignored = argument(loss, "ignore_index")
            ignored = ignored if isinstance(ignored, int) else IGNORED_CLASS
            cast = any(
                "dtype" in spec.args.items
                for spec in transforms_of(section, PRE)
                if _touches(spec, LABEL)
            )
            yield LabelBound(
                classes=count, place=place, ignored=ignored, one_channel=False, index=not cast
            )
        elif count == 1 and loss.name in BINARY_LOSSES:
            yield LabelBound(classes=2, place=place, fractions=not one_hot)
        elif loss.name in ONE_HOT_LOSSES and one_hot:
            yield LabelBound(classes=count, place=place)


def _post_bounds(section: Section) -> Iterator[LabelBound]:
    for spec in transforms_of(section, POST):
        if title_of(spec) != "AsDiscreted" or LABEL not in texts_of(spec, "keys"):
            continue
        classes = argument_of(spec, LABEL, "to_onehot")
        if type(classes) is int and classes > 0:
            place = spec.args.location / "to_onehot"
            yield LabelBound(classes=classes, place=place)


def _label_stays(section: Section) -> bool:
    """Return whether no transform before the network changes the values of a label."""
    touching = (spec for spec in transforms_of(section, PRE) if _touches(spec, LABEL))
    return {title_of(spec) for spec in touching} <= KEEPS_LABELS


def needs_labels(section: Section) -> bool:
    """Return whether a section compares predictions with labels."""
    return bool(section.specs("loss") or section.specs("key_metric"))


def channel_bound(
    config: WorkflowConfig, section: Section
) -> tuple[int, Location, int | None] | None:
    """Return how many channels an image needs, what says so, and the axes of the network.

    None where a transform that is not known here comes between file and network.
    """
    wanted, axes = (
        network_number(config, ("in_channels",)),
        network_number(config, ("spatial_dims",)),
    )
    if wanted is None or has_own_engine(section):
        return None
    touching = [spec for spec in transforms_of(section, PRE) if _touches(spec, IMAGE)]
    titles = {title_of(spec) for spec in touching}
    firsts = [spec for spec in touching if title_of(spec) == "EnsureChannelFirstd"]
    if not firsts or not titles <= KEEPS_CHANNELS or firsts[0].args.items.keys() - {"keys"}:
        return None
    return (*wanted, None if axes is None else axes[0])


def batch_of_whole_images(section: Section) -> tuple[int, Location] | None:
    """Return the batch size and its place if images reach a batch in the sizes of their files.

    None as well where the batches hold one image each, or a function of the MMAR's own joins them.
    """
    loaders = section.specs("dataloader")
    if not loaders or loaders[0].path is not None or "collate_fn" in loaders[0].args.items:
        return None
    size = argument(loaders[0], "batch_size")
    names = {title_of(spec) for spec in transforms_of(section, PRE)}
    if type(size) is not int or size < 2 or not names <= KEEPS_SIZES:
        return None
    return size, loaders[0].args.location / "batch_size"


def goes_by_position(section: Section) -> bool:
    """Return whether a transform may use the position in the headers of image and label."""
    titles = {title_of(spec) for spec in transforms_of(section, PRE)}
    return bool(titles & BY_POSITION) or "" in titles


def resamples(section: Section) -> bool:
    """Return whether image and label may be brought to a common grid."""
    titles = {title_of(spec) for spec in transforms_of(section, PRE) if _touches(spec, LABEL)}
    return bool(titles & RESAMPLING) or "" in titles


def network_number(config: WorkflowConfig, names: Sequence[str]) -> tuple[int, Location] | None:
    """Return a whole number among the arguments of the network, and its place."""
    for section in config.scopes.values():
        for spec in section.specs("model"):
            for name in names:
                value = argument(spec, name)
                if type(value) is int:
                    return value, spec.args.location / name
    return None


def argument(spec: ComponentSpec, name: str) -> Any:
    """Return an argument as it is written; None if it is left out."""
    return argument_of(spec, "", name)


def _touches(spec: ComponentSpec, key: str) -> bool:
    """Return whether a transform changes an entry, or may do so as code of the MMAR's own."""
    return not title_of(spec) or key in texts_of(spec, "keys")
