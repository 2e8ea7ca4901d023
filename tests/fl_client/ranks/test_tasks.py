"""What a site keeps of its processes when they are lost; they are stand-ins here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from fl_client.local_work import LocalWork
from fl_client.memory.stored_rounds import STORED
from fl_client.ranks import tasks as module
from fl_client.ranks.messages import update_message, write_weights
from fl_client.ranks.tasks import FOLDER, RankTasks
from fl_client.site import Site
from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.messages import SiteReport, Update
from mmar_runtime.results import EvaluationResult
from tests.conftest import metric

WEIGHTS = {"w": torch.ones(2)}
REPORT = SiteReport(
    received_metrics={}, local_metrics={}, epochs=(), seconds=1.0, built={}, process="p"
)


class StandIn:
    """Answers a training with the update and the best model that it is told."""

    alive = True
    best: float | None = None
    higher_is_better = True
    started: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, count: int, setup: dict[str, Any], **_: Any) -> None:
        assert count == 2
        self.folder = Path(setup["folder"])
        self.started.append(setup)

    def ask(self, kind: str, *, weights: Any, **task: Any) -> dict[str, Any]:
        assert (self.folder / weights["file"]).is_file()
        if kind == "best":
            return self._best(1)
        if kind != "train":
            return {"result": result(0.0)}
        number = task["round_number"]
        update = Update(round_number=number, difference={}, steps=1, report=REPORT)
        path = self.folder / "update.safetensors"
        return {
            "update": update_message(update),
            "difference": write_weights(WEIGHTS, path),
            **self._best(number),
        }

    def _best(self, number: int) -> dict[str, Any]:
        if self.best is None:
            return {}
        weights = {"w": torch.full((2,), self.best)}
        told = write_weights(weights, self.folder / "best.safetensors")
        best = {"weights": told, "result": result(self.best), "round_number": number}
        return {"best": best}

    def end(self) -> None:
        """Nothing to end."""


def result(dice: float | None) -> dict[str, Any]:
    found = metric(dice, higher_is_better=StandIn.higher_is_better)
    return EvaluationResult(key_metric="dice", metrics={"dice": found}, cases=3).as_dict()


MakeTasks = Callable[..., RankTasks]


@pytest.fixture
def make_tasks(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTasks:
    """``make_tasks(shared=None)``: the tasks of a site with two processes."""
    monkeypatch.setattr(module, "Ranks", StandIn)
    monkeypatch.setattr(StandIn, "started", [])
    here = Site(name=site.name, mmar=site.mmar, values={**site.values, "NUM_PROCESSES": 2})

    def make(shared: list[str] | None = None) -> RankTasks:
        return RankTasks(
            here,
            work=LocalWork(shared=shared),
            run=tmp_path,
            progress=tmp_path / "progress.jsonl",
            should_stop=lambda: False,
        )

    return make


def lose(tasks: RankTasks) -> None:
    assert tasks._ranks is not None
    tasks._ranks.alive = False  # type: ignore[misc]  # a stand-in's


def test_lost_processes_are_started_anew_under_another_name_and_that_is_logged(
    make_tasks: MakeTasks, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = make_tasks()
    tasks.train(WEIGHTS, 1)
    tasks.train(WEIGHTS, 2)
    assert len(StandIn.started) == 1
    lose(tasks)

    with caplog.at_level(logging.WARNING):
        tasks.train(WEIGHTS, 3)

    first, second = StandIn.started
    assert first["process"] != second["process"]
    assert "go on from the last whole round" in caplog.text


@pytest.mark.parametrize(
    ("higher_is_better", "expected"),
    [(True, [(1, 0.5), (1, 0.5), (3, 0.75)]), (False, [(1, 0.5), (2, 0.25), (2, 0.25)])],
)
def test_the_best_model_outlives_its_processes_until_there_is_a_better_one(
    make_tasks: MakeTasks,
    monkeypatch: pytest.MonkeyPatch,
    higher_is_better: bool,
    expected: list[tuple[int, float]],
) -> None:
    monkeypatch.setattr(StandIn, "higher_is_better", higher_is_better)
    tasks = make_tasks()
    with pytest.raises(WeightsError, match="no model yet"):
        tasks.best()

    kept = []
    for number, dice in enumerate((0.5, 0.25, 0.75), start=1):
        monkeypatch.setattr(StandIn, "best", dice)
        tasks.train(WEIGHTS, number)
        lose(tasks)
        kept.append((tasks.best().round_number, tasks.best().weights["w"][0].item()))

    assert kept == expected


def test_the_best_model_of_an_earlier_process_of_the_site_is_asked_for(
    make_tasks: MakeTasks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(StandIn, "best", 0.5)
    (tmp_path / STORED).mkdir()

    assert make_tasks().best().weights["w"].tolist() == [0.5, 0.5]


def test_no_weights_are_left_in_the_folder_that_they_go_through(
    make_tasks: MakeTasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "best", 0.5)
    tasks = make_tasks()

    update = tasks.train(WEIGHTS, 1)
    tasks.score(WEIGHTS)
    lose(tasks)
    (tmp_path / FOLDER / "best-7.safetensors").write_bytes(b"half of one")
    tasks.score(WEIGHTS)

    assert not list((tmp_path / FOLDER).glob("*.safetensors"))
    assert torch.equal(update.difference["w"], WEIGHTS["w"])
    assert torch.equal(tasks.best().weights["w"], torch.full((2,), 0.5))
