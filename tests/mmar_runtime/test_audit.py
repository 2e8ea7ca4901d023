"""Who changes, adds or removes a line of a log is found out."""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_admin.cli.main import main
from fl_server.record.files import write_run_record
from fl_server.record.recorder import RunRecorder
from fl_server.record.values import RunRecord, SiteContribution
from mmar_runtime.audit import (
    FIRST,
    AuditError,
    AuditLog,
    ledger_heads,
    verified_lines,
    verify_audit,
)
from mmar_runtime.audit_keys import SECRET, LogKey
from tests.conftest import metric


def make_kit(root: Path, key: bytes = b"-----BEGIN PRIVATE KEY-----\nsite-1") -> LogKey:
    """A folder with the private key of a site's kit; any bytes do."""
    (root / "startup").mkdir(parents=True, exist_ok=True)
    (root / "startup" / "client.key").write_bytes(key)
    found = LogKey.of_kit(root)
    assert found is not None
    return found


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    make_kit(tmp_path / "kit")
    return tmp_path / "kit"


@pytest.fixture
def key(kit: Path) -> LogKey:
    found = LogKey.of_kit(kit)
    assert found is not None
    return found


@pytest.fixture
def log(kit: Path, key: LogKey) -> Path:
    """Three lines: by the kit, by the process of a job, by the kit."""
    path = kit / "audit" / "mmar_audit.jsonl"
    AuditLog(path, key).append("job-judged", job="job-1", number=0, bytes=0)
    AuditLog(path, key.for_job("job-1")).append("task-in", job="job-1", number=1, bytes=100)
    AuditLog(path, key).append("job-judged", job="job-2", number=2, bytes=200)
    return path


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def reasons(path: Path, key: LogKey | None, *heads: str) -> list[str]:
    return [str(one) for one in verify_audit(path, key, heads).findings]


def head_of(path: Path) -> str:
    head = AuditLog(path).head()
    assert head is not None
    return head


def rechained(path: Path, change: dict[str, object]) -> None:
    """Change the second line, and recompute all digests as whoever knows this code can."""
    previous, found = FIRST, []
    for number, line in enumerate(lines(path)):
        entry = json.loads(line)
        entry |= change if number == 1 else {}
        entry["previous"] = previous
        content = {name: value for name, value in entry.items() if name not in ("digest", "mac")}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        previous = entry["digest"] = hashlib.sha256(text.encode()).hexdigest()
        found.append(json.dumps(entry, sort_keys=True, separators=(",", ":")) + "\n")
    path.write_text("".join(found))


def test_a_log_that_nobody_touched_is_intact(log: Path, key: LogKey) -> None:
    report = verify_audit(log, key)

    entries = [json.loads(line) for line in lines(log)]
    assert (report.status, report.lines, report.findings) == ("intact", 3, ())
    assert report.head == f"3:{entries[-1]['digest']}" == head_of(log)
    assert [one["previous"] for one in entries] == [FIRST, *(one["digest"] for one in entries[:2])]
    assert [one["count"] for one in entries] == [1, 2, 3]
    assert [one["writer"] for one in entries] == ["kit", "job", "kit"]


def test_nobody_else_may_read_it(log: Path) -> None:
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


# --- lines that are not as they were written


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_changed_line_is_found(log: Path, key: LogKey, index: int) -> None:
    found = lines(log)
    found[index] = found[index].replace('"bytes":', '"bytes":1')
    log.write_text("".join(found))

    [finding] = verify_audit(log, key).findings
    assert finding.line == index + 1
    assert "was changed" in str(finding)
    assert reasons(log, None) == [str(finding)]


def test_a_chain_that_was_computed_again_is_found(log: Path, key: LogKey) -> None:
    rechained(log, {"bytes": 1})

    [second, third] = verify_audit(log, key).findings
    assert (second.line, third.line) == (2, 3)
    assert "is not authenticated by this key" in str(second)
    # Without the key nobody can tell, and the report does not claim it.
    assert verify_audit(log).status == "not authenticated"


def test_lines_are_counted_one_by_one(log: Path) -> None:
    rechained(log, {"count": 7})

    second, third = verify_audit(log).findings
    assert (second.line, third.line) == (2, 3)
    assert "does not follow the line before" in str(second)


