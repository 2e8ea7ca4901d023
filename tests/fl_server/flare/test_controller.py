"""A federated run over NVFlare, task by task; the communicator is NVFlare's own.

Its thread that looks for complete tasks is not started, so a test ends only if nothing has to wait
for that thread. What comes of each kind of reply is in ``tests/carriers``.
"""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from safetensors.torch import save_file

from fl_server.initial_model import initial_model
from fl_server.life_signs import LifeSigns
from fl_server.record.cross_site import read_cross_site_matrix
from fl_server.record.files import read_run_record
from fl_server.record.recorder import NO_SIGN_OF_LIFE
from fl_server.record.values import RunRecord, SiteAbsence
from mmar_runtime.audit import AUDIT_FILE, verify_audit
from mmar_runtime.exchange.messages import SUBMIT, TRAIN, VALIDATE
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.flare.wire import CASES, RECORD_TOPIC, REPORT
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights, digest
from tests.carriers.nvflare import Server, server_of
from tests.carriers.script import DICE, JOB, SITES, difference, report
from tests.conftest import plain_metric

MakeMmar = Callable[..., Path]
LONG = 60.0


@dataclass
class Course:
    """A controller's course on a thread of its own; the test is its sites."""

    server: Server
    folder: Path
    stop: Signal = field(default_factory=Signal)
    thread: threading.Thread | None = None

    def start(self) -> Course:
        fl_ctx = self.server.engine.new_context()
        self.server.controller.start_controller(fl_ctx)
        self.thread = threading.Thread(
            target=self.server.controller.control_flow, args=(self.stop, fl_ctx), daemon=True
        )
        self.thread.start()
        return self

    def ended(self) -> None:
        """The course is over, and NVFlare ends the run."""
        assert self.thread is not None
        self.thread.join(LONG)
        assert not self.thread.is_alive()
        self.fire(EventType.END_RUN)

    def fire(self, event_type: str, **properties: Any) -> None:
        fl_ctx = self.server.engine.new_context()
        for name, value in properties.items():
            fl_ctx.set_prop(name, value, private=True, sticky=False)
        self.server.engine.fire_event(event_type, fl_ctx)

    def task(self, site: str) -> tuple[str, str, Shareable]:
        """A site's next task, as soon as there is one."""
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            name, task_id, message = self.server.request(site)
            if name:
                return name, task_id, message
            time.sleep(0.005)
        raise AssertionError(f"there is no task for {site}")

    def answer(self, site: str, reply: Callable[[Shareable], Shareable]) -> str:
        """A site takes its next task and answers; the task's name."""
        name, task_id, message = self.task(site)
        answer = reply(message)
        if answer.get_cookie_jar() is None:
            answer.set_cookie_jar(dict(message.get_cookie_jar() or {}))
        self.server.submit(site, name, task_id, answer)
        return name

    def round(self) -> None:
        """Every site trains."""
        for site in SITES:
            assert self.answer(site, lambda message, site=site: update(site, message)) == TRAIN  # type: ignore[misc]

    @property
    def record(self) -> RunRecord:
        return read_run_record(self.results / "run_record.json")

    @property
    def results(self) -> Path:
        return self.folder / JOB / "results"

    @property
    def audit(self) -> list[dict[str, Any]]:
        """The lines of the log, after its chain was found whole."""
        path = self.folder / AUDIT_FILE
        assert not verify_audit(path).findings
        return [json.loads(line) for line in path.read_text().splitlines()]


def update(site: str, message: Shareable) -> Shareable:
    received = {name: torch.from_numpy(one) for name, one in from_shareable(message).data.items()}
    told = to_plain(report(site, message.get_header(AppConstants.CURRENT_ROUND) + 1))
    meta = {
        MetaKey.NUM_STEPS_CURRENT_ROUND: 1,
        REPORT: told,
    }
    data = {name: one.numpy() for name, one in difference(received, "good").items()}
    return DXO(DataKind.WEIGHT_DIFF, data=data, meta=meta).to_shareable()


def metrics(message: Shareable) -> Shareable:
    return DXO(DataKind.METRICS, data={DICE: plain_metric(0.75)}, meta={CASES: 3}).to_shareable()


def failed(message: Shareable) -> Shareable:
    return make_reply(ReturnCode.EXECUTION_EXCEPTION)


