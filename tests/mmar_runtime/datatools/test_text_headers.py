"""Grids of MetaImage and NRRD files, from their headers alone: no voxel follows here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmar_runtime.datatools.text_headers import read_text_header
from mmar_runtime.datatools.volumes import Volume, grid_difference, open_volume

META = """ObjectType = Image
NDims = 3
TransformMatrix = 0 1 0 -1 0 0 0 0 1
Offset = 10 20 30
ElementSpacing = 2 3 4
DimSize = 5 6 7
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
NRRD = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 5 6 7
space directions: (0,2,0) (-3,0,0) (0,0,4)
kinds: domain domain domain
space origin: (10,20,30)
"""
RAS = [[0, 3, 0, -10], [-2, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]
"""The first axis runs to the back, 2 mm a voxel; the second to the right, 3 mm; the third up."""


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="latin-1")
    return file


@pytest.mark.parametrize(("name", "text"), [("a.mha", META), ("a.nrrd", NRRD)])
def test_both_say_the_same_of_a_turned_volume(name: str, text: str, tmp_path: Path) -> None:
    header = read_text_header(written(tmp_path, name, text))

    assert header is not None
    assert (header.grid.shape, header.grid.spacing) == ((5, 6, 7), (2.0, 3.0, 4.0))
    np.testing.assert_array_equal(header.grid.affine, RAS)
    assert (header.channels, header.axes, header.grid.positioned) == (1, 3, True)


def test_a_nifti_file_of_the_same_place_has_the_same_grid(tmp_path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 6, 7), np.int16), RAS), tmp_path / "a.nii.gz")
    nifti: Volume = open_volume(tmp_path / "a.nii.gz")
    header = read_text_header(written(tmp_path, "a.mha", META))

    assert header is not None
    assert grid_difference(nifti.grid, header.grid) is None


def test_a_picture_has_two_axes_and_a_vector_has_channels(tmp_path: Path) -> None:
    flat = "NDims = 2\nElementNumberOfChannels = 3\nDimSize = 5 6\nElementSpacing = 1 1\n"
    vector = NRRD.replace("sizes: 5", "sizes: 3 5").replace("(0,2,0)", "none (0,2,0)")

    for name, text, axes in (("a.mhd", flat, 2), ("a.nhdr", vector, 3)):
        header = read_text_header(written(tmp_path, name, text))
        assert header is not None
        assert (header.channels, header.axes) == (3, axes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mha", META.replace("DimSize = 5 6 7", "DimSize = five")),
        ("a.mha", META.replace("Offset = 10 20 30", "Offset = 10 20")),
        ("a.nrrd", NRRD.replace("sizes: 5 6 7", "sizes: 5 6")),
        ("a.nrrd", NRRD.replace("space: left-posterior-superior", "space: scanner-xyz")),
        ("a.nii", META),
    ],
)
def test_what_is_not_understood_is_left_to_the_reader(name: str, text: str, tmp_path: Path) -> None:
    assert read_text_header(written(tmp_path, name, text)) is None
