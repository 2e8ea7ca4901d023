"""A Decathlon data list on disk: its lists, their items, and writing new ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmar_runtime.config.file_keys import FILE_KEYS
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, DataError, Problem, did_you_mean
from mmar_runtime.files import write_text_atomically

TRAINING, VALIDATION, TEST = "training", "validation", "test"
LIST_KEYS = (TRAINING, VALIDATION, TEST, "testing")
"""Keys that always hold images, even if the list is empty or has bare paths for items."""

COUNT_KEYS = {"numTraining": TRAINING, "numValidation": VALIDATION, "numTest": TEST}
"""Entries of the Decathlon that say how long a list is."""

MAX_LISTED_PROBLEMS = 5

IMAGE = "image"
IMAGE_FILE = re.compile(
    r".+\.(nii(\.gz)?|mg[hz]|mh[ad]|nrrd|nhdr|np[yz]|png|jpe?g|bmp|tiff?|dcm)", re.IGNORECASE
)
"""The name of an image, by its ending."""


@dataclass(frozen=True, slots=True)
class Item:
    """One case of a list.

    Attributes:
        location: such as ``dataset.json: training[3]``.
        entries: ``image``, usually ``label``, and the document's other entries of the case.
    """

    location: Location
    entries: Mapping[str, Any]

    def files(self, key: str) -> tuple[str, ...]:
        """Return the paths under a key as the document writes them; none if the entry is no path.

        >>> Item(Location("d.json"), {"image": ["t1.nii", "t2.nii"], "label": 3}).files("image")
        ('t1.nii', 't2.nii')
        """
        value = self.entries.get(key)
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            return tuple(value)
        return ()

    def modalities(self) -> tuple[str, ...]:
        """Return the keys of the images of an item without ``image``; none beside an image.

        >>> Item(Location("d.json"), {"t1": "t1.nii", "t2": "t2.nii", "age": "61"}).modalities()
        ('t1', 't2')
        """
        if IMAGE in self.entries:
            return ()
        others = (key for key in self.entries if key not in FILE_KEYS)
        return tuple(key for key in others if any(map(IMAGE_FILE.fullmatch, self.files(key))))

    def faults(self) -> Iterator[Problem]:
        """Yield the reasons why the item cannot be used."""
        if isinstance(self.entries, dict) and self.modalities():
            return
        if not isinstance(self.entries, dict) or IMAGE not in self.entries:
            message = "has to be an object with 'image', or the path of an image"
            yield Problem(self.location, message, "", "data-list")
            return
        if not self.files("image"):
            message = f"has to be a path or an array of paths, found {self.entries['image']!r}"
            yield Problem(self.location / "image", message, "", "data-list")
        for key in FILE_KEYS:
            if any(not file.strip() for file in self.files(key)):
                yield Problem(self.location / key, "is an empty path", "", "data-list")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A data list as it was read.

    Attributes:
        file: where it was read from.
        content: the whole JSON object.
    """

    file: Path
    content: Mapping[str, Any]

    @property
    def location(self) -> Location:
        """The document as a place."""
        return Location(self.file.name)

    @property
    def list_keys(self) -> tuple[str, ...]:
        """The keys of its lists of cases, in the document's order.

        Other arrays, ``"modality": ["CT"]`` for one, are not lists of cases: those have at least
        one object for an item, or one of the names in ``LIST_KEYS``.
        """
        return tuple(
            key
            for key, value in self.content.items()
            if isinstance(value, list)
            and (key in LIST_KEYS or any(isinstance(item, dict) for item in value))
        )

    def items(self, key: str) -> tuple[tuple[Item, ...], tuple[Problem, ...]]:
        """Return the items of a list, and the faults of items that are left out.

        Raises:
            ConfigError: the document has no such list.
        """
        raw = self.content.get(key)
        if not isinstance(raw, list):
            message = f"holds no list {key!r}"
            advice = did_you_mean(key, self.list_keys)
            raise ConfigError([Problem(self.location, message, advice, "data-list")])
        items: list[Item] = []
        problems: list[Problem] = []
        for index, entry in enumerate(raw):
            item = Item(
                self.location / key / index, {"image": entry} if isinstance(entry, str) else entry
            )
            faults = tuple(item.faults())
            problems += faults
            if not faults:
                items.append(item)
        return tuple(items), tuple(problems)


def read_document(file: Path) -> Document:
    """Return the data list in a file.

    Raises:
        ConfigError: no such file, not JSON, not an object, or without any list of cases.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise ConfigError(
            [Problem(Location(file.name), "has to be a JSON object", "", "data-list")]
        )
    document = Document(file=file, content=content)
    if not document.list_keys:
        message = "holds no list of cases"
        advice = "A data list has 'training', an array of objects with 'image' and 'label'."
        raise ConfigError([Problem(document.location, message, advice, "data-list")])
    return document


def write_documents(contents: Mapping[Path, Mapping[str, Any]], *, overwrite: bool) -> None:
    """Write data lists, each whole or not at all, and none if any of them may not be written.

    Raises:
        DataError: a file is there already and ``overwrite`` is false, or cannot be written.
    """
    there = [file for file in contents if file.exists() or file.is_symlink()]
    if there and not overwrite:
        others = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise DataError(
            f"{there[0]} is there already{others}; name another place, or ask to overwrite"
        )
    for file, content in contents.items():
        try:
            write_text_atomically(file, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise DataError(f"{file} cannot be written: {error.strerror or error}") from error


def with_lists(
    content: Mapping[str, Any], lists: Mapping[str, Sequence[Any]], *, without: Iterable[str] = ()
) -> dict[str, Any]:
    """Return a copy of a document with new lists in the old place, and with their counts.

    >>> with_lists({"numTraining": 2, "training": ["a", "b"], "test": []}, {"training": ["a"]})
    {'numTraining': 1, 'training': ['a'], 'test': []}
    """
    dropped = {*without, *lists}
    new = {key: list(items) for key, items in lists.items()}
    changed: dict[str, Any] = {}
    for key, value in content.items():
        changed.update(new if key in dropped else {key: value})
    changed.update(new)
    for count, key in COUNT_KEYS.items():
        if count in changed:
            changed[count] = len(changed.get(key, ()))
    return changed


def natural_order(text: str) -> tuple[tuple[str | int, ...], str]:
    """Return a key that sorts numbers in names by value, so that ``case_2`` precedes ``case_10``.

    >>> sorted(["case_10", "case_2"], key=natural_order)
    ['case_2', 'case_10']
    """
    # Text and digits alternate and text comes first, so that no number meets a text.
    parts = re.split(r"(\d+)", text)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), text


def shortened(problems: Sequence[Problem], advice: str = "") -> list[Problem]:
    """Return the first few problems and a count of the others: a wrong option fails all items."""
    rest = len(problems) - MAX_LISTED_PROBLEMS
    if rest <= 0:
        return list(problems)
    first = problems[0]
    more = Problem(Location(first.location.file), f"... and {rest} more", advice, first.rule)
    return [*problems[:MAX_LISTED_PROBLEMS], more]
