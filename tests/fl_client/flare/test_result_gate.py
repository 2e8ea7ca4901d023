"""The last gate of a site: our replies pass as they are, and everything else is emptied."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.filters.percentile_privacy import PercentilePrivacy

from fl_client.flare.exchange import metrics_reply, update_reply, weights_reply
from fl_client.flare.executor import MmarExecutor
from fl_client.flare.privacy import TRAINED, ModelFilter, SVTPrivacy
from fl_client.flare.result_gate import REFUSED, ResultGate
from fl_client.privacy.ledger import LEDGER_FILE, PrivacyLedger
from fl_client.privacy.settings import MODULE, TrainedTensors
from fl_server.initial_model import initial_model
from mmar_runtime.audit import AUDIT_FILE, AuditLog
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.messages import SiteReport, Update
from mmar_runtime.flare.wire import CASES, LOGS, REPORT, STATUS
from mmar_runtime.metrics import ClassValue
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import SITE_POLICY_FILE
from mmar_runtime.results import EpochReport, EvaluationResult
from mmar_runtime.weights import Weights
from tests.conftest import metric, plain_metric

Pass = Callable[[Shareable], Shareable]
Round = Callable[..., Shareable]

CANARY = "DOE_JOHN_1961"
"""Stands for something of a patient; it must not be found in anything that leaves."""

PART = {"value": 0.25, "counted": 2, "missed": 1, "absent": 0, "spurious": 0}
BY_CLASS = metric(0.25, 2, classes={"spleen": ClassValue(**PART)})
MODEL: Weights = {"conv.weight": torch.ones(2, 3), "conv.bias": torch.zeros(2)}


@pytest.fixture
def gate(fl_ctx: FLContext) -> ResultGate:
    """A gate that has seen the site receive the model."""
    gate = started(fl_ctx)
    show_task(gate, DXO(DataKind.WEIGHTS, data=arrays_of(MODEL)).to_shareable(), fl_ctx)
    return gate


def started(fl_ctx: FLContext) -> ResultGate:
    """A gate at the start of a run."""
    gate = ResultGate()
    gate.handle_event(EventType.START_RUN, fl_ctx)
    return gate


def show_task(gate: ResultGate, task: Shareable, fl_ctx: FLContext) -> None:
    """As NVFlare's client does before a task."""
    fl_ctx.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
    gate.handle_event(EventType.BEFORE_TASK_EXECUTION, fl_ctx)


def show_reply(gate: ResultGate, reply: object, fl_ctx: FLContext) -> None:
    """As it does once all filters have seen a reply; then it sends this very object."""
    fl_ctx.set_prop(FLContextKey.TASK_RESULT, reply, private=True, sticky=False)
    gate.handle_event(EventType.AFTER_TASK_RESULT_FILTER, fl_ctx)


@pytest.fixture
def through(gate: ResultGate, fl_ctx: FLContext) -> Pass:
    def send(reply: Shareable) -> Shareable:
        show_reply(gate, reply, fl_ctx)
        return reply

    return send


def update() -> Shareable:
    report = SiteReport(
        received_metrics={"val_mean_dice": metric(0.5)},
        local_metrics={"val_mean_dice": BY_CLASS},
        epochs=(EpochReport(epoch=1, loss=0.25, metrics={"acc": metric(0.5)}),),
        seconds=1.5,
        built={"train.model": 1},
        process="0123456789ab",
    )
    return update_reply(Update(round_number=1, difference=MODEL, steps=2, report=report))


def metrics() -> Shareable:
    found = {"val_mean_dice": BY_CLASS, "hd95": metric(None, 2, unit="mm", withheld=True)}
    return metrics_reply(EvaluationResult(key_metric="val_mean_dice", metrics=found, cases=2))


def metrics_of(**found: Any) -> Shareable:
    return DXO(DataKind.METRICS, data=found, meta={CASES: 5}).to_shareable()


def model() -> Shareable:
    return weights_reply(MODEL, meta={"round": 1, "metrics": {"val_mean_dice": plain_metric(0.5)}})


def failure() -> Shareable:
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(STATUS, "data-error (reference 0123abcd)")
    return reply


def is_emptied(reply: Shareable) -> bool:
    return dict(reply) == {
        ReservedHeaderKey.HEADERS: {
            ReservedHeaderKey.RC: ReturnCode.TASK_RESULT_FILTER_ERROR,
            STATUS: REFUSED,
        }
    }


