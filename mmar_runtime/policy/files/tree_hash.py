"""One digest for all files below a folder, so that an approval covers the files as read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem

BLOCK = 1 << 20

SIGNATURE_FILES = (".__nvfl_sig.json", ".__nvfl_submitter.crt")
"""Files that NVFlare puts into each folder of a signed job; no import finds these names."""


def tree_hash(folder: Path, *, leave_out: Collection[str] = ()) -> str:
    """Return the SHA-256 over the names and contents of all files below a folder.

    Times, owners and permissions do not count, and neither do empty folders.

    Args:
        folder: the folder.
        leave_out: names of files that do not count, in any folder.

    Raises:
        ConfigError: there is no such folder, or it holds a link or a device.
    """
    whole = hashlib.sha256()
    for path in tree_files(folder, leave_out=leave_out):
        name = path.relative_to(folder).as_posix()
        whole.update(f"{file_hash(path)} {len(name.encode())} {name}\n".encode())
    return whole.hexdigest()


def tree_files(folder: Path, *, leave_out: Collection[str] = ()) -> list[Path]:
    """Return all files below a folder, sorted by their names.

    Raises:
        ConfigError: there is no such folder, or it holds a link or a device.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise ConfigError([Problem(Location(folder.name), "is not a folder", "", "missing-file")])
    files = []
    for place, folders, names in os.walk(folder, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        files += [Path(place, name) for name in (*names, *links) if name not in leave_out]
    odd = [path for path in files if not stat.S_ISREG(path.lstat().st_mode)]
    if odd:
        raise ConfigError(
            Problem(
                Location(path.relative_to(folder).as_posix()), "is not a plain file", "", "path"
            )
            for path in odd
        )
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _raise(error: OSError) -> None:
    # os.walk would pass over a folder that it cannot read.
    raise error


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file; empty if there is no plain file."""
    if not os.path.isfile(path):
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
