"""JSON documents of strangers, read within bounds: no link, no device, nothing huge or deep.

The bounds are far above what people write and low enough that everything after them, the loader and
the checks, takes no time worth mentioning.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import parse_json, read_json
from mmar_runtime.errors import ConfigError, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """The limits of a JSON document.

    Attributes:
        size: bytes.
        values: values, counted by the commas and brackets of the text.
        depth: arrays and objects inside each other.
        text: characters of a string or a key.
    """

    size: int
    values: int
    depth: int
    text: int


WORKFLOW = DocumentLimits(size=2**18, values=1_500, depth=64, text=4096)
ANY_JSON = DocumentLimits(size=4 * 2**20, values=100_000, depth=64, text=2**20)
"""For documents that are read but not judged, such as a data list next to the workflows."""


def regular_file(path: Path, location: Location) -> None:
    """Refuse all but a plain file itself: a link leads out, a pipe or a device never ends.

    Raises:
        ConfigError: it is missing, a link, or no file.
    """
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError) as error:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ConfigError([Problem(location, message, "", "missing-file")]) from None
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "no ordinary file"
        advice = "Put the file itself there."
        raise ConfigError([Problem(location, f"is {what}", advice, "path")])


def read_document(path: Path, limits: DocumentLimits) -> Any:
    """Return the value of a JSON file that keeps to the limits.

    Raises:
        ConfigError: not a plain file, over a limit, or not JSON.
    """
    location = Location(path.name)
    regular_file(path, location)
    size = path.stat().st_size
    if size > limits.size:
        raise ConfigError([_over(location, f"has {size} bytes", limits.size)])
    # The loader's own reader reports the fault of a file that cannot be decoded.
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return read_json(path)
    return parse_document(text, path.name, limits)


def parse_document(text: str, file: str, limits: DocumentLimits) -> Any:
    """Return the value of a JSON text within the limits; count the text before parsing it.

    Raises:
        ConfigError: over a limit, or not JSON.
    """
    count = sum(map(text.count, ",[{"))
    if count > limits.values:
        raise ConfigError([_over(Location(file), f"has about {count} values", limits.values)])
    value = parse_json(text, file)
    problems = list(over_limits(value, Location(file), limits))
    if problems:
        raise ConfigError(problems)
    return value


def over_limits(value: Any, location: Location, limits: DocumentLimits) -> Iterator[Problem]:
    """Yield the first place that is too deep or too long, without recursion: any depth is read."""
    waiting: list[tuple[Any, tuple[str | int, ...]]] = [(value, ())]
    while waiting:
        item, path = waiting.pop()
        if len(path) > limits.depth:
            yield _over(location, "nests too deep", limits.depth)
            return
        texts = item if isinstance(item, dict) else [item]
        longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
        if longest > limits.text:
            place = Location(location.file, (*location.path, *path))
            yield _over(place, f"has {longest} characters in one text", limits.text)
            return
        if isinstance(item, dict | list):
            inner = item.items() if isinstance(item, dict) else enumerate(item)
            waiting += [(value, (*path, key)) for key, value in inner]


def _over(location: Location, what: str, most: int) -> Problem:
    return Problem(location, f"{what}; {most} is the most that is read", "", "limit")
