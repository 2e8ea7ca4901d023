"""What a run takes of a machine, measured from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fl_client import run_watch
from fl_client.run_watch import RunWatch
from mmar_runtime.policy.site_policy import Limits


def test_a_run_is_measured_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = RunWatch(tmp_path, Limits(disk_gib=1))
    assert watch.passed_limit() is None
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(2**30 + 1)  # takes no blocks, but has the size

    assert watch.passed_limit() is None  # as measured a moment ago
    monkeypatch.setattr(run_watch, "SECONDS_BETWEEN_LOOKS", 0.0)
    assert watch.passed_limit() == "takes 1073741825 bytes; limits.disk_gib of this site is 1"


def test_the_memory_of_a_run_is_that_of_all_its_processes(tmp_path: Path) -> None:
    inner = "print('started', flush=True); input()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    command = [sys.executable, "-c", outer]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"started\n"
        alone = psutil.Process(process.pid).memory_info().rss

        both = RunWatch(tmp_path, Limits(), process=process.pid)._memory()

    assert both > 1.5 * alone  # two interpreters of about the same size


def test_a_process_that_has_ended_takes_no_memory(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()

    assert RunWatch(tmp_path, Limits(), process=process.pid).passed_limit() is None
