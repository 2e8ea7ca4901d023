"""``make federation`` as a user starts it: interrupted in the middle, and then run to its end.

That run is also where a federation's results are compared with those of ``mmar simulate``. The
other tests of this folder take the same steps one by one.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import processes_of
from tests.federation.conftest import REPOSITORY

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 120.0


def rehearsal(workspace: Path) -> list[str]:
    return [sys.executable, str(REPOSITORY / "scripts/federation.py"), "-w", str(workspace)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rehearsals")


@pytest.fixture(scope="module")
def interrupted(workspace: Path) -> tuple[int, str]:
    """Exit code and output of a run that got Ctrl-C when a job was running."""
    log = workspace / "interrupted.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(rehearsal(workspace), stdout=stream, stderr=stream)
    deadline = time.monotonic() + PATIENCE
    while '"RUNNING"' not in log.read_text() and time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    return process.wait(PATIENCE), log.read_text()


def test_ctrl_c_in_the_middle_leaves_no_process(
    interrupted: tuple[int, str], workspace: Path
) -> None:
    code, printed = interrupted

    assert '"status": "RUNNING"' in printed
    assert printed.endswith("stopped; no process is left\n")
    assert code == 130
    assert processes_of(workspace) == []


def test_the_next_run_goes_to_its_end_and_tells_of_each_step(
    interrupted: tuple[int, str], workspace: Path
) -> None:
    ended = subprocess.run(rehearsal(workspace), capture_output=True, text=True)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    steps = re.findall(r"^\[ *\d+\.\d s\] (.+)$", ended.stdout, flags=re.MULTILINE)
    assert steps[0] == f"everything of this run is in {workspace / 'run-002'}"
    assert steps[2:] == [
        "each site has made-up volumes, and its values in local/environment.json",
        "server and sites run: 3 processes, both sites connected",
        "they listen on 127.0.0.1 alone, and to nobody without a certificate",
        "NVFlare's admin console: submitted, COMPLETED, downloaded",
        "mmar submit --wait --out: COMPLETED, results fetched",
        "record and matrix are complete: 4 models x 2 sites",
        "each site's number of the global model is what the site computes by itself",
        "server and sites have stopped; no process is left",
        "console, mmar submit and mmar simulate gave the same models, to the last bit",
    ]
    assert "3 rounds at 2 sites, twice" in ended.stdout
    assert processes_of(workspace) == []