@pytest.fixture
def begin(tmp_path: Path, make_mmar: MakeMmar) -> Iterator[Callable[..., Course]]:
    """``begin(**terms)``: a job of one round has started, unless the terms say otherwise."""
    begun: list[Course] = []

    def begin(**terms: Any) -> Course:
        known = {"num_rounds": 1, "min_sites": 3, **terms}
        server = server_of(make_mmar(tmp_path / "mmar"), tmp_path / "kit", **known)
        begun.append(Course(server, tmp_path / "kit"))
        return begun[-1]

    yield begin
    for course in begun:
        course.stop.trigger(True)
        if course.thread is not None:
            course.thread.join(LONG)


@pytest.fixture
def course(begin: Callable[..., Course]) -> Course:
    return begin().start()


# --- tasks


def test_the_sites_are_told_of_a_task(course: Course) -> None:
    course.task("site-1")

    assert course.server.engine.woken == [list(SITES)]


def test_a_task_ends_with_the_last_reply_that_it_needs(begin: Callable[..., Course]) -> None:
    """The third site took the task, and may have died over it."""
    course = begin(min_sites=2, wait_for_others=0).start()
    course.task("site-3")
    for site in SITES[:2]:
        course.answer(site, lambda message, site=site: update(site, message))  # type: ignore[misc]

    assert course.task("site-1")[0] == "score_model"


def test_a_task_is_over_after_its_time(begin: Callable[..., Course]) -> None:
    """NVFlare takes whole seconds, and 0 for no limit."""
    course = begin(train_timeout=0.5).start()
    course.task("site-1")

    course.ended()

    assert "site" in course.server.engine.fatal[0]
    assert course.record.status == "failed"


class Lost(LifeSigns):
    """Knows that a site shows no sign of life."""

    def lost(self) -> frozenset[str]:
        return frozenset({"site-3"})


def test_no_task_waits_for_a_site_without_a_sign_of_life(begin: Callable[..., Course]) -> None:
    """Neither the rounds, where the others are enough, nor what follows them."""
    course = begin(num_rounds=2, min_sites=2, wait_for_others=1000)
    course.server.controller._signs = Lost()
    course.start()

    for _ in range(2):
        for site in SITES[:2]:
            assert course.answer(site, partial(update, site)) == TRAIN
    for site in SITES[:2]:
        course.answer(site, metrics)
    for site in SITES[:2]:
        course.answer(site, failed)
    for _ in range(2):
        for site in SITES[:2]:
            course.answer(site, metrics)
    course.ended()

    for each in course.record.rounds:
        absence = each.sites["site-3"]
        assert isinstance(absence, SiteAbsence)
        assert absence.reason == NO_SIGN_OF_LIFE


def test_a_round_waits_for_a_lost_site_that_it_needs(begin: Callable[..., Course]) -> None:
    course = begin(min_sites=3)
    course.server.controller._signs = Lost()
    course.start()
    for site in SITES[:2]:
        course.answer(site, partial(update, site))

    time.sleep(0.5)
    assert course.server.controller.run.record.rounds[-1].is_open
    course.answer("site-3", partial(update, "site-3"))

    assert course.task("site-1")[0] == "score_model"


def test_a_task_that_is_over_lets_go_of_its_model_at_once(course: Course) -> None:
    """Task and replies name each other, so else the model stays until garbage is collected."""
    name, task_id, message = course.task("site-1")
    [task] = course.server.communicator._tasks
    course.server.controller.run._files.wait()  # lines of the log
    model = weakref.ref(task.data["DXO"]["data"])
    digests = weakref.ref(task.before_task_sent_cb)
    del message
    gc.disable()
    try:
        course.server.submit("site-1", name, task_id, failed(Shareable()))
        course.thread.join(LONG)  # type: ignore[union-attr]

        course.server.communicator.check_tasks()
        assert task.data is None
        assert digests() is None
        assert model() is None
    finally:
        gc.enable()


def test_the_cell_is_of_the_model_that_was_sent_whatever_the_reply_says(
    begin: Callable[..., Course],
) -> None:
    course = comparing(begin)
    for owner in (7, None, "../../x"):

        def answer(message: Shareable, owner: Any = owner) -> Shareable:
            reply = metrics(message)
            reply.add_cookie(AppConstants.MODEL_OWNER, owner)
            return reply

        assert course.answer(SITES[[7, None, "../../x"].index(owner)], answer) == VALIDATE
    course.ended()

    assert course.record.status == "complete"


