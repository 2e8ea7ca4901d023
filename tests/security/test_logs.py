"""Hostile and benign logs, as whoever may write in ``audit/`` can leave them, before the command.

A hostile log is a finding with exit code 3, and never an error; a benign one is intact.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from mmar_runtime.audit import AUDIT_FILE, FIRST, LEDGER_FILE, AuditLog
from mmar_runtime.audit_keys import LogKey

Way = Callable[[Path], object]
"""What is done to the file of a log."""

MAX_SECONDS = 1.0


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A site that has judged two jobs and run one."""
    kit = tmp_path / "kit"
    (kit / "startup").mkdir(parents=True)
    (kit / "startup/client.key").write_text("a private key")
    key = LogKey.of_kit(kit)
    assert key is not None
    for job in ("job-1", "job-2"):
        AuditLog(kit / AUDIT_FILE, key).append("job-judged", job=job, verdict="accept")
    run = key.for_job("job-1")
    for number in (1, 2):
        AuditLog(kit / AUDIT_FILE, run).append("task-in", job="job-1", bytes=100)
        facts = {"round": number, "filter": "SVTPrivacy", "data": "a1"}
        AuditLog(kit / LEDGER_FILE, run).append("privacy-spent", job="job-1", epsilon=0.5, **facts)
        AuditLog(kit / AUDIT_FILE, run).append("task-out", job="job-1", bytes=100)
    return kit


def lines(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines(keepends=True)


def replaced(old: bytes, new: bytes) -> Way:
    def way(log: Path) -> None:
        assert old in log.read_bytes()
        log.write_bytes(log.read_bytes().replace(old, new, 1))

    return way


def kept(*indexes: int) -> Way:
    return lambda log: log.write_bytes(b"".join(lines(log)[index] for index in indexes))


def added(text: bytes) -> Way:
    return lambda log: log.write_bytes(log.read_bytes() + text)


def put_first(text: bytes) -> Way:
    return lambda log: log.write_bytes(text + log.read_bytes())


def canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def forged(change: dict[str, Any], key: LogKey | None = None, *, bare: bool = False) -> Way:
    """The third line changed and all that follows computed anew, by whoever holds this key."""

    def way(log: Path) -> None:
        previous, found = FIRST, []
        for index, line in enumerate(lines(log)):
            entry = json.loads(line) | (change if index == 2 else {})
            content = {k: v for k, v in entry.items() if k not in ("digest", "mac")}
            if bare:
                content.pop("writer")
            content["previous"] = previous
            previous = hashlib.sha256(canonical(content)).hexdigest()
            entry = {**content, "digest": previous}
            if not bare:
                entry["mac"] = key.sign(log.name, previous) if key else json.loads(line)["mac"]
            found.append(canonical(entry) + b"\n")
        log.write_bytes(b"".join(found))

    return way


def as_it_was_before_counts(log: Path) -> None:
    """A log of an earlier version: chained, without counts, writers and codes."""
    previous, found = FIRST, []
    for line in lines(log):
        entry = json.loads(line)
        content = {k: v for k, v in entry.items() if k not in ("count", "digest", "mac", "writer")}
        content["previous"] = previous
        previous = hashlib.sha256(canonical(content)).hexdigest()
        found.append(canonical({**content, "digest": previous}) + b"\n")
    log.write_bytes(b"".join(found))


def begun_anew(log: Path) -> None:
    log.unlink()
    AuditLog(log).append("job-judged", job="job-1", verdict="accept")


def by_a_job(log: Path, **facts: Any) -> None:
    """A line of the job's own process, by its own key."""
    key = LogKey.of_kit(log.parents[1])
    assert key is not None
    AuditLog(log, key.for_job("job-1")).append("job-judged", **facts)


def of_the_ledger(log: Path) -> None:
    shutil.copy(log.with_name(LEDGER_FILE.name), log)


ZEROS = LogKey(b"\0" * 32)
HOSTILE: dict[str, Way] = {
    "a byte of a fact": replaced(b'"bytes":100', b'"bytes":101'),
    "a digest": replaced(b'"digest":"', b'"digest":"0'),
    "a code": replaced(b'"mac":"', b'"mac":"0'),
    "a code that is gone": replaced(b'"mac":"', b'"mad":"'),
    "a code that is a number": replaced(b'"mac":"', b'"mac":1,"x":"'),
    "a writer": replaced(b'"writer":"job"', b'"writer":"kit"'),
    "a time": replaced(b'"time":"20', b'"time":"19'),
    "a line taken out": kept(0, 1, 3, 4, 5),
    "the first line taken out": kept(1, 2, 3, 4, 5),
    "a line put in twice": kept(0, 1, 2, 2, 3, 4, 5),
    "two lines swapped": kept(0, 1, 3, 2, 4, 5),
    "all lines in reverse": kept(5, 4, 3, 2, 1, 0),
    "the last line cut off": kept(0, 1, 2, 3, 4),
    "all but the first cut off": kept(0),
    "emptied": lambda log: log.write_bytes(b""),
    "gone": lambda log: log.unlink(),
    "half a line less": lambda log: log.write_bytes(log.read_bytes()[:-20]),
    "one byte less": lambda log: log.write_bytes(log.read_bytes()[:-1]),
    "recomputed with the old codes": forged({"bytes": 1}),
    "recomputed with another key": forged({"bytes": 1}, ZEROS),
    "recomputed without codes": forged({"bytes": 1}, bare=True),
    "begun anew without a key": begun_anew,
    "a log of an earlier version": as_it_was_before_counts,
    "a verdict by the process of the job": lambda log: by_a_job(log, job="job-2"),
    "a line of no job by the process of a job": lambda log: by_a_job(log, job=None),
    "the ledger in its place": of_the_ledger,
    "a NaN": replaced(b'"bytes":100', b'"bytes":NaN'),
    "an infinity": replaced(b'"bytes":100', b'"bytes":Infinity'),
    "a float beyond all": replaced(b'"bytes":100', b'"bytes":1e999'),
    "a number of a million digits": replaced(b'"bytes":100', b'"bytes":' + b"9" * 1_000_000),
    "a line that is nested 10 000 deep": added(b"[" * 10_000 + b"]" * 10_000 + b"\n"),
    "objects that are nested 100 000 deep": added(b'{"a":' * 100_000 + b"\n"),
    "a value that is nested 10 000 deep": replaced(
        b'"bytes":100', b'"bytes":' + b"[" * 10_000 + b"]" * 10_000
    ),
    "a key that stands twice": replaced(b'"bytes":100', b'"bytes":1,"bytes":100'),
    "another form of the same": replaced(b'"bytes":100', b'"bytes": 100'),
    "a line with a carriage return": replaced(b"}\n", b"}\r\n"),
    "an empty line": added(b"\n"),
    "a line of spaces": added(b"   \n"),
    "bytes that are no text": added(b"\xff\xfe\xfd\n"),
    "UTF-16": lambda log: log.write_bytes(log.read_bytes().decode().encode("utf-16")),
    "a mark before the text": put_first(b"\xef\xbb\xbf"),
    "bytes 0 for a part": replaced(b'"bytes":100', b"\0" * 11),
    "a hole of 16 MB": lambda log: os.truncate(log, 2**24),
    "a line of 32 MB": added(b"x" * 2**25),
    "a million empty lines": added(b"\n" * 1_000_000),
    "half a character": replaced(b'"task-in"', b'"\\ud800"'),
    "a count that is a flag": replaced(b'"count":1,', b'"count":true,'),
    "a count beyond all": replaced(b'"count":1,', b'"count":' + b"9" * 4000 + b","),
    "a folder": lambda log: (log.unlink(), log.mkdir()),
    "a pipe": lambda log: (log.unlink(), os.mkfifo(log)),
    "a link to nowhere": lambda log: (log.unlink(), log.symlink_to("nowhere")),
}


@pytest.mark.parametrize("way", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_log_is_a_finding(kit: Path, way: Way, capfd: pytest.CaptureFixture[str]) -> None:
    log = kit / AUDIT_FILE
    head = AuditLog(log).head()
    assert head is not None
    way(log)

    began = time.process_time()
    code = main(["audit", "verify", str(log), "--head", head, "--json"])

    assert code == 3
    assert time.process_time() - began < MAX_SECONDS
    [result] = json.loads(capfd.readouterr().out)
    assert result["status"] == "not intact"
    assert all(one["text"].isprintable() for one in result["findings"])


ENDS = {"the last line cut off", "all but the first cut off"}
ABSENT = {"gone", "a folder", "a pipe", "a link to nowhere"}


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - ENDS - ABSENT))
def test_all_but_a_cut_end_is_found_without_a_head(kit: Path, name: str) -> None:
    HOSTILE[name](kit / AUDIT_FILE)

    assert main(["audit", "verify", str(kit / AUDIT_FILE)]) == 3