def test_a_log_without_codes_is_found(log: Path, key: LogKey) -> None:
    """As whoever has no key writes it, or an earlier version."""
    path = log.with_name("other") / log.name
    AuditLog(path).append("task-in")

    assert "line 1: is not authenticated: its writer had no key" in reasons(path, key)[0]
    assert verify_audit(path).status == "not authenticated"


def test_a_log_of_another_kit_is_found(log: Path, tmp_path: Path) -> None:
    assert len(reasons(log, make_kit(tmp_path / "other", b"another key"))) == 3


def test_a_log_in_the_place_of_another_is_found(log: Path, key: LogKey) -> None:
    ledger = log.rename(log.with_name("mmar_privacy.jsonl"))

    assert all("into another log" in one for one in reasons(ledger, key))


@pytest.mark.parametrize(
    "order", [(0, 2), (0, 0, 1), (1, 0, 2), (0, 2, 1), (1, 2), (0, 1, 1, 2), (2, 1, 0)]
)
def test_lines_that_were_taken_out_put_in_or_swapped_are_found(
    log: Path, key: LogKey, order: tuple[int, ...]
) -> None:
    found = lines(log)
    log.write_text("".join(found[index] for index in order))

    assert any("does not follow the line before" in one for one in reasons(log, key))
    assert any("does not follow the line before" in one for one in reasons(log, None))


