"""A site in a job that rounds updates: what leaves, and what the gate behind it lets through."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.filters.percentile_privacy import PercentilePrivacy

from fl_client.flare.compact import CompactUpdate
from fl_client.flare.result_gate import REFUSED, ResultGate
from fl_client.jobs.rounding import with_rounding
from mmar_runtime.audit import AUDIT_FILE
from mmar_runtime.exchange.rounding import SCALES, restored
from mmar_runtime.exchange.rounding_forms import ROUNDINGS, Rounding
from mmar_runtime.flare.wire import STATUS
from tests.conftest import plain_metric
from tests.rounding import error_bound

MODEL = {
    "conv.weight": np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30),
    "conv.bias": np.ones(300, np.float32),
    "norm.num_batches_tracked": np.array(3),
}
forms = pytest.mark.parametrize("form", ROUNDINGS)


def update(data: Any = MODEL) -> Shareable:
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 4}
    return DXO(DataKind.WEIGHT_DIFF, data=dict(data), meta=meta).to_shareable()


def data_of(reply: Shareable) -> Any:
    return from_shareable(reply).data


# --- what leaves


@forms
def test_large_tensors_leave_rounded_and_all_others_whole(
    fl_ctx: FLContext, form: Rounding
) -> None:
    data = data_of(CompactUpdate(form).process(update(), fl_ctx))

    assert {name: str(array.dtype) for name, array in data.items()} == {
        "conv.weight": form,
        SCALES + "conv.weight": "float32",
        "conv.bias": "float32",
        "norm.num_batches_tracked": "int64",
    }
    error = np.abs(restored(data)["conv.weight"] - MODEL["conv.weight"])
    assert error.max() > 0
    assert (error <= error_bound(MODEL["conv.weight"], form)).all()


def test_the_site_logs_what_it_sends(fl_ctx: FLContext, workspace: Any) -> None:
    data = data_of(CompactUpdate("int8").process(update(), fl_ctx))

    [line] = (Path(workspace.get_root_dir()) / AUDIT_FILE).read_text().splitlines()
    noted = json.loads(line)
    assert noted["event"] == "reply-rounded"
    assert noted["bytes"] == sum(array.nbytes for array in data.values()) == 600 + 12 + 1200 + 8


def test_whole_models_metrics_and_failures_pass_as_they_are(fl_ctx: FLContext) -> None:
    """A site's best model is evaluated as it is."""
    model = DXO(DataKind.WEIGHTS, data=dict(MODEL)).to_shareable()
    metrics = DXO(DataKind.METRICS, data={"dice": plain_metric(0.5)}).to_shareable()
    failure = make_reply(ReturnCode.EXECUTION_EXCEPTION)

    for reply in (model, metrics, failure):
        assert CompactUpdate("int8").process(reply, fl_ctx) is reply
    assert data_of(model) == MODEL


def test_what_cannot_be_rounded_is_not_sent(fl_ctx: FLContext, run_folder: Path) -> None:
    """The server learns a word; the text is in the site's run folder."""
    spoilt = {**MODEL, "conv.weight": np.full((20, 30), np.nan, np.float32)}

    answer = CompactUpdate("int8").process(update(spoilt), fl_ctx)

    assert answer.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert "DXO" not in answer
    assert answer.get_header(STATUS).startswith("weights-error (reference ")
    [file] = run_folder.glob("error-*.txt")
    assert (
        file.read_text()
        .split(": ", 1)[1]
        .startswith("conv.weight: a difference that is not finite")
    )


# --- the gate behind it


@pytest.fixture
def gate(app: Path, fl_ctx: FLContext) -> ResultGate:
    """A gate that has seen the site receive the model of a job that rounds to int8."""
    client = with_rounding({"task_data_filters": [], "task_result_filters": []}, "int8")
    (app / "config" / "config_fed_client.json").write_text(json.dumps(client))
    gate = ResultGate()
    gate.handle_event(EventType.START_RUN, fl_ctx)
    task = DXO(DataKind.WEIGHTS, data=dict(MODEL)).to_shareable()
    fl_ctx.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
    gate.handle_event(EventType.BEFORE_TASK_EXECUTION, fl_ctx)
    return gate


