"""An image or label on disk: its grid from the header, and facts about its voxels."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from mmar_runtime.errors import DataError

Voxels: TypeAlias = NDArray[np.float32]
"""A volume's values, axes ``(i, j, k)`` of the file, and a further one for channels or time."""

Triple: TypeAlias = tuple[float, float, float]

VOLUME_ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img")
"""Files that are opened; of others, such as ``.png``, only their existence is known."""

TOLERANCE = 1e-3
"""The most that equal spacings (mm) and elements of two affine matrices may differ."""

SPATIAL_AXES = 3
MAX_LABEL_VALUES = 4096
"""A label with more different values is an image; FreeSurfer's finest has a few hundred."""

READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    MemoryError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
)
"""The errors of nibabel for a file that is damaged or not an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where the voxels of a volume lie.

    Attributes:
        shape: voxels along the three axes of the file; 1 for an axis that is not there.
        spacing_mm: distance of neighbouring voxels along these axes.
        affine: 4 x 4, voxel index to position in mm, right, anterior and superior positive.
    """

    shape: tuple[int, int, int]
    spacing_mm: Triple
    affine: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRange:
    """The least and the greatest finite value of an image."""

    minimum: float
    maximum: float


class Volume:
    """An opened file: the header has been read, the voxels have not."""

    def __init__(self, image: Any) -> None:
        self._image = image
        x, y, z = (*image.shape[:SPATIAL_AXES], 1, 1)[:SPATIAL_AXES]
        affine = np.asarray(image.affine, dtype=np.float64)
        dx, dy, dz = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist()
        self.grid = Grid(shape=(int(x), int(y), int(z)), spacing_mm=(dx, dy, dz), affine=affine)

    def voxels(self) -> Voxels:
        """Return all values, as the 32-bit numbers that MONAI trains on.

        Raises:
            DataError: the file is cut off or damaged.
        """
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                values: Voxels = self._image.get_fdata(dtype=np.float32, caching="unchanged")
        except READ_ERRORS as error:
            raise DataError(f"its voxels cannot be read: {_first_line(error)}") from error
        return values


def is_volume(path: Path) -> bool:
    """Return whether ``open_volume`` opens a file of this name.

    >>> is_volume(Path("ct.nii.gz")), is_volume(Path("photo.png"))
    (True, False)
    """
    return path.name.lower().endswith(VOLUME_ENDINGS)


def open_volume(path: Path) -> Volume:
    """Read a volume's header.

    Raises:
        DataError: it is not an image, or its header makes no sense.
    """
    try:
        image: Any = nibabel.load(path)
        if not image.shape or min(image.shape) < 1:
            raise DataError(f"holds no voxels: its shape is {image.shape}")
        volume = Volume(image)
    except READ_ERRORS as error:
        raise DataError(f"cannot be opened as an image: {_first_line(error)}") from error
    if not all(np.isfinite(length) and length > 0 for length in volume.grid.spacing_mm):
        raise DataError(
            f"has a spacing of {by(volume.grid.spacing_mm)} mm, which has to be positive; "
            "write the header anew from the original scan"
        )
    return volume


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def grid_difference(grid: Grid, other: Grid) -> str:
    """Return in words how ``grid`` differs from ``other``; empty if they agree."""
    parts = []
    if grid.shape != other.shape:
        parts.append(f"shape {by(grid.shape)} voxels, not {by(other.shape)}")
    if not _close(grid.spacing_mm, other.spacing_mm):
        parts.append(f"spacing {by(grid.spacing_mm)} mm, not {by(other.spacing_mm)}")
    elif not _close(grid.affine[:3, :3], other.affine[:3, :3]):
        axes, expected = (
            "".join(map(str, nibabel.aff2axcodes(side.affine))) for side in (grid, other)
        )
        turned = number(np.abs(grid.affine[:3, :3] - other.affine[:3, :3]).max())
        if axes != expected:
            parts.append(f"axes {axes}, not {expected}")
        else:
            parts.append(f"axes turned, by up to {turned} mm a voxel")
    if not _close(grid.affine[:3, 3], other.affine[:3, 3]):
        first, wanted = (side.affine[:3, 3].tolist() for side in (grid, other))
        parts.append(f"first voxel at ({_row(first)}) mm, not ({_row(wanted)})")
    return "; ".join(parts)


def _close(given: Any, expected: Any) -> bool:
    return bool(np.allclose(given, expected, rtol=0.0, atol=TOLERANCE))


def value_range(voxels: Voxels) -> tuple[ValueRange | None, int]:
    """Return the range of the finite values, None without any, and how many others there are."""
    low, high, unfit = np.inf, -np.inf, 0
    for plane in planes(voxels):
        finite = plane[np.isfinite(plane)]
        unfit += plane.size - finite.size
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (ValueRange(minimum=low, maximum=high) if low <= high else None), unfit


def label_counts(voxels: Voxels) -> dict[int, int]:
    """Return how many voxels have each value, by ascending value.

    >>> label_counts(np.array([[0, 2], [2, 2]], dtype=np.float32))
    {0: 1, 2: 3}

    Raises:
        DataError: a value is not an integer, or there are too many different ones.
    """
    total: Counter[float] = Counter()
    for plane in planes(voxels):
        values, counts = np.unique(plane, return_counts=True)
        fractions = [value for value in values.tolist() if not value.is_integer()]
        if fractions:
            shown = ", ".join(f"{value:g}" for value in fractions[:3])
            raise DataError(f"holds values that are not integers, such as {shown}")
        total.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if len(total) > MAX_LABEL_VALUES:
            raise DataError(f"holds more than {MAX_LABEL_VALUES} different values; is it an image?")
    return {int(value): total[value] for value in sorted(total)}


def digest(voxels: Voxels) -> str:
    """Return a fingerprint of shape and values; packing and file name do not count."""
    hashed = hashlib.sha256(repr(voxels.shape).encode())
    for plane in planes(voxels):
        hashed.update(np.ascontiguousarray(plane).tobytes())
    return hashed.hexdigest()


def planes(voxels: Voxels) -> Iterator[Voxels]:
    """Yield the volume in planes along its last axis, so that no step copies the whole."""
    yield from np.moveaxis(voxels, -1, 0)


def by(lengths: Any) -> str:
    """Return the lengths along the axes, for a person.

    >>> by((0.785156, 0.785156, 7.5))
    '0.7852 x 0.7852 x 7.5'
    """
    return " x ".join(number(length) for length in lengths)


def _row(values: Any) -> str:
    return ", ".join(number(value) for value in values)


def number(value: float) -> str:
    """Return a number with at most four decimals, which shows any difference beyond the tolerance.

    >>> number(5.0), number(1.00114)
    ('5', '1.0011')
    """
    return f"{value:.4f}".rstrip("0").rstrip(".")