DAMAGED = {
    "an empty line": b"\n",
    "an object of something else": b"{}\n",
    "an array": b"[]\n",
    "no JSON": b"no JSON\n",
    "one key": b'{"digest": 1}\n',
    "no UTF-8": b"\xff\xfe\n",
    "a byte 0": b"\0\n",
    "nested": b"[" * 10_000 + b"]" * 10_000 + b"\n",
    "nested objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"\n",
    "half a line": b'{"bytes":1,"count":4,"digest":"',
    "a large number": b'{"bytes":' + b"9" * 5000 + b"}\n",
    "a long line": b"x" * (2**24 + 10) + b"\n",
}
CHANGES = {
    "a NaN": ('"bytes":100', '"bytes":NaN'),
    "an infinity": ('"bytes":100', '"bytes":-Infinity'),
    "a float beyond all": ('"bytes":100', '"bytes":1e999'),
    "a number of 5000 digits": ('"bytes":100', '"bytes":' + "9" * 5000),
    "a key that stands twice": ('"bytes":100', '"bytes":100,"bytes":100'),
    "a space": ('"bytes":100', '"bytes": 100'),
    "another escape": ("task-in", "task\\u002din"),
    "a count that is a flag": ('"count":2', '"count":true'),
    "a count below zero": ('"count":2', '"count":-2'),
    "a count of 5000 digits": ('"count":2', '"count":2' + "0" * 5000),
    "half a character": ('"job":"job-1"', '"job":"\\ud800"'),
    "a writer that is a list": ('"writer":"job"', '"writer":["job"]'),
    "a digest that is a number": ('"digest":"', '"digest":1,"x":"'),
    "no previous line": ('"previous"', '"previouz"'),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_damaged_line_is_a_finding(log: Path, key: LogKey, text: bytes, place: int) -> None:
    found = [line.encode() for line in lines(log)]
    log.write_bytes(b"".join([*found[:place], text, *found[place:]]))

    for one in (key, None):
        report = verify_audit(log, one)
        assert report.findings[0].line == place + 1
        assert report.status == "not intact"
    AuditLog(log, key).append("task-out")  # and the log goes on
    assert json.loads(lines_bytes(log)[-1])["previous"] != FIRST


def lines_bytes(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_line_with_odd_values_is_a_finding(
    log: Path, key: LogKey, change: tuple[str, str]
) -> None:
    found = lines(log)
    assert change[0] in found[1]
    found[1] = found[1].replace(*change)
    log.write_text("".join(found))

    for one in (key, key.for_job("job-1"), None):
        assert verify_audit(log, one).findings[0].line == 2


def test_half_a_character_that_is_signed_for_is_judged(log: Path, key: LogKey) -> None:
    AuditLog(log, key.for_job("\ud800")).append("task-in", job="\ud800")

    assert verify_audit(log, key).status == "intact"


@pytest.mark.parametrize("kind", ["folder", "pipe", "gone"])
def test_what_is_no_file_is_a_finding(log: Path, key: LogKey, kind: str) -> None:
    log.unlink()
    if kind == "folder":
        log.mkdir()
    elif kind == "pipe":
        os.mkfifo(log)

    [reason] = reasons(log, key, f"3:{FIRST}")[:1]
    assert "cannot be read" in reason


def test_nothing_is_written_through_a_link(log: Path, key: LogKey) -> None:
    """The process of a job may write in this folder, and the parent's rights are wider."""
    other = log.parent.parent / "startup" / "fed_client.json"
    log.unlink()
    log.symlink_to(other)

    with pytest.raises(OSError, match="symbolic"):
        AuditLog(log, key).append("job-judged")
    assert not other.exists()


def test_many_findings_are_cut_short(log: Path, key: LogKey) -> None:
    log.write_text("x\n" * 5000)

    assert len(verify_audit(log, key).findings) == 100


# --- any change at all


def some_log(folder: Path) -> tuple[Path, LogKey]:
    key = make_kit(folder)
    path = folder / "audit" / "mmar_audit.jsonl"
    for number in range(4):
        writer = key if number % 2 else key.for_job("job-1")
        AuditLog(path, writer).append("task-in", job="job-1", number=number, text="a\u00e4")
    return path, key


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(1, 255))
def test_any_byte_that_is_changed_is_found(
    tmp_path_factory: pytest.TempPathFactory, place: float, byte: int
) -> None:
    path, key = some_log(tmp_path_factory.mktemp("log"))
    text = bytearray(path.read_bytes())
    text[int(place * len(text))] ^= byte
    path.write_bytes(text)

    assert verify_audit(path, key).findings


def test_any_end_that_is_cut_off_is_found_by_the_head(tmp_path: Path) -> None:
    path, key = some_log(tmp_path)
    whole, head = path.read_bytes(), head_of(path)

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert verify_audit(path, key, [head]).findings, length
        at_a_line = length == 0 or whole[length - 1 : length] == b"\n"
        assert bool(verify_audit(path, key).findings) is not at_a_line, length


@given(order=st.lists(st.integers(0, 3), max_size=6))
def test_any_other_order_of_lines_is_found(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    path, key = some_log(tmp_path_factory.mktemp("log"))
    found, head = lines(path), head_of(path)
    path.write_text("".join(found[index] for index in order))

    assert bool(verify_audit(path, key, [head]).findings) is (order != [0, 1, 2, 3])


@given(st.binary(max_size=300))
def test_whatever_a_file_holds_is_judged(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(text)

    assert verify_audit(path).status in ("not intact", "empty: nothing to verify")
    AuditLog(path).append("task-in")
    assert verify_audit(path).lines == 1


@given(st.dictionaries(st.text(min_size=1).map("x".__add__), st.text() | st.integers()))
def test_whatever_is_written_holds(
    tmp_path_factory: pytest.TempPathFactory, facts: dict[str, str | int]
) -> None:
    root = tmp_path_factory.mktemp("audit")
    key = make_kit(root)
    AuditLog(root / "log", key).append("one", **facts)
    AuditLog(root / "log", key).append("two", **facts)

    assert verify_audit(root / "log", key).status == "intact"


# --- heads


def test_a_head_vouches_for_the_lines_before_it_without_a_key(log: Path) -> None:
    assert verify_audit(log, None, [head_of(log)]).status == "intact"
    first = f"1:{json.loads(lines(log)[0])['digest']}"
    assert verify_audit(log, None, [first]).status == "not authenticated"


def test_heads_that_contradict_each_other_are_found(log: Path, key: LogKey) -> None:
    [reason] = reasons(log, key, head_of(log), f"3:{FIRST}")

    assert "line 3: is not the line 3 that is known from elsewhere" in reason


def test_an_empty_log_is_not_called_intact(log: Path, key: LogKey) -> None:
    head = head_of(log)
    log.write_text("")

    assert verify_audit(log, key).status == "empty: nothing to verify"
    assert "has 0 lines; line 3 is known from elsewhere and gone" in reasons(log, key, head)[0]


# --- who holds which key


def test_a_job_cannot_write_as_another_writer(log: Path, key: LogKey) -> None:
    mine = key.for_job("job-1")
    AuditLog(log, mine).append("task-in", job="job-2")
    assert "line 4: is not authenticated by this key" in reasons(log, key)[0]

    class Liar(AuditLog):
        def _line(self, event, facts, last):  # type: ignore[no-untyped-def]
            line = super()._line(event, facts, last)
            content = {k: v for k, v in line.items() if k not in ("digest", "mac")}
            content["writer"] = "kit"
            text = json.dumps(content, sort_keys=True, separators=(",", ":"))
            digest = hashlib.sha256(text.encode()).hexdigest()
            return {**content, "digest": digest, "mac": mine.sign(self.path.name, digest)}

    log.write_text("".join(lines(log)[:3]))
    Liar(log, mine).append("job-judged", job="job-1", verdict="accept")
    assert "line 4: is not authenticated by this key" in reasons(log, key)[0]


def test_a_job_judges_its_own_lines_alone(log: Path, key: LogKey) -> None:
    assert verify_audit(log, key.for_job("job-1")).status == "not authenticated"
    assert not verify_audit(log, key.for_job("job-1")).findings
    rechained(log, {"bytes": 1})
    assert "line 2: is not authenticated" in reasons(log, key.for_job("job-1"))[0]
    assert reasons(log, key.for_job("job-2")) == []


def test_a_job_gets_its_key_in_its_run_folder(tmp_path: Path, key: LogKey) -> None:
    assert LogKey.of_run(tmp_path, "job-1") is None
    key.give(tmp_path, "job-1")

    assert LogKey.of_run(tmp_path, "job-1") == key.for_job("job-1")
    assert key.for_job("job-1") != key.for_job("job-2") != key
    assert stat.S_IMODE((tmp_path / "audit.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("named", [{}, {"writer": "nobody"}, {"writer": "job", "job": 5}])
def test_a_line_names_the_kit_or_a_job_as_its_writer(key: LogKey, named: dict[str, object]) -> None:
    line = {"digest": FIRST, "mac": key.sign("mmar_audit.jsonl", FIRST)}

    assert key.has_signed("mmar_audit.jsonl", {**line, "writer": "kit"})
    assert not key.has_signed("mmar_audit.jsonl", {**line, **named})


def test_heads_of_the_ledger_are_taken_from_lines_that_somebody_with_a_key_wrote(
    log: Path, key: LogKey
) -> None:
    """A job writes lines of its own, and may name anything as a head."""
    run = key.for_job("job-1")
    for head in (f"1:{FIRST}", "none", f"0:{FIRST}"):
        AuditLog(log, run).append("round-done", job="job-1", ledger=head)
    AuditLog(log).append("round-done", job="job-1", ledger=f"2:{FIRST}")

    assert ledger_heads(log, key) == [f"1:{FIRST}"]


def test_the_private_key_of_the_kit_is_not_enough(log: Path, kit: Path) -> None:
    """The process of a job has it for NVFlare's messages; the wall hides what lies next to logs."""
    secret = log.with_name("mmar_logs.secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_bytes()) == 32
    secret.write_bytes(b"\0" * 32)

    assert len(reasons(log, LogKey.of_kit(kit))) == 3


def test_processes_that_need_a_secret_at_the_same_time_get_the_same(tmp_path: Path) -> None:
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup" / "client.key").write_text("a private key")

    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: LogKey.of_kit(tmp_path), range(16)))

    assert len(keys) == 1


def test_a_key_is_never_printed(key: LogKey) -> None:
    assert key.secret.hex() not in repr(key)
    assert str(key.secret) not in repr(key)


def test_a_renewed_kit_verifies_what_it_has_written_before(log: Path, kit: Path) -> None:
    startup = kit / "startup"
    (startup / "client.key").rename(startup / "former.key")
    new = make_kit(kit, b"the new key")
    AuditLog(log, new).append("job-judged", job="job-3")

    assert verify_audit(log, new).status == "intact"
    (startup / "former.key").unlink()
    assert len(reasons(log, LogKey.of_kit(kit))) == 3


def test_there_is_no_key_without_a_kit(tmp_path: Path) -> None:
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup" / "former.key").write_text("a")

    assert LogKey.of_kit(tmp_path) is None


# --- several writers, and crashes


def test_after_a_crash_in_a_line_the_log_goes_on_and_shows_it(log: Path, key: LogKey) -> None:
    whole = log.read_bytes()
    log.write_bytes(whole[:-20])

    AuditLog(log, key).append("task-out", number=3)

    found = lines(log)
    assert json.loads(found[3])["previous"] == json.loads(found[1])["digest"]
    [finding] = verify_audit(log, key).findings
    assert "line 3: is not a whole line" in str(finding)


def test_after_a_forged_number_the_log_goes_on(log: Path, key: LogKey) -> None:
    """Whoever may add lines to the file could else use up all numbers that a line may have."""
    head = head_of(log)
    forged = {"count": 10**15 - 1, "event": "x", "previous": FIRST, "time": "x", "digest": "x"}
    with log.open("a") as stream:
        stream.write(json.dumps(forged, sort_keys=True, separators=(",", ":")) + "\n")
    assert head_of(log) == head

    AuditLog(log, key).append("job-judged", job="job-3")
    AuditLog(log, key).append("job-judged", job="job-4")

    assert [json.loads(line)["count"] for line in lines(log)] == [1, 2, 3, 10**15 - 1, 4, 5]
    report = verify_audit(log, key)
    assert [one.line for one in report.findings] == [4, 5]
    assert report.head == head_of(log)


def test_a_line_longer_than_a_block_is_followed(log: Path, key: LogKey) -> None:
    digest = AuditLog(log, key).append("task-in", text="x" * 200_000)
    AuditLog(log, key).append("task-out")

    assert json.loads(lines(log)[-1])["previous"] == digest
    assert verify_audit(log, key).lines == 5


def _append(path: Path, name: str) -> None:
    for number in range(20):
        AuditLog(path).append("task-in", process=name, number=number)


def test_processes_share_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(path, name)) for name in "abc"]
    for one in workers:
        one.start()
    for one in workers:
        one.join()

    report = verify_audit(path)
    assert (report.lines, report.findings) == (60, ())


def test_a_line_that_another_writes_just_now_is_no_broken_one(log: Path, key: LogKey) -> None:
    """Half of it is on the disk; whoever reads waits until the other process is done."""
    whole = log.read_bytes()
    log.write_bytes(whole[:-20])
    with log.open("ab", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def go_on() -> None:
            other.write(whole[-20:])
            fcntl.flock(other, fcntl.LOCK_UN)

        timer = threading.Timer(0.2, go_on)
        timer.start()
        assert verify_audit(log, key).status == "intact"
        timer.join()


def test_whoever_reads_the_lines_stops_at_the_first_finding(log: Path, key: LogKey) -> None:
    assert [one["number"] for one in verified_lines(log, key)] == [0, 1, 2]
    rechained(log, {"bytes": 1})

    with pytest.raises(AuditError, match="line 2: is not authenticated"):
        list(verified_lines(log, key))


@pytest.mark.parametrize("name", ["previous", "digest", "time", "count", "writer", "mac"])
def test_the_logs_own_keys_are_its_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="the log writes"):
        AuditLog(tmp_path / "log").append("task-in", **{name: "x"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_not_written(tmp_path: Path, value: float) -> None:
    path = tmp_path / "log"
    with pytest.raises(ValueError, match="JSON"):
        AuditLog(path).append("task-in", value=value)

    AuditLog(path).append("task-in")
    assert verify_audit(path).lines == 1


# --- The command ---------------------------------------------------------------------------------


def test_the_command_finds_the_key_of_the_kit(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", str(log)]) == 0

    assert f"{log}: intact, lines: 3, head: {head_of(log)}" in capsys.readouterr().out


def test_the_command_says_which_lines_are_wrong(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rechained(log, {"bytes": 1})

    assert main(["audit", "verify", str(log)]) == 3

    said = capsys.readouterr().out
    assert f"{log}, line 2: is not authenticated by this key" in said
    assert f"{log}: not intact, lines: 3" in said


def test_a_copy_elsewhere_is_not_authenticated_without_the_key(
    log: Path, kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy" / log.name
    copy.parent.mkdir()
    copy.write_bytes(log.read_bytes())

    assert main(["audit", "verify", str(copy)]) == 3
    assert "not authenticated (no key of its kit is here), but each" in capsys.readouterr().out
    command = ["audit", "verify", str(copy), "--key", str(kit / "startup" / "client.key")]
    assert main(command) == 2
    assert "needs the file 'mmar_logs.secret'" in capsys.readouterr().err
    shutil.copy(log.with_name("mmar_logs.secret"), copy.parent)
    assert main(command) == 0


@pytest.mark.parametrize("left", [2, 0, None])
def test_an_end_that_is_gone_is_found_with_a_head_that_was_kept(
    log: Path, capfd: pytest.CaptureFixture[str], left: int | None
) -> None:
    head = head_of(log)
    assert main(["audit", "verify", str(log), "--head", head]) == 0
    if left is None:
        log.unlink()
    else:
        log.write_text("".join(lines(log)[:left]))
    capfd.readouterr()

    assert main(["audit", "verify", str(log), "--head", head, "--json"]) == 3

    [result] = json.loads(capfd.readouterr().out)
    assert (result["status"], result["lines"]) == ("not intact", left or 0)
    reason = "cannot be read" if left is None else "line 3 is known from elsewhere and gone"
    assert reason in result["findings"][-1]["text"]


def a_record(folder: Path, *heads: str) -> Path:
    """As the server keeps it: the heads that came from site-1, one a round."""
    recorder = RunRecorder(
        RunRecord(
            job="a job",
            engine="nvflare",
            started=datetime.now(UTC),
            key_metric="dice",
            rounds_asked=len(heads),
            sites=("site-1",),
            min_sites=1,
            versions={},
            initial_weights_sha256="0" * 64,
        )
    )
    for number, head in enumerate(heads, start=1):
        recorder.start_round(number)
        contribution = SiteContribution(
            steps=1,
            sent_bytes=4,
            seconds=1.0,
            received_metrics={"dice": metric(0.5)},
            local_metrics={"dice": metric(0.5)},
            epochs=(),
            built={},
            process="a",
            logs={"mmar_audit.jsonl": head},
        )
        recorder.contribution("site-1", contribution)
        recorder.close_round("0" * 64)
    write_run_record(folder / "run_record.json", recorder.record)
    return folder / "run_record.json"


def test_an_end_that_is_gone_is_found_with_the_run_record(
    log: Path, key: LogKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = head_of(log)
    AuditLog(log, key).append("task-out")
    record = str(a_record(tmp_path, first, head_of(log)))
    command = ["audit", "verify", str(log), "--record", record, "--site"]
    assert main([*command, "site-1"]) == 0
    log.write_text("".join(lines(log)[:3]))

    assert main([*command, "site-1"]) == 3
    assert "has 3 lines; line 4 is known from elsewhere and gone" in capsys.readouterr().out
    assert main([*command, "site-2"]) == 2
    assert main(["audit", "verify", str(log), "--record", record]) == 2
    Path(record).write_text("{")
    assert main([*command, "site-1"]) == 2
    assert "run_record.json: this is no JSON document" in capsys.readouterr().err


def test_an_empty_log_is_not_well(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_text("")

    assert main(["audit", "verify", str(log)]) == 3
    assert f"{log}: empty: nothing to verify" in capsys.readouterr().out


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", str(tmp_path / "none")]) == 2

    assert "none' is not a file" in capsys.readouterr().err


def test_a_key_that_is_not_there_is_for_the_user_to_mend(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (log.parent / SECRET).write_bytes(b"s" * 32)

    assert main(["audit", "verify", str(log), "--key", "nokey"]) == 2

    assert "mmar: 'nokey': No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("head", ["", "3", "x", f"0:{FIRST}", f"3:{FIRST}x", f"-3:{FIRST}"])
def test_a_head_has_a_form(log: Path, capsys: pytest.CaptureFixture[str], head: str) -> None:
    assert main(["audit", "verify", str(log), f"--head={head}"]) == 2

    assert "is not a head" in capsys.readouterr().err