# --- what passes


@pytest.mark.parametrize(
    "reply",
    [update(), metrics(), model(), failure(), make_reply(ReturnCode.TASK_ABORTED)],
    ids=["update", "metrics", "model", "failure", "aborted"],
)
def test_our_replies_pass_as_they_are(through: Pass, reply: Shareable) -> None:
    before = copy.deepcopy(reply)

    left = through(reply)

    if "DXO" in before:
        before.set_header(LOGS, {})  # there is no log yet
    assert repr(left) == repr(before)


def test_a_privacy_filter_of_nvflares_may_have_changed_the_tensors(
    through: Pass, fl_ctx: FLContext
) -> None:
    filtered = PercentilePrivacy(percentile=10, gamma=0.01).process(update(), fl_ctx)

    left = through(filtered)

    assert not is_emptied(left)
    dxo = from_shareable(left)
    assert dxo.get_meta_prop(MetaKey.FILTER_HISTORY) == ["PercentilePrivacy"]
    assert float(np.abs(dxo.data["conv.weight"]).max()) <= 0.02


def test_every_reply_of_the_executor_passes(app: Path, fl_ctx: FLContext) -> None:
    """A whole round in a process as NVFlare has it: gate and executor get the same events."""
    weights = initial_model(Mmar.open(app), values={}).weights
    gate, executor = started(fl_ctx), MmarExecutor()
    executor.handle_event(EventType.START_RUN, fl_ctx)
    headers = {AppConstants.CURRENT_ROUND: 0, AppConstants.MODEL_OWNER: "site-2"}

    for task in ("train", "score_model", "submit_model", "validate", "dance"):
        message = DXO(DataKind.WEIGHTS, data=arrays_of(weights)).to_shareable()
        for name, value in headers.items():
            message.set_header(name, value)
        show_task(gate, message, fl_ctx)
        reply = executor.execute(task, message, fl_ctx, Signal())
        before = repr(reply)
        show_reply(gate, reply, fl_ctx)
        assert ("DXO" in reply) is (AUDIT_FILE.name in reply.get_header(LOGS, {}))
        reply[ReservedHeaderKey.HEADERS].pop(LOGS, None)
        assert repr(reply) == before

    executor.handle_event(EventType.END_RUN, fl_ctx)


# --- what does not


def with_dxo(change: Callable[[DXO], object], reply: Callable[[], Shareable] = update) -> Shareable:
    """One of our replies whose data were changed afterwards, as a job's own filter could."""
    dxo = from_shareable(reply())
    change(dxo)
    return dxo.to_shareable()


def with_header(name: str, value: object) -> Shareable:
    reply = update()
    reply.set_header(name, value)
    return reply


def with_part(name: str, value: object) -> Shareable:
    reply = update()
    reply[name] = value
    return reply


def failed_with(name: str, value: object) -> Shareable:
    """A reply without data, which NVFlare reads the headers of alone."""
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(name, value)
    return reply


def report(**changes: Any) -> Callable[[DXO], None]:
    return lambda dxo: dxo.meta[REPORT].update(changes)


def with_metrics(**changes: Any) -> Shareable:
    return with_dxo(lambda dxo: dxo.data.update(changes), metrics)


def odd_metrics() -> Iterator[tuple[str, object]]:
    """Each way to carry something more out of a site in a metric."""
    yield "text", CANARY
    yield "number", 0.5
    yield "rows", [0.1, 0.2]
    yield "array", np.ones(3)
    yield "key", plain_metric(0.5, files=[CANARY])
    for name, value in {
        "text": CANARY, "rows": [0.1, 0.2], "array": np.ones(3), "infinite": float("inf"),
        "large": 10**300, "digits": 0.12345,
    }.items():  # fmt: skip
        yield f"value-{name}", plain_metric(value)
        yield f"class-value-{name}", plain_metric(0.5, classes={"spleen": {**PART, "value": value}})
    yield "unit", plain_metric(0.5, unit=CANARY)
    yield "direction", plain_metric(0.5, higher_is_better=CANARY)
    for count in (-1, 10**10, 1.0, CANARY):
        yield f"count-{count}", plain_metric(0.5, undefined=count)
        yield f"class-count-{count}", plain_metric(0.5, classes={"a": {**PART, "absent": count}})
    yield "class-name", plain_metric(0.5, classes={f"case/{CANARY}": PART})
    yield "class-key", plain_metric(0.5, classes={"a": {**PART, "file": CANARY}})
    yield "class-many", plain_metric(0.5, classes={f"class{n}": PART for n in range(32)})


