"""The grid of a MetaImage or NRRD file, from the lines of text with which it begins.

Its voxels are read by packages that need not be there; its grid can be compared without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmar_runtime.datatools.volumes import SPATIAL_AXES, Grid

HEADER_BYTES = 16 * 1024
META, NRRD = (".mha", ".mhd"), (".nrrd", ".nhdr")
FIELD = re.compile(r"^([A-Za-z][\w ]*?)\s*(?:=|:=?)\s*(.*?)\s*$")
VECTOR = re.compile(r"none|\(([^)]*)\)")

SPACES: Mapping[str, tuple[int, int, int]] = {
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
}
"""NRRD's names of a space -> the signs that make it right, anterior and superior positive."""


@dataclass(frozen=True, slots=True)
class TextHeader:
    """What such a header says.

    Attributes:
        grid: where the voxels lie.
        channels: values per voxel.
        axes: how many axes of space the file has.
    """

    grid: Grid
    channels: int
    axes: int


def read_text_header(path: Path) -> TextHeader | None:
    """Return the header of a file; None for another format, or one that is not understood."""
    name = path.name.lower()
    if not name.endswith((*META, *NRRD)) or not path.is_file():
        return None
    with path.open("rb") as stream:
        text = stream.read(HEADER_BYTES).decode("latin-1")
    found = (FIELD.match(line) for line in text.splitlines())
    fields = {match[1].lower(): match[2] for match in found if match is not None}
    try:
        return _meta(fields) if name.endswith(META) else _nrrd(fields)
    except (KeyError, ValueError):
        return None  # the run's own reader reports the fault


def _meta(fields: Mapping[str, str]) -> TextHeader:
    """Return a MetaImage's header; its directions stand row by row, in ITK's space."""
    shape = _numbers(fields["dimsize"])
    axes = len(shape)
    spacing = _numbers(fields.get("elementspacing", "1 " * axes))
    origins = (fields.get(name) for name in ("offset", "position", "origin"))
    turns = (fields.get(name) for name in ("transformmatrix", "rotation", "orientation"))
    origin, turn = (next(filter(None, values), None) for values in (origins, turns))
    rows = np.eye(axes) if turn is None else _numbers(turn).reshape(axes, axes)
    return _header(
        shape,
        rows * spacing[:, None],
        np.zeros(axes) if origin is None else _numbers(origin),
        signs=SPACES["lps"],
        channels=int(fields.get("elementnumberofchannels", "1")),
        positioned=origin is not None,
    )


def _nrrd(fields: Mapping[str, str]) -> TextHeader:
    """Return a NRRD file's header; an axis without a direction holds the channels."""
    sizes = _numbers(fields["sizes"])
    found = [match[1] for match in VECTOR.finditer(fields["space directions"])]
    rows = [_numbers(text.replace(",", " ")) for text in found if text is not None]
    inside = [text is not None for text in found]
    if len(inside) != len(sizes):
        raise ValueError("another number of directions than of axes")
    origin = fields.get("space origin")
    return _header(
        sizes[inside],
        np.array(rows),
        np.zeros(len(rows)) if origin is None else _numbers(origin.strip("()").replace(",", " ")),
        signs=SPACES[fields["space"].lower()],
        channels=int(np.prod(sizes[np.logical_not(inside)])),
        positioned=origin is not None,
    )


def _numbers(text: str) -> NDArray[np.float64]:
    return np.array([float(number) for number in text.split()])


def _header(
    shape: NDArray[np.float64],
    steps: NDArray[np.float64],
    origin: NDArray[np.float64],
    *,
    signs: tuple[int, int, int],
    channels: int,
    positioned: bool,
) -> TextHeader:
    """Return a header of up to three axes; ``steps`` has a row for each: from voxel to voxel."""
    axes = len(shape)
    if not 1 <= axes <= SPATIAL_AXES or steps.shape != (axes, axes) or len(origin) != axes:
        raise ValueError("no axes of space")
    affine: Any = np.eye(4)
    affine[:axes, :axes], affine[:axes, 3] = steps.T, origin
    affine[:3] *= np.array(signs)[:, None]
    x, y, z = (*shape.astype(int).tolist(), 1, 1)[:SPATIAL_AXES]
    dx, dy, dz = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    grid = Grid(shape=(x, y, z), spacing=(dx, dy, dz), affine=affine, positioned=positioned)
    return TextHeader(grid, channels, axes)
