"""A federation that shares some tensors: the job says which, and no others are taken or kept."""

from __future__ import annotations

import pytest
import torch

from mmar_runtime.weights import read_checkpoint
from tests.fl_server.flare.conftest import Begin, Begun


@pytest.fixture
def fed(begin: Begin) -> Begun:
    """The job shares the kernels of convolutions."""
    return begin(shared_names=["*.conv.weight"])


def test_the_shared_tensors_alone_are_trained_kept_and_recorded(fed: Begun, begin: Begin) -> None:
    assert fed.weights
    assert all(name.endswith(".conv.weight") for name in fed.weights)
    assert fed.submit("site-1", fed.update(step=0.5))

    assert set(fed.close_round()) == set(fed.weights)
    assert fed.run.record.shared_names == tuple(fed.weights)
    assert fed.noted("run-started")[0]["shared_names"] == list(fed.weights)
    kept = read_checkpoint(fed.folder / "models" / "FL_global_model.pt").weights
    assert set(kept) == set(fed.weights)


def test_a_further_tensor_of_the_network_is_refused(fed: Begun) -> None:
    """It is the site's own; that it came is a fault of the site or of the job."""
    reply = fed.update()
    reply["DXO"]["data"]["model.0.conv.bias"] = torch.zeros(4).numpy()

    assert not fed.submit("site-1", reply)
    assert "not part of the network" in fed.reason("site-1")


def test_names_that_fit_nothing_end_the_run_before_it_starts(begin: Begin) -> None:
    [told] = begin(shared_names=["encoder.*"]).fatal

    assert "the run cannot begin" in told
    assert "fits no tensor of the network: 'encoder.*'" in told
