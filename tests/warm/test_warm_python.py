"""A process of the warm Python is, to whoever starts it, one of Python."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SLEEP = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def run(warm_python: Path, tmp_path: Path):
    def ran(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
        command = [str(warm_python), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, **more)

    return ran


def test_it_has_torch_and_monai_and_none_of_ours(run) -> None:
    code = "import sys; print([name in sys.modules for name in ('torch', 'monai', 'mmar_runtime')])"

    assert run("-c", code).stdout == "[True, True, False]\n"


def test_it_has_the_callers_environment_folder_streams_and_arguments(run, tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['KEY'], sys.stdin.read())"

    ran = run("-c", code, "a", "b c", env={"KEY": "value"}, input="said")

    assert ran.stdout == f"['a', 'b c'] {tmp_path} value said\n"


def test_it_finds_modules_where_python_does(run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/far.py").write_text("print('far', __name__)")
    (tmp_path / "near.py").write_text("import far; print('near', __name__)")
    environment = {"PYTHONPATH": str(tmp_path / "elsewhere")}

    assert run("-m", "near", env=environment).stdout == "far far\nnear __main__\n"
    assert "No module named near" in run("-P", "-m", "near", env=environment).stderr


@pytest.mark.parametrize(
    ("code", "expected"),
    [("", 0), ("sys.exit(3)", 3), ("sys.exit('why')", 1), ("1 / 0", 1),
     ("os.kill(os.getpid(), 9)", -9)],
)  # fmt: skip
def test_its_exit_code_is_that_of_the_code(run, code: str, expected: int) -> None:
    assert run("-c", f"import os, sys\n{code}").returncode == expected


def test_whatever_it_starts_is_warm_only_if_asked(run, warm_python: Path) -> None:
    code = "import sys; print(sys.executable)"

    assert run("-c", code, env={"WARM_PYTHON": "1"}).stdout.strip() == str(warm_python)
    assert run("-c", code, env={}).stdout.strip() == sys.executable


@contextlib.contextmanager
def sleeping(python: Path, word: str) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """A client, and the process that runs its code, with a word in the command line of both."""
    command = [str(python), "-c", SLEEP, word]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if word in process.cmdline() and process.pid not in (client.pid, os.getpid()):
                    found.append(process)
        [process] = found
        yield client, process


def test_a_signal_reaches_it_and_it_shows_its_own_command(warm_python: Path) -> None:
    with sleeping(warm_python, "a word of ours") as (client, process):
        client.terminate()

        assert client.wait() == -signal.SIGTERM
        assert not process.is_running()


def test_it_is_killed_with_its_client(warm_python: Path) -> None:
    with sleeping(warm_python, "another word") as (client, process):
        client.kill()

        process.wait(10)
