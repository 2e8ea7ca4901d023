"""The formats of images that a job may read, by name and first bytes, and the files they name.

MONAI chooses a reader by how a file's name ends, and tries all of them if a config names a reader.
Pillow then goes by the first bytes, and starts Ghostscript for some. So a file has to have the
format that its name says. A header that names another file is followed here before a reader follows
it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping

HEADER_BYTES = 64 * 1024
"""Of a header that is text; all names have to be in these bytes."""

PREAMBLE = 128
"""Bytes of a DICOM file before its mark."""

GZIP = (b"\x1f\x8b",)
NIFTI = (b"\x5c\1\0\0", b"\0\0\1\x5c", b"\x1c\2\0\0", b"\0\0\2\x1c")
"""348 or 540, the length of the header, in either order of bytes."""

PICTURE = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NUMPY = (b"\x93NUMPY",)
ZIP = (b"PK\3\4", b"PK\5\6")
MGH = (b"\0\0\0\1",)
NRRD = (b"NRRD",)

STARTS: Mapping[str, tuple[bytes, ...]] = {
    ".nii": NIFTI, ".nii.gz": GZIP, ".mgh": MGH, ".mgz": GZIP, ".npy": NUMPY, ".npz": ZIP,
    ".png": PICTURE, ".jpg": PICTURE, ".jpeg": PICTURE, ".bmp": PICTURE, ".tif": PICTURE,
    ".tiff": PICTURE, ".nrrd": NRRD, ".nhdr": NRRD,
}  # fmt: skip
"""How a file's name ends -> how the file begins, one way or another."""

META_IMAGE = re.compile(rb"\s*[A-Za-z]\w*[ \t]*[=:]")
META_SUFFIXES = (".mha", ".mhd")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
DICOM_UNMARKED = (b"\2\0", b"\x08\0")
"""The first groups of a DICOM file without a preamble."""

BY_NAME = (".nii", ".nii.gz", ".npy", ".npz")
"""Suffixes for which MONAI takes one reader, which goes by the name, where no config names another.
That reader reports a file without an image."""

SUFFIXES = (*STARTS, *META_SUFFIXES, *DICOM_SUFFIXES)
"""How the name of an image may end."""

NOT_LISTED = (
    f"is not an image of a known format ({', '.join(SUFFIXES)}, a DICOM file, or a folder of them)"
)

DATA_FILE = {
    NRRD_SUFFIXES: re.compile(r"^[ \t]*data[ \t]*file[ \t]*:=?[ \t]*(.*?)[ \t]*$", re.I | re.M),
    META_SUFFIXES: re.compile(r"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*(.*?)[ \t]*$", re.I | re.M),
}
"""The field by which a header names the place of its voxels."""

READERS_OWN = re.compile(r"^[ \t]*(filename_or_obj|patch_index)[ \t]*[:=]", re.I | re.M)
"""Fields that a reader fills in, and by which results are named."""

LIST = re.compile(r"LIST([ \t]+\d+)?", re.I)
LOCAL = ("LOCAL", "Local", "local")
"""The words for voxels that follow the header in the same file."""


def has_known_suffix(name: str) -> bool:
    """Return whether a file's name ends as that of an image does.

    >>> has_known_suffix("a..b.NII.GZ"), has_known_suffix("a.nii.hdr")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def image_fault(place: str, other_fault: Callable[[str], str], *, reader_named: bool) -> str:
    """Return why a file must not be given to a reader; empty if it may be.

    An empty or unreadable file has no fault here: the reader reports it.

    Args:
        place: the file as the reader will open it.
        other_fault: judges the place of a further file that the header names.
        reader_named: whether a config names a reader, so that all of them are tried on each file.
    """
    name = place.lower()
    if name.endswith(BY_NAME) and not reader_named:
        return ""
    try:
        head = _head(place, HEADER_BYTES if name.endswith((*META_SUFFIXES, *NRRD_SUFFIXES)) else 0)
    except OSError:
        head = b""
    # DICOM, and no other format by the bytes before the mark.
    marked = head[PREAMBLE : PREAMBLE + 4] == b"DICM"
    if marked and head.startswith((b"\0\0\0\0", b"II*\0", b"MM\0*")):
        return ""
    if name.endswith(DICOM_SUFFIXES) and head.startswith(DICOM_UNMARKED):
        return ""
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        return NOT_LISTED
    if not head:
        return ""
    starts = STARTS.get(suffix, ())
    if not (META_IMAGE.match(head) if suffix in META_SUFFIXES else head.startswith(starts)):
        return "does not begin as a file of its name does"
    for suffixes, field in DATA_FILE.items():
        if suffix in suffixes:
            return _header_fault(place, head, field, other_fault)
    return ""


def _head(place: str, length: int) -> bytes:
    """Return the first bytes of a file that is known to be plain."""
    handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(handle, length or PREAMBLE + 4)
    finally:
        os.close(handle)


def _header_fault(
    place: str, head: bytes, field: re.Pattern[str], other_fault: Callable[[str], str]
) -> str:
    text = head.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    whole = len(head) < HEADER_BYTES
    if READERS_OWN.search(text):
        return "has a field in its header by which results would be named"
    ended = "\n\n" in text if place.lower().endswith(".nrrd") else field.search(text)
    if not (ended or (whole and place.lower().endswith(".nrrd"))):
        return f"does not name the place of its voxels in its first {HEADER_BYTES} bytes"
    folder = os.path.dirname(place)
    for lines in (text, text.replace("\r", "\n")):  # readers differ in the ends of lines
        for named in _named_files(lines, field, whole):
            if named is None:
                return "names its files by a pattern; list them one by one"
            fault = other_fault(os.path.join(folder, named))
            if fault:
                return f"has a header that names a file which {fault}"
    return ""


def _named_files(text: str, field: re.Pattern[str], whole: bool) -> Iterator[str | None]:
    """Yield every file that a header names; None for files that it names by a pattern."""
    for match in field.finditer(text):
        value = match[1]
        if LIST.fullmatch(value):
            yield from filter(None, map(str.strip, text[match.end() :].split("\n")))
            yield from () if whole else (None,)
        elif not value or "%" in value or value.upper().startswith(("LIST", "SKIPLIST")):
            yield None
        elif value not in LOCAL or field is not DATA_FILE[META_SUFFIXES]:
            yield value
