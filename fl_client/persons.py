"""How many persons stand behind the items of a data list: least numbers count these, not rows.

Two items are of one person where they share an image, under whatever name, or the value of a
patient key. Who has many images of one person and no such key in the list counts too many.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PATIENT_KEYS = frozenset(
    {
        "mrn", "participant", "participantid", "patient", "patientid", "patientname", "person",
        "personid", "pseudonym", "subject", "subjectid", "subjectname",
    }
)  # fmt: skip
"""Keys that name a person, in small letters and without ``_``, ``-`` and blanks."""

END_BYTES = 64 * 1024
"""Of each end of a file; only files that are alike there are read whole."""


def count_persons(items: Sequence[Mapping[str, Any]], patient_key: str | None = None) -> int:
    """Count the persons of a list, as far as the list and its files tell them apart.

    Args:
        items: with absolute paths; ``image`` is one path, or several of one person.
        patient_key: the key that names the person; None for any of ``PATIENT_KEYS``. An item
            without a key that the site has named is of the one person whom nobody knows.

    Raises:
        OSError: a file cannot be read.
    """
    contents = _contents(path for item in items for path in _images(item))
    groups = _Groups()
    for index, item in enumerate(items):
        groups.join([("item", index), *(contents[path] for path in _images(item))])
        groups.join([("item", index), *_names(item, patient_key)])
    return groups.count


def _images(item: Mapping[str, Any]) -> list[str]:
    value = item["image"]
    return value if isinstance(value, list) else [value]


def _names(item: Mapping[str, Any], patient_key: str | None) -> Iterator[Hashable]:
    """Whom an item is of."""
    if patient_key is not None:
        yield "person", str(item.get(patient_key, "")).strip().casefold()
        return
    for key, value in item.items():
        if _plain(key) in PATIENT_KEYS and value not in (None, ""):
            yield "person", _plain(key), str(value).strip().casefold()


def _plain(key: str) -> str:
    return key.casefold().translate({ord(sign): None for sign in "_- "})


class _Groups:
    """Signs of persons that belong together."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def join(self, signs: Iterable[Hashable]) -> None:
        """These are signs of one person."""
        first, *others = map(self._top, signs)
        for other in others:
            if other != first:
                self._above[other] = first

    def _top(self, sign: Hashable) -> Hashable:
        self._above.setdefault(sign, sign)
        while self._above[sign] != sign:
            self._above[sign] = self._above[self._above[sign]]  # a shorter way the next time
            sign = self._above[sign]
        return sign

    @property
    def count(self) -> int:
        """How many persons there are."""
        return sum(sign == above for sign, above in self._above.items())


# --- What a file holds ---------------------------------------------------------------------------


def _contents(paths: Iterable[str]) -> dict[str, Hashable]:
    """Something for each path that is equal where the files hold the same bytes."""
    # Size and digest of both ends of each file; the files of a folder have no order.
    ends = {
        path: tuple(sorted(map(_ends_of_file, _files(Path(path))))) for path in dict.fromkeys(paths)
    }
    alike = Counter(ends.values())
    return {
        path: ("file", both, _whole(Path(path)) if alike[both] > 1 else b"")
        for path, both in ends.items()
    }


def _ends_of_file(file: Path) -> tuple[int, bytes]:
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        digest = hashlib.sha256(stream.read(END_BYTES))
        stream.seek(max(size - END_BYTES, 0))
        digest.update(stream.read(END_BYTES))
    return size, digest.digest()


def _whole(path: Path) -> bytes:
    """Return the digest of all bytes of a file, or of the files in a folder, in no order."""
    digests = []
    for file in _files(path):
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").digest())
    return b"".join(sorted(digests))


def _files(path: Path) -> list[Path]:
    """Return the file itself, or the files of a series in its folder."""
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
