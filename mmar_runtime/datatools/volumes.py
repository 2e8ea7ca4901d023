"""An image or label on disk: its grid from the header, and facts about its voxels."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from mmar_runtime.errors import DataError

Voxels: TypeAlias = NDArray[np.float32]
"""A volume's values, axes ``(i, j, k)`` of the file, and a further one for channels or time."""

Triple: TypeAlias = tuple[float, float, float]

PICTURE_FORMATS = ("PNG", "JPEG", "BMP")
"""Pillow's names; others start programs of their own."""

VOLUME_ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".img")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
"""Files that are opened; of others, such as ``.npy``, only their existence is known."""

GZIP = b"\x1f\x8b"
HEADER_BYTES = 348
"""Of a NIfTI file; the last four are its kind."""

BLOCK = 2**20
LENGTH_BYTES = 4
"""At the end of a gzip file: the length of its content."""

CONTENTS: Mapping[bytes, str] = {
    b"version https://git-lfs": "It is a pointer of Git LFS: 'git lfs pull' fetches the image.",
    b"<": "It is a web page, such as a download leaves that has failed: fetch it anew.",
}
"""How a file begins that is something else -> what to do."""

TOLERANCE = 1e-3
"""The most that equal spacings and elements of two affine matrices may differ."""

MM = "mm"
UNITS: Mapping[str, tuple[str, float]] = {"meter": ("m", 1000.0), "micron": ("µm", 0.001)}
"""NIfTI's names of units -> our own name, and how many mm that is. Without a unit it is mm."""

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
        spacing: distance of neighbouring voxels along these axes, in ``unit``.
        affine: 4 x 4, voxel index to position in ``unit``, right, anterior and superior positive.
        unit: of the header's lengths: mm, m or µm; empty for a picture, which has no lengths.
        positioned: whether the header says where the volume lies; if not, ``affine`` is a guess.
    """

    shape: tuple[int, int, int]
    spacing: Triple
    affine: NDArray[np.float64]
    unit: str = MM
    positioned: bool = True

    @property
    def spacing_mm(self) -> Triple:
        """The spacing in mm, whatever the header's unit is."""
        x, y, z = (length * mm_of(self.unit) for length in self.spacing)
        return (x, y, z)

    @property
    def corners(self) -> NDArray[np.float64]:
        """Two opposite outer corners of the volume, as positions."""
        ends = np.array([[-0.5, -0.5, -0.5, 1.0], [*(np.array(self.shape) - 0.5), 1.0]])
        corners: NDArray[np.float64] = (ends @ self.affine.T)[:, :3]
        return corners


def content_advice(path: Path) -> str:
    """Return what a file is that cannot be opened as an image, and what to do; empty if unknown."""
    with path.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
    for begins, advice in CONTENTS.items():
        if head.lower().startswith(begins):
            return advice
    compressed, named_so = head.startswith(GZIP), path.name.endswith((".gz", ".mgz"))
    if compressed and not named_so:
        return "It is compressed: its name has to end with .nii.gz."
    if named_so and head[-4:-1] == b"n+1":
        return "It is not compressed: its name has to end with .nii."
    return "It may be cut off: copy it anew." if head else "It is empty: copy it anew."


def mm_of(unit: str) -> float:
    """Return how many mm a header's unit is."""
    return dict(UNITS.values()).get(unit, 1.0)


DifferenceKind: TypeAlias = Literal["shape", "spacing", "axes", "origin", "no-position"]


@dataclass(frozen=True, slots=True)
class GridDifference:
    """How a grid differs from another one.

    Attributes:
        kinds: the properties that differ.
        text: the same in words.
    """

    kinds: frozenset[DifferenceKind]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRange:
    """The least and the greatest finite value of an image."""

    minimum: float
    maximum: float


