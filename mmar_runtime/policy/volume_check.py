"""Whether every volume is large enough for the crop that the config asks for, from headers alone.

MONAI notices a crop that is too large in the first iteration, after minutes of caching. Only what
is certain is reported: a size is followed through transforms that keep or shrink a volume or
resample it; the check stops at any other transform.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmar_runtime.config.data_list import lists_of_cases
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec, Node, plain
from mmar_runtime.config.sections import Section, WorkflowConfig
from mmar_runtime.errors import Problem
from mmar_runtime.policy.files.image_header import read_header

NIFTI = (".nii", ".nii.gz")
SPATIAL_AXES = 3

KEEPS_OR_SHRINKS = frozenset(
    {
        "AsDiscreted", "CastToTyped", "CropForegroundd", "EnsureChannelFirstd", "EnsureTyped",
        "LoadImaged", "NormalizeIntensityd", "RandAdjustContrastd", "RandFlipd",
        "RandGaussianNoised", "RandScaleIntensityd", "RandShiftIntensityd", "ScaleIntensityd",
        "ScaleIntensityRanged", "ThresholdIntensityd", "ToTensord",
    }
)  # fmt: skip
CROPS = frozenset({"RandCropByPosNegLabeld", "RandCropByLabelClassesd", "RandWeightedCropd"})
"""Those that raise where a volume is smaller than ``spatial_size``."""


def volume_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield the loader's check that no crop is larger than a volume it is taken from."""
    for section, cases in lists_of_cases(config):
        for index, item in enumerate(cases.items):
            yield from _too_large(section, item.get("image"), cases.location / index)


def _too_large(section: Section, image: Any, place: Location) -> Iterator[Problem]:
    if not isinstance(image, str) or not image.endswith(NIFTI):
        return
    header = read_header(Path(image))
    if header is None or len(header.size) < SPATIAL_AXES:
        return
    size, spacing = header.size[:SPATIAL_AXES], header.spacing[:SPATIAL_AXES]
    volume = _Volume(place, size, spacing, list(size))
    for spec in section.specs("pre_transforms"):
        name = spec.name or ""
        if name in CROPS:
            yield from volume.crop_problem(spec)
            return
        if name == "Spacingd":
            volume.resample(spec)
        elif name == "Orientationd":
            volume.reoriented = True
        elif name not in KEEPS_OR_SHRINKS:
            return
        if not volume.largest:
            return


@dataclass(slots=True)
class _Volume:
    """A volume on its way through the transforms.

    Attributes:
        largest: the largest size that it may have by now; empty if that is unknown.
        reoriented: whether axes may have changed places, so that only sorted sizes are known.
    """

    place: Location
    size: Sequence[int]
    spacing: Sequence[float]
    largest: list[float]
    reoriented: bool = False

    def resample(self, spec: ComponentSpec) -> None:
        pixdim = _numbers(spec.args.items.get("pixdim"))
        if len(pixdim) not in (1, SPATIAL_AXES) or not all(length > 0 for length in pixdim):
            self.largest = []
            return
        if self.reoriented:
            pixdim = [min(pixdim)]
        pixdim = pixdim * SPATIAL_AXES if len(pixdim) == 1 else pixdim
        self.largest = [
            math.ceil(count * old / new) + 1
            for count, old, new in zip(self.largest, self.spacing, pixdim, strict=True)
        ]

    def crop_problem(self, spec: ComponentSpec) -> Iterator[Problem]:
        crop = _numbers(spec.args.items.get("spatial_size"))
        if len(crop) == 1:
            crop = crop * SPATIAL_AXES
        allowed = spec.args.items.get("allow_smaller")
        if len(crop) != SPATIAL_AXES or (allowed is not None and plain(allowed) is True):
            return
        known = sorted if self.reoriented else list
        limits = zip(known(crop), known(self.largest), strict=True)
        if all(length <= limit for length, limit in limits):
            return
        resampled = list(self.size) != self.largest
        bound = f", at most {_shape(self.largest)} when it is cropped" if resampled else ""
        yield Problem(
            spec.location / "args" / "spatial_size",
            f"asks for {_shape(crop)} voxels, but {self.place} has {_shape(self.size)}{bound}",
            "Resample with Spacingd, add SpatialPadd before the crop, or crop less.",
            "crop",
        )


def _shape(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.0f}" for length in lengths)


def _numbers(node: Node | None) -> list[float]:
    """Return the numbers of a literal or a list; none for all other nodes."""
    value: Any = None if node is None else plain(node)
    values: list[Any] = value if isinstance(value, list) else [value]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return []
    return [float(value) for value in values]
