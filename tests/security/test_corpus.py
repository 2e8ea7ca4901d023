"""Every hostile case is refused, every benign one accepted, a few in each process.

The figures for all of them: ``python -m tests.security.runner``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.security.case import REPOSITORY, Case
from tests.security.corpus.all import BENIGN, HOSTILE
from tests.security.runner import Outcome, faults, run_command

pytestmark = pytest.mark.timeout(900)  # one process for all cases, on a busy machine

CASES = {case.name: case for case in (*HOSTILE, *BENIGN)}
FAMILIES = (
    "expression", "component", "substitution", "reference", "path", "data list", "archive",
    "checkpoint", "log config", "update", "metadata", "metric", "document", "argument",
    "number", "cost", "lambda", "name", "steps",
)  # fmt: skip


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """What came of each case; they are run by a lean process, which forks for each."""
    command = [sys.executable, "-m", "tests.security.runner", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [_outcome(json.loads(line)) for line in done.stdout.splitlines()]
    return {one.name: one for one in found}


def _outcome(record: dict[str, Any]) -> Outcome:
    lists = {key: tuple(value) for key, value in record.items() if isinstance(value, list)}
    return Outcome(**{**record, **lists})


@pytest.mark.parametrize("name", [case.name for case in HOSTILE])
def test_a_hostile_case_is_refused(name: str, outcomes: dict[str, Outcome]) -> None:
    assert faults(outcomes[name], CASES[name]) == []


@pytest.mark.parametrize("name", [case.name for case in BENIGN])
def test_a_benign_case_is_accepted(name: str, outcomes: dict[str, Outcome]) -> None:
    assert faults(outcomes[name], CASES[name]) == []


def test_nothing_is_executed_leaked_or_imported(outcomes: dict[str, Outcome]) -> None:
    assert set(outcomes) == set(CASES)
    assert [name for name, one in outcomes.items() if one.executed or one.leaked] == []
    assert [name for name, one in outcomes.items() if one.imported] == []


def test_the_corpus_is_as_large_as_it_says() -> None:
    count = Counter(case.family for case in HOSTILE)

    assert len(CASES) == len(HOSTILE) + len(BENIGN)
    assert set(count) == set(FAMILIES)
    assert min(count.values()) >= 10
    assert len(HOSTILE) >= 1200
    assert len(BENIGN) >= 150


SAMPLE = [
    next(case for case in CASES.values() if isinstance(case, Case) and case.family == family)
    for family in (*FAMILIES[:9], "metadata", "benign")
]


def test_the_command_itself_says_the_same(outcomes: dict[str, Outcome]) -> None:
    for outcome in run_command(SAMPLE):
        assert outcome.code == outcomes[outcome.name].code
        assert outcome.rules == outcomes[outcome.name].rules


def test_a_terminal_without_the_signs_of_a_case_gets_escapes(tmp_path: Path) -> None:
    case = CASES["component/path-homoglyph"]
    assert isinstance(case, Case)
    subject = case.write(tmp_path, marker=tmp_path / "marker", secret=tmp_path / "secret")
    command = [sys.executable, "-m", "fl_admin.cli.main", "check", str(subject)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}

    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (3, "")
    assert r"m\u043enai.losses.DiceLoss" in done.stdout


def test_a_case_that_executes_or_leaks_would_be_seen(tmp_path: Path) -> None:
    case = CASES["expression/open"]
    assert isinstance(case, Case)

    good = Outcome(name=case.name, family=case.family, code=3, rules=("expression",))
    for bad in ({"executed": True}, {"leaked": True}, {"code": 0}, {"code": 1}, {"work": 1.1},
                {"imported": ("torch",)}, {"rules": ("check",)}):  # fmt: skip
        wrong = Outcome(**{**_as_dict(good), **bad})
        assert faults(good, case) == []
        assert len(faults(wrong, case)) == 1


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in Outcome.__slots__}
