"""The executor: NVFlare's tasks at a site, from good weights to every way in which one can fail."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from fl_client.flare.executor import MmarExecutor
from fl_client.local_work import LocalWork
from fl_client.site_tasks import LocalTasks
from fl_client.status_words import status_word
from fl_server.initial_model import initial_model
from mmar_runtime.config.location import Location
from mmar_runtime.errors import (
    CheckpointError,
    ComponentError,
    ConfigError,
    DataError,
    Problem,
    WeightsError,
)
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.flare.wire import REPORT, STATUS
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import DEFAULT_POLICY
from mmar_runtime.weights import Weights, digest

Edited = Callable[[Path, Callable[[Any], object]], Path]
Execute = Callable[..., Shareable]

CANARY = "DOE_JOHN_1961"
"""Stands for a patient's name in a file name; it must not be found in anything that leaves."""


@pytest.fixture
def received(app: Path) -> Weights:
    return initial_model(Mmar.open(app), values={}).weights


@pytest.fixture
def executor(fl_ctx: FLContext) -> MmarExecutor:
    executor = MmarExecutor()
    executor.handle_event(EventType.START_RUN, fl_ctx)
    return executor


@pytest.fixture
def execute(executor: MmarExecutor, fl_ctx: FLContext) -> Execute:
    def run(task: str, shareable: Shareable, signal: Signal | None = None) -> Shareable:
        return executor.execute(task, shareable, fl_ctx, signal or Signal())

    yield run
    executor.handle_event(EventType.END_RUN, fl_ctx)


def message(weights: Weights, **headers: Any) -> Shareable:
    shareable = DXO(DataKind.WEIGHTS, data=arrays_of(weights)).to_shareable()
    for name, value in headers.items():
        shareable.set_header(name, value)
    return shareable


def train_task(weights: Weights, number: int = 1) -> Shareable:
    """NVFlare counts rounds from 0."""
    return message(weights, **{AppConstants.CURRENT_ROUND: number - 1})


def validate_task(weights: Weights, owner: str = "site-2") -> Shareable:
    return message(weights, **{AppConstants.MODEL_OWNER: owner})


# --- the four tasks


def test_train_gives_a_difference_with_its_steps_and_report(
    execute: Execute, received: Weights
) -> None:
    dxo = from_shareable(execute("train", train_task(received)))

    assert dxo.data_kind == DataKind.WEIGHT_DIFF
    assert dxo.data.keys() == received.keys()
    assert dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 2
    report = dxo.get_meta_prop(REPORT)
    assert report["received_metrics"].keys() == {"val_mean_dice", "val_acc"}
    assert dxo.get_meta_prop(MetaKey.INITIAL_METRICS) is None


def test_trainer_and_process_stay_the_same_over_rounds(execute: Execute, received: Weights) -> None:
    reports = [
        from_shareable(execute("train", train_task(received, number))).get_meta_prop(REPORT)
        for number in (1, 2)
    ]

    assert reports[0]["built"] == reports[1]["built"]
    assert reports[0]["process"] == reports[1]["process"]
    assert [report["epochs"][0]["epoch"] for report in reports] == [1, 2]


def test_submit_gives_the_sites_best_model_with_round_and_metrics(
    execute: Execute, executor: MmarExecutor, received: Weights
) -> None:
    execute("train", train_task(received))

    dxo = from_shareable(execute("submit_model", Shareable()))

    best = executor.run.session.tasks.best()
    sent = {name: torch.from_numpy(value) for name, value in dxo.data.items()}
    assert digest(sent) == digest(best.weights)
    assert dxo.get_meta_prop("round") == 1
    assert dxo.get_meta_prop("metrics") == to_plain(DEFAULT_POLICY.rounded(best.result.metrics))


def test_submit_before_training_is_a_failure(execute: Execute) -> None:
    reply = execute("submit_model", Shareable())

    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert reply.get_header(STATUS).startswith("weights-error ")


