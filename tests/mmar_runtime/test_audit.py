"""Who changes, adds or removes a line of an audit log is found out."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_admin.cli.main import main
from mmar_runtime.audit import FIRST, AuditError, AuditLog, verify_audit


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three lines."""
    path = tmp_path / "audit" / "mmar_audit.jsonl"
    for number in range(3):
        AuditLog(path).append("task-in", number=number, bytes=100 * number)
    return path


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def test_a_log_that_nobody_touched_holds(log: Path) -> None:
    chain = verify_audit(log)

    entries = [json.loads(line) for line in lines(log)]
    assert chain.lines == 3
    assert chain.digest == entries[-1]["digest"]
    assert [one["previous"] for one in entries] == [FIRST, *(one["digest"] for one in entries[:2])]
    assert [one["number"] for one in entries] == [0, 1, 2]


def test_nobody_else_may_read_it(log: Path) -> None:
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_changed_line_is_found(log: Path, index: int) -> None:
    found = lines(log)
    found[index] = found[index].replace('"bytes":', '"bytes":1')
    log.write_text("".join(found))

    with pytest.raises(AuditError, match="was changed") as caught:
        verify_audit(log)

    assert caught.value.line == index + 1


def test_a_line_that_was_taken_out_is_found(log: Path) -> None:
    found = lines(log)
    log.write_text(found[0] + found[2])

    with pytest.raises(AuditError, match="does not follow the line before"):
        verify_audit(log)


def test_a_line_that_was_put_in_is_found(log: Path) -> None:
    found = lines(log)
    log.write_text(found[0] + found[0] + found[1])

    with pytest.raises(AuditError, match="does not follow the line before"):
        verify_audit(log)


@pytest.mark.parametrize("text", ["", "{}\n", "[]\n", "no JSON\n", '{"digest": 1}\n', "\xff\n"])
def test_a_line_of_something_else_is_found(log: Path, text: str) -> None:
    log.write_bytes("".join(lines(log)[:2]).encode() + text.encode("latin-1"))

    if not text:
        assert verify_audit(log).lines == 2  # the end is gone, which a chain cannot show
        return
    with pytest.raises(AuditError, match="is no whole line"):
        verify_audit(log)


def test_the_same_values_written_in_another_way_are_found(log: Path) -> None:
    found = lines(log)
    found[1] = json.dumps(json.loads(found[1])) + "\n"
    log.write_text("".join(found))

    with pytest.raises(AuditError, match="is no whole line"):
        verify_audit(log)


def test_after_a_crash_in_a_line_the_log_goes_on_and_shows_it(log: Path) -> None:
    whole = log.read_bytes()
    log.write_bytes(whole[:-20])

    AuditLog(log).append("task-out", number=3)

    found = lines(log)
    assert json.loads(found[3])["previous"] == json.loads(found[1])["digest"]
    with pytest.raises(AuditError, match=r"line 3: is no whole line"):
        verify_audit(log)


def test_a_line_longer_than_a_block_is_followed(log: Path) -> None:
    digest = AuditLog(log).append("task-in", text="x" * 200_000)
    AuditLog(log).append("task-out")

    assert json.loads(lines(log)[-1])["previous"] == digest
    assert verify_audit(log).lines == 5


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

    assert verify_audit(path).lines == 60


def test_a_line_that_another_writes_just_now_is_no_broken_one(log: Path) -> None:
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
        assert verify_audit(log).lines == 3
        timer.join()


@pytest.mark.parametrize("facts", [{"previous": "x"}, {"digest": "x"}, {"time": "x"}])
def test_the_logs_own_keys_are_its_own(tmp_path: Path, facts: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="the log writes"):
        AuditLog(tmp_path / "log").append("task-in", **facts)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_not_written(tmp_path: Path, value: float) -> None:
    path = tmp_path / "log"
    with pytest.raises(ValueError, match="JSON"):
        AuditLog(path).append("task-in", value=value)

    AuditLog(path).append("task-in")
    assert verify_audit(path).lines == 1


@given(st.dictionaries(st.text(min_size=1).map("x".__add__), st.text() | st.integers()))
def test_whatever_is_written_holds(
    tmp_path_factory: pytest.TempPathFactory, facts: dict[str, str | int]
) -> None:
    path = tmp_path_factory.mktemp("audit") / "log"
    AuditLog(path).append("one", **facts)
    AuditLog(path).append("two", **facts)

    assert verify_audit(path).lines == 2


# --- The command ---------------------------------------------------------------------------------


def test_the_command_says_how_long_the_log_is(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", str(log)]) == 0

    assert "intact, lines: 3, last: " + verify_audit(log).digest in capsys.readouterr().out


def test_the_command_finds_what_is_wrong(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.write_text(lines(log)[1])

    assert main(["audit", "verify", str(log)]) == 3

    assert "line 1: does not follow" in capsys.readouterr().out


def test_an_end_that_is_gone_is_found_with_a_digest_that_was_kept(
    log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = verify_audit(log).digest
    assert main(["audit", "verify", str(log), "--expect", kept]) == 0
    log.write_text("".join(lines(log)[:2]))
    capfd.readouterr()

    assert main(["audit", "verify", str(log), "--expect", kept, "--json"]) == 3

    [result] = json.loads(capfd.readouterr().out)
    assert result["lines"] == 2
    assert "lines at the end are gone" in result["fault"]


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", str(tmp_path / "none")]) == 2

    assert "there is no file" in capsys.readouterr().err
