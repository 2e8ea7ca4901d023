"""Facts about the content of files, kept from run to run: digests, and the values of labels.

A fact holds for a content, not for a name: a record has the SHA-256 of the file from which it was
taken. The file is not read again while its size and its time of change are those of the record, and
a file that was changed but has the old content keeps its facts.

Records name no file: their keys are digests of paths.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmar_runtime.datatools.volumes import Picture, Volume, label_counts
from mmar_runtime.errors import DataError
from mmar_runtime.files import write_text_atomically

SAMPLE = 64 * 1024
"""Bytes in the middle of a file that differ for two scans of the same size."""

WORTH_KEEPING_S = 1.0
"""Facts that took less time are taken anew each time, and small data sets leave no file behind."""

SETTLED_NS = 2_000_000_000
"""A file that changed so shortly before it was read may change again without another time."""

MAX_CACHE_BYTES = 64 * 2**20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """The facts about a file.

    Attributes:
        size: bytes of the file.
        changed_ns: its time of change.
        taken_ns: when the facts were taken.
        digest: SHA-256 of its bytes.
        counts: value and number of voxels for each value of a label; None if not asked for.
        fault: why the values could not be counted; empty if they were.
    """

    size: int
    changed_ns: int
    taken_ns: int
    digest: str
    counts: tuple[tuple[float, int], ...] | None = None
    fault: str = ""

    def holds(self, status: os.stat_result) -> bool:
        """Return whether a file still has the content that the record is about."""
        same = (self.size, self.changed_ns) == (status.st_size, status.st_mtime_ns)
        return same and self.changed_ns + SETTLED_NS < self.taken_ns


class FileFacts:
    """The facts, and the file that keeps them.

    Args:
        cache: where records are kept; None to keep none. A file that cannot be read counts as
            empty, and where it cannot be written the next run takes the facts again.
        worth_s: seconds that the facts have to have taken to be kept.
    """

    def __init__(self, cache: Path | None = None, *, worth_s: float = WORTH_KEEPING_S) -> None:
        self._cache = cache
        self._worth_s = worth_s
        self._spent_s = 0.0
        self._records = {} if cache is None else _read(cache)
        self._used: dict[str, _Record] = {}

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file."""
        return self._record(path).digest

    def counts(self, path: Path, image: Volume | Picture) -> Mapping[float, int]:
        """Return how many voxels of a label have each value.

        Args:
            path: the file.
            image: the same, opened.

        Raises:
            DataError: the voxels cannot be read, or have too many different values.
        """
        record = self._record(path)
        if record.counts is None and not record.fault:
            started = time.monotonic()
            try:
                counts = tuple(label_counts(image.stored()).items())
                record = replace(record, counts=counts)
            except DataError as error:
                record = replace(record, fault=str(error))
            self._used[_key(path)] = record
            self._spent_s += time.monotonic() - started
        if record.fault:
            raise DataError(record.fault)
        return dict(record.counts or ())

    def save(self) -> None:
        """Keep the facts, those of former runs about other files too."""
        kept = {**self._records, **self._used}
        if self._cache is None or kept == self._records or self._spent_s < self._worth_s:
            return
        content = json.dumps({key: asdict(record) for key, record in kept.items()})
        try:
            write_text_atomically(self._cache, content, private=True)
        except OSError:
            logger.debug("the facts about files cannot be kept", exc_info=True)

    def _record(self, path: Path) -> _Record:
        key = _key(path)
        if key not in self._used:
            started, status, known = time.monotonic(), path.stat(), self._records.get(key)
            holds = known is not None and known.holds(status)
            self._used[key] = known if known and holds else _taken(path, status, known)
            self._spent_s += time.monotonic() - started
        return self._used[key]


def cache_of(document: Path) -> Path | None:
    """Return the place of the facts about a data list's files; None for a user without a home."""
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return caches / "mmar-fl" / "data" / f"{_key(document)}.json"


def sample(path: Path) -> tuple[int, bytes]:
    """Return size and a part of a file: files for which both are equal may have equal content."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - SAMPLE) // 2)
        return size, hashlib.sha256(stream.read(SAMPLE)).digest()


def _taken(path: Path, status: os.stat_result, known: _Record | None) -> _Record:
    """Return a record with the digest of now; the facts of an equal content are taken over."""
    taken = time.time_ns()
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    record = _Record(
        size=status.st_size, changed_ns=status.st_mtime_ns, taken_ns=taken, digest=digest
    )
    if known is not None and known.digest == digest:
        return replace(record, counts=known.counts, fault=known.fault)
    return record


def _key(path: Path) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]


def _read(cache: Path) -> dict[str, _Record]:
    try:
        if cache.stat().st_size > MAX_CACHE_BYTES:
            return {}
        content: dict[str, dict[str, Any]] = json.loads(cache.read_bytes())
        return {key: _parsed(record) for key, record in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _parsed(record: Mapping[str, Any]) -> _Record:
    parsed = _Record(**record)
    counts = parsed.counts
    return replace(parsed, counts=None if counts is None else tuple((v, n) for v, n in counts))
