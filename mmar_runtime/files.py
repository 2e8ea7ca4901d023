"""Writing files so that a reader never sees half a file, and values that a JSON file can hold."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mmar_runtime.errors import StorageError

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
STORAGE_FAULTS = DISK_FULL | {errno.EROFS}
"""Numbers of errors that a full disk gives, and that of one to which nothing can be written."""

SYSTEM_ERROR = re.compile(r"\[Errno (\d{1,4})\] ([^:\n]+)(?:: '([^'\n]*)')?")
"""How Python writes an error of the operating system."""

END = 64 * 1024
"""Bytes of an end of a file that ``ends_digest`` reads."""


def make_folder_to_write(folder: Path) -> None:
    """Make a folder, unless it is there, and find out before a run whether files can be made in it.

    Raises:
        OSError: the folder cannot be made, or nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], *, private: bool = False, flush: bool = True
) -> None:
    """Write a file whole or not at all.

    ``write`` fills a temporary file in the same folder, which then takes the place of ``path`` in
    one step. If anything interrupts that, ``path`` keeps its content and no other file remains.
    File and folder are flushed to the disk, so that a power cut loses neither; without ``flush``,
    the caller calls ``flush_below`` in the end. The file gets the permissions that an
    ordinary new file would get; a private file is its owner's alone, always.

    Raises:
        StorageError: the disk is full, or read-only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600 if private else 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            if flush:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if (reason := storage_fault(error)) is not None:
            raise StorageError(storage_text(reason, path)) from error
        raise
    if flush:
        flush_to_disk(path.parent)


def storage_fault(error: BaseException) -> OSError | None:
    """Return the fault of a disk or a folder among an error and what it came from.

    torch raises an error of its own where a disk is full, after the disk's; MONAI's writers, and
    processes that load data, hand its text on.
    """
    chain: BaseException | None = error
    while chain is not None:
        fault = chain if isinstance(chain, OSError) else _told_fault(str(chain))
        if fault is not None and fault.errno in STORAGE_FAULTS:
            return fault
        chain = chain.__cause__ or chain.__context__
    return None


def _told_fault(text: str) -> OSError | None:
    told = SYSTEM_ERROR.search(text)
    return None if told is None else OSError(int(told[1]), told[2].strip(), told[3])


def storage_text(fault: OSError, place: object = None) -> str:
    """Return what happened to a file, or to an output without a known name, and the next step."""
    name = "an output" if place is None else repr(str(place))
    advice = "Free some space there, or name" if fault.errno in DISK_FULL else "Name"
    return f"{name}: {fault.strerror}\n    {advice} another place."


def write_text_atomically(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text in UTF-8 with ``write_atomically``."""
    write_atomically(path, lambda stream: stream.write(text.encode()), private=private)


def write_json(path: Path, content: object, *, private: bool = False) -> None:
    """Write a JSON document with ``write_atomically``."""
    write_text_atomically(path, json.dumps(content, indent=2) + "\n", private=private)


def replace_folder(fresh: Path, folder: Path, *, previous: Path) -> None:
    """Put a folder in the place of another, which may be missing; after an error the old is back.

    Args:
        fresh: the new folder.
        folder: its place.
        previous: where the old folder goes.
    """
    existed = folder.exists()
    if existed:
        folder.rename(previous)
    try:
        fresh.rename(folder)
    except BaseException:
        if existed:
            previous.rename(folder)
        raise


def finite(content: Any) -> Any:
    """Return the content with null for each number that is not finite, which JSON cannot write.

    >>> finite({"loss": float("nan"), "metrics": (0.5, float("inf"))})
    {'loss': None, 'metrics': [0.5, None]}
    """
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def link(existing: Path, name: Path, *, flush: bool = True) -> None:
    """Give a file another name, in place of the file that has it; a copy where that cannot be.

    To be used where files are only ever replaced, never changed: so the two do not affect each
    other. Without ``flush``, a power cut soon after may lose the name.
    """
    temporary = name.with_name(f".{name.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(existing)
    except OSError:  # not every file system has links
        shutil.copyfile(existing, temporary)
    temporary.replace(name)
    if flush:
        flush_to_disk(name.parent)


def ends_digest(path: Path) -> bytes:
    """Return a digest of a file's size and of both its ends; of nothing if it is no plain file.

    It tells a changed file from an equal one in little time: a packed image ends with a checksum
    of all of it. A change in the midst alone of a large file without one shows in no end.
    """
    if not path.is_file():
        return b""
    size = path.stat().st_size
    total = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        total.update(stream.read(END))
        stream.seek(max(size - END, 0))
        total.update(stream.read(END))
    return total.digest()


def bytes_below(folder: Path) -> int:
    """Return bytes of all files below a folder; a file that goes away meanwhile does not count."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def flush_below(folder: Path) -> None:
    """Flush the files of a folder and the folder to the disk."""
    for path in folder.iterdir():
        flush_to_disk(path)
    flush_to_disk(folder)


def flush_to_disk(path: Path) -> None:
    """Flush a file, or the names in a folder, so that a power cut does not lose them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