def test_a_reply_that_comes_late_is_told_to_the_run(course: Course) -> None:
    course.round()
    for site in SITES:
        course.answer(site, metrics)
    name, task_id, message = course.task("site-1")
    for site in SITES[1:]:
        course.answer(site, failed)

    course.server.submit("site-1", SUBMIT, "no task", failed(message))
    course.server.submit("site-9", SUBMIT, "no task", failed(message))
    course.server.submit("site-1", "score_model", "no task", metrics(message))
    course.server.submit("site-1", name, task_id, failed(message))
    for _ in range(2):
        for site in SITES:
            course.answer(site, metrics)
    course.ended()

    failure = course.record.failure or ""
    assert failure.count("site-1 submitted no model") == 1
    assert "site-9" not in failure


# --- a job that brings its models


def comparing(begin: Callable[..., Course], *names: str) -> Course:
    """A job has begun that brings the model ``ours``: twice the network's weights."""
    course = begin(num_rounds=0, models=list(names or ("ours",)))
    mmar = Mmar.open(course.folder / JOB / "app_server")
    save_file(twice(initial_model(mmar, values={}).weights), mmar.models / "ours.safetensors")
    return course.start()


def twice(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: tensor * 2 for name, tensor in weights.items()}


def test_such_a_job_asks_for_cells_alone(begin: Callable[..., Course]) -> None:
    course = comparing(begin)
    ours = digest(twice(initial_model(Mmar.open(app(course)), values={}).weights))

    for site in SITES:
        assert course.answer(site, metrics) == VALIDATE
    course.ended()

    assert course.server.engine.fatal == []
    assert course.record.status == "complete"
    matrix = read_cross_site_matrix(course.results / "cross_site.json")
    assert (matrix.models, dict(matrix.weights_sha256)) == (("ours",), {"ours": ours})


def app(course: Course) -> Path:
    return course.folder / JOB / "app_server"


def test_models_that_are_not_there_end_the_run_before_any_site_is_asked(
    begin: Callable[..., Course],
) -> None:
    course = comparing(begin, "ours", "theirs")
    course.ended()

    [reason] = course.server.engine.fatal
    assert reason.startswith("the run cannot begin: ")
    assert "there is no file of weights" in reason
    assert not (course.folder / AUDIT_FILE).exists()


def test_more_sites_than_there_are_end_the_run_before_any_site_is_asked(
    begin: Callable[..., Course],
) -> None:
    course = begin(min_sites=4).start()

    [reason] = course.server.engine.fatal
    assert "min_sites: the job asks for 4 sites in each round, the run has 3: site-1" in reason
    assert course.server.engine.woken == []


def test_a_job_without_a_network_ends_the_run_with_the_reason(
    begin: Callable[..., Course], edited: Callable[..., Path]
) -> None:
    course = begin()
    edited(
        app(course) / "config/config_train.json",
        lambda document: document["train"]["model"].update(name="UNte"),
    )
    course.start().ended()

    [reason] = course.server.engine.fatal
    assert "Did you mean 'UNet'" in reason


def test_the_servers_own_values_win_over_the_jobs(begin: Callable[..., Course]) -> None:
    course = begin()
    (course.folder / "local/environment.json").write_text('{"dont_load_ckpt_model": false}')
    course.start().ended()

    [reason] = course.server.engine.fatal
    assert "there is no file of weights" in reason


# --- the end


def test_an_abort_ends_the_course_between_two_replies(course: Course) -> None:
    course.answer("site-1", lambda message: update("site-1", message))

    course.stop.trigger(True)
    course.ended()

    assert course.server.engine.fatal == []
    assert course.record.failure == "the run ended before its results were complete"
    assert course.record.rounds[0].is_open


def test_a_fatal_error_is_the_failure_of_the_record(course: Course) -> None:
    course.task("site-1")

    course.fire(EventType.FATAL_SYSTEM_ERROR, **{FLContextKey.EVENT_DATA: "no space left"})
    course.stop.trigger(True)
    course.ended()

    assert (course.record.status, course.record.failure) == ("failed", "no space left")


