"""A cache on disk whose files are named after all that made them; so nothing stale is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import monai

from mmar_runtime.config.grids import transforms_of
from mmar_runtime.config.nodes import plain
from mmar_runtime.config.sections import Section
from mmar_runtime.policy.custom_check import code_hash

CACHING = ("monai.data.dataset.PersistentDataset",)
"""The data sets that keep prepared images on disk. MONAI names a file of theirs after the paths of
the case alone, unless it is given other functions."""


def cache_names(section: Section, custom: Path) -> dict[str, Callable[[Any], bytes]]:
    """Return the arguments by which a data set names the files of its cache.

    A name is a digest of the case, of size and time of its files, of MONAI's version, of the
    transforms up to the first random one, and of the MMAR's own code where they are of it.

    Args:
        section: holds the transforms.
        custom: the folder of the MMAR's own code.
    """
    specs = list(transforms_of(section, "pre_transforms"))

    def of_transforms(before_random: list[object]) -> bytes:
        first = specs[: len(before_random)]
        code = code_hash(custom) if any(spec.path for spec in first) and custom.is_dir() else ""
        return _digest([monai.__version__, code, [plain(spec) for spec in first]])

    return {"hash_func": _of_case, "hash_transform": of_transforms}


def _of_case(item: object) -> bytes:
    return _digest([item, [_mark(Path(text)) for text in _texts(item)]])


def _texts(item: object) -> Iterator[str]:
    """Yield the texts of a case, which may be paths."""
    if isinstance(item, str):
        yield item
    elif isinstance(item, dict | list | tuple):
        for value in item.values() if isinstance(item, dict) else item:
            yield from _texts(value)


def _mark(path: Path) -> tuple[int, int] | None:
    """Return size and time of a file; None if there is none of that name."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _digest(content: object) -> bytes:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest().encode()
