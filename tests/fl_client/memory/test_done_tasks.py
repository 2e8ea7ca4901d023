"""No task of a job is done twice: what a site remembers, and from where."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_client.memory.done_tasks import DONE, DoneTasks
from mmar_runtime.audit import AuditLog, lines_of_job
from mmar_runtime.errors import PolicyError
from mmar_runtime.exchange.messages import Score, Train, Validate


def train(round_number: int) -> Train:
    return Train(weights={}, round_number=round_number)


def validate(owner: str) -> Validate:
    return Validate(weights={}, owner=owner, is_global=False)


def test_rounds_go_on_and_never_back() -> None:
    # A job adds lines to the log as well: a later one may name an earlier round.
    lines = [{"event": DONE, "task": "train", "round": number} for number in (4, 1)]
    done = DoneTasks(lines, rounds=6)

    for number in (1, 4, 0, -3):
        with pytest.raises(PolicyError, match="this site has done round 4"):
            done.require_new(train(number))
    done.require_new(train(6))  # a site may miss a round
    with pytest.raises(PolicyError, match="round 7; the job has 6 rounds"):
        done.require_new(train(7))


def test_a_model_is_evaluated_once() -> None:
    done = DoneTasks([], rounds=None)
    for number in range(10):
        done.require_new(validate(f"site-{number}"))
        done.add(validate(f"site-{number}"))

    with pytest.raises(PolicyError, match="'site-7' in this job already"):
        done.require_new(validate("site-7"))
    assert done.evaluations == 10


@pytest.mark.parametrize("name", ["a\nINFO all is well", "\x1b[2J", "=1+1", "[red]a[/red]", ""])
def test_the_name_of_a_model_is_a_plain_one(name: str) -> None:
    with pytest.raises(PolicyError, match="name of letters"):
        DoneTasks([], rounds=None).require_new(validate(name))


def test_a_task_that_failed_may_be_asked_for_again() -> None:
    failed = {"event": "task-failed", "task": "train", "round": 1}

    done = DoneTasks([failed, {"event": "task-in", "task": "score_model"}], None)

    done.require_new(train(1))
    done.require_new(Score(weights={}))


def test_the_audit_log_knows_the_tasks_of_each_job(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert list(lines_of_job(path, "one")) == []
    log = AuditLog(path)
    log.append(DONE, job="one", task="train", round=3)
    log.append(DONE, job="two", task="train", round=9)
    with path.open("ab") as stream:
        stream.write(b'{"damaged": "one"')

    assert [line["round"] for line in lines_of_job(path, "one")] == [3]
