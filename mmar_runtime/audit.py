"""A log that shows who wrote its lines, and when a line was changed, added or removed.

Each line is a JSON object, and the file only grows; several processes of a site may share
the file. Each line carries the digest of the line before, and an authentication code by a key that
its writer holds (``audit_keys``). A *head* shows that lines at the end are gone: the number and the
digest of a line, which somebody has kept elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from mmar_runtime.audit_keys import JOB, KIT, LogKey
from mmar_runtime.errors import MmarError

AUDIT_FILE = Path("audit") / "mmar_audit.jsonl"
"""Where a site or a server keeps the audit log, below its own folder."""

LEDGER_FILE = Path("audit") / "mmar_privacy.jsonl"
"""Where a site keeps the privacy ledger, which is a log of this form too."""

LEDGER_LOCK = LEDGER_FILE.with_suffix(".lock")
"""Held by a process while it spends of the privacy budget."""

SHARED_FILES = (AUDIT_FILE, LEDGER_FILE, LEDGER_LOCK)
"""Files below a site's folder that the process of a job writes, besides its run folder."""

FIRST = "0" * 64
"""The digest before the first line."""

HEAD_FORM = re.compile(r"([1-9][0-9]{0,14}):([0-9a-f]{64})")
"""How a head is written: the number of a line, and its digest."""

OWN_KEYS = ("count", "time", "event", "writer", "previous", "digest", "mac")
TEXT_KEYS = ("time", "event", "previous", "digest")
BLOCK = 65536
"""Bytes that are read at a time to find the last line."""

MAX_LINE = 2**24
"""Bytes of a line; no writer comes near."""

MAX_FINDINGS = 100
EMPTY = "empty: nothing to verify"


class AuditError(MmarError):
    """A log cannot be read, or is not as it was written.

    Attributes:
        line: the number of the line, from 1; 0 where the whole file is meant.
    """

    exit_code = 3

    def __init__(self, path: Path, line: int, reason: str) -> None:
        place = f"{path}, line {line}" if line else str(path)
        super().__init__(f"{place}: {reason}")
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """The result of a look at a log.

    Attributes:
        lines: how many whole lines it has.
        head: number and digest of the last line; None for an empty log.
        findings: all that is wrong, in the order of the lines; at most ``MAX_FINDINGS``.
        authenticated: whether a key or a head vouches for all lines.
    """

    lines: int
    head: str | None
    findings: tuple[AuditError, ...]
    authenticated: bool

    @property
    def status(self) -> str:
        """In words."""
        if self.findings:
            return "not intact"
        if not self.lines:
            return EMPTY
        return "intact" if self.authenticated else "not authenticated"