def hostile() -> Iterator[tuple[str, Shareable]]:
    """Each way to carry something more out of a site."""
    patients = [f"{CANARY}.nii.gz"]
    yield "part", with_part("images", np.ones((4, 4)))
    yield "header", with_header("note", CANARY)
    yield "header-peer", with_header(ReservedHeaderKey.PEER_PROPS, {"name": CANARY})
    yield "status", with_header(STATUS, f"error in {CANARY}")
    yield "status-long", with_header(STATUS, "a" * 60)
    yield "status-object", with_header(STATUS, {"name": CANARY})
    yield "return-code", with_header(ReservedHeaderKey.RC, CANARY)
    yield "return-code-object", with_header(ReservedHeaderKey.RC, [CANARY])
    yield "content-type", failed_with(ReservedHeaderKey.CONTENT_TYPE, CANARY)
    yield "no-data", Shareable()
    yield "meta-key", with_dxo(lambda dxo: dxo.meta.update({"files": patients}))
    yield "meta-key-name", with_dxo(lambda dxo: dxo.meta.update({CANARY: 1}))
    yield "steps", with_dxo(lambda dxo: dxo.meta.update({MetaKey.NUM_STEPS_CURRENT_ROUND: CANARY}))
    yield (
        "steps-large",
        with_dxo(lambda dxo: dxo.meta.update({MetaKey.NUM_STEPS_CURRENT_ROUND: 10**400})),
    )
    yield "cases", with_dxo(lambda dxo: dxo.meta.update({CASES: patients}), metrics)
    yield "history", with_dxo(lambda dxo: dxo.meta.update({MetaKey.FILTER_HISTORY: ["a/b.nii"]}))
    for name, odd_metric in odd_metrics():
        yield f"metric-{name}", with_metrics(dice=odd_metric)
    yield "metric-label", with_metrics(**{"/data/case.nii": plain_metric(1.0)})
    yield "metric-many", with_metrics(**{f"case {n}": plain_metric(0.5) for n in range(32)})
    coarse, finer = {"dice": plain_metric(0.5)}, {"dice": plain_metric(0.12345)}
    yield "first", with_dxo(lambda dxo: dxo.meta.update({MetaKey.INITIAL_METRICS: coarse}))
    yield "model-digits", with_dxo(lambda dxo: dxo.meta.update(metrics=finer), model)
    yield "loss-digits", with_dxo(report(epochs=[{"epoch": 1, "loss": 0.12345}]))
    yield "report-digits", with_dxo(report(local_metrics=finer))
    yield "epoch-digits", with_dxo(report(epochs=[{"epoch": 1, "loss": 0.5, "metrics": finer}]))
    by_class = {"dice": BY_CLASS.as_dict()}
    yield "epoch-class", with_dxo(report(epochs=[{"epoch": 1, "loss": 0.5, "metrics": by_class}]))
    yield "epochs-many", with_dxo(report(epochs=[{"epoch": n} for n in range(102)]))
    yield "tensor-more", with_dxo(lambda dxo: dxo.data.update(image=np.ones((8, 8), np.float32)))
    yield (
        "tensor-shape",
        with_dxo(lambda dxo: dxo.data.update({"conv.bias": np.ones(2000, np.float32)})),
    )
    yield (
        "tensor-object",
        with_dxo(lambda dxo: dxo.data.update({"conv.bias": np.array([CANARY, None], object)})),
    )
    yield (
        "tensor-text",
        with_dxo(lambda dxo: dxo.data.update({"conv.bias": np.array([CANARY] * 2)})),
    )
    yield "tensor-list", with_dxo(lambda dxo: dxo.data.update({"conv.bias": [1.0, 2.0]}))
    yield "tensor-torch", with_dxo(lambda dxo: dxo.data.update({"conv.bias": torch.zeros(2)}))
    yield "tensor-none", with_dxo(lambda dxo: dxo.data.clear())
    yield "kind", DXO(DataKind.ANALYTIC, data={"text": CANARY}).to_shareable()
    yield (
        "kind-collection",
        DXO(DataKind.COLLECTION, data={"a": from_shareable(update())}).to_shareable(),
    )
    yield "report-key", with_dxo(report(files=patients))
    yield "report-text", with_dxo(report(process=f"case/{CANARY}"))
    yield "report-long", with_dxo(report(process="a" * 41))
    yield "report-seconds", with_dxo(report(seconds=CANARY))
    yield "report-rows", with_dxo(report(local_metrics={"dice": {CANARY: 0.5}}))
    yield "report-built", with_dxo(report(built={"train/model": 1}))
    yield "report-epochs", with_dxo(report(epochs={"1": 1}))
    yield "report-epoch-key", with_dxo(report(epochs=[{"epoch": 1, "loss": 0.5, "name": CANARY}]))
    yield "report-epoch-loss", with_dxo(report(epochs=[{"epoch": 1, "loss": CANARY}]))
    yield "report-epoch-number", with_dxo(report(epochs=[{"epoch": CANARY, "loss": 0.5}]))
    yield "report-list", with_dxo(lambda dxo: dxo.meta.update({REPORT: patients}))
    broken = update()
    broken["DXO"] = CANARY
    yield "dxo-text", broken
    odd = update()
    odd[ReservedHeaderKey.HEADERS] = [CANARY]
    yield "headers-list", odd


