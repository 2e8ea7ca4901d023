"""A site under its policy: what it does, what it declines, and what of a reply may leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_client import site_session
from fl_client.local_work import LocalWork
from fl_client.memory.done_tasks import DoneTasks
from fl_client.progress import ProgressFile
from fl_client.run_watch import RunWatch
from fl_client.simulation.turns import TurnClock
from fl_client.site import Site
from fl_client.site_session import SiteSession
from fl_client.site_tasks import LocalTasks
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, MmarError, PolicyError, RunAborted
from mmar_runtime.exchange.messages import (
    BestModel,
    Score,
    Submit,
    Task,
    Train,
    Update,
    Validate,
)
from mmar_runtime.metrics import rounded, significant
from mmar_runtime.policy.site_policy import parse_policy
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights
from mmar_runtime.workflows.observing import ShouldStop
from tests.conftest import edit_json

Edited = Callable[[Path, Callable[[Any], object]], Path]
Start = Callable[..., SiteSession]


def make_tasks(
    site: Site, work: LocalWork, progress: ProgressFile, should_stop: ShouldStop
) -> LocalTasks:
    return LocalTasks(site, work=work, process="p", observer=progress, should_stop=should_stop)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def start(site: Site, run_folder: Path) -> Iterator[Start]:
    """``start(work=LocalWork(), values={}, **policy)``: a session of a site with this policy."""
    sessions: list[SiteSession] = []

    def begin(
        work: LocalWork | None = None,
        *,
        values: Any = None,
        should_stop: ShouldStop = lambda: False,
        clock: Callable[[], float] | None = None,
        **policy: Any,
    ) -> SiteSession:
        parsed = parse_policy({"policy_version": 1, **policy}, Location("policy"))
        here = replace(site, values={**site.values, **(values or {})}, policy=parsed)
        session = SiteSession(
            here,
            work or LocalWork(),
            make_tasks,
            progress=ProgressFile(run_folder / "progress.jsonl"),
            done=DoneTasks((), rounds=None),
            watch=RunWatch(run_folder, parsed.limits, clock=clock or TurnClock()),
            should_stop=should_stop,
        )
        sessions.append(session)
        return session

    yield begin
    for session in sessions:
        session.close()


def train(weights: Weights, number: int = 1) -> Train:
    return Train(weights=weights, round_number=number)


def validate(weights: Weights, owner: str = "site-2", *, is_global: bool = False) -> Validate:
    return Validate(weights=weights, owner=owner, is_global=is_global)


# --- the four tasks


def test_a_round_a_score_the_best_model_and_a_cell(start: Start, received: Weights) -> None:
    session = start()

    update = session.do(train(received))
    score = session.do(Score(weights=received))
    best = session.do(Submit())
    cell = session.do(validate(received))

    assert isinstance(update, Update)
    assert (update.round_number, update.steps) == (1, 2)
    assert isinstance(best, BestModel)
    assert best.round_number == 1
    for name, tensor in best.weights.items():
        torch.testing.assert_close(tensor, received[name] + update.difference[name])
    assert best.result.metrics == update.report.local_metrics
    assert isinstance(score, EvaluationResult)
    assert score.metrics == update.report.received_metrics
    assert isinstance(cell, EvaluationResult)
    assert cell == score


def test_progress_names_each_task_and_what_it_is_about(
    start: Start, received: Weights, run_folder: Path
) -> None:
    session = start()
    session.do(train(received, 2))
    session.do(validate(received, "best", is_global=True))

    lines = (run_folder / "progress.jsonl").read_text().splitlines()
    tasks = [event for event in map(json.loads, lines) if event["kind"] == "task"]
    assert [(event["task"], event["model"], event["round"]) for event in tasks] == [
        ("train", "", 2), ("validate", "best", 2),
    ]  # fmt: skip


def test_nothing_is_done_for_a_task_before_it_has_begun(start: Start, received: Weights) -> None:
    """A carrier prepares its filters then, and may refuse the task itself."""
    session = start(limits={"rounds": 1})
    begun: list[int] = []

    def fail(task: Task) -> Task:
        begun.append(1)
        raise PolicyError("the privacy budget is spent")

    with pytest.raises(PolicyError, match="budget"):
        session.do(train(received), begin=fail)
    with pytest.raises(PolicyError, match="round 2"):
        session.do(train(received, 2), begin=fail)

    assert begun == [1]
    session.do(train(received))  # the round is not done


# --- what the policy declines


TRAINING = "persons in the training list"
VALIDATION = r"persons in the validation list \(cross_site.min_cases\): 1; "
ROUND, SCORE, SUBMIT, CELL = "round", "score", "submit", "cell"
DECLINED: list[tuple[dict[str, Any], LocalWork, str, str]] = [
    ({"min_dataset_size": 3}, LocalWork(), ROUND, rf"{TRAINING} \(min_dataset_size\): 2; this"),
    ({"cross_site": {"min_cases": 3}}, LocalWork(), ROUND, rf"{TRAINING} \(cross_site.min_cases"),
    ({"cross_site": {"min_cases": 2}}, LocalWork(), ROUND, VALIDATION),
    ({"cross_site": {"min_cases": 2}}, LocalWork(), SCORE, VALIDATION),
    ({"cross_site": {"min_cases": 2}}, LocalWork(), CELL, VALIDATION),
    ({"outgoing": {"metrics": ["val_acc"]}}, LocalWork(), ROUND, "list the key metric 'val_mean"),
    ({"limits": {"epochs_per_round": 2}}, LocalWork(epochs=3), ROUND, "3 epochs a round; limits"),
    ({"limits": {"epochs_per_round": 2}}, LocalWork(epochs=3), CELL, "3 epochs a round; limits"),
    # An epoch has two steps here.
    ({"limits": {"epochs_per_round": 2}}, LocalWork(steps=5), ROUND, "5 steps a round; .* 4 steps"),
    ({"limits": {"rounds": 4}}, LocalWork(), ROUND, "round 5; limits.rounds of this site is 4"),
    ({"cross_site": {"share_model": False}}, LocalWork(), SUBMIT, "cross_site.share_model"),
    ({"cross_site": {"evaluate_others": False}}, LocalWork(), CELL, "cross_site.evaluate_others"),
]


def task_of(kind: str, weights: Weights) -> Task:
    tasks: dict[str, Task] = {
        ROUND: train(weights, 5),
        SCORE: Score(weights=weights),
        SUBMIT: Submit(),
        CELL: validate(weights),
    }
    return tasks[kind]


@pytest.mark.parametrize(("policy", "work", "kind", "message"), DECLINED)
def test_the_policy_declines(
    start: Start, received: Weights, policy: Any, work: LocalWork, kind: str, message: str
) -> None:
    session = start(work, **policy)

    for _ in range(2):  # nor is the task allowed when the server asks again
        with pytest.raises(PolicyError, match=message):
            session.do(task_of(kind, received))


ALLOWED: list[tuple[dict[str, Any], LocalWork, str]] = [
    ({"min_dataset_size": 2, "cross_site": {"min_cases": 1}}, LocalWork(), ROUND),
    ({"outgoing": {"metrics": ["val_mean_dice"]}}, LocalWork(), ROUND),
    ({"limits": {"epochs_per_round": 2, "rounds": 5}}, LocalWork(epochs=2), ROUND),
    ({"limits": {"epochs_per_round": 2}}, LocalWork(steps=4), ROUND),
    ({"outgoing": {"max_evaluations": 1}}, LocalWork(), SCORE),
    ({"cross_site": {"share_model": False}}, LocalWork(), CELL),
]


@pytest.mark.parametrize(("policy", "work", "kind"), ALLOWED)
def test_the_policy_allows_what_its_limits_include(
    start: Start, received: Weights, policy: Any, work: LocalWork, kind: str
) -> None:
    start(work, **policy).do(task_of(kind, received))


def test_a_site_that_evaluates_no_others_evaluates_its_own_and_the_global_model(
    start: Start, received: Weights
) -> None:
    session = start(cross_site={"evaluate_others": False})

    session.do(validate(received, "site-1"))
    session.do(validate(received, "best", is_global=True))


def test_a_job_has_only_so_many_evaluations(start: Start, received: Weights) -> None:
    session = start(outgoing={"max_evaluations": 2})
    session.do(Score(weights=received))
    session.do(validate(received))

    with pytest.raises(PolicyError, match=r"2 evaluations of this job; outgoing\.max_evaluations"):
        session.do(validate(received, "site-3"))
    session.do(train(received))


def test_the_rows_of_one_person_are_one_person(
    start: Start, received: Weights, tiny_mmar: Path
) -> None:
    lists = tiny_mmar / "data/dataset.json"
    edit_json(lists, lambda document: document.update(training=document["training"][:1] * 6))

    with pytest.raises(PolicyError, match=r"\(min_dataset_size\): 1; this site's policy asks"):
        start(min_dataset_size=5).do(train(received))


def test_a_site_names_the_key_of_its_patients(
    start: Start, received: Weights, tiny_mmar: Path
) -> None:
    lists = tiny_mmar / "data/dataset.json"
    edit_json(lists, lambda document: [case.update(code=1) for case in document["training"]])

    with pytest.raises(PolicyError, match=r"\(min_dataset_size\): 1;"):
        start(min_dataset_size=2, patient_key="code").do(train(received))


def test_an_epoch_over_a_part_of_the_list_is_of_fewer_cases(
    start: Start, received: Weights, tiny_mmar: Path, edited: Edited
) -> None:
    def cache_one(config: Any) -> None:
        config["train"]["dataset"]["name"] = "SmartCacheDataset"
        config["train"]["dataset"]["args"] = {"transform": "@pre_transforms", "cache_num": 1}

    edited(tiny_mmar / "config/config_train.json", cache_one)

    with pytest.raises(PolicyError, match="an epoch is over 1 cases; the policy of this site"):
        start(min_dataset_size=2).do(train(received))


def test_a_network_that_is_too_large_is_refused(start: Start, received: Weights) -> None:
    with pytest.raises(ConfigError, match="parameters; 100 is the most"):
        start(limits={"parameters": 100}).do(train(received))


# --- the epochs of a round


def test_a_site_with_its_own_number_of_epochs_trains_so_many(
    start: Start, received: Weights
) -> None:
    session = start(values={"LOCAL_EPOCHS": 2}, limits={"epochs_per_round": 2})

    update = session.do(train(received))

    assert isinstance(update, Update)
    assert [report.epoch for report in update.report.epochs] == [1, 2]
    assert update.steps == 2 * 2


def test_its_own_number_is_within_its_limits_too(start: Start, received: Weights) -> None:
    limits = {"epochs_per_round": 2}
    with pytest.raises(PolicyError, match="3 epochs a round"):
        start(values={"LOCAL_EPOCHS": 3}, limits=limits).do(train(received))

    start(LocalWork(epochs=3), values={"LOCAL_EPOCHS": 2}, limits=limits).do(train(received))


def test_an_own_number_that_is_not_a_number_is_refused(start: Start, received: Weights) -> None:
    with pytest.raises(ConfigError, match="LOCAL_EPOCHS: has to be a positive whole number"):
        start(values={"LOCAL_EPOCHS": "two"}).do(train(received))


@pytest.mark.parametrize("work", [{"epochs": 0}, {"steps": -1}])
def test_a_round_without_work_is_none(work: dict[str, int]) -> None:
    with pytest.raises(MmarError, match="a round needs at least one epoch"):
        LocalWork(**work)


# --- a job that the site refuses


def tasks(weights: Weights) -> list[Task]:
    return [task_of(kind, weights) for kind in (ROUND, SCORE, SUBMIT, CELL)]


def test_a_refused_job_does_no_task_at_all(
    start: Start, received: Weights, tiny_mmar: Path, edited: Edited
) -> None:
    """Not even a task that would not touch what the job was refused for."""
    loss = {"path": "os.system"}
    edited(tiny_mmar / "config/config_train.json", lambda conf: conf["train"].update(loss=loss))
    session = start()

    for task in tasks(received):
        with pytest.raises(ConfigError, match=r"os\.system"):
            session.do(task)


def test_a_denied_component_is_refused(start: Start, received: Weights) -> None:
    with pytest.raises(ConfigError, match="UNet"):
        start(denied_components=["UNet"]).do(train(received))


def test_a_site_that_could_not_judge_the_job_does_no_task_at_all(
    start: Start, received: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Site) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(site_session, "mmar_problems", fail)
    session = start()

    for task in tasks(received):
        with pytest.raises(OSError, match="the disk is gone"):
            session.do(task)


# --- each task once


def test_a_site_trains_no_round_twice(start: Start, received: Weights) -> None:
    session = start()
    session.do(train(received, 2))

    for number in (2, 1, 0):
        with pytest.raises(PolicyError, match="this site has done round 2 of this job"):
            session.do(train(received, number))


def test_a_site_evaluates_no_model_twice_and_submits_once(start: Start, received: Weights) -> None:
    session = start()
    session.do(train(received))

    for task in (validate(received, "best", is_global=True), Score(weights=received), Submit()):
        session.do(task)
        with pytest.raises(PolicyError, match="in this job already"):
            session.do(task)

    session.do(validate(received, "site-2"))


# --- time and disk


def test_a_task_that_is_stopped_may_be_asked_for_again(start: Start, received: Weights) -> None:
    stopped = [True]
    session = start(should_stop=lambda: stopped[0])
    with pytest.raises(RunAborted):
        session.do(Score(weights=received))

    stopped[0] = False
    session.do(Score(weights=received))


def test_a_task_has_its_own_time(start: Start, received: Weights) -> None:
    session = start()
    with pytest.raises(RunAborted):
        session.do(Score(weights=received, timeout=1e-6))

    session.do(Score(weights=received, timeout=600))


def test_a_job_that_runs_too_long_is_ended(start: Start, received: Weights) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1
        return now[0]

    session = start(
        LocalWork(epochs=50), clock=clock, limits={"wall_minutes": 1, "epochs_per_round": 50}
    )

    for task in (train(received), Score(weights=received)):
        with pytest.raises(PolicyError, match=r"this job has run for limits\.wall_minutes of this"):
            session.do(task)

    assert now[0] < 60 + 10  # within an iteration or two, not after 50 epochs


def test_a_run_that_has_filled_the_disk_goes_no_further(
    start: Start, received: Weights, run_folder: Path
) -> None:
    session = start(limits={"disk_gib": 1})
    with (run_folder / "large").open("wb") as stream:
        stream.truncate(2**30 + 1)  # takes no blocks, but has the size

    with pytest.raises(PolicyError, match=r"has written \d+ bytes; limits.disk_gib allows"):
        session.do(Score(weights=received))
    (run_folder / "large").unlink()
    session.do(Score(weights=received))


# --- what leaves


def test_numbers_leave_rounded_and_only_those_that_may(start: Start, received: Weights) -> None:
    session = start(outgoing={"metrics": ["val_mean_dice"], "round_digits": 2})

    update = session.do(train(received))
    best = session.do(Submit())
    results = [session.do(Score(weights=received)), session.do(validate(received))]

    assert isinstance(update, Update)
    assert isinstance(best, BestModel)
    tables = [update.report.received_metrics, update.report.local_metrics, best.result.metrics]
    tables += [result.metrics for result in results if isinstance(result, EvaluationResult)]
    assert len(tables) == 5
    for table in tables:
        assert set(table) == {"val_mean_dice"}
        assert table["val_mean_dice"] == rounded(table["val_mean_dice"], 2)
        assert len(table["val_mean_dice"].classes) == 1  # rounded as well
    [epoch] = update.report.epochs
    assert (epoch.loss, epoch.metrics) == (None, {})


def test_the_loss_leaves_by_its_own_name(start: Start, received: Weights) -> None:
    session = start(outgoing={"metrics": ["val_mean_dice", "train_loss"], "round_digits": 3})

    update = session.do(train(received))

    assert isinstance(update, Update)
    loss = update.report.epochs[0].loss
    assert loss is not None
    assert loss == significant(loss, 3) > 0


def test_at_the_end_the_process_has_its_settings_back(start: Start, received: Weights) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        session = start()
        session.do(Score(weights=received))
        assert torch.get_num_threads() == 1  # as the site's environment.json says
        session.close()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