class Volume:
    """A volume on disk; its voxels are read when they are asked for.

    Attributes:
        grid: where the voxels lie.
        channels: values per voxel, those of a fourth axis of the file.
    """

    def __init__(self, image: Any) -> None:
        self._image = image
        x, y, z = (*image.shape[:SPATIAL_AXES], 1, 1)[:SPATIAL_AXES]
        affine = np.asarray(image.affine, dtype=np.float64)
        dx, dy, dz = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist()
        header = image.header
        named = header.get_xyzt_units()[0] if hasattr(header, "get_xyzt_units") else MM
        codes = [int(header[key]) for key in ("sform_code", "qform_code") if key in header]
        self.channels = int(np.prod(image.shape[SPATIAL_AXES:]))
        self.grid = Grid(
            shape=(int(x), int(y), int(z)),
            spacing=(dx, dy, dz),
            affine=affine,
            unit=UNITS.get(named, (MM, 1.0))[0],
            positioned=not codes or any(codes),
        )

    @property
    def axes(self) -> int:
        """How many axes the file has."""
        return len(self._image.shape)

    def stored(self) -> NDArray[Any]:
        """Return all values in the type in which the file has them, for a label.

        Raises:
            DataError: the file is cut off or damaged.
        """
        try:
            return np.asanyarray(self._image.dataobj)
        except READ_ERRORS as error:
            raise DataError(f"its voxels cannot be read: {_first_line(error)}") from error

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


class Picture:
    """A picture on disk, such as a PNG; in MONAI its axes are width and height.

    Attributes:
        grid: its size; a picture has no position and no unit.
        channels: values per pixel: 1 for grey, 3 for RGB.
    """

    axes = 2

    def __init__(self, path: Path) -> None:
        from PIL import Image  # takes a moment, and most data sets have no picture

        self._path = path
        try:
            with Image.open(path, formats=PICTURE_FORMATS) as picture:
                self.channels = len(picture.getbands())
                size = (picture.width, picture.height, 1)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"cannot be opened as an image: {_first_line(error)}") from error
        self.grid = Grid(shape=size, spacing=(1.0, 1.0, 1.0), affine=np.eye(4), unit="")

    def stored(self) -> NDArray[Any]:
        """Return all values, axes ``(height, width)`` and channels where there are several.

        Raises:
            DataError: the file is cut off or damaged.
        """
        from PIL import Image

        try:
            with Image.open(self._path, formats=PICTURE_FORMATS) as picture:
                return np.asarray(picture)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"its pixels cannot be read: {_first_line(error)}") from error

    def voxels(self) -> Voxels:
        """Return all values as the 32-bit numbers that MONAI trains on.

        Raises:
            DataError: the file is cut off or damaged.
        """
        return self.stored().astype(np.float32)


def open_image(path: Path) -> Volume | Picture | None:
    """Read the header of an image; None for a format that is not opened here.

    Raises:
        DataError: it is not an image, or its header makes no sense.
    """
    if is_volume(path):
        return open_volume(path)
    return Picture(path) if path.name.lower().endswith(PICTURE_ENDINGS) else None


def is_volume(path: Path) -> bool:
    """Return whether ``open_volume`` opens a file of this name.

    >>> is_volume(Path("ct.nii.gz")), is_volume(Path("photo.png"))
    (True, False)
    """
    return path.name.lower().endswith(VOLUME_ENDINGS)


def _is_cut_off(path: Path, image: Any) -> bool:
    """Return whether a NIfTI file ends before its voxels do, or is not what was compressed.

    A compressed file says at its end how long it is; only one that says otherwise is read.
    """
    voxels, name = image.dataobj, path.name.lower()
    needed: int = voxels.offset + voxels.dtype.itemsize * math.prod(image.shape)
    if name.endswith(".nii"):
        return path.stat().st_size < needed
    if not name.endswith(".nii.gz"):
        return False
    with path.open("rb") as stream:
        stream.seek(-LENGTH_BYTES, os.SEEK_END)
        said = int.from_bytes(stream.read(), "little")
    if said == needed % 2 ** (8 * LENGTH_BYTES):
        return False
    try:
        with gzip.open(path) as stream:
            stream.seek(needed - 1)
            if not stream.read(1):
                return True
            while stream.read(BLOCK):  # at its end gzip compares the checksum
                pass
            return False
    except READ_ERRORS:
        return True