@pytest.mark.parametrize(("name", "reply"), [pytest.param(*one, id=one[0]) for one in hostile()])
def test_anything_else_is_emptied_before_it_leaves(
    through: Pass, name: str, reply: Shareable
) -> None:
    assert is_emptied(through(reply))


def test_the_gate_holds_counts_to_the_policy(fl_ctx: FLContext, kit: Path) -> None:
    document = {"policy_version": 1, "outgoing": {"count_digits": 1}}
    (kit / "local" / SITE_POLICY_FILE).write_text(json.dumps(document))
    rounded = with_dxo(lambda dxo: dxo.meta.update({MetaKey.NUM_STEPS_CURRENT_ROUND: 10}))
    exact = with_dxo(lambda dxo: dxo.meta.update({MetaKey.NUM_STEPS_CURRENT_ROUND: 12}))
    gate = started(fl_ctx)
    show_task(gate, DXO(DataKind.WEIGHTS, data=arrays_of(MODEL)).to_shareable(), fl_ctx)

    for reply in (rounded, exact):
        show_reply(gate, reply, fl_ctx)

    assert not is_emptied(rounded)
    assert is_emptied(exact)


def test_the_gate_holds_metrics_to_the_policy(fl_ctx: FLContext, kit: Path) -> None:
    outgoing = {"metrics": ["val_mean_dice"], "round_digits": "all"}
    document = {"policy_version": 1, "outgoing": outgoing}
    (kit / "local" / SITE_POLICY_FILE).write_text(json.dumps(document))
    fine = plain_metric(0.123456)
    allowed = metrics_of(val_mean_dice=fine)
    withheld = metrics_of(val_mean_dice=fine, val_acc=plain_metric(0.5))

    for reply in (allowed, withheld):
        show_reply(started(fl_ctx), reply, fl_ctx)

    assert from_shareable(allowed).data == {"val_mean_dice": fine}
    assert is_emptied(withheld)


@pytest.mark.parametrize(
    ("found", "leaves"),
    [
        (plain_metric(0.5, 5), True),
        (plain_metric(0.5, 4), False),
        (plain_metric(None, 4, withheld=True), True),
        (plain_metric(0.5, 5, classes={"spleen": {**PART, "counted": 5}}), True),
        (plain_metric(0.5, 5, classes={"spleen": {**PART, "counted": 4}}), False),
    ],
    ids=["enough cases", "few cases", "withheld", "class", "class of few cases"],
)
def test_the_gate_holds_metrics_to_the_least_number_of_cases(
    fl_ctx: FLContext, kit: Path, found: dict[str, Any], leaves: bool
) -> None:
    document = {"policy_version": 1, "cross_site": {"min_cases": 5}}
    (kit / "local" / SITE_POLICY_FILE).write_text(json.dumps(document))
    reply = metrics_of(val_mean_dice=found)

    show_reply(started(fl_ctx), reply, fl_ctx)

    assert is_emptied(reply) is not leaves


def test_no_tensor_leaves_before_a_model_has_come(fl_ctx: FLContext) -> None:
    reply = update()

    show_reply(started(fl_ctx), reply, fl_ctx)

    assert is_emptied(reply)