def test_a_ledger_is_empty_until_something_is_spent(
    kit: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ledger = kit / LEDGER_FILE
    head = AuditLog(ledger).head()
    ledger.write_bytes(b"")

    assert main(["audit", "verify", str(ledger)]) == 0
    assert f"{ledger}: empty: nothing to verify" in capfd.readouterr().out
    assert main(["audit", "verify", str(ledger), "--head", str(head)]) == 3


def many_lines(log: Path) -> None:
    key = LogKey.of_kit(log.parents[1])
    for number in range(200):
        AuditLog(log, key).append("job-judged", job=f"job-{number}", text="ä\u202e\n\x1b[2J")


def of_many_jobs(log: Path) -> None:
    key = LogKey.of_kit(log.parents[1])
    assert key is not None
    for job in ("job-1", "job-2", "kit", "job", "", "\ud800"):
        AuditLog(log, key.for_job(job)).append("task-in", job=job)


def after_a_renewal(log: Path) -> None:
    startup = log.parents[1] / "startup"
    (startup / "client.key").rename(startup / "former.key")
    (startup / "client.key").write_text("a new private key")
    AuditLog(log, LogKey.of_kit(log.parents[1])).append("job-judged", job="job-3")


def odd_facts(log: Path) -> None:
    facts = {"mac ": 1, "nested": {"mac": [1.5, None, True]}, "large": 10**300, "small": 5e-324}
    AuditLog(log, LogKey.of_kit(log.parents[1])).append("job-judged", job=None, **facts)


BENIGN: dict[str, Way] = {
    "as it is": lambda log: None,
    "with more lines": many_lines,
    "of many jobs": of_many_jobs,
    "after a renewal of the kit": after_a_renewal,
    "with odd facts": odd_facts,
    "through a link": lambda log: log.rename(log.with_name("other")) and log.symlink_to("other"),
    "readable by a group": lambda log: log.chmod(0o640),
    "with another time of change": lambda log: os.utime(log, (0, 0)),
}


@pytest.mark.parametrize("way", BENIGN.values(), ids=BENIGN.keys())
def test_a_benign_log_is_intact(kit: Path, way: Way, capfd: pytest.CaptureFixture[str]) -> None:
    log = kit / AUDIT_FILE
    head = AuditLog(log).head()
    assert head is not None
    way(log)

    assert main(["audit", "verify", str(log), "--head", head]) == 0
    assert f"{log}: intact" in capfd.readouterr().out