def test_what_fails_in_the_server_itself_ends_the_run_with_its_reason(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **named: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(course.server.controller.run, "take", broken)
    course.answer("site-1", lambda message: update("site-1", message))
    course.ended()

    assert course.server.engine.fatal == ["ZeroDivisionError"]
    assert course.record.failure == "ZeroDivisionError"


@pytest.mark.parametrize("when", ["a task goes out", "a late reply comes"])
def test_a_file_that_cannot_be_written_ends_the_run_wherever_that_is_found(
    course: Course, when: str
) -> None:
    course.task("site-1")
    files = course.server.controller.run._files
    files.wait()

    def full() -> None:
        raise OSError("no space left")

    files.do(full).exception(LONG)
    if when == "a task goes out":
        course.task("site-2")
    else:
        reply = failed(Shareable())
        course.server.submit("site-1", TRAIN, "no task", reply)
    course.ended()

    assert course.server.engine.fatal == ["no space left"]
    assert course.record.failure == "no space left"


def test_nothing_of_a_run_is_left_after_its_end(begin: Callable[..., Course]) -> None:
    others = set(threading.enumerate())
    course = begin().start()
    course.task("site-1")

    course.stop.trigger(True)
    course.ended()

    left = {one.name for one in set(threading.enumerate()) - others}
    assert not any(name.startswith(("files", "digests")) for name in left)


def test_the_end_before_the_beginning_is_no_matter(begin: Callable[..., Course]) -> None:
    course = begin()

    course.fire(EventType.END_RUN)

    assert course.server.engine.fatal == []


# --- who asks, and what is noted


def test_an_admin_may_ask_a_running_job_for_its_record(course: Course) -> None:
    course.task("site-1")

    told = course.server.engine.commands[RECORD_TOPIC](RECORD_TOPIC, {}, None)

    assert RunRecord.from_dict(told).rounds[0].is_open


def test_each_message_is_noted_with_what_it_carries(course: Course) -> None:
    first = digest(initial_model(Mmar.open(app(course)), values={}).weights)
    course.round()
    for site in SITES[:2]:
        course.answer(site, metrics)
    course.answer(
        "site-3",
        lambda message: DXO(DataKind.METRICS, data={DICE: plain_metric(7.0)}).to_shareable(),
    )
    course.task("site-1")
    course.stop.trigger(True)
    course.ended()

    lines = [one for one in course.audit if one["event"] != "contribution-accepted"]
    sent = [one for one in lines if one["event"] == "task-out"]
    assert [(one["task"], one["site"]) for one in sent] == [
        *((TRAIN, site) for site in SITES),
        *(("score_model", site) for site in SITES),
        (SUBMIT, "site-1"),
    ]
    assert {one["tensors"] for one in sent[:3]} == {first}
    assert [one["event"] for one in lines if one["event"] != "task-out"] == [
        "run-started", "global-model", "metrics-in", "metrics-in", "reply-refused",
    ]  # fmt: skip


def test_the_digest_of_a_global_model_is_taken_once(
    begin: Callable[..., Course], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def counted(weights: Weights) -> str:
        taken.append(digest(weights))
        return taken[-1]

    for module in ("fl_server.federation", "fl_server.flare.controller"):
        monkeypatch.setattr(f"{module}.digest", counted)
    course = begin().start()
    course.round()
    for site in SITES:
        course.answer(site, metrics)
    course.task("site-1")
    course.stop.trigger(True)
    course.ended()

    record, sent = course.record, [one for one in course.audit if one["event"] == "task-out"]
    models = [record.initial_weights_sha256, record.rounds[0].weights_sha256]
    assert [one.get("tensors") for one in sent] == [*models[:1] * 3, *models[1:] * 3, None]
    assert [taken.count(str(one)) for one in models] == [1, 1]


@pytest.mark.parametrize(("large", "times"), [(0, 1), (2**40, 0)])
def test_what_a_round_of_a_large_model_has_freed_goes_back_to_the_system(
    begin: Callable[..., Course], monkeypatch: pytest.MonkeyPatch, large: int, times: int
) -> None:
    trimmed: list[int] = []
    monkeypatch.setattr("fl_server.flare.controller.LARGE", large)
    monkeypatch.setattr("fl_server.flare.controller.try_malloc_trim", lambda: trimmed.append(1))
    course = begin().start()
    course.round()
    course.task("site-1")
    course.stop.trigger(True)
    course.ended()

    assert len(trimmed) == times
