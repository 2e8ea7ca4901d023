"""The executor at a site with two processes: the same replies as with one, and no process too many.

The processes are real, and starting them takes seconds: many tests share them.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.workspace import Workspace
from nvflare.app_common.app_constant import AppConstants

from fl_client.flare.executor import MmarExecutor, SiteRun
from fl_client.memory.done_tasks import DoneTasks
from fl_client.ranks import launcher
from fl_client.ranks.tasks import RankTasks
from fl_server.initial_model import initial_model
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.flare.wire import EPOCH_SAMPLES, REPORT, SAMPLES, STATUS
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import SITE_POLICY_FILE
from mmar_runtime.weights import Weights, digest
from tests.conftest import edit_json, site_values, with_more_cases, write_mmar
from tests.fl_client.flare.conftest import JOB, SITE, EngineStandIn

pytestmark = pytest.mark.slow

SECONDS = 5.0
"""Within this time a lost process is noticed, and an abort has ended the training."""

PATIENCE = 120.0


@dataclass
class Running:
    """An executor at a site of its own, between the start and the end of a run."""

    executor: MmarExecutor
    run: Path
    app: Path
    fl_ctx: Any

    def do(
        self, task: str, weights: Weights | None, abort: Signal | None = None, **headers: Any
    ) -> Shareable:
        shareable = Shareable()
        if weights is not None:
            shareable = DXO(DataKind.WEIGHTS, data=arrays_of(weights)).to_shareable()
        for name, value in headers.items():
            shareable.set_header(name, value)
        run = self.executor._run
        if isinstance(run, SiteRun):  # several tests ask one executor the same
            run.session._done = DoneTasks((), None)
        return self.executor.execute(task, shareable, self.fl_ctx, abort or Signal())

    def train(self, weights: Weights, number: int = 1, abort: Signal | None = None) -> Shareable:
        return self.do("train", weights, abort, **{AppConstants.CURRENT_ROUND: number - 1})

    def validate(self, weights: Weights, owner: str = "site-2") -> Shareable:
        return self.do("validate", weights, **{AppConstants.MODEL_OWNER: owner})

    @property
    def pids(self) -> list[int]:
        tasks = self.executor.run.session.tasks
        assert isinstance(tasks, RankTasks)
        return tasks.pids

    @property
    def progress(self) -> list[Any]:
        lines = (self.run / "progress.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def meanwhile(self, act: Callable[[], object]) -> threading.Thread:
        """Once this training has done an iteration from now on, do something to it."""
        before = len(self.progress)

        def wait() -> None:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                if any(one["kind"] == "iteration" for one in self.progress[before:]):
                    act()
                    return
                time.sleep(0.05)

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    def last_error(self) -> str:
        last = max(self.run.glob("error-*.txt"), key=lambda path: path.stat().st_mtime_ns)
        return last.read_text()

    def end(self) -> None:
        self.executor.handle_event(EventType.END_RUN, self.fl_ctx)


Start = Callable[..., Running]


@pytest.fixture(scope="module", autouse=True)
def processes_start_warm(warm_python: Path) -> Iterator[None]:
    """``tests/fl_client/ranks`` starts them from scratch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "COMMAND", (str(warm_python), *launcher.COMMAND[1:]))
        yield


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """``start(processes, policy={}, **arguments)``: a site with so many processes."""
    started: list[Running] = []

    def begin(processes: object, *, policy: Any = None, **arguments: Any) -> Running:
        kit = tmp_path_factory.mktemp("kit")
        for folder in ("startup", "local", JOB):
            (kit / folder).mkdir()
        app = with_more_cases(write_mmar(kit / JOB / f"app_{SITE}"))
        for file in ("config_train.json", "config_cross_validation.json"):
            edit_json(app / "config" / file, with_batch_norm)
        values = site_values(app, NUM_PROCESSES=processes)
        (kit / "local/environment.json").write_text(json.dumps(values))
        document = {"policy_version": 1, **(policy or {})}
        (kit / "local" / SITE_POLICY_FILE).write_text(json.dumps(document))
        engine = EngineStandIn(Workspace(str(kit), SITE, str(kit / "startup")))
        fl_ctx = FLContextManager(engine=engine, identity_name=SITE, job_id=JOB).new_context()
        executor = MmarExecutor(**arguments)
        executor.handle_event(EventType.START_RUN, fl_ctx)
        started.append(Running(executor, kit / JOB, app, fl_ctx))
        return started[-1]

    yield begin
    for one in started:
        one.end()


def with_batch_norm(document: Any) -> None:
    """Its statistics are each process's own while it trains."""
    document.get("train", document)["model"]["args"].update(norm="batch")


@pytest.fixture(scope="module")
def one(start: Start) -> Running:
    return start(1)


@pytest.fixture(scope="module")
def received(one: Running) -> Weights:
    return initial_model(Mmar.open(one.app), values={}).weights


@dataclass
class Trained:
    """A site with two processes after two rounds, and what it has replied."""

    site: Running
    pids: list[int]
    rounds: list[DXO]


