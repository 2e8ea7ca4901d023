"""Headers of images: what they declare, read in a few bytes, whatever the file claims."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmar_runtime.policy.files.image_header import READERS, ImageHeader, read_header

ARRAY = np.zeros((4, 5, 6), np.int16)


def nifti(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(ARRAY, np.diag([0.5, 0.5, 3, 1])), path)


def nifti2(path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(ARRAY, np.diag([0.5, 0.5, 3, 1])), path)


def swapped(path: Path) -> None:
    """The bytes of each number the other way round."""
    header = nibabel.Nifti2Image(ARRAY, np.diag([0.5, 0.5, 3, 1])).header
    path.write_bytes(header.as_byteswapped(">").binaryblock + bytes(4) + ARRAY.tobytes())


def nrrd(path: Path) -> None:
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nencoding: raw\n\n"
    path.write_bytes(header.encode() + ARRAY.tobytes())


def meta_image(path: Path) -> None:
    header = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementType = MET_SHORT\n"
    path.write_text(header + "ElementDataFile = LOCAL\n")


def mgh(path: Path) -> None:
    nibabel.save(nibabel.MGHImage(ARRAY, np.eye(4)), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.nii": nifti,
    "a.nii.gz": nifti,
    "b.nii": nifti2,
    "c.nii": swapped,
    "A.NII.GZ": nifti,
    "a.npy": lambda path: np.save(path, ARRAY),
    "a.npz": lambda path: np.savez_compressed(path, small=ARRAY[:1], all=ARRAY),
    "a.mgh": mgh,
    "a.mgz": mgh,
    "a.nrrd": nrrd,
    "a.mha": meta_image,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_header_tells_size_and_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)

    header = read_header(path)

    assert header is not None
    assert header.size[:3] == (4, 5, 6)
    assert header.voxels == 120
    assert header.unpacked_bytes == 240
    assert header.spacing == ((0.5, 0.5, 3.0) if ".nii" in name.lower() else ())


def test_a_picture_tells_its_pixels(tmp_path: Path) -> None:
    Image.new("RGB", (7, 3)).save(tmp_path / "a.png")

    assert read_header(tmp_path / "a.png") == ImageHeader((7, 3), 3)


def test_what_no_reader_knows_has_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"x")
    (tmp_path / "a.nii").write_bytes(b"x")
    os.mkfifo(tmp_path / "b.nii")  # who opens it waits for ever

    for name in ("a.dcm", "a.nii", "b.nii", "missing.nii"):
        assert read_header(tmp_path / name) is None


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A header that declares a large extension, in a file that unpacks to 200 MB."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((30_000, 30_000, 30_000))
    header["magic"] = b"n+1"
    header["vox_offset"] = 2**30
    extension = b"\1\0\0\0" + (2**30 - 352).to_bytes(4, "little") + b"\6\0\0\0"
    with gzip.open(tmp_path / "bomb.nii.gz", "wb", compresslevel=1) as stream:
        stream.write(header.binaryblock + extension)
        for _ in range(200):
            stream.write(bytes(2**20))

    tracemalloc.start()
    found = read_header(tmp_path / "bomb.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found is not None
    assert found.voxels == 27 * 10**12
    assert peak < 20 * 2**20


SUFFIXES = [suffix for suffixes in READERS for suffix in suffixes]


@given(
    suffix=st.sampled_from(SUFFIXES),
    content=st.binary(max_size=600),
    start=st.sampled_from([b"", b"\x5c\1\0\0", b"\x93NUMPY\1\0\x76\0", b"PK\3\4",
                           b"\x89PNG\r\n\x1a\n", b"sizes: 1 2\ntype: ",
                           b"DimSize = 9 9\nElementType = ", b"II*\0"]),
)  # fmt: skip
def test_no_content_makes_a_reader_raise(
    suffix: str, content: bytes, start: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(gzip.compress(start + content) if suffix.endswith("gz") else start + content)

    found = read_header(path)

    assert found is None or all(isinstance(length, int) for length in found.size)
