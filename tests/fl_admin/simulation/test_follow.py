"""Following a run: what its files say at each moment, half-written lines and all."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fl_admin.simulation.follow import (
    RunFollower,
    SiteView,
    after_event,
    seconds_left,
)
from fl_server.record.files import write_run_record
from fl_server.record.recorder import RunRecorder
from fl_server.record.values import RunRecord, SiteContribution
from tests.conftest import metric

DICE = "val_mean_dice"


@pytest.fixture
def follower(tmp_path: Path) -> RunFollower:
    progress = {site: tmp_path / f"{site}.jsonl" for site in ("site-1", "site-2")}
    return RunFollower(progress, tmp_path / "run_record.json", rounds=3)


def tell(follower: RunFollower, site: str, **event: Any) -> None:
    with follower.progress[site].open("a") as stream:
        stream.write(json.dumps({"time": 0.0, "round": 1, **event}) + "\n")


def recorder(*, seconds: float = 2.0) -> RunRecorder:
    """Its rounds last ``seconds`` each."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    ticks = iter(number * seconds for number in range(100))
    record = RunRecord(
        job="j",
        engine="nvflare",
        started=now,
        key_metric=DICE,
        rounds_asked=3,
        sites=("site-1", "site-2"),
        min_sites=1,
        versions={},
        initial_weights_sha256="0" * 64,
    )
    return RunRecorder(record, now=lambda: now, timer=lambda: next(ticks))


def close_round(recorder: RunRecorder, number: int) -> None:
    recorder.start_round(number)
    contribution = SiteContribution(
        steps=1,
        sent_bytes=1,
        seconds=1.0,
        received_metrics={DICE: metric(0.5)},
        local_metrics={DICE: metric(0.5)},
        epochs=(),
        built={},
        process="p",
    )
    recorder.contribution("site-1", contribution)
    recorder.close_round("1" * 64)


def test_before_anything_is_written_every_site_is_starting(follower: RunFollower) -> None:
    view = follower.look()

    assert view.sites == {"site-1": SiteView(), "site-2": SiteView()}
    assert view.record is None
    assert view.seconds_left is None
    assert view.elapsed >= 0


def test_a_site_is_where_its_last_lines_say(follower: RunFollower) -> None:
    tell(follower, "site-2", kind="task", task="train", model="")
    tell(follower, "site-2", kind="iteration", epoch=2, epochs=3, done=1, of=4, loss=0.5)

    assert follower.look().sites["site-2"] == SiteView(
        task="train", round_number=1, epoch=2, iteration=(1, 4), loss=0.5
    )
    assert follower.look().sites["site-1"] == SiteView()


def test_a_line_counts_once_it_is_whole(follower: RunFollower) -> None:
    line = json.dumps({"time": 0.0, "round": 2, "kind": "task", "task": "train", "model": ""})
    path = follower.progress["site-1"]

    path.write_text(line[:20])
    assert follower.look().sites["site-1"].task == ""
    path.write_text(line + "\n")
    assert follower.look().sites["site-1"].round_number == 2


def test_a_validation_tells_the_key_metric() -> None:
    event = {"round": 1, "kind": "validation", "epoch": 1, "key_metric": DICE}

    assert after_event(SiteView(), {**event, "metrics": {DICE: 0.5, "acc": 0.9}}).metric == 0.5


def test_a_new_task_begins_without_iterations_and_keeps_the_last_loss() -> None:
    before = SiteView(task="train", round_number=1, iteration=(4, 4), loss=0.5)

    event = {"round": 1, "kind": "task", "task": "validate", "model": "site-2"}
    after = after_event(before, event)

    assert (after.task, after.model, after.iteration, after.loss) == (
        "validate", "site-2", (0, 0), 0.5,
    )  # fmt: skip


def test_an_event_of_a_later_version_is_passed_over() -> None:
    view = SiteView(task="train", round_number=1)

    assert after_event(view, {"round": 1, "kind": "something new"}) == view


def test_the_record_is_read_when_the_server_has_written_it(follower: RunFollower) -> None:
    record = recorder().record

    write_run_record(follower.record_file, record)
    assert follower.look().record == record


def test_a_record_that_cannot_be_read_leaves_the_last_one(follower: RunFollower) -> None:
    write_run_record(follower.record_file, recorder().record)
    known = follower.look().record

    follower.record_file.write_text("{")
    assert follower.look().record == known


def test_the_time_left_is_that_of_the_rounds_so_far_for_those_to_come() -> None:
    running = recorder(seconds=2.0)
    assert seconds_left(None) is None
    assert seconds_left(running.record) is None

    close_round(running, 1)
    assert seconds_left(running.record) == 2 * 2.0
    close_round(running, 2)
    assert seconds_left(running.record) == 1 * 2.0