def test_an_unknown_task_is_named_so(execute: Execute) -> None:
    assert execute("dance", Shareable()).get_return_code() == ReturnCode.TASK_UNKNOWN


def test_steps_in_place_of_epochs(fl_ctx: FLContext, received: Weights) -> None:
    executor = MmarExecutor(steps_aggregation=3)
    executor.handle_event(EventType.START_RUN, fl_ctx)

    reply = executor.execute("train", train_task(received), fl_ctx, Signal())

    assert from_shareable(reply).get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND) == 3
    executor.handle_event(EventType.END_RUN, fl_ctx)


def test_at_the_end_of_the_run_the_process_has_its_settings_back(
    executor: MmarExecutor, fl_ctx: FLContext, received: Weights
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        executor.execute("score_model", message(received), fl_ctx, Signal())
        assert torch.get_num_threads() == 1  # as the site's environment.json says
        executor.handle_event(EventType.END_RUN, fl_ctx)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# --- a task that is stopped


def test_an_abort_during_training_ends_it_between_two_iterations(
    executor: MmarExecutor, execute: Execute, received: Weights, run_folder: Path
) -> None:
    signal = Signal()
    session = executor.run.session
    session._work = LocalWork(epochs=100)
    iterations = []

    def abort(**progress: object) -> None:
        iterations.append(progress)
        signal.trigger(True)

    session._progress.iteration = abort  # type: ignore[method-assign]

    reply = execute("train", train_task(received), signal)

    assert reply.get_return_code() == ReturnCode.TASK_ABORTED
    assert len(iterations) == 1
    tasks = session.tasks
    assert isinstance(tasks, LocalTasks)
    assert tasks.trainer()._workflow.iteration == 0  # where it was before the round
    assert list(run_folder.glob("error-*")) == []


@pytest.mark.parametrize("task", ["train", "score_model", "validate"])
def test_an_abort_is_no_failure(execute: Execute, received: Weights, task: str) -> None:
    signal = Signal()
    signal.trigger(True)
    shareable = message(
        received, **{AppConstants.CURRENT_ROUND: 0, AppConstants.MODEL_OWNER: "site-2"}
    )

    assert execute(task, shareable, signal).get_return_code() == ReturnCode.TASK_ABORTED


def test_the_next_task_runs_after_an_abort(execute: Execute, received: Weights) -> None:
    signal = Signal()
    signal.trigger(True)
    execute("score_model", message(received), signal)

    reply = execute("score_model", message(received))

    assert reply.get_return_code() == ReturnCode.OK


# --- a task that fails


@pytest.fixture
def unreadable_image(app: Path, edited: Edited) -> Path:
    """A training image that is no image, with a patient's name as its name."""
    path = app / "data" / f"{CANARY}.nii.gz"
    path.write_bytes(b"no image")
    edited(
        app / "data/dataset.json",
        lambda document: document["training"][0].update(image=path.name),
    )
    return path


def test_a_failure_leaves_the_site_as_one_word_and_a_reference(
    execute: Execute, unreadable_image: Path, received: Weights
) -> None:
    reply = execute("train", train_task(received))

    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert re.fullmatch(r"data-error \(reference [0-9a-f]{8}\)", reply.get_header(STATUS))


def test_nothing_else_leaves_it(
    execute: Execute,
    engine: Any,
    unreadable_image: Path,
    received: Weights,
    app: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither in the reply, nor in an event, nor in what this project writes to NVFlare's log."""
    reply = execute("train", train_task(received))

    ours = [one.getMessage() for one in caplog.records if one.name.endswith("MmarExecutor")]
    assert ours
    left = [repr(reply), *map(repr, engine.events), *ours]
    for secret in (CANARY, str(app), ".nii", "Traceback", "no image"):
        assert not [text for text in left if secret in text]


def test_the_whole_error_stays_at_the_site_under_its_reference(
    execute: Execute, unreadable_image: Path, received: Weights, run_folder: Path
) -> None:
    reply = execute("train", train_task(received))

    (file,) = run_folder.glob("error-*.txt")
    assert file.stem.removeprefix("error-") in reply.get_header(STATUS)
    text = file.read_text()
    assert text.startswith("train: ")
    assert CANARY in text
    assert "Traceback" in text


def test_weights_that_do_not_fit_are_a_failure_and_the_site_goes_on(
    execute: Execute, received: Weights
) -> None:
    name = next(iter(received))

    reply = execute("train", train_task({name: received[name]}))

    assert reply.get_header(STATUS).startswith("weights-error ")
    assert execute("train", train_task(received)).get_return_code() == ReturnCode.OK


def test_a_config_that_the_site_refuses_is_a_failure(
    execute: Execute, app: Path, edited: Edited, received: Weights
) -> None:
    def own_loss(document: Any) -> None:
        document["train"]["loss"] = {"path": "os.system"}

    edited(app / "config/config_train.json", own_loss)

    reply = execute("train", train_task(received))

    assert reply.get_header(STATUS).startswith("config-refused ")


def test_a_task_without_a_round_is_a_failure(execute: Execute, received: Weights) -> None:
    reply = execute("train", message(received))

    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert reply.get_header(STATUS).startswith("internal-error ")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ConfigError([Problem(Location("x"), "secret")]), "config-refused"),
        (DataError("secret"), "data-error"),
        (WeightsError("secret"), "weights-error"),
        (CheckpointError("secret"), "checkpoint-error"),
        (ComponentError("secret"), "component-error"),
        (torch.OutOfMemoryError("secret"), "out-of-memory"),
        (MemoryError("secret"), "out-of-memory"),
        (KeyError("secret"), "internal-error"),
    ],
)
def test_each_kind_of_error_has_its_word(error: BaseException, word: str) -> None:
    assert status_word(error) == word


