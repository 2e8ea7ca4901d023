"""A process tree: whatever a command has started is gone in the end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fl_admin.simulation import processes
from fl_admin.simulation.processes import ProcessTree

SLEEP = "import time; time.sleep(60)"
PATIENCE = 20.0


def tree_of(code: str, folder: Path) -> ProcessTree:
    return ProcessTree(
        [sys.executable, "-c", code], log=folder / "logs" / "out.log", env=dict(os.environ)
    )


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def is_running(pid: str) -> bool:
    return psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != "zombie"


def test_the_exit_code_is_there_once_the_command_has_ended(tmp_path: Path) -> None:
    with tree_of("raise SystemExit(7)", tmp_path) as tree:
        wait_for(lambda: tree.look() is not None)

        assert tree.look() == 7


def test_waiting_ends_with_the_command_or_after_its_time(tmp_path: Path) -> None:
    with tree_of(SLEEP, tmp_path) as tree:
        assert tree.wait(0.05) is None

    with tree_of("raise SystemExit(7)", tmp_path) as tree:
        assert tree.wait(PATIENCE) == 7


def test_waiting_remembers_whose_parent_will_have_died(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with tree_of(family(pids, orphan=True), tmp_path) as tree:
        wait_for(lambda: len(lines(pids)) == 3 and tree.wait(0.05) is None)
        _, child, grandchild = lines(pids)
        assert tree.wait(0.05) is None
        wait_for(lambda: not is_running(child))

    assert not is_running(grandchild)


def test_both_streams_go_to_the_log(tmp_path: Path) -> None:
    code = "import sys; print('to stdout'); sys.stderr.write('to stderr')"
    with tree_of(code, tmp_path) as tree:
        wait_for(lambda: tree.look() is not None)

    text = (tmp_path / "logs/out.log").read_text()
    assert "to stdout" in text
    assert "to stderr" in text


def family(pids: Path, *, orphan: bool) -> str:
    """A process that starts a child that starts a grandchild; with ``orphan`` the child ends."""
    note = f"import os; open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n');"
    grandchild = note + SLEEP
    start = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {!r}]);"
    wait = "time.sleep(1)" if orphan else "time.sleep(60)"
    child = note + start.format(grandchild) + wait
    return note + start.format(child) + "time.sleep(60)"


def test_children_and_grandchildren_end_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with tree_of(family(pids, orphan=False), tmp_path) as tree:
        wait_for(lambda: len(lines(pids)) == 3)
        assert all(map(is_running, lines(pids)))
        tree.look()

    assert not any(map(is_running, lines(pids)))


def test_so_does_a_grandchild_whose_parent_has_died(tmp_path: Path) -> None:
    """NVFlare's workers outlive a server that was killed; psutil does not find them any more."""
    pids = tmp_path / "pids"
    with tree_of(family(pids, orphan=True), tmp_path) as tree:
        wait_for(lambda: len(lines(pids)) == 3 and tree.look() is None)
        _, child, grandchild = lines(pids)
        tree.look()
        wait_for(lambda: not is_running(child))
        assert is_running(grandchild)

    assert not is_running(grandchild)


def test_a_process_that_does_not_listen_is_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "SECONDS_TO_END", 0.3)
    pids = tmp_path / "pids"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    note = f"import os; open({str(pids)!r}, 'a').write(str(os.getpid()));"
    with tree_of(deaf + note + SLEEP, tmp_path) as tree:
        wait_for(lambda: lines(pids))
        asked = time.monotonic()
        tree.end()

        assert time.monotonic() - asked < PATIENCE
        assert not is_running(lines(pids)[0])


def test_a_second_interrupt_leaves_none_of_them(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C again while a deaf process has time to end."""
    pids = tmp_path / "pids"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    note = f"import os; open({str(pids)!r}, 'a').write(str(os.getpid()));"
    tree = tree_of(deaf + note + SLEEP, tmp_path)
    wait_for(lambda: lines(pids))
    again = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))

    again.start()
    with pytest.raises(KeyboardInterrupt):
        tree.end()

    assert not is_running(lines(pids)[0])


def test_an_error_inside_the_with_ends_it_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def interrupted() -> None:
        with tree_of(family(pids, orphan=False), tmp_path):
            wait_for(lambda: len(lines(pids)) == 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(map(is_running, lines(pids)))


def test_ending_twice_is_ending_once(tmp_path: Path) -> None:
    with tree_of(SLEEP, tmp_path) as tree:
        tree.end()
        tree.end()


def test_the_keyboards_interrupt_reaches_only_who_started_it(tmp_path: Path) -> None:
    """A session of its own: Ctrl-C is for us, and we end the tree in order."""
    with tree_of(SLEEP, tmp_path) as tree:
        assert os.getsid(tree._process.pid) != os.getsid(0)
