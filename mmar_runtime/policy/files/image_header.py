"""The size of an image from the few hundred bytes of its header.

A library that opens a whole image may reserve all memory that the header claims, and reads its
extensions on the way. Here a bounded piece of the file is read, and nothing is reserved.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

NIFTI_BYTES = 540
"""Of the longer of the two kinds of header."""

MGH_ITEM_BYTES: Mapping[int, int] = {0: 1, 4: 2}
"""The kinds of values in an MGH volume that have not four bytes."""

TEXT_BYTES = 16 * 1024
MAX_MEMBERS = 1000
TOO_LARGE = 2**62


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The size that an image declares.

    Attributes:
        size: values along each axis.
        spacing: mm between them, if the format has it.
        item_bytes: bytes of an unpacked value.
    """

    size: tuple[int, ...]
    item_bytes: int
    spacing: tuple[float, ...] = ()

    @property
    def voxels(self) -> int:
        """All values."""
        return math.prod(self.size)

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of all values."""
        return self.voxels * self.item_bytes


def read_header(path: Path) -> ImageHeader | None:
    """Return the header of an image; None if it has none that is known here, or cannot be read."""
    name = path.name.lower()
    for suffixes, read in READERS.items():
        if name.endswith(suffixes):
            try:
                return read(path) if path.is_file() else None
            except Exception:  # a damaged file makes the readers raise anything
                return None  # the run's own reader reports the fault
    return None


def _nifti(path: Path) -> ImageHeader | None:
    import nibabel  # takes a moment, and most checks read no image

    block = _first_bytes(path, NIFTI_BYTES)
    sizes = (int.from_bytes(block[:4], order) for order in ("little", "big"))
    kind = nibabel.Nifti2Header if 540 in sizes else nibabel.Nifti1Header
    header: Any = kind(  # type: ignore[no-untyped-call]
        block[: kind.template_dtype.itemsize], check=False
    )
    return ImageHeader(
        size=tuple(int(length) for length in header.get_data_shape()),
        item_bytes=int(header.get_data_dtype().itemsize),
        spacing=tuple(float(length) for length in header.get_zooms()),
    )


def _mgh(path: Path) -> ImageHeader | None:
    _, *size, kind = struct.unpack(">6i", _first_bytes(path, 24))
    return ImageHeader(tuple(size), MGH_ITEM_BYTES.get(kind, 4))


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as stream:
        packed = path.name.lower().endswith((".gz", ".mgz"))
        return (gzip.GzipFile(fileobj=stream) if packed else stream).read(count)


def _picture(path: Path) -> ImageHeader | None:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                bands = max(1, len(picture.getbands()))
                return ImageHeader((picture.width, picture.height), bands)
    except Image.DecompressionBombError:
        return ImageHeader((TOO_LARGE,), 1)


def _numpy(path: Path) -> ImageHeader | None:
    with path.open("rb") as stream:
        return _array(stream)


def _array(stream: IO[bytes]) -> ImageHeader:
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    return ImageHeader(tuple(shape), int(dtype.itemsize))


def _numpy_archive(path: Path) -> ImageHeader | None:
    """Return the largest array of an archive."""
    headers = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist()[:MAX_MEMBERS]:
            with archive.open(member) as stream:
                headers.append(_array(stream))
    return max(headers, key=lambda header: header.unpacked_bytes, default=None)


NRRD_BYTES: Mapping[str, int] = {"char": 1, "8": 1, "short": 2, "16": 2, "int": 4, "32": 4,
                                 "float": 4, "long": 8, "64": 8, "double": 8}  # fmt: skip
META_BYTES: Mapping[str, int] = {"CHAR": 1, "SHORT": 2, "INT": 4, "FLOAT": 4, "LONG": 8,
                                 "DOUBLE": 8}  # fmt: skip


def _text(path: Path, *, size: str, kind: str, sizes: Mapping[str, int]) -> ImageHeader | None:
    """Return the header of a format with lines of text: patterns find the size and the kind."""
    with path.open("rb") as stream:
        text = stream.read(TEXT_BYTES).decode("latin-1")
    axes, values = (re.search(rf"^{pattern}", text, re.MULTILINE) for pattern in (size, kind))
    if axes is None or values is None:
        return None
    longest = max((length for name, length in sizes.items() if name in values[1]), default=8)
    return ImageHeader(tuple(map(int, axes[1].split())), longest)


READERS: Mapping[tuple[str, ...], Callable[[Path], ImageHeader | None]] = {
    (".nii", ".nii.gz"): _nifti,
    (".mgh", ".mgz"): _mgh,
    (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"): _picture,
    (".npy",): _numpy,
    (".npz",): _numpy_archive,
    (".nrrd", ".nhdr"): partial(
        _text, size=r"sizes:\s*([0-9 ]+)", kind=r"type:\s*(\S[^\r\n]*)", sizes=NRRD_BYTES
    ),
    (".mha", ".mhd"): partial(
        _text, size=r"DimSize\s*=\s*([0-9 ]+)", kind=r"ElementType\s*=\s*(\S+)", sizes=META_BYTES
    ),
}
"""How a file's name ends -> how its header is read."""
