"""A log that shows when a line of it was changed: each line carries the digest of the one before.

One JSON object a line, in a file that is only ever added to. Several processes of a site may share
it. What the chain cannot show is that lines at the end are gone; whoever needs that keeps the last
digest somewhere else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from mmar_runtime.errors import MmarError

AUDIT_FILE = Path("audit") / "mmar_audit.jsonl"
"""Where a site or a server keeps it, below its own folder."""

FIRST = "0" * 64
"""What stands for the digest before the first line."""

OWN_KEYS = ("time", "event", "previous", "digest")
BLOCK = 65536
"""Bytes that are read at a time to find the last line."""


class AuditError(MmarError):
    """An audit log cannot be read, or its chain is broken.

    Attributes:
        line: the number of the line, from 1; 0 where the whole file is meant.
    """

    exit_code = 3

    def __init__(self, path: Path, line: int, reason: str) -> None:
        place = f"{path}, line {line}" if line else str(path)
        super().__init__(f"{place}: {reason}")
        self.line = line


@dataclass(frozen=True, slots=True)
class AuditChain:
    """A log whose chain holds.

    Attributes:
        lines: how many lines it has.
        digest: of the last one; who has kept it notices lines that are taken away later.
    """

    lines: int
    digest: str


class AuditLog:
    """Adds lines to one file, whoever else does so at the same time.

    Args:
        path: the file; it and its folder are made when the first line is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, **facts: Any) -> str:
        """Add a line and flush it to the disk; returns its digest.

        Args:
            event: what happened, such as ``job-refused``.
            facts: plain JSON values.

        Raises:
            OSError: the file cannot be written.
            ValueError: a fact is no JSON value, or has the name of one of the log's own keys.
        """
        taken = [key for key in OWN_KEYS if key in facts]
        if taken:
            raise ValueError(f"the log writes {taken} itself")
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # held until the file is closed
            whole, previous = _last(stream)
            content = {"time": _now(), "event": event, **facts, "previous": previous}
            digest = _digest(content)
            line = _canonical({**content, "digest": digest}) + b"\n"
            # A crash may have left half a line; it stays for `verify` to show, on its own line.
            stream.write(line if whole else b"\n" + line)
            os.fsync(stream.fileno())
        return digest


def verify_audit(path: Path) -> AuditChain:
    """Check every line of a log against its digest and against the line before.

    Raises:
        AuditError: the file cannot be read, or a line was changed, added, removed or cut short.
    """
    chain = AuditChain(0, FIRST)
    for entry in verified_lines(path):
        chain = AuditChain(chain.lines + 1, entry["digest"])
    return chain


def verified_lines(path: Path) -> Iterator[dict[str, Any]]:
    """What the lines of a log hold, each as soon as it is checked.

    Lines that others add meanwhile are left out: one that is half written is no broken one.

    Raises:
        AuditError: as for ``verify_audit``, at the line that it is about.
    """
    previous = FIRST
    try:
        with path.open("rb") as stream:
            left = _whole_bytes(stream)
            for number, line in enumerate(stream, start=1):
                if left <= 0:
                    return
                left -= len(line)
                entry = _verified(path, number, line, previous)
                previous = entry["digest"]
                yield entry
    except OSError as error:
        raise AuditError(path, 0, f"cannot be read: {error.strerror}") from error


def _whole_bytes(stream: BinaryIO) -> int:
    """How long a log is at a moment when nobody is adding a line."""
    fcntl.flock(stream, fcntl.LOCK_SH)
    size = os.fstat(stream.fileno()).st_size
    fcntl.flock(stream, fcntl.LOCK_UN)
    return size


def _verified(path: Path, number: int, line: bytes, previous: str) -> dict[str, Any]:
    """A line that is as it was written, behind the line that stands before it."""
    entry = _entry(line)
    if entry is None:
        raise AuditError(path, number, "is no whole line of this log: a change, or a crash")
    if entry["previous"] != previous:
        reason = "does not follow the line before: one was changed, added or removed there"
        raise AuditError(path, number, reason)
    content = {key: value for key, value in entry.items() if key != "digest"}
    if entry["digest"] != _digest(content):
        raise AuditError(path, number, "was changed: its digest is another")
    return entry


def _entry(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None if it is no whole line of such a log."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in OWN_KEYS):
        return None
    # Equal values can be written in many ways; only one of them is the log's.
    return entry if _canonical(entry) + b"\n" == line else None


def _last(stream: BinaryIO) -> tuple[bool, str]:
    """Whether the file ends with a whole line, and the digest that the next line follows."""
    end = stream.seek(0, os.SEEK_END)
    if end == 0:
        return True, FIRST
    tail, start = b"", end
    while start > 0:
        start = max(0, start - BLOCK)
        stream.seek(start)
        tail = stream.read(min(BLOCK, end - start)) + tail
        end = start
        lines = tail.splitlines(keepends=True)
        # The first of them may begin before this block.
        for line in reversed(lines if start == 0 else lines[1:]):
            entry = _entry(line)
            if entry is not None:
                return tail.endswith(b"\n"), str(entry["digest"])
    return tail.endswith(b"\n"), FIRST


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(content)).hexdigest()


def _canonical(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
