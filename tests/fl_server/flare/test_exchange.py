"""What the server takes from the wire: nothing is believed before it was looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply

from fl_server.flare.exchange import (
    STATUS,
    STORED,
    answered_round,
    failure_of,
    global_weights,
    in_memory,
    job_name,
    learnable_from,
    metrics_from,
    site_model_from,
    site_names,
    update_from,
    weights_from,
)
from mmar_runtime.errors import FederationError

WEIGHTS = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}


def test_weights_survive_nvflares_model_object() -> None:
    found = weights_from(learnable_from(WEIGHTS))

    assert found["w"].tolist() == [1.0, 2.0]
    assert (found["n"].item(), found["n"].shape, found["n"].dtype) == (3, (), torch.int64)


def test_arrays_that_cannot_be_written_to_are_copied() -> None:
    """As they come from NVFlare's streams; torch warns of such memory."""
    array = np.array([1.0])
    array.flags.writeable = False

    meta = {"round": 2, "metrics": {"dice": 0.5}}
    model = site_model_from(DXO(DataKind.WEIGHTS, data={"w": array}, meta=meta).to_shareable())

    assert model.weights["w"].tolist() == [1.0]
    assert (model.round_number, model.metrics) == (2, {"dice": 0.5})


def test_a_good_reply_has_no_failure() -> None:
    assert failure_of(DXO(DataKind.METRICS, data={"dice": 0.5}).to_shareable()) is None


def test_a_failed_one_tells_its_status_word_else_its_return_code() -> None:
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    assert failure_of(reply) == "EXECUTION_EXCEPTION"

    reply.set_header(STATUS, "data-error (reference 0)")
    assert failure_of(reply) == "data-error (reference 0)"


@pytest.mark.parametrize("read", [update_from, site_model_from, metrics_from])
@pytest.mark.parametrize(
    "reply",
    [
        Shareable(),
        DXO(DataKind.COLLECTION, data={"w": np.zeros(1)}).to_shareable(),
        DXO(DataKind.METRICS, data={}).to_shareable(),
    ],
    ids=["nothing", "another kind", "empty"],
)
def test_a_reply_of_another_kind_is_refused(read: Any, reply: Shareable) -> None:
    with pytest.raises(FederationError, match="the reply holds"):
        read(reply)


@pytest.mark.parametrize(
    ("cookie", "number"), [(0, 1), (2, 3), (None, None), ("x", None), (True, None)]
)
def test_the_round_of_a_reply_counts_from_1_and_is_unknown_if_it_is_no_number(
    cookie: Any, number: int | None
) -> None:
    reply = Shareable()
    reply.add_cookie("contribution_round", cookie)

    assert answered_round(reply) == number


def test_code_of_a_jobs_own_gets_arrays_that_it_may_change(federation: Any, tmp_path: Path) -> None:
    federation.start_round(1)
    reply = federation.handed_over(federation.update(1), tmp_path / "file")
    assert STORED in reply

    own = in_memory(reply)

    assert STORED not in own
    for name, array in own["DXO"]["data"].items():
        array += 1
        assert (array == reply["DXO"]["data"][name] + 1).all()


def test_without_a_global_model_there_is_an_error_and_no_empty_one() -> None:
    with pytest.raises(FederationError, match="holds no global model"):
        global_weights(FLContext())


def test_sites_are_named_in_their_order(federation: Any) -> None:
    assert site_names(federation.fl_ctx) == ("site-1", "site-2")


def test_a_job_without_a_name_goes_by_its_id(federation: Any) -> None:
    assert job_name(federation.fl_ctx) == "job-1"

    federation.fl_ctx.set_prop("__job_meta__", {"name": "spleen"}, private=True, sticky=False)
    assert job_name(federation.fl_ctx) == "spleen"
