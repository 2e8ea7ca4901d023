"""The progress file: a line of JSON for each event, numbers only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fl_client.progress import SECONDS_BETWEEN_ITERATIONS, ProgressFile
from mmar_runtime.results import EpochReport, EvaluationResult
from tests.conftest import metric


class Clock:
    """Stands still until it is set."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(tmp_path: Path, clock: Clock) -> ProgressFile:
    return ProgressFile(tmp_path / "run/progress.jsonl", clock=clock)


def events(progress: ProgressFile) -> list[dict[str, Any]]:
    return [json.loads(line) for line in progress.path.read_text().splitlines()]


def test_each_event_is_a_line_with_its_time_and_round(progress: ProgressFile) -> None:
    progress.round_number = 2
    progress.task("validate", model="SRV_FL_global_model")
    progress.epoch(EpochReport(epoch=4, loss=0.5), epochs=6)
    result = EvaluationResult(
        key_metric="dice", metrics={"dice": metric(0.75), "acc": metric(1.0)}, cases=3
    )
    progress.validation(result, epoch=4)

    assert events(progress) == [
        {"time": 100.0, "round": 2, "kind": "task", "task": "validate",
         "model": "SRV_FL_global_model"},
        {"time": 100.0, "round": 2, "kind": "epoch", "epochs": 6, "epoch": 4, "loss": 0.5,
         "metrics": {}},
        {"time": 100.0, "round": 2, "kind": "validation", "epoch": 4, "key_metric": "dice",
         "metrics": {"dice": 0.75, "acc": 1.0}},
    ]  # fmt: skip


def test_iterations_are_told_no_more_often_than_anybody_reads(
    progress: ProgressFile, clock: Clock
) -> None:
    for done in range(1, 5):
        progress.iteration(epoch=1, epochs=1, done=done, of=4, loss=0.5)
        clock.seconds += SECONDS_BETWEEN_ITERATIONS * 0.6

    assert [event["done"] for event in events(progress)] == [1, 3]


def test_a_second_run_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    ProgressFile(path).task("train")
    again = ProgressFile(path)
    again.task("submit_model")

    assert [event["task"] for event in events(again)] == ["train", "submit_model"]


def test_a_number_that_is_not_finite_and_an_undefined_one_are_null(progress: ProgressFile) -> None:
    progress.iteration(epoch=1, epochs=1, done=1, of=4, loss=float("nan"))
    result = EvaluationResult(key_metric="dice", metrics={"dice": metric(None)}, cases=1)
    progress.validation(result, epoch=1)

    assert "NaN" not in progress.path.read_text()
    assert [one.get("loss", one.get("metrics")) for one in events(progress)] == [
        None,
        {"dice": None},
    ]
