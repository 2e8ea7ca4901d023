"""The optimizer steps of a round, as a job's client document has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fl_server.asked_steps import EXECUTOR, asked_steps


@pytest.mark.parametrize(
    ("top", "args", "steps"),
    [
        ({"steps_aggregation": 250}, {"steps_aggregation": "{steps_aggregation}"}, 250),
        ({"steps_aggregation": 250}, {"steps_aggregation": 40}, 40),
        ({"steps_aggregation": 0}, {"steps_aggregation": "{steps_aggregation}"}, 0),
        ({"local_epochs": 5}, {"steps_aggregation": "{local_epochs}"}, 5),
        ({}, {"local_epochs": 3}, 0),
    ],
)
def test_the_steps_are_those_of_the_executor(
    tmp_path: Path, top: Any, args: Any, steps: int
) -> None:
    (tmp_path / "config").mkdir()
    executors = [{"tasks": ["train"], "executor": {"path": EXECUTOR, "args": args}}]
    text = json.dumps({**top, "executors": executors})
    (tmp_path / "config/config_fed_client.json").write_text(text)

    assert asked_steps(tmp_path) == steps


def test_another_executor_counts_as_it_likes(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    own = {"executor": {"path": "own.Executor", "args": {"steps_aggregation": 9}}}
    (tmp_path / "config/config_fed_client.json").write_text(json.dumps({"executors": [own]}))

    assert asked_steps(tmp_path) == 0
