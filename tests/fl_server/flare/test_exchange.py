"""What the server sends and what it takes from the wire, of which nothing is judged here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants

from fl_server.flare.exchange import (
    STORED,
    answered_round,
    failure_of,
    in_memory,
    job_name,
    message_of,
    received_from,
)
from mmar_runtime.exchange.messages import Score, Submit, Task, Train, Validate
from mmar_runtime.flare.wire import AGGREGATION_WEIGHTS, BASE_MODEL, CASES, LOGS, REPORT, STATUS
from mmar_runtime.weights import Weights
from tests.conftest import plain_metric

WEIGHTS: Weights = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
FACTORS = {"site-1": 0.5}


def sent(task: Task, factors: Any = None) -> Shareable:
    return message_of(task, rounds=3, base_model="model of round 1", factors=factors)


def reply_context(site: str = "site-1") -> FLContext:
    fl_ctx = FLContextManager(identity_name="server", job_id="job-1").new_context()
    fl_ctx.set_peer_context(FLContextManager(identity_name=site, job_id="job-1").new_context())
    return fl_ctx


# --- tasks


def test_a_round_goes_out_with_its_model_and_its_number() -> None:
    message = sent(Train(weights=WEIGHTS, round_number=2))

    model = from_shareable(message).data
    assert (model["w"].tolist(), model["n"].item(), model["n"].dtype) == ([1.0, 2.0], 3, np.int64)
    assert message.get_header(AppConstants.CURRENT_ROUND) == 1  # NVFlare counts from 0
    assert message.get_header(AppConstants.NUM_ROUNDS) == 3
    assert message.get_cookie(BASE_MODEL) == "model of round 1"
    assert answered_round(message) == 2
    assert message.get_header(AGGREGATION_WEIGHTS) is None


def test_sites_of_an_encrypted_job_know_the_factors_of_their_steps() -> None:
    message = sent(Train(weights=WEIGHTS, round_number=1), factors=FACTORS)

    assert message.get_header(AGGREGATION_WEIGHTS) == FACTORS


def test_a_model_that_is_sent_shares_the_memory_of_the_global_one() -> None:
    array = from_shareable(sent(Score(weights=WEIGHTS))).data["w"]

    assert array.ctypes.data == WEIGHTS["w"].data_ptr()


@pytest.mark.parametrize(("is_global", "name"), [(True, "SRV_best"), (False, "best")])
def test_a_model_to_be_evaluated_goes_out_by_its_name(is_global: bool, name: str) -> None:
    message = sent(Validate(weights=WEIGHTS, owner="best", is_global=is_global))

    assert message.get_header(AppConstants.MODEL_OWNER) == name
    assert message.get_cookie(AppConstants.MODEL_OWNER) == "best"


def test_nothing_goes_out_with_the_question_for_a_model() -> None:
    assert "DXO" not in sent(Submit())


# --- replies


def test_an_update_comes_as_plain_values_with_what_the_site_says_of_itself() -> None:
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: 7, REPORT: {"seconds": 1.0}, "x": 1, 5: 2}
    reply = DXO(DataKind.WEIGHT_DIFF, data={"w": np.ones(2)}, meta=meta).to_shareable()
    reply.set_cookie_jar(dict(sent(Train(weights=WEIGHTS, round_number=2)).get_cookie_jar()))
    reply.set_header(LOGS, {"log": "head"})

    found = received_from(reply, reply_context())

    assert found.metadata == {
        "kind": "WEIGHT_DIFF",
        "site": "site-1",
        "job": "job-1",
        "round": 2,
        "base_model": "model of round 1",
        "steps": 7,
        "report": {"seconds": 1.0},
        "meta.x": 1,
        5: 2,
    }
    assert found.weights()["w"].tolist() == [1.0, 1.0]
    assert found.logs == {"log": "head"}


def test_a_sites_words_do_not_replace_what_the_server_knows() -> None:
    meta = {"site": "site-2", "job": "job-2", "kind": "WEIGHTS", CASES: 3}
    reply = DXO(DataKind.METRICS, data={"dice": plain_metric(0.5)}, meta=meta).to_shareable()

    found = received_from(reply, reply_context())

    assert {key: found.metadata[key] for key in ("site", "job", "kind", "cases")} == {
        "site": "site-1",
        "job": "job-1",
        "kind": "METRICS",
        "cases": 3,
    }


@pytest.mark.parametrize(
    "reply", [Shareable(), Shareable({"DXO": 7}), Shareable({"DXO": {"kind": "WEIGHTS"}})]
)
def test_a_reply_that_holds_no_data_is_of_no_kind(reply: Shareable) -> None:
    found = received_from(reply, reply_context())

    assert found.data is None
    assert found.metadata["kind"] in ("none", "WEIGHTS")


def test_arrays_that_cannot_be_written_to_are_copied() -> None:
    """As they come from NVFlare's streams; torch warns of such memory."""
    array = np.array([1.0])
    array.flags.writeable = False
    reply = DXO(DataKind.WEIGHTS, data={"w": array}).to_shareable()

    assert received_from(reply, reply_context()).weights()["w"].tolist() == [1.0]


def test_a_good_reply_has_no_failure() -> None:
    assert (
        failure_of(DXO(DataKind.METRICS, data={"dice": plain_metric(0.5)}).to_shareable()) is None
    )


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, "EXECUTION_EXCEPTION"),
        ("data-error (reference 0)", "data-error (reference 0)"),
        ("DOE_JOHN_1961.nii.gz is missing", "EXECUTION_EXCEPTION"),
        (7, "EXECUTION_EXCEPTION"),
    ],
)
def test_a_failed_reply_tells_its_status_word_else_its_return_code(
    status: Any, expected: str
) -> None:
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(STATUS, status)

    assert failure_of(reply) == expected


def test_a_return_code_that_nobody_knows_is_not_repeated() -> None:
    assert failure_of(make_reply("DOE_JOHN")) == "an unknown return code"


@pytest.mark.parametrize(
    ("cookie", "number"), [(0, 1), (2, 3), (None, None), ("x", None), (True, None)]
)
def test_the_round_of_a_reply_counts_from_1_and_is_unknown_if_it_is_no_number(
    cookie: Any, number: int | None
) -> None:
    reply = Shareable()
    reply.add_cookie(AppConstants.CONTRIBUTION_ROUND, cookie)

    assert answered_round(reply) == number


def test_code_of_a_jobs_own_gets_arrays_that_it_may_change() -> None:
    array = np.ones(2)
    array.flags.writeable = False
    reply = DXO(DataKind.WEIGHT_DIFF, data={"w": array}).to_shareable()
    reply[STORED] = ({}, object())

    own = in_memory(reply)
    own["DXO"]["data"]["w"] += 1

    assert STORED not in own
    assert reply["DXO"]["data"]["w"].tolist() == [1.0, 1.0]


def test_a_job_without_a_name_goes_by_its_id() -> None:
    fl_ctx = reply_context()
    assert job_name(fl_ctx) == "job-1"

    fl_ctx.set_prop(FLContextKey.JOB_META, {"name": "spleen"}, private=True, sticky=False)
    assert job_name(fl_ctx) == "spleen"