def test_no_data_leave_where_the_gate_does_not_know_what_is_set_up(fl_ctx: FLContext) -> None:
    """NVFlare goes on after an error of a component at the start of a run."""
    for reply in (metrics(), update()):
        show_reply(ResultGate(), reply, fl_ctx)

        assert is_emptied(reply)


def test_the_word_of_a_failure_leaves_even_then(fl_ctx: FLContext) -> None:
    reply = failure()

    show_reply(ResultGate(), reply, fl_ctx)

    assert not is_emptied(reply)


def test_a_reply_that_is_none_is_left_to_nvflare(
    gate: ResultGate, fl_ctx: FLContext, app: Path
) -> None:
    """It sends nothing that is no Shareable, and the log tells of it all the same."""
    show_reply(gate, CANARY, fl_ctx)

    assert "is no reply" in (app.parents[1] / AUDIT_FILE).read_text()


def test_the_log_says_what_was_stopped_without_repeating_it(
    through: Pass, app: Path, caplog: pytest.LogCaptureFixture
) -> None:
    through(with_dxo(report(files=[CANARY])))

    line = json.loads((app.parents[1] / AUDIT_FILE).read_text())
    assert line["event"] == "reply-stopped"
    assert line["faults"] == ["the report holds more than it may"]
    assert CANARY not in caplog.text


def test_the_heads_of_the_logs_leave_with_what_the_gate_lets_through(
    through: Pass, app: Path
) -> None:
    log = AuditLog(app.parents[1] / AUDIT_FILE)
    log.append("task-out")

    passed, failed = through(update()), through(failure())

    assert passed.get_header(LOGS) == {AUDIT_FILE.name: log.head()}
    assert failed.get_header(LOGS) is None


def test_no_other_component_says_what_the_heads_are(through: Pass) -> None:
    reply = update()
    reply.set_header(LOGS, {AUDIT_FILE.name: "1:" + "0" * 64})

    assert is_emptied(through(reply))


def test_a_gate_that_cannot_write_the_log_has_emptied_the_reply_before(
    through: Pass, app: Path
) -> None:
    (app.parents[1] / "audit").write_text("in the way")
    reply = with_part("images", CANARY)

    with pytest.raises(OSError, match="audit"):
        through(reply)

    assert is_emptied(reply)


# --- what has to be paid for

SVT = SVTPrivacy(epsilon=0.1, epsilon_release=0.4, gamma=10.0)


@pytest.fixture
def kit(app: Path) -> Path:
    return app.parents[1]


def set_up(kit: Path, *filters: ModelFilter, epsilon_max: float | None = None) -> None:
    """What a site's administrator writes: such filters, and a bound."""
    entries = [
        {"path": f"{MODULE}.{one.settings.name}", "args": {"epsilon": 0.1, "epsilon_release": 0.4}}
        for one in filters
    ]
    scope = {"name": "site", "task_result_filters": entries}
    document = {"scopes": [scope], "default_scope": "site"}
    (kit / "local/privacy.json").write_text(json.dumps(document))
    if epsilon_max is not None:
        policy = kit / "local" / SITE_POLICY_FILE
        privacy = {"epsilon_max": epsilon_max}
        policy.write_text(json.dumps({"policy_version": 1, "privacy": privacy}))
        policy.chmod(0o600)


@pytest.fixture
def a_round(fl_ctx: FLContext) -> Round:
    """``a_round(gate, *filters)``: what leaves of an update that these filters have seen."""
    trained = TrainedTensors(buffers=frozenset(), round_number=1, data="0123456789ab")
    fl_ctx.set_prop(TRAINED, trained, private=True, sticky=False)

    def go(gate: ResultGate, *filters: ModelFilter, reply: Shareable | None = None) -> Shareable:
        show_task(gate, DXO(DataKind.WEIGHTS, data=arrays_of(MODEL)).to_shareable(), fl_ctx)
        left = reply or update()
        for one in filters:
            left = one.process(left, fl_ctx)
        show_reply(gate, left, fl_ctx)
        return left

    return go