@pytest.fixture(scope="module")
def two(start: Start, received: Weights) -> Trained:
    site = start(2)
    first = from_shareable(site.train(received))
    pids = site.pids
    return Trained(site, pids, [first, from_shareable(site.train(received, 2))])


def tensors(dxo: DXO) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in dxo.data.items()}


# --- the four tasks


def test_it_trains_from_the_received_model_that_it_has_validated_as_one_process_does(
    one: Running, two: Trained, received: Weights
) -> None:
    alone, together = from_shareable(one.train(received)), two.rounds[0]

    assert together.data_kind == DataKind.WEIGHT_DIFF
    assert list(together.data) == list(alone.data)
    assert together.meta[SAMPLES] == alone.meta[SAMPLES]  # so both have the same weight
    assert together.meta[EPOCH_SAMPLES] == alone.meta[EPOCH_SAMPLES]
    assert together.meta[REPORT]["received_metrics"] == alone.meta[REPORT]["received_metrics"]
    # Four cases: four steps of one process, two of two.
    assert alone.meta[MetaKey.NUM_STEPS_CURRENT_ROUND] == 4
    assert together.meta[MetaKey.NUM_STEPS_CURRENT_ROUND] == 2
    assert together.meta[REPORT].keys() == alone.meta[REPORT].keys()
    assert digest(tensors(together)) != digest(tensors(alone))


def test_models_from_anywhere_have_the_same_metrics_as_with_one_process(
    one: Running, two: Trained, received: Weights
) -> None:
    moved = {name: tensor + tensors(two.rounds[0])[name] for name, tensor in received.items()}

    for weights in (received, moved):
        alone = [from_shareable(one.validate(weights)), score(one, weights)]
        together = [from_shareable(two.site.validate(weights)), score(two.site, weights)]
        assert [dxo.data for dxo in together] == [dxo.data for dxo in alone]
        assert [dxo.meta for dxo in together] == [dxo.meta for dxo in alone]


def score(site: Running, weights: Weights) -> DXO:
    return from_shareable(site.do("score_model", weights))


def test_it_submits_the_model_that_its_own_validation_found_the_best(
    two: Trained, received: Weights
) -> None:
    submitted = from_shareable(two.site.do("submit_model", None))

    key = "val_mean_dice"
    reports = [dxo.meta[REPORT]["local_metrics"] for dxo in two.rounds]
    best = max(range(2), key=lambda index: reports[index][key]["value"])
    assert submitted.meta["round"] == best + 1
    assert submitted.meta["metrics"] == reports[best]
    assert list(submitted.data) == list(received)
    assert score(two.site, tensors(submitted)).data == submitted.meta["metrics"]


def test_the_same_processes_do_every_task_with_what_they_have_built_once(two: Trained) -> None:
    first, second = (dxo.meta[REPORT] for dxo in two.rounds)

    assert len(set(two.pids)) == 2
    assert two.site.pids == two.pids
    assert first["process"] == second["process"]
    assert first["built"] == second["built"]
    assert [report["epochs"][0]["epoch"] for report in (first, second)] == [1, 2]


def test_filters_are_told_the_same_of_what_is_sent(one: Running, two: Trained) -> None:
    alone, together = (site.executor.run.session.tasks.shared_tensors() for site in (one, two.site))

    assert together == alone
    assert {name.rpartition(".")[2] for name in together.buffers} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip


def test_they_listen_where_no_other_machine_can_reach_them(two: Trained) -> None:
    connections = []
    for process in psutil.process_iter(["cmdline"]):
        if "fl_client.ranks.main" in (process.info["cmdline"] or ()):
            with suppress(psutil.Error):  # one of another test, which has just ended
                connections += process.net_connections()

    assert {one.laddr.ip for one in connections if one.status == "LISTEN"} == {"127.0.0.1"}


def test_one_process_tells_the_progress_for_all(two: Trained) -> None:
    events = [one for one in two.site.progress if one["kind"] != "iteration"][:6]

    assert [(one["kind"], one["round"]) for one in events] == [
        ("task", 1), ("validation", 1), ("epoch", 1),
        ("task", 2), ("validation", 2), ("epoch", 2),
    ]  # fmt: skip


def test_what_they_print_stays_in_files_of_the_run(two: Trained) -> None:
    assert "SupervisedTrainer" in (two.site.run / "rank-0.log").read_text()
    assert (two.site.run / "rank-1.log").is_file()
    exchange = two.site.run / "ranks"
    assert exchange.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in exchange.iterdir()] == [SITE_POLICY_FILE]


def test_weights_that_do_not_fit_have_their_word_and_the_processes_go_on(
    two: Trained, received: Weights
) -> None:
    name = next(iter(received))

    reply = two.site.train({name: received[name]}, 3)

    assert reply.get_header(STATUS).startswith("weights-error ")
    assert two.site.pids == two.pids
    assert "in process 0 of 2:\nTraceback" in two.site.last_error()


