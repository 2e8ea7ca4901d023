"""A job in a zip: judged from its table of contents first, and unpacked only then.

Only the documents that a check reads are written, to a private folder that is gone afterwards.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from fl_client.jobs.files import (
    MAX_FILES,
    MAX_TOTAL_BYTES,
    TORCHSCRIPT,
    Entry,
    job_problem,
    mode_fault,
    name_fault,
    size_faults,
)
from mmar_runtime.errors import Problem
from mmar_runtime.policy.verdict import Verdict, verdict

MAX_RATIO = 200
"""Unpacked bytes for each packed one; zeros pack about a thousand times."""

MIN_JUDGED_RATIO = 2**20
"""Bytes below which a file may pack as well as it likes."""

MAX_READ_BYTES = 32 * 2**20
"""Of the documents and the code of a job, which are unpacked for the check."""

END_RECORD = struct.Struct("<4s4H2LH")
ZIP_READ_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError,
)  # fmt: skip
"""What Python's reader raises over a damaged zip, and what writing a strange one raises."""


def zip_verdict(path: Path, name: str, judge: Callable[[Path], Verdict]) -> Verdict:
    """Return the verdict on a zip.

    Args:
        path: of the zip.
        name: how the verdict calls it.
        judge: gives the verdict on the unpacked job, once the table of contents is in order.
    """
    if fault := _end_fault(path):
        return verdict(name, [job_problem(path.name, fault, "archive")])
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            problems = list(_archive_faults(archive.infolist()))
            with path.open("rb") as stream:
                stream.seek(-END_RECORD.size, os.SEEK_END)
                count = END_RECORD.unpack(stream.read())[4]  # some readers trust that number
            if len(archive.infolist()) != count:
                message = "has another number of entries than it says"
                problems.append(job_problem(path.name, message, "archive"))
            if problems:
                return verdict(name, problems)
            _unpack(archive, Path(folder))
            # The job is the folder itself, or the only folder inside it.
            inside = [*Path(folder).iterdir()]
            is_one = len(inside) == 1 and inside[0].is_dir()
            return judge(inside[0] if is_one else Path(folder))
    except ZIP_READ_ERRORS as error:
        message = f"is no zip that can be read: {error}"
        return verdict(name, [job_problem(path.name, message, "archive")])


def _end_fault(path: Path) -> str:
    """Return what is wrong with the end of a zip, before Python reads the table that it points to.

    Only the plain form is taken: one record at the very end, no comment, no 64-bit extension. Then
    no two readers can see different tables, and the table's length is known to be bearable.
    """
    size = path.stat().st_size
    if size > MAX_TOTAL_BYTES:
        return f"has {size} bytes; {MAX_TOTAL_BYTES} is the most"
    with path.open("rb") as stream:
        first = stream.read(4)
        stream.seek(max(0, size - END_RECORD.size - 20))
        tail = stream.read()
    if first == b"PK\x05\x06":
        return "has no files"
    if first != b"PK\x03\x04" or len(tail) < END_RECORD.size:
        return "is not a zip"
    mark, _, _, _, count, length, start, comment = END_RECORD.unpack(tail[-END_RECORD.size :])
    if mark != b"PK\x05\x06" or comment:
        return "does not end as a plain zip does"
    if tail.startswith(b"PK\x06\x07") or count > MAX_FILES:
        return f"has more than {MAX_FILES} entries"
    if start + length + END_RECORD.size != size:
        return "has bytes that its table of contents does not account for"
    return ""


def _archive_faults(infos: list[zipfile.ZipInfo]) -> Iterator[Problem]:
    seen: set[str] = set()
    for info in infos:
        plain = info.filename.rstrip("/").casefold()
        fault = name_fault(info.orig_filename) or mode_fault(info.external_attr >> 16)
        if plain in seen:
            fault = ("stands twice in the archive", "archive")
        seen.add(plain)
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            fault = ("is encrypted or packed in an unusual way", "archive")
        if info.file_size > max(MIN_JUDGED_RATIO, MAX_RATIO * info.compress_size):
            fault = (f"unpacks to more than {MAX_RATIO} times its size", "archive")
        if fault:
            yield job_problem(info.filename, *fault)
    files = [info for info in infos if not info.filename.endswith("/")]
    yield from size_faults([Entry(PurePosixPath(i.filename), i.file_size) for i in files])
    read = sum(info.file_size for info in files if _is_read(info.filename))
    if read > MAX_READ_BYTES:
        yield job_problem("job", f"has documents and code of {read} bytes", "archive")


def _is_read(name: str) -> bool:
    """Return whether a check looks into the file; weights are not opened."""
    path = PurePosixPath(name)
    is_weights = path.parent.name == "models" and path.suffix.lower() != TORCHSCRIPT
    return not is_weights or "custom" in path.parts


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Unpack every entry to its place; leave files empty that no check reads."""
    for info in archive.infolist():
        target = folder / info.filename
        if info.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archive.read(info) if _is_read(info.filename) else b"")
