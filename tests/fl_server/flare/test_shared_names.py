"""A federation that shares some tensors: the job says which, and no others are taken or kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nvflare.apis.event_type import EventType

from fl_server.record.run_record import RunRecord
from mmar_runtime.weights import read_checkpoint

SHARED = ["*.conv.weight"]


@pytest.fixture
def fed(federation: Any) -> Any:
    """The run begins anew, with a job that shares the kernels of convolutions."""
    federation.whole = dict(federation.weights)
    federation.persistor.shared_names = SHARED
    federation.fire(EventType.START_RUN)
    federation.set_global(federation.weights)
    federation.start_round(1)
    return federation


def test_the_global_model_has_the_shared_tensors(fed: Any) -> None:
    assert 0 < len(fed.weights) < len(fed.whole)
    assert all(name.endswith(".conv.weight") for name in fed.weights)


def test_a_contribution_with_just_those_is_taken(fed: Any) -> None:
    assert fed.submit("site-1", fed.update(1, step=0.5))

    assert set(fed.aggregate()) == set(fed.weights)


def test_a_further_tensor_of_the_network_is_refused(fed: Any) -> None:
    """It is the site's own; that it came is a fault of the site or of the job."""
    reply = fed.update(1)
    private = next(name for name in fed.whole if name not in fed.weights)
    reply["DXO"]["data"][private] = torch.zeros_like(fed.whole[private]).numpy()

    assert not fed.submit("site-1", reply)
    assert "not part of the network" in fed.aggregator.rejections["site-1"]


def test_the_record_shows_the_list_and_is_read_back(fed: Any) -> None:
    assert fed.record.shared_names == tuple(fed.weights)
    assert fed.audit[0]["shared_names"] == list(fed.weights)


def test_a_record_from_before_shares_all(fed: Any) -> None:
    document = fed.record.as_dict()
    del document["shared_names"]

    assert RunRecord.from_dict(document).shared_names is None


def test_checkpoints_hold_the_shared_tensors(fed: Any) -> None:
    fed.submit("site-1", fed.update(1))
    fed.aggregate()
    fed.end_round()

    kept = read_checkpoint(fed.results / "models" / "FL_global_model.pt").weights

    assert set(kept) == set(fed.weights)


def test_names_that_fit_nothing_end_the_run_before_it_starts(federation: Any) -> None:
    federation.persistor.shared_names = ["encoder.*"]

    federation.fire(EventType.START_RUN)

    assert "no initial model" in federation.engine.fatal[0]
    assert "fits no tensor of the network: 'encoder.*'" in federation.engine.fatal[0]