def test_new_processes_train_the_same_round_to_the_same_bits_and_the_best_model_is_still_there(
    two: Trained, received: Weights
) -> None:
    """They have the optimizer's moments of the round before from a file."""
    best = from_shareable(two.site.do("submit_model", None))
    for pid in two.pids:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    again = from_shareable(two.site.train(received, 2))

    assert set(two.site.pids).isdisjoint(two.pids)
    assert digest(tensors(again)) == digest(tensors(two.rounds[1]))
    assert again.meta[REPORT]["process"] != two.rounds[1].meta[REPORT]["process"]
    kept = from_shareable(two.site.do("submit_model", None))
    assert digest(tensors(kept)) == digest(tensors(best))


def test_at_the_end_of_the_run_they_are_gone(start: Start, two: Trained) -> None:
    pids = two.site.pids
    assert all(map(psutil.pid_exists, pids))

    two.site.end()

    assert not any(map(psutil.pid_exists, pids))


# --- a long training


@pytest.fixture(scope="module")
def long(start: Start) -> Running:
    return start(2, local_epochs=100)


def test_an_abort_ends_the_training_in_all_processes_and_they_stay(
    long: Running, received: Weights
) -> None:
    abort, at = Signal(), []

    def trigger() -> None:
        at.append(time.monotonic())
        abort.trigger(True)

    (long.run / "progress.jsonl").touch()
    thread = long.meanwhile(trigger)
    reply = long.train(received, abort=abort)
    thread.join()

    assert reply.get_return_code() == ReturnCode.TASK_ABORTED
    assert time.monotonic() - at[0] < SECONDS
    assert list(long.run.glob("error-*")) == []
    pids = long.pids
    assert long.do("score_model", received).get_return_code() == ReturnCode.OK
    assert long.pids == pids


def test_a_killed_process_is_noticed_at_once_and_told(long: Running, received: Weights) -> None:
    pids, at = long.pids, []

    def kill() -> None:
        at.append(time.monotonic())
        psutil.Process(pids[1]).kill()

    thread = long.meanwhile(kill)
    reply = long.train(received, 2)
    thread.join()

    assert time.monotonic() - at[0] < SECONDS
    assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert reply.get_header(STATUS).startswith("process-lost (reference ")
    assert not any(map(psutil.pid_exists, pids))
    told = long.last_error()
    assert told.startswith("train: process 1 of 2, counted from 0, was killed (SIGKILL)")
    assert "rank-1.log" in told


def test_a_damaged_image_is_told_once_and_the_processes_go_on(
    long: Running, received: Weights
) -> None:
    """Each of them has checked the data of the site before it reads its part."""
    image = long.app / "data/case_7_image.nii.gz"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])

    reply = long.do("score_model", received)

    assert reply.get_header(STATUS).startswith("data-error (reference ")
    told = long.last_error()
    assert "case_7_image.nii.gz" in told
    assert len(long.pids) == 2
    image.write_bytes(whole)
    assert long.do("score_model", received).get_return_code() == ReturnCode.OK


# --- what is judged


def test_what_is_sent_is_what_was_validated_also_in_the_middle_of_an_epoch(
    start: Start, received: Weights
) -> None:
    """Each process has then trained on other data since it last took the first one's statistics."""
    site = start(2, steps_aggregation=3)

    update = from_shareable(site.train(received))

    assert update.meta[MetaKey.NUM_STEPS_CURRENT_ROUND] == 3
    moved = {name: tensor + tensors(update)[name] for name, tensor in received.items()}
    assert from_shareable(site.validate(moved)).data == update.meta[REPORT]["local_metrics"]
    site.end()


def test_the_policy_counts_the_steps_of_one_process(start: Start, received: Weights) -> None:
    """Two processes do an epoch of four cases in two steps."""
    limits = {"epochs_per_round": 2}
    site = start(2, policy={"limits": limits}, steps_aggregation=5)

    reply = site.train(received)

    assert reply.get_header(STATUS).startswith("policy-declined ")
    assert site.last_error().startswith(
        "train: 5 steps a round; limits.epochs_per_round of this site is 2, which are 4 steps here"
    )
    assert len(site.pids) == 2  # all have found the same


@pytest.mark.parametrize("processes", [0, -1, True, "two", 1.5])
def test_a_number_of_processes_that_is_none_is_refused(
    start: Start, received: Weights, processes: object
) -> None:
    site = start(processes)

    reply = site.do("score_model", received)

    assert reply.get_header(STATUS).startswith("config-refused ")
    assert f"NUM_PROCESSES: has to be a positive whole number, found {processes!r}" in (
        site.last_error()
    )


def test_a_job_cannot_ask_for_processes(start: Start, received: Weights) -> None:
    """Neither by the variable nor by the flag that Clara had for it."""
    site = start(1)
    edit_json(
        site.app / "config/environment.json",
        lambda values: values.update(NUM_PROCESSES=2, multi_gpu=True),
    )

    reply = site.do("score_model", received)

    assert reply.get_return_code() == ReturnCode.OK
    assert not isinstance(site.executor.run.session.tasks, RankTasks)
