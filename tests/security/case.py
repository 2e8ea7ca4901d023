"""A hostile or benign case: a small change of a real MMAR or job, and what a check should say.

``MARKER`` in a case stands for a file that only executed code would write, ``SECRET`` for a file of
the site, whose text must not show anywhere. Both are filled in when the case is written to disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
BASES = {
    "mmar": REPOSITORY / "tests/mmars/segmentation_3d",
    "old": REPOSITORY / "tests/mmars/segmentation_3d_v4_0",
    "job": REPOSITORY / "jobs/spleen_ct_segmentation",
}
UNTRACKED = ("models", "eval")
"""Folders of a base that hold nothing but what somebody's runs have left there."""

TRAIN = "config/config_train.json"
VALIDATION = "config/config_validation.json"
INFERENCE = "config/config_inference.json"
ENVIRONMENT = "config/environment.json"
LOG = "resources/log.config"

CANARY = "canary-5f1c0b7e94"
"""What the site keeps to itself: in its environment, and in the text of ``SECRET``."""

Tree = dict[str, Any]
"""Relative path -> what lies there: bytes, ``Link`` or ``Fifo``."""


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Fifo:
    """A named pipe, which a reader would wait at for ever."""


class _Gone:
    """Stands for a value or a file that the case takes away."""


GONE = _Gone()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One subject of a check.

    Attributes:
        id: short and unique within its family.
        family: ``expression``, ``component`` and so on; ``benign`` for those to be accepted.
        tries: what an attacker wants with it, or which idiom of old MMARs it is.
        rules: at least one of them has to be told; empty for a benign case.
        base: what is changed: one of ``BASES``, a folder of the repository, or ``nothing``.
        edits: document -> JSON pointer without the first slash -> the value to stand there.
        files: further files, or others in place of the base's.
        pack: makes one file, such as a zip, of the finished tree; None leaves a folder.
        target: what is checked, relative to the subject; empty for the whole.
        policy: the site's policy file; None means the defaults.
        overrides: ``--set`` values.
        data: files of a folder that the site has named as its own; its list is ``list.json``.
        argument: the PATH on the command line, where it is not the subject itself.
    """

    id: str
    family: str
    tries: str
    rules: tuple[str, ...]
    base: str = "mmar"
    edits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    pack: Callable[[Tree, Path], None] | None = None
    target: str = ""
    policy: Mapping[str, Any] | None = None
    overrides: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique in the corpus."""
        return f"{self.family}/{self.id}"

    @property
    def reads_the_site(self) -> bool:
        """Whether it asks for a file of the site, so that any output might show some of it."""
        places = ("SECRET", "/proc", "/dev", "CANARY")
        return any(
            isinstance(found, Link) or (isinstance(found, bytes) and place.encode() in found)
            for found in self.tree().values()
            for place in places
        )

    def tree(self) -> Tree:
        """The files of the subject, with the placeholders still in them."""
        files = dict(base_files(self.base))
        for document, changes in self.edits.items():
            content = json.loads(files.get(document, b"{}"))
            for pointer, value in changes.items():
                put(content, pointer, value)
            files[document] = json.dumps(content).encode("utf-8", "surrogatepass")
        for name, found in self.files.items():
            made = found() if callable(found) else found
            if made is GONE:
                files.pop(name, None)
            else:
                files[name] = made.encode() if isinstance(made, str) else made
        return files

    def write(self, folder: Path, *, marker: Path, secret: Path) -> Path:
        """Write the subject below an empty folder; returns what is to be checked."""
        tree = _with_places(self.tree(), marker, secret)
        if self.data:
            write_tree(folder / "data", _with_places(self.data, marker, secret), secret)
        if self.pack is not None:
            packed = folder / "job.zip"
            self.pack(tree, packed)
            return packed
        root = folder / "subject"
        write_tree(root, tree, secret)
        return root / self.target

    def arguments(self, folder: Path) -> list[str]:
        """What stands behind ``mmar check PATH`` for the folder that the case was written to."""
        data = folder / "data"
        own = [f"DATA_ROOT={data}", f"DATASET_JSON={data / 'list.json'}"] if self.data else []
        return [f"--set={one}" for one in (*self.overrides, *own)]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCase:
    """One contribution for the update guard.

    Attributes:
        id: short and unique within its family.
        family: ``update``, ``metadata`` or ``benign``.
        tries: what an attacker wants with it.
        change: changes the update and its metadata in place; None for those by their id.
    """

    id: str
    family: str
    tries: str
    change: Callable[[dict[str, Any], dict[str, Any], Path], Any] | None

    @property
    def name(self) -> str:
        """Unique in the corpus."""
        return f"{self.family}/{self.id}"


def put(document: Any, pointer: str, value: Any) -> None:
    """Set the value at a JSON pointer; ``-`` appends to an array, ``GONE`` takes away."""
    *steps, last = pointer.split("/")
    place = document
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
    if isinstance(place, list):
        if last == "-":
            place.append(value)
        elif value is GONE:
            del place[int(last)]
        else:
            place[int(last)] = value
    elif value is GONE:
        place.pop(last, None)
    else:
        place[last] = value


@cache
def base_files(base: str) -> Mapping[str, bytes]:
    """The files of a base, without what runs have left there."""
    if base == "nothing":
        return {}
    root = BASES.get(base, REPOSITORY / base)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not set(UNTRACKED) & set(path.relative_to(root).parts)
    }


def write_tree(root: Path, tree: Tree, secret: Path) -> None:
    """Write files, links and pipes below a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for name, found in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(found, Link):
            path.symlink_to(found.target.replace("SECRET", str(secret)))
        elif isinstance(found, Fifo):
            os.mkfifo(path)
        else:
            path.write_bytes(found)


def _with_places(tree: Mapping[str, Any], marker: Path, secret: Path) -> Tree:
    made = {name: one.encode() if isinstance(one, str) else one for name, one in tree.items()}
    return {
        name: _filled(one, marker, secret) if isinstance(one, bytes) else one
        for name, one in made.items()
    }


def _filled(content: bytes, marker: Path, secret: Path) -> bytes:
    return content.replace(b"MARKER", str(marker).encode()).replace(b"SECRET", str(secret).encode())


def train(
    case: str, family: str, tries: str, rules: tuple[str, ...], changes: Mapping[str, Any]
) -> Case:
    """A case that changes the training workflow of the MMAR."""
    return Case(id=case, family=family, tries=tries, rules=rules, edits={TRAIN: changes})