class AuditLog:
    """Adds lines to a file that other processes may add to at the same time.

    Args:
        path: the file; it and its folder are made when the first line is added.
        key: of the writer; None without a kit.
    """

    def __init__(self, path: Path, key: LogKey | None = None) -> None:
        self.path = path
        self.key = key

    def append(self, event: str, **facts: Any) -> str:
        """Add a line and flush it to the disk; returns its digest.

        Args:
            event: the kind of event, such as ``job-refused``.
            facts: plain JSON values.

        Raises:
            OSError: the file cannot be written.
            ValueError: a fact is not a JSON value, or has the name of a key of the log.
        """
        taken = [key for key in OWN_KEYS if key in facts]
        if taken:
            raise ValueError(f"the log writes {taken} itself")
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The process of a job may write in this folder, and a link there may lead anywhere.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(_opened(self.path, flags), "r+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # held until the file is closed
            whole, last = _last(stream)
            line = self._line(event, facts, last)
            # A crash may have left half a line; it stays for `verify` to show, on its own line.
            stream.write(b"" if whole else b"\n")
            stream.write(_canonical(line) + b"\n")
            os.fsync(stream.fileno())
        return str(line["digest"])

    def _line(
        self, event: str, facts: Mapping[str, Any], last: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the line that follows the last line, by this writer."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        content = {"time": time, "event": event, **facts}
        if self.key is not None:
            content["writer"] = KIT if self.key.job is None else JOB
        content["count"] = 1 if last is None else last["count"] + 1
        content["previous"] = FIRST if last is None else last["digest"]
        digest = _digest(content)
        mac = {} if self.key is None else {"mac": self.key.sign(self.path.name, digest)}
        return {**content, "digest": digest, **mac}

    def head(self) -> str | None:
        """Number and digest of the last whole line; None if there is no line.

        Raises:
            OSError: the file cannot be read.
        """
        if not os.path.lexists(self.path):
            return None
        with os.fdopen(_opened(self.path, os.O_RDONLY), "rb", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            _, last = _last(stream)
        return None if last is None else _head(last)


def log_heads(root: Path) -> dict[str, str]:
    """Name -> head of the logs of a site that have lines.

    Raises:
        OSError: a log cannot be read.
    """
    heads = {file.name: AuditLog(root / file).head() for file in (AUDIT_FILE, LEDGER_FILE)}
    return {name: head for name, head in heads.items() if head is not None}


def verify_audit(path: Path, key: LogKey | None = None, heads: Collection[str] = ()) -> AuditReport:
    """Check a log: every line against its digest, its authentication code and the line before.

    Args:
        path: the log, under its own name.
        key: of its writers; without a key nobody can say who wrote the lines.
        heads: of this log, kept elsewhere, each in ``HEAD_FORM``.

    Returns:
        The report; a file that cannot be read is a finding too.
    """
    findings: list[AuditError] = []
    known: dict[int, set[str]] = {}
    for expected in heads:
        known.setdefault(int(expected.partition(":")[0]), set()).add(expected)
    lines, head, vouched = 0, None, 0
    try:
        for number, entry, fault in _checked(path, key):
            if fault:
                findings.append(AuditError(path, number, fault))
            if len(findings) == MAX_FINDINGS:
                break
            if entry is None:
                continue
            lines, head = lines + 1, _head(entry)
            here = known.pop(entry["count"], set())
            if here - {head}:
                reason = f"is not the line {entry['count']} that is known from elsewhere"
                findings.append(AuditError(path, number, reason))
            elif here:
                vouched = lines
        if known and len(findings) < MAX_FINDINGS:
            reason = f"has {lines} lines; line {max(known)} is known from elsewhere and gone"
            findings.append(AuditError(path, 0, reason))
    except OSError as error:
        findings.append(AuditError(path, 0, f"cannot be read: {error.strerror}"))
    is_kits = key is not None and key.job is None
    return AuditReport(
        lines=lines,
        head=head,
        findings=tuple(findings),
        authenticated=is_kits or vouched == lines > 0,
    )


def verified_lines(path: Path, key: LogKey | None = None) -> Iterator[dict[str, Any]]:
    """Yield the content of each line of a log as soon as the line is checked.

    Lines that others add meanwhile are left out: a line that is half written is not damaged.

    Raises:
        AuditError: the file cannot be read, or has a finding, at the line that it is about.
    """
    try:
        for number, entry, fault in _checked(path, key):
            if fault or entry is None:
                raise AuditError(path, number, fault)
            yield entry
    except OSError as error:
        raise AuditError(path, 0, f"cannot be read: {error.strerror}") from error


def ledger_heads(path: Path, key: LogKey) -> list[str]:
    """Return the heads of the privacy ledger that a site's audit log names, in authentic lines.

    Args:
        path: the audit log.
        key: of the kit.

    Raises:
        OSError: the file cannot be read.
    """
    entries = (_entry(line) for line in _lines(path) if b'"ledger":' in line)
    named = [entry for entry in filter(None, entries) if isinstance(entry.get("ledger"), str)]
    heads = [
        entry["ledger"]
        for entry in named
        if _has_its_digest(entry) and key.has_signed(path.name, entry)
    ]
    return [head for head in heads if HEAD_FORM.fullmatch(head)]


def lines_of_job(path: Path, job: str) -> Iterator[dict[str, Any]]:
    """Yield the content of the whole lines of a log that belong to a job; nobody has checked them.

    Raises:
        OSError: the file cannot be read.
    """
    if not os.path.lexists(path):
        return
    named = json.dumps(job).encode("ascii")
    for line in _lines(path):
        entry = _entry(line) if named in line else None
        if entry is not None and entry.get("job") == job:
            yield entry


def _checked(path: Path, key: LogKey | None) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Yield the number of each line, its content if the line is whole, and its fault."""
    last: dict[str, Any] | None = None
    for number, line in enumerate(_lines(path), start=1):
        entry = _entry(line)
        if entry is None:
            yield number, None, "is not a whole line of this log: damaged, or cut short by a crash"
            continue
        yield number, entry, _fault(entry, last, path.name, key)
        last = entry


def _fault(
    entry: Mapping[str, Any], last: Mapping[str, Any] | None, log: str, key: LogKey | None
) -> str:
    """Return the fault of a whole line that follows another line; empty if it has none."""
    count, previous = (0, FIRST) if last is None else (last["count"], last["digest"])
    if (entry["previous"], entry["count"]) != (previous, count + 1):
        return "does not follow the line before: a line was changed, added or removed there"
    if not _has_its_digest(entry):
        return "was changed: its digest is another"
    if key is None:
        return ""
    if "mac" not in entry:
        return "is not authenticated: its writer had no key"
    if key.may_judge(entry) and not key.has_signed(log, entry):
        return (
            "is not authenticated by this key: it was changed, or written with the key of another "
            "kit or into another log"
        )
    return ""


def _has_its_digest(entry: Mapping[str, Any]) -> bool:
    content = {key: value for key, value in entry.items() if key not in ("digest", "mac")}
    return bool(entry["digest"] == _digest(content))


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines at a moment when nobody adds a line; long lines without their end."""
    with os.fdopen(_opened(path, os.O_RDONLY), "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        left = os.fstat(stream.fileno()).st_size
        fcntl.flock(stream, fcntl.LOCK_UN)
        while left > 0:
            line = part = stream.readline(min(left, MAX_LINE))
            left -= len(part)
            while part and left > 0 and not part.endswith(b"\n"):
                part = stream.readline(min(left, MAX_LINE))
                left -= len(part)
            if not line:
                return  # the file has become shorter
            yield line


def _opened(path: Path, flags: int) -> int:
    """Return a descriptor of a plain file; opening a pipe would wait for its other end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a plain file", str(path))
    return descriptor


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return the content of a line; None if the line is not a whole line of a log."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
        # Equal values can be written in many ways; only a single way is the log's.
        if not isinstance(entry, dict) or _canonical(entry) + b"\n" != line:
            return None
    except (ValueError, RecursionError):
        return None
    has_texts = all(isinstance(entry.get(key), str) for key in TEXT_KEYS)
    is_counted = type(entry.get("count")) is int and 0 < entry["count"] < 10**15
    return entry if has_texts and is_counted else None


def _last(stream: BinaryIO) -> tuple[bool, dict[str, Any] | None]:
    """Return whether the file ends with a whole line, and the last whole line."""
    end, size = stream.seek(0, os.SEEK_END), BLOCK
    while True:
        start = stream.seek(max(0, end - size))
        tail = stream.read(end - start)
        lines = [line + b"\n" for line in tail.split(b"\n")[:-1]]  # as `_lines` reads them
        # The first of them may begin before this block.
        for line in reversed(lines if start == 0 else lines[1:]):
            entry = _entry(line)
            # No log has more lines than bytes; after a forged count the numbers would run out.
            if entry is not None and entry["count"] <= end:
                return tail.endswith(b"\n"), entry
        if start == 0 or size > 2 * MAX_LINE:
            return not tail or tail.endswith(b"\n"), None
        size *= 8


def _head(entry: Mapping[str, Any]) -> str:
    return f"{entry['count']}:{entry['digest']}"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(content)).hexdigest()


def _canonical(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")
