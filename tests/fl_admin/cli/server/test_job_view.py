"""What a person sees of a job at a server: a table on a terminal, lines in a file."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from fl_admin.cli.server.job_view import JobLines, job_table
from fl_server.record.values import EpochRecord, RunRecord
from tests.conftest import metric
from tests.fl_admin.at_server.test_job_end import CONTRIBUTION, DICE, recorder, state


def running() -> RunRecord:
    """The second round: one site has contributed, the other trains."""
    run = recorder()
    for number in (1, 2):
        run.start_round(number)
        run.contribution("site-1", CONTRIBUTION)
        if number == 1:
            run.contribution("site-2", CONTRIBUTION)
            run.score(0, "site-1", {DICE: metric(0.25)})
            run.score(0, "site-2", {DICE: metric(0.75)})
            run.close_round("1" * 64)
    return run.record


def rows(table: Any) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    return [
        [part.strip() for part in line.split("│")[1:-1]] if "│" in line else [line.strip()]
        for line in lines
    ]


def test_the_table_says_of_each_site_what_it_does_in_this_round() -> None:
    found = rows(job_table(state("RUNNING"), running(), 61.4))

    assert found[0] == [f"spleen: RUNNING, 1 of 2 rounds done, round 0: mean {DICE} 0.5000, 61 s"]
    assert ["site-1", "2/2", "contributed", "3", "", "0.5000", "0.5000", "1.0"] in found
    assert ["site-2", "2/2", "training", "", "", "", "", ""] in found


def test_the_last_loss_of_a_round_is_shown() -> None:
    from dataclasses import replace

    run = recorder()
    run.start_round(1)
    epochs = tuple(EpochRecord(epoch=n, loss=1 / n) for n in (1, 2))
    run.contribution("site-1", replace(CONTRIBUTION, epochs=epochs))

    found = rows(job_table(state("RUNNING"), run.record, 1.0))

    assert any(row[:5] == ["site-1", "1/2", "contributed", "3", "0.5000"] for row in found)


def test_before_the_first_round_it_says_who_took_the_job() -> None:
    deployment = {"server": "OK", "site-1": "OK", "site-2": "refused: code: x"}

    found = rows(job_table(state("RUNNING", deployment=deployment), None, 1.0))

    assert any(row[:3] == ["site-1", "", "starting"] for row in found)
    assert any(row[:3] == ["site-2", "", "refused: code: x"] for row in found)


def test_what_keeps_it_from_starting_stands_below() -> None:
    tries = ("2026-11-26 11:03:59: connected sites (2) < min_sites (3)",)

    found = rows(job_table(state("SUBMITTED", schedule=tries), None, 1.0))

    assert found[-1] == ["not started yet: connected sites (2) < min_sites (3)"]


def test_elsewhere_each_line_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    say = JobLines()
    for _ in range(2):
        say(state("RUNNING"), running())

    assert capsys.readouterr().err.splitlines() == [
        "spleen: RUNNING",
        "round 1/2: site-1 contributed, 3 steps in 1.0 s",
        "round 1/2: site-2 contributed, 3 steps in 1.0 s",
        "round 1/2 done in 0.0 s",
        "round 2/2: site-1 contributed, 3 steps in 1.0 s",
        f"global model of round 0: mean {DICE} 0.5000",
    ]


def test_an_absence_is_said_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    run = recorder()
    run.start_round(1)
    run.failed("site-2", "data-error (reference 5be1a0c3)")

    JobLines()(state("RUNNING"), run.record)

    assert (
        "round 1/2: site-2 did not contribute (failed: data-error (reference 5be1a0c3))"
        in capsys.readouterr().err
    )
