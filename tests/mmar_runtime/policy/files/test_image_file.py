"""Images: a file is what its name says, and what its header names is judged like itself."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmar_runtime.policy.files.image_file import HEADER_BYTES, SUFFIXES
from mmar_runtime.policy.files.paths import Places

NIFTI = struct.pack("<i", 348) + bytes(400)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"
DICOM = bytes(128) + b"DICM" + bytes(20)
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nencoding: raw\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementType = MET_SHORT\n"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A site with its data in ``data``; what lies next to it is a secret."""
    (tmp_path / "data/series").mkdir(parents=True)
    (tmp_path / "data/a.raw").write_bytes(bytes(240))
    (tmp_path / "secret.raw").write_bytes(b"secret")
    (tmp_path / "data/out.raw").symlink_to(tmp_path / "secret.raw")
    (tmp_path / "data/in.raw").symlink_to("a.raw")
    return Places(root=str(tmp_path / "mmar"), data=(str(tmp_path / "data"),))


@pytest.fixture
def fault(places: Places) -> Callable[..., str]:
    """``fault(name, content)``: what is wrong with an image of that name."""

    def of(name: str, content: bytes | str = b"", *, reader_named: bool = True) -> str:
        path = Path(places.data[0], name)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return replace(places, reader_named=reader_named).fault(str(path), "read:image")

    return of


Fault = Callable[..., str]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii", NIFTI),
        ("a.NII", struct.pack(">i", 540) + bytes(600)),
        ("a.nii.gz", gzip.compress(NIFTI, mtime=0)),
        ("a.mgz", gzip.compress(b"\0\0\0\1", mtime=0)),
        ("a.mgh", b"\0\0\0\1" + bytes(300)),
        ("a.dcm", DICOM),
        ("a.dcm", b"\x08\0\5\0CS" + bytes(200)),  # as written before DICOM had a preamble
        ("IM000017", DICOM),
        ("1.2.840.113619", DICOM),
        ("a.npz", b"PK\3\4"),
        ("a.jpg", b"\x89PNG\r\n\x1a\n"),  # often so, and both are pictures
        ("empty.nii", b""),
    ],
)
def test_a_file_that_is_what_its_name_says(fault: Fault, name: str, content: bytes) -> None:
    assert fault(name, content) == ""


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "npy"])
def test_what_libraries_write_is_what_it_says(fault: Fault, places: Places, suffix: str) -> None:
    path = Path(places.data[0], f"a.{suffix}")
    np.save(path, np.zeros(3)) if suffix == "npy" else Image.new("RGB", (2, 2)).save(path)

    assert fault(path.name, path.read_bytes()) == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", POSTSCRIPT),  # Pillow would start Ghostscript
        ("a.jpg", b"\xc5\xd0\xd3\xc6" + bytes(40)),  # the same as a binary file
        ("a.bmp", b"\x89HDF\r\n\x1a\n"),
        ("a.nii", POSTSCRIPT),
        ("a.nii", NRRD + "data file: /etc/passwd\n"),
        ("a.nii.gz", NIFTI),
        ("a.npy", POSTSCRIPT),
        ("a.npz", b"\x80\4pickle"),
        ("a.mgh", POSTSCRIPT),
        ("a.mhd", POSTSCRIPT + b"ElementDataFile = LOCAL\n"),
        ("a.nrrd", META + "ElementDataFile = LOCAL\n"),
        ("a.dcm", POSTSCRIPT.ljust(128) + b"DICM"),
        ("IM000017", POSTSCRIPT.ljust(128) + b"DICM"),
        ("IM000017", POSTSCRIPT),
        ("a.eps", POSTSCRIPT),
        ("a.h5", b"\x89HDF\r\n\x1a\n"),
        ("a.hdr", NIFTI),
        ("a.img", bytes(240)),
        ("a.nii.hdr", NIFTI),
        ("a.vtk", b"# vtk DataFile Version 3.0\n"),
        ("a.mnc", b"CDF\1"),
        ("a.par", b"# === DATA DESCRIPTION FILE"),
        ("a.nhdr.gz", gzip.compress(NRRD.encode(), mtime=0)),
        ("empty.hdr", b""),
        ("a.nii.gz ", gzip.compress(NIFTI, mtime=0)),
    ],
)
def test_a_file_that_is_something_else(fault: Fault, name: str, content: bytes | str) -> None:
    assert fault(name, content)


def test_a_reader_that_goes_by_the_name_says_itself_what_is_wrong(fault: Fault) -> None:
    """MONAI takes nibabel for ``.nii``, unless a config names a reader; then all are tried."""
    assert fault("damaged.nii", b"no image", reader_named=False) == ""
    assert fault("damaged.nii", b"no image", reader_named=True)
    assert fault("a.png", POSTSCRIPT, reader_named=False)


