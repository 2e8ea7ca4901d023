"""A check in a process of its own: the same verdict, and no more time and memory than allowed."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_client.job_check import check_app, check_path
from fl_client.jobs import limited_check as module
from fl_client.jobs.limited_check import CPU_SECONDS, FILE_BYTES, MEMORY, limited_check
from mmar_runtime.confinement.wall import kernel_wall
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, OWN_MMAR_POLICY
from mmar_runtime.policy.verdict import Verdict

JOB = Path(__file__).resolve().parents[3] / "jobs" / "spleen_ct_segmentation"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return shutil.copytree(JOB, tmp_path / "job")


def rules(found: Verdict) -> list[str]:
    return [one.rule for one in found.problems]


def test_the_verdict_is_that_of_the_check_itself(job: Path) -> None:
    assert limited_check(job).accepted
    assert limited_check(job) == check_path(job)
    assert limited_check(job / "app", subject="app") == check_app(job / "app")

    (job / "app/custom").mkdir()
    (job / "app/custom/own.py").write_text("x = 1\n")
    refused = limited_check(job)

    assert rules(refused) == ["code"]
    assert refused == check_path(job)
    assert limited_check(job, OWN_MMAR_POLICY).accepted


def test_overrides_and_places_of_problems_arrive(job: Path) -> None:
    overrides = {"epochs": "@model"}
    found = limited_check(job, overrides=overrides)

    assert found == check_path(job, DEFAULT_POLICY, overrides)
    assert not found.accepted


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert rules(limited_check(tmp_path / "nowhere")) == ["missing-file"]


@pytest.mark.parametrize("debug", [True, False])
def test_a_check_that_fails_says_where_with_debug(
    job: Path, debug: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    no_value: Any = {"MMAR_CKPT": []}

    found = limited_check(job, overrides=no_value, debug=debug)

    assert found.problems[0].message == "cannot be judged: TypeError"
    assert ("Traceback" in capfd.readouterr().err) == debug


def test_a_check_that_takes_too_much_memory_refuses(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = " " * (3 * 2**20) + "[]"  # decoded and read twice, it is more than there is
    (job / "app/config/other.json").write_text(big)
    assert limited_check(job).accepted

    monkeypatch.setattr(module, "MEMORY", 16 * 2**20)
    found = limited_check(job)

    assert rules(found) == ["cost"]
    assert "memory" in found.problems[0].message


def test_a_check_that_takes_too_long_refuses(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WALL_SECONDS", 0.01)
    found = limited_check(job)

    assert rules(found) == ["cost"]
    assert found.problems[0].message == "takes more than 0 s to be judged"


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a program in the place of the interpreter."""

    def put(program: str) -> None:
        path = tmp_path / "interpreter"
        path.write_text(f"#!/bin/sh\n{program}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(path))

    return put


GOOD = '{"accepted": true, "problems": [], "notices": []}'


@pytest.mark.parametrize(
    ("program", "rule"),
    [
        (f"echo '{GOOD}'", ""),
        ("ulimit -t 1; while true; do :; done", "cost"),
        ("kill -9 $$", "cost"),
        ("kill -11 $$", "check"),
        ("true", "check"),
        ("echo yes", "check"),
        ("echo null", "check"),
        (f"echo '{GOOD}'; exit 1", "check"),
        (f"echo '{GOOD}{GOOD}'", "check"),
        (f"head -c 5000000 /dev/zero | tr '\\0' ' '; echo '{GOOD}'", "check"),
        ("echo '{}'".format(GOOD.replace("true", "1")), "check"),
        ('echo \'{"accepted": true}\'', "check"),
        ('echo \'{"accepted": false, "problems": [], "notices": []}\'', "check"),
        ('echo \'{"accepted": true, "problems": [{}], "notices": []}\'', "check"),
        ('echo \'{"accepted": false, "problems": [{"location": {"file": 1, "path": []}, '
         '"message": "", "advice": "", "rule": ""}], "notices": []}\'', "check"),
        ('echo \'{"accepted": false, "problems": [{"location": {"file": "a", "path": [[]]}, '
         '"message": "", "advice": "", "rule": ""}], "notices": []}\'', "check"),
    ],
)  # fmt: skip
def test_a_verdict_that_cannot_be_read_is_a_refusal(
    job: Path, interpreter: Callable[[str], None], program: str, rule: str
) -> None:
    interpreter(program)

    assert rules(limited_check(job)) == [rule] * bool(rule)


def test_an_interpreter_that_is_not_there_is_a_refusal(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    assert rules(limited_check(job)) == ["check"]


def test_the_process_of_a_check_is_given_few_variables(
    job: Path, interpreter: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    interpreter(f'test -n "$PATH" -a -z "$AWS_SECRET_ACCESS_KEY" && echo \'{GOOD}\'')

    assert limited_check(job).accepted


def test_nothing_of_the_environment_or_the_folder_is_imported(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    for name in ("json", "sitecustomize", "fl_client"):
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\n")
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.setenv("PYTHONSTARTUP", str(place / "json/__init__.py"))

    assert limited_check(job).accepted
    assert not (tmp_path / "marker").exists()


SEEN = """
import resource, socket, subprocess, sys
import fl_client.jobs.limited_check as one
from mmar_runtime.policy.verdict import Verdict

ATTEMPTS = (
    lambda: subprocess.run(["/bin/true"]),
    lambda: open(MARKER, "w"),
    lambda: socket.create_connection(("127.0.0.1", 9)),
)

def attempted(attempt):
    try:
        attempt()
    except PermissionError as error:
        return "refused"
    except OSError as error:
        return type(error).__name__
    return "done"

def judged(path, policy, overrides):
    kinds = (resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE)
    limits = [resource.getrlimit(kind)[0] for kind in kinds]
    heavy = sorted({"torch", "monai", "ignite", "nvflare"} & set(sys.modules))
    return Verdict(path, notices=(str(limits), str(heavy), str([*map(attempted, ATTEMPTS)])))

one._JUDGES = {"path": judged}
sys.exit(one.main())
"""


def test_the_process_of_a_check_imports_nothing_heavy_and_does_nothing_else(
    job: Path, tmp_path: Path, interpreter: Callable[[str], None]
) -> None:
    (tmp_path / "seen.py").write_text(SEEN.replace("MARKER", repr("/var/tmp/mmar-marker")))
    interpreter(f"exec {sys.executable} -I {tmp_path / 'seen.py'}")

    limits, heavy, attempts = limited_check(job).notices
    assert limits == str([CPU_SECONDS, MEMORY, FILE_BYTES])
    assert heavy == "[]"
    if kernel_wall().stands:
        assert attempts == str(["refused"] * 3)


def test_a_path_is_relative_to_the_folder_of_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[3] / "jobs")

    assert limited_check("spleen_ct_segmentation").accepted