def test_running_out_of_memory_is_told_also_from_inside_a_component() -> None:
    error = ComponentError("the run failed")
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory")

    assert status_word(error) == "out-of-memory"


def test_so_is_the_memory_of_the_processor() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)

    assert status_word(raised.value) == "out-of-memory"


def test_a_full_disk_is_told_although_neither_its_text_nor_the_audit_log_can_be_written(
    executor: MmarExecutor,
    execute: Execute,
    received: Weights,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "audit.jsonl")

    monkeypatch.setattr("fl_client.flare.executor.note", full)
    monkeypatch.setattr("fl_client.flare.failure.note", full)
    monkeypatch.setattr(Path, "write_text", full)

    reply = execute("train", train_task(received))

    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert reply.get_header(STATUS).startswith("storage-error ")
    assert "No space left on device" in capsys.readouterr().err
    assert list(run_folder.glob("error-*")) == []


# --- progress


def test_the_progress_file_holds_no_file_names(
    execute: Execute, app: Path, edited: Edited, run_folder: Path, received: Weights
) -> None:
    for part in ("image", "label"):
        old = app / "data" / f"case_1_{part}.nii.gz"
        old.rename(old.with_name(f"{CANARY}_{part}.nii.gz"))
    edited(
        app / "data/dataset.json",
        lambda document: document["training"][0].update(
            image=f"{CANARY}_image.nii.gz", label=f"{CANARY}_label.nii.gz"
        ),
    )

    execute("train", train_task(received, 2))
    execute("validate", validate_task(received, "SRV_FL_global_model"))

    text = (run_folder / "progress.jsonl").read_text()
    assert CANARY not in text
    assert "/" not in text
    events = [json.loads(line) for line in text.splitlines()]
    assert [event["kind"] for event in events if event["kind"] != "iteration"] == [
        "task", "validation", "epoch", "task",
    ]  # fmt: skip
    assert {event["round"] for event in events} == {2}
    assert events[-1]["model"] == "SRV_FL_global_model"