HEADERS = {"a.nrrd": NRRD, "a.nhdr": NRRD, "a.mha": META, "a.mhd": META}
FIELDS = {"a.nrrd": "data file: {}\n", "a.nhdr": "datafile: {}\n",
          "a.mha": "ElementDataFile = {}\n", "a.mhd": "ElementDataFile={}\r\n"}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("named", ["a.raw", "./a.raw", "series/../a.raw", "in.raw"])
def test_a_header_may_name_a_file_of_the_data(fault: Fault, name: str, named: str) -> None:
    assert fault(name, HEADERS[name] + FIELDS[name].format(named)) == ""
    assert fault(name, HEADERS[name] + FIELDS[name].format("LIST") + f"{named}\na.raw\n") == ""


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize(
    "named",
    ["/etc/passwd", "../secret.raw", "out.raw", "series/../../secret.raw", "missing.raw", "series",
     "~/x", "$HOME/x", "http://host/x", "a.raw\0", "a.raw\rb", "slice%03d.raw 1 9 1", "",
     "LIST\na.raw\n../secret.raw", "LIST 2\nout.raw", "LIST-of.raw", "SKIPLIST\na.raw"],
)  # fmt: skip
def test_and_nothing_else(fault: Fault, name: str, named: str) -> None:
    assert fault(name, HEADERS[name] + FIELDS[name].format(named))


def test_voxels_in_the_same_file(fault: Fault) -> None:
    voxels = "\x01\r\n\0" * 60
    assert fault("a.nrrd", NRRD + "\n" + voxels) == ""
    assert fault("a.mha", META + "ElementDataFile = LOCAL\n" + voxels) == ""
    assert fault("a.mha", META.replace("=", ":") + "ElementDataFile : Local\n" + voxels) == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.mhd", META),
        ("a.mhd", META + "Comment = " + "x" * HEADER_BYTES + "\nElementDataFile = /etc/passwd\n"),
        ("a.nrrd", NRRD + "# " + "x" * HEADER_BYTES + "\ndata file: /etc/passwd\n"),
        ("a.mhd", META + "ElementDataFile = LIST\n" + "a.raw\n" * HEADER_BYTES + "out.raw\n"),
        ("a.mhd", META + "Comment = x\rElementDataFile = out.raw\nElementDataFile = LOCAL\n"),
        ("a.mhd", META + "elementdatafile = out.raw\nElementDataFile = LOCAL\n"),
        ("a.nrrd", NRRD + "DATA FILE: out.raw\n\n"),
        ("a.nrrd", NRRD + "data file: LOCAL\n\n"),
        ("a.nrrd", NRRD + "patch_index:=/../../x\n\n"),
        ("a.nrrd", NRRD + "filename_or_obj:=/x\n\n"),
    ],
)  # fmt: skip
def test_headers_that_hide_what_they_name(fault: Fault, name: str, content: str) -> None:
    assert fault(name, content)


def test_a_folder_is_read_with_all_its_files(places: Places, tmp_path: Path) -> None:
    series = Path(places.data[0], "series")
    for index in range(3):
        (series / f"IM{index}").write_bytes(DICOM)
    (series / "IM3").symlink_to("IM0")
    assert places.fault(str(series), "read:image") == ""

    (series / "IM4").symlink_to(tmp_path / "secret.raw")
    assert places.fault(str(series), "read:image")
    (series / "IM4").unlink()
    os.mkfifo(series / "IM4")
    assert places.fault(str(series), "read:image")


def test_who_runs_an_mmar_of_their_own_may_read_any_format(places: Places) -> None:
    own = replace(places, started_in=(places.data[0],))
    path = Path(places.data[0], "a.hdr")
    path.write_bytes(NIFTI)

    assert own.fault(str(path), "read:image") == ""
    assert own.fault("/etc/passwd", "read:image")


def test_a_long_list_is_judged_quickly(places: Places) -> None:
    """10,000 images in 100 folders: half a second on a busy machine, and it takes a tenth."""
    root = Path(places.data[0])
    for folder in range(100):
        (root / str(folder)).mkdir()
        for index in range(100):
            (root / f"{folder}/{index}.nii").write_bytes(NIFTI[:4])

    start = process_time()
    found = [
        places.fault(f"{root}/{folder}/{index}.nii", "read:image")
        for folder in range(100)
        for index in range(100)
    ]

    assert not any(found)
    assert process_time() - start < 0.5


@given(
    suffix=st.sampled_from(SUFFIXES),
    start=st.sampled_from(
        [b"", NRRD.encode(), META.encode(), b"NRRD\ndata file:", b"A=1\nElementDataFile=LIST\n"]
    ),
    rest=st.binary(max_size=300),
)
def test_no_content_makes_it_raise(
    suffix: str, start: bytes, rest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(start + rest)
    places = Places(root="/mmar", data=(str(path.parent),), reader_named=True)

    assert isinstance(places.fault(str(path), "read:image"), str)
