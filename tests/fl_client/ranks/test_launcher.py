"""Several processes asked as one: all answer, or all are ended and somebody says why.

The processes are stubs that do what a task tells each of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fl_client.ranks import launcher
from fl_client.ranks.launcher import Ranks
from mmar_runtime.errors import DataError, LaunchError, ProcessLostError, RunAborted

Start = Callable[..., Ranks]

STUB = Path(__file__).with_name("stub_rank.py")
RANK_COMMAND = launcher.COMMAND
COMMAND = (sys.executable, str(STUB))
FINE = ["answers", "answers"]
SECONDS = 5.0
"""Within this time a lost process has to be noticed and all others ended."""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """``start(does=[...], **arguments)``: two stubs; each does at the start what stands there."""
    monkeypatch.setattr(launcher, "COMMAND", COMMAND)
    started: list[Ranks] = []

    def begin(does: list[str] = FINE, should_stop: Any = lambda: False, **given: Any) -> Ranks:
        setup = {"kind": "setup", "does": does}
        started.append(Ranks(2, setup, logs=tmp_path, should_stop=should_stop, **given))
        return started[-1]

    yield begin
    for ranks in started:
        ranks.end()


def children() -> list[int]:
    """The processes that are left of those that this one has started."""
    return [one.pid for one in psutil.Process().children() if one.is_running()]


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    before = set(children())
    yield
    assert set(children()) <= before


# --- all is well


def test_all_do_a_task_and_the_first_one_answers(start: Start) -> None:
    ranks = start()

    first, second = (ranks.ask("do", does=FINE) for _ in range(2))

    assert (first["rank"], first["pid"]) == (0, ranks.pids[0])
    assert second["pid"] == first["pid"]
    assert len(set(ranks.pids)) == 2


def test_at_the_end_they_are_gone(start: Start) -> None:
    ranks = start()
    pids = ranks.pids

    ranks.close()

    assert not any(map(psutil.pid_exists, pids))
    assert not ranks.alive


def test_at_the_end_also_those_are_gone_that_have_outlived_another(start: Start) -> None:
    ranks = start()
    pids = ranks.pids
    os.kill(pids[1], signal.SIGKILL)
    os.waitid(os.P_PID, pids[1], os.WEXITED | os.WNOWAIT)

    ranks.close()
    ranks.close()

    assert not any(map(psutil.pid_exists, pids))


def test_their_data_loaders_end_with_them(start: Start) -> None:
    ranks = start()
    child = ranks.ask("do", does=["starts another", "answers"])["child"]
    assert psutil.pid_exists(child)

    ranks.end()

    gone(child)


def gone(pid: int) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


def test_nothing_listens_where_another_machine_could_reach_it(start: Start) -> None:
    start()

    listening = [one for one in psutil.Process().net_connections() if one.status == "LISTEN"]

    assert listening
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}


def test_no_module_is_taken_from_the_working_directory(tmp_path: Path) -> None:
    """Files of a job may lie there, and one of them may be called like a library."""
    (tmp_path / "json.py").write_text("raise SystemExit('run')")
    python, safe = RANK_COMMAND[:2]

    ended = subprocess.run([python, safe, "-m", "json.tool", "--help"], cwd=tmp_path)
    without = subprocess.run([python, "-m", "json.tool", "--help"], cwd=tmp_path)

    assert (ended.returncode, without.returncode) == (0, 1)


# --- one is lost


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("is killed", r"process 1 of 2, counted from 0, was killed \(SIGKILL\), .* see dmesg"),
        ("exits", r"process 1 of 2, counted from 0, has ended with exit code 7"),
    ],
)
def test_a_process_that_ends_in_its_work_takes_the_others_with_it(
    start: Start, end: str, told: str
) -> None:
    ranks = start()
    pids, begun = ranks.pids, time.monotonic()

    with pytest.raises(ProcessLostError, match=rf"{told}.*is in rank-1\.log here"):
        ranks.ask("do", does=["waits", end])

    assert time.monotonic() - begun < SECONDS
    assert not any(map(psutil.pid_exists, pids))
    assert not ranks.alive


def test_its_last_words_and_what_the_others_say_of_it_are_kept(start: Start) -> None:
    """The others may fail first: their connection to the lost one breaks."""
    ranks = start()

    with pytest.raises(ProcessLostError) as caught:
        ranks.ask("do", does=["fails", "is killed"])

    notes = "\n".join(caught.value.__notes__)
    assert "its last words" in notes


def test_a_process_that_ended_between_two_tasks_is_noticed(start: Start) -> None:
    ranks = start()
    psutil.Process(ranks.pids[1]).send_signal(signal.SIGKILL)
    psutil.Process(ranks.pids[1]).wait(SECONDS)

    assert not ranks.alive


# --- one fails, or all


def test_what_all_find_wrong_ends_none(start: Start) -> None:
    ranks = start()

    with pytest.raises(DataError, match="no such image") as caught:
        ranks.ask("do", does=["fails", "fails"])

    assert "the traceback of" in caught.value.__notes__[0]
    assert ranks.ask("do", does=FINE)["rank"] == 0


@pytest.mark.parametrize("other", ["waits", "answers", "fails in its own way"])
def test_what_one_alone_finds_wrong_ends_all(start: Start, other: str) -> None:
    """It would never come to where the others wait for it."""
    ranks = start()
    begun = time.monotonic()

    with pytest.raises(DataError) as caught:
        ranks.ask("do", does=[other, "fails"])

    assert time.monotonic() - begun < SECONDS
    assert not ranks.alive
    if other != "fails in its own way":
        assert caught.value.__notes__[0].startswith("in process 1 of 2:")


# --- a stop


def test_asked_to_stop_all_end_their_iteration_and_stay(start: Start) -> None:
    asked = []
    ranks = start(should_stop=lambda: bool(asked))
    asked.append(True)

    with pytest.raises(RunAborted):
        ranks.ask("do", does=["works until it is stopped"] * 2)

    assert ranks.alive
    asked.clear()
    assert ranks.ask("do", does=FINE)["rank"] == 0


def test_an_iteration_that_does_not_end_is_not_waited_for(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "STOP_SECONDS", 0.3)
    asked = []
    ranks = start(should_stop=lambda: bool(asked))
    asked.append(True)

    with pytest.raises(RunAborted, match="in the middle of an iteration"):
        ranks.ask("do", does=["works until it is stopped", "waits"])

    assert not ranks.alive


def test_a_stop_that_comes_too_late_does_not_stop_the_next_task(start: Start) -> None:
    asked = [True]
    ranks = start()
    ranks._should_stop = lambda: bool(asked)
    ranks.ask("do", does=FINE)  # is told to stop, and has answered already
    asked.clear()

    def stop_in_a_second() -> bool:
        asked.append(True)
        return len(asked) > 10

    ranks._should_stop = stop_in_a_second
    begun = time.monotonic()
    with pytest.raises(RunAborted):
        ranks.ask("do", does=["works until it is stopped"] * 2)

    assert time.monotonic() - begun > 0.5


# --- a start that fails


def test_a_process_that_does_not_get_ready_is_told(start: Start) -> None:
    told = r"process 1 of 2, .* not ready within 0\.5 seconds.*rank-1\.log.*GLOO_SOCKET_IFNAME"
    with pytest.raises(LaunchError, match=told):
        start(does=["answers", "waits"], start_seconds=0.5)


def test_a_process_that_ends_while_it_starts_is_told(start: Start) -> None:
    with pytest.raises(LaunchError, match=r"process 0 .* exit code 7.* not begun to work"):
        start(does=["exits", "answers"])


def test_a_start_can_be_stopped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "STOP_SECONDS", 0.2)
    with pytest.raises(RunAborted):
        start(does=["waits", "waits"], should_stop=lambda: True)


# --- the death of the one that has started them

PARENT = """
import sys, time
from pathlib import Path
from fl_client.ranks import launcher
launcher.COMMAND = (sys.executable, sys.argv[1])
ranks = launcher.Ranks(2, {"kind": "setup", "does": ["answers"] * 2}, logs=Path(sys.argv[2]),
                       should_stop=lambda: False)
child = ranks.ask("do", does=["starts another", "answers"])["child"]
print(*ranks.pids, child, flush=True)
ranks.ask("do", does=["waits", "waits"])
"""


def test_no_process_is_left_when_the_sites_process_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(STUB), str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 3
    assert all(map(psutil.pid_exists, pids))

    parent.kill()
    parent.wait()
    parent.stdout.close()

    for pid in pids:
        gone(pid)