def open_volume(path: Path) -> Volume:
    """Read a volume's header.

    Raises:
        DataError: it is not an image, or its header makes no sense.
    """
    try:
        image: Any = nibabel.load(path)
        if not image.shape or min(image.shape) < 1:
            raise DataError(f"holds no voxels: its shape is {image.shape}")
        if _is_cut_off(path, image):
            raise DataError(
                "cannot be read to its end: it is damaged, or shorter than its header says"
            )
        volume = Volume(image)
    except READ_ERRORS as error:
        raise DataError(f"cannot be opened as an image: {_first_line(error)}") from error
    if not all(np.isfinite(length) and length > 0 for length in volume.grid.spacing):
        raise DataError(
            f"has a spacing of {by(volume.grid.spacing)} {volume.grid.unit}, which has to be "
            "positive; "
            "write the header anew from the original scan"
        )
    return volume


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def grid_difference(grid: Grid, other: Grid) -> GridDifference | None:
    """Return how ``grid`` differs from ``other``; None if they agree."""
    found = dict(_differences(grid, other))
    return GridDifference(frozenset(found), "; ".join(found.values())) if found else None


def _differences(grid: Grid, other: Grid) -> Iterator[tuple[DifferenceKind, str]]:
    """Yield each property that differs.

    Numbers are compared as the headers have them: MONAI takes no notice of a header's unit.
    """
    unit = grid.unit
    if grid.shape != other.shape:
        yield "shape", f"shape {by(grid.shape)} voxels, not {by(other.shape)}"
    if "" in (unit, other.unit):  # a picture has no place
        return
    if other.positioned and not grid.positioned:
        yield (
            "no-position",
            "no position, sform_code and qform_code of its header are 0, and the image has one",
        )
        return
    if not _close(grid.spacing, other.spacing):
        yield "spacing", f"spacing {by(grid.spacing)} {unit}, not {by(other.spacing)}"
    elif not _close(grid.affine[:3, :3], other.affine[:3, :3]):
        axes, expected = (
            "".join(map(str, nibabel.aff2axcodes(side.affine))) for side in (grid, other)
        )
        turned = number(np.abs(grid.affine[:3, :3] - other.affine[:3, :3]).max())
        if axes != expected:
            yield "axes", f"axes {axes}, not {expected}"
        else:
            yield "axes", f"axes turned, by up to {turned} {unit} a voxel"
    if not _close(grid.affine[:3, 3], other.affine[:3, 3]):
        first, wanted = (side.affine[:3, 3].tolist() for side in (grid, other))
        yield "origin", f"first voxel at ({_row(first)}) {unit}, not ({_row(wanted)})"


def covers_the_same(grid: Grid, other: Grid) -> bool:
    """Return whether two grids fill the same space, up to a voxel: one is a resampled other."""
    voxel = max(*grid.spacing, *other.spacing)
    return bool(np.allclose(grid.corners, other.corners, rtol=0.0, atol=voxel))


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


def label_counts(values: NDArray[Any]) -> dict[float, int]:
    """Return how many voxels have each value, by ascending value.

    >>> label_counts(np.array([[0, 2], [2, 2]], dtype=np.float32))
    {0: 1, 2: 3}
    >>> label_counts(np.array([0.5, 1.0]))
    {0.5: 1, 1: 1}

    Raises:
        DataError: there are too many different values for a label.
    """
    total: Counter[float] = Counter()
    for plane in planes(values):
        total.update(_plane_counts(plane))
        if len(total) > MAX_LABEL_VALUES:
            raise DataError(f"holds more than {MAX_LABEL_VALUES} different values; is it an image?")
    return {value: total[value] for value in sorted(total)}


def _plane_counts(plane: NDArray[Any]) -> dict[float, int]:
    if plane.dtype.kind in "ui" and plane.dtype.itemsize == 1:
        counts = np.bincount(plane.ravel().view(np.uint8), minlength=256)
        present = np.flatnonzero(counts)
        values = present.astype(np.uint8).view(plane.dtype)
        return dict(zip(values.tolist(), counts[present].tolist(), strict=True))
    values, numbers = np.unique(plane, return_counts=True)
    pairs = zip(values.tolist(), numbers.tolist(), strict=True)
    return {_as_key(value): count for value, count in pairs}


def _as_key(value: float) -> float:
    """Return a whole number as an int, and one object for all that are not a number."""
    if math.isnan(value):
        return math.nan
    return int(value) if float(value).is_integer() else value


def digest(voxels: Voxels) -> str:
    """Return a fingerprint of shape and values; packing and file name do not count."""
    hashed = hashlib.sha256(repr(voxels.shape).encode())
    for plane in planes(voxels):
        hashed.update(np.ascontiguousarray(plane).tobytes())
    return hashed.hexdigest()


def planes(voxels: NDArray[Any]) -> Iterator[NDArray[Any]]:
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