def through(gate: ResultGate, reply: Shareable, fl_ctx: FLContext) -> Shareable:
    fl_ctx.set_prop(FLContextKey.TASK_RESULT, reply, private=True, sticky=False)
    gate.handle_event(EventType.AFTER_TASK_RESULT_FILTER, fl_ctx)
    return reply


def test_a_rounded_update_passes_the_gate(gate: ResultGate, fl_ctx: FLContext) -> None:
    reply = CompactUpdate("int8").process(update(), fl_ctx)

    assert through(gate, reply, fl_ctx).get_return_code() == ReturnCode.OK
    assert data_of(reply)["conv.weight"].dtype == np.int8


def test_so_does_one_that_a_privacy_filter_has_changed_before(
    gate: ResultGate, fl_ctx: FLContext
) -> None:
    matrix = {"conv.weight": MODEL["conv.weight"]}
    filtered = PercentilePrivacy(percentile=10, gamma=0.01).process(update(matrix), fl_ctx)
    reply = CompactUpdate("int8").process(filtered, fl_ctx)

    assert through(gate, reply, fl_ctx).get_return_code() == ReturnCode.OK
    assert np.abs(restored(data_of(reply))["conv.weight"]).max() <= 4 * 0.01


def test_so_does_a_best_model_which_nobody_rounds(gate: ResultGate, fl_ctx: FLContext) -> None:
    model = DXO(DataKind.WEIGHTS, data=dict(MODEL)).to_shareable()

    assert through(gate, model, fl_ctx).get_return_code() == ReturnCode.OK


def _scales_that_are_none(data: Any) -> None:
    data[SCALES + "conv.weight"][0] = np.nan


def _scales_of_more_blocks(data: Any) -> None:
    data[SCALES + "conv.weight"] = np.ones(40, np.float32)


def _scales_under_a_name_of_their_own(data: Any) -> None:
    data[SCALES + "DOE_JOHN_1961"] = np.ones(3, np.float32)


def _of_another_shape(data: Any) -> None:
    data["conv.weight"] = data["conv.weight"].reshape(30, 20)


def _a_best_model_of_int8(data: Any) -> None:
    data["conv.bias"] = data["conv.bias"][:4]


@pytest.mark.parametrize(
    "spoil",
    [
        _scales_that_are_none,
        _scales_of_more_blocks,
        _scales_under_a_name_of_their_own,
        _of_another_shape,
        _a_best_model_of_int8,
    ],
)
def test_whatever_else_is_stopped(
    gate: ResultGate, fl_ctx: FLContext, spoil: Callable[[Any], None]
) -> None:
    reply = CompactUpdate("int8").process(update(), fl_ctx)
    spoil(data_of(reply))

    assert through(gate, reply, fl_ctx).get_header(STATUS) == REFUSED


def test_an_update_that_nobody_has_rounded_is_stopped(gate: ResultGate, fl_ctx: FLContext) -> None:
    assert through(gate, update(), fl_ctx).get_header(STATUS) == REFUSED


def test_one_in_another_form_is_stopped(gate: ResultGate, fl_ctx: FLContext) -> None:
    reply = CompactUpdate("float16").process(update(), fl_ctx)

    assert through(gate, reply, fl_ctx).get_header(STATUS) == REFUSED


def test_scales_in_a_job_that_rounds_nothing_are_stopped(
    gate: ResultGate, fl_ctx: FLContext, app: Path
) -> None:
    reply = CompactUpdate("int8").process(update(), fl_ctx)
    (app / "config" / "config_fed_client.json").unlink()
    gate.handle_event(EventType.START_RUN, fl_ctx)

    assert through(gate, reply, fl_ctx).get_header(STATUS) == REFUSED