def test_an_update_leaves_behind_as_many_new_lines_as_there_are_filters_that_count(
    kit: Path, fl_ctx: FLContext, a_round: Round
) -> None:
    """Round for round: what an earlier one has paid is spent."""
    set_up(kit, SVT, SVT)
    gate = started(fl_ctx)

    assert not is_emptied(a_round(gate, SVT, SVT))
    assert is_emptied(a_round(gate, SVT))
    assert is_emptied(a_round(gate))
    assert not is_emptied(a_round(gate, SVT, SVT))
    assert "a privacy filter that is set up has not run" in (kit / AUDIT_FILE).read_text()


def test_a_filter_of_the_job_counts_as_well(
    kit: Path, app: Path, fl_ctx: FLContext, a_round: Round
) -> None:
    one = {"path": f"{MODULE}.SVTPrivacy", "args": {"epsilon_release": 0.4}}
    chains = [{"tasks": ["train"], "filters": [one]}]
    client = app / "config/config_fed_client.json"
    client.write_text(json.dumps({"task_result_filters": chains}))
    gate = started(fl_ctx)

    assert is_emptied(a_round(gate))
    assert not is_emptied(a_round(gate, SVT))


def test_a_bound_asks_for_a_line_whatever_is_set_up(
    kit: Path, fl_ctx: FLContext, a_round: Round
) -> None:
    set_up(kit, epsilon_max=5)
    gate = started(fl_ctx)

    assert is_emptied(a_round(gate))
    assert is_emptied(a_round(gate, reply=model()))
    assert not is_emptied(a_round(gate, SVT))


def test_lines_of_another_job_pay_for_nothing(kit: Path, fl_ctx: FLContext, a_round: Round) -> None:
    set_up(kit, SVT)
    gate = started(fl_ctx)
    show_task(gate, DXO(DataKind.WEIGHTS, data=arrays_of(MODEL)).to_shareable(), fl_ctx)
    facts = {"job": "job-2", "round": 1, "filter": "SVTPrivacy", "data": "0123456789ab"}
    PrivacyLedger(kit).spend(0.5, None, **facts)
    reply = update()

    show_reply(gate, reply, fl_ctx)

    assert is_emptied(reply)


def test_one_payment_lets_one_reply_leave(kit: Path, fl_ctx: FLContext, a_round: Round) -> None:
    set_up(kit, SVT)
    gate, another = started(fl_ctx), update()
    assert not is_emptied(a_round(gate, SVT))

    show_reply(gate, another, fl_ctx)

    assert is_emptied(another)


def test_where_nothing_counts_no_ledger_is_read(
    kit: Path, fl_ctx: FLContext, a_round: Round
) -> None:
    (kit / LEDGER_FILE).parent.mkdir()
    (kit / LEDGER_FILE).write_text("what is left of another time")

    assert not is_emptied(a_round(started(fl_ctx)))


def test_metrics_and_failures_cost_nothing(kit: Path, fl_ctx: FLContext, a_round: Round) -> None:
    set_up(kit, SVT, epsilon_max=5)
    gate = started(fl_ctx)

    assert not is_emptied(a_round(gate, reply=metrics()))
    assert not is_emptied(a_round(gate, reply=failure()))


@pytest.mark.parametrize("damaged", ["before the task", "during it"])
def test_behind_a_ledger_that_cannot_be_trusted_no_tensors_leave(
    kit: Path, fl_ctx: FLContext, a_round: Round, damaged: str
) -> None:
    set_up(kit, SVT)
    gate = started(fl_ctx)
    a_round(gate, SVT)
    ledger = kit / LEDGER_FILE
    whole, reply = ledger.read_text(), update()

    ledger.write_text(whole[:-30] if damaged == "before the task" else whole)
    show_task(gate, DXO(DataKind.WEIGHTS, data=arrays_of(MODEL)).to_shareable(), fl_ctx)
    ledger.write_text(whole if damaged == "before the task" else whole[:-30])
    show_reply(gate, reply, fl_ctx)

    assert is_emptied(reply)


def test_a_gate_that_cannot_read_what_is_set_up_lets_nothing_leave(
    kit: Path, fl_ctx: FLContext, a_round: Round
) -> None:
    """NVFlare logs what is raised when a run starts, and goes on."""
    (kit / "local/privacy.json").write_text("{")
    gate = ResultGate()
    with pytest.raises(ConfigError):
        gate.handle_event(EventType.START_RUN, fl_ctx)

    assert is_emptied(a_round(gate))
    assert is_emptied(a_round(gate, reply=metrics()))
