"""The judgement of every text that a component will open as a path.

A path is judged by where it leads, links followed as the kernel follows them. Arguments, data lists
and the headers of images all come here before a component opens them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Literal

from mmar_runtime.policy.files.image_file import NOT_LISTED, has_known_suffix, image_fault

PathRole = Literal[
    "read:data", "read:base", "read:model", "read:run", "write:run", "write:service", "name"
]
"""The use of a place: ``read:base`` is the folder relative to which results are named after
their images, ``read:run`` a file of the MMAR, ``write:service`` the address of a service or a place
of its files, and ``name`` the name of a file alone, also where it is the key of an object."""

Role = PathRole | Literal["read:list", "read:image"]
"""The use of a path; the last two are for a list of cases and for files that an image's reader is
given."""

MODEL_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".ts", ".tar", ".bin")
"""How the name of a file of weights may end."""

NOT_WRITTEN = ("config", "custom", "commands", "resources", "docs")
"""Folders of an MMAR that a run leaves as they are."""

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
SERVICE = re.compile(r"(?!file|sqlite)[a-z][a-z0-9+.\-]*://[^/]")
"""The address of a service on another machine."""

_NOT_PLAIN = "is not a plain file"
NAME = re.compile(r"[A-Za-z0-9_.\-]{0,100}")
MAX_PATH = 1024
MAX_MEMBERS = 10_000
"""Files of a folder that is read as an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a run may read and write; each folder is given with its links followed.

    Attributes:
        root: the MMAR's folder.
        data: folders that hold the data.
        data_list: the list of cases that a site has named, which may be elsewhere; empty for none.
        trusted: other places that a site, or who runs an MMAR of their own, has named.
        started_in: the folder that an owner's relative paths are below; empty for a job, which has
            no relative paths.
        named_from: folders relative to which results are named after their images.
        reader_named: whether the configuration names a reader of images.
        anywhere: whether an absolute path of results may lie elsewhere, as an owner's may.
    """

    root: str
    data: tuple[str, ...]
    data_list: str = ""
    trusted: tuple[str, ...] = ()
    started_in: tuple[str, ...] = ()
    named_from: tuple[str, ...] = ()
    reader_named: bool = False
    anywhere: bool = False
    _followed: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def follow(self, text: str) -> str:
        """Return where a path leads; look the folder of all files of a list up once."""
        folder, name = os.path.split(text)
        if name in ("", ".", ".."):
            return os.path.realpath(text)
        if folder not in self._followed:
            self._followed[folder] = os.path.realpath(folder)
        place = os.path.join(self._followed[folder], name)
        return os.path.realpath(place) if os.path.islink(place) else place

    def fault(self, text: str, role: Role) -> str:
        """Return why a text must not be used as a path; empty if it may be.

        Args:
            text: the path that a component opens or writes to.
            role: the use of the path.
        """
        if role == "write:service":
            if SERVICE.match(text):
                return ""  # the component asks for the consent to send
            text = text.removeprefix("file://").removeprefix("sqlite:///")
        if fault := text_fault(text):
            return fault
        if role == "name":
            plain = NAME.fullmatch(text) and text not in (".", "..")
            return "" if plain else "is not a plain name of a file"
        if not self.started_in and not os.path.isabs(text):
            return "is relative, and would mean a place where the site's process was started"
        place = self.follow(text)
        match role:
            case "write:run" | "write:service":
                return self._write_fault(place, free=self.anywhere and os.path.isabs(text))
            case "read:model":
                return self._model_fault(place, text)
            case "read:run":
                mine = (self.root, *self.started_in)
                mine += (*self.trusted, *self.data) if self.started_in else ()
                return "" if is_below(place, mine) else "leads out of the MMAR"
            case "read:list":
                named = place == self.data_list and not is_below(place, [self.root])
                fault = "" if named else self._data_fault(place)
                return fault or (_NOT_PLAIN if _is_odd(place) else "")
            case "read:image":
                return self._image_fault(text, place)
        return self._data_fault(place)

    def _write_fault(self, place: str, *, free: bool) -> str:
        kept = [os.path.join(self.root, name) for name in NOT_WRITTEN]
        if is_below(place, kept) or place == self.root:
            return "is not a place for results"
        own = (self.root, *self.trusted, *self.started_in)
        if not (free or is_below(place, own)) or (
            is_below(place, self.data) and not is_below(place, own[:1])
        ):
            return "leads out of the run's own folder"
        return "leads to something that is not a folder" if _is_odd(place) else ""

    def _model_fault(self, place: str, text: str) -> str:
        if not text.endswith(MODEL_SUFFIXES):
            return f"does not end as a file of weights does: {', '.join(MODEL_SUFFIXES)}"
        if is_below(place, [os.path.join(self.root, "custom")]):
            return "is a file of the code folder"
        if not is_below(place, (self.root, *self.started_in, *self.trusted, *self.data)):
            return "leads out of the MMAR"
        return _NOT_PLAIN if os.path.exists(place) and not os.path.isfile(place) else ""

    def _data_fault(self, place: str) -> str:
        if self.started_in:
            inside = is_below(place, (*self.data, self.root, *self.started_in))
            return "" if inside else "leads out of the data"
        if is_below(place, [self.root]):
            # Where the site has put its data.
            own = [folder for folder in self.data if is_below(folder, [self.root])]
            return "" if is_below(place, own) else "is in the job's own folder"
        return "" if is_below(place, self.data) else "leads out of the site's data"

    def _image_fault(self, text: str, place: str) -> str:
        if fault := self._data_fault(place):
            return fault
        # Results are named by the path as it is written, its ".." taken away as a text.
        written = os.path.abspath(text)
        if not all(is_below(written, [base]) for base in self.named_from):
            return "is not below data_root_dir, by which results are named after their images"
        try:
            mode = os.stat(place).st_mode
        except OSError:  # not there, which another check reports
            return "" if self.started_in or has_known_suffix(text) else NOT_LISTED
        if not S_ISREG(mode) and not S_ISDIR(mode):
            return _NOT_PLAIN
        if self.started_in:
            return ""
        if S_ISDIR(mode):
            return self._folder_fault(text)
        return image_fault(text, self._other_fault, reader_named=self.reader_named)

    def _folder_fault(self, folder: str) -> str:
        """Judge every file of a folder, for a reader of DICOM opens them all."""
        with os.scandir(folder) as members:
            for count, member in enumerate(members):
                if count >= MAX_MEMBERS:
                    return f"holds more than {MAX_MEMBERS} files"
                if member.is_dir(follow_symlinks=False):
                    continue
                if not member.is_file(follow_symlinks=False) and (
                    fault := self._other_fault(member.path)
                ):
                    return f"holds a file which {fault}"
        return ""

    def _other_fault(self, text: str) -> str:
        """Return the fault of a file that a reader opens on its own account; else empty."""
        if fault := text_fault(text):
            return fault
        place = self.follow(text)
        return self._data_fault(place) or ("" if os.path.isfile(place) else _NOT_PLAIN)


def text_fault(text: str) -> str:
    """Return why a text is not a plain path of this machine; empty if it is."""
    if not text.isprintable():
        return "has signs that cannot be printed"
    if len(text) > MAX_PATH:
        return f"is longer than {MAX_PATH} characters"
    if SCHEME.match(text):
        return "is a URL, or a drive of another system"
    if text.startswith("~") or "$" in text or "\\" in text:
        return "has a sign by which a shell or another system means another place"
    return ""


def is_below(place: str, roots: Iterable[str]) -> bool:
    """Return whether a path is a folder of ``roots`` or below it; all with their links followed.

    >>> is_below("/data/a", ["/data"]), is_below("/data2", ["/data"]), is_below("/x", ["/"])
    (True, False, True)
    """
    return any(place == root or place.startswith(root.rstrip("/") + "/") for root in roots)


def resolve_inside(root: Path, path: str) -> Path | None:
    """Return where a path leads from a folder, links followed; None if it leaves the folder.

    >>> resolve_inside(Path("/"), "etc/..").as_posix()
    '/'
    >>> resolve_inside(Path("/usr"), "../etc") is None
    True
    """
    top = os.path.realpath(root)
    place = os.path.realpath(os.path.join(top, path))
    return Path(place) if is_below(place, [top]) else None


def _is_odd(place: str) -> bool:
    """Return whether something is there that is neither a file nor a folder: a device, a pipe."""
    return os.path.exists(place) and not (os.path.isfile(place) or os.path.isdir(place))
