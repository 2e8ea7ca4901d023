"""A server whose sites round: what it adds up and writes down, and what one bad site costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.shareable import Shareable

from fl_server.flare.exchange import as_tensor
from mmar_runtime.exchange.rounding import SCALES, compacted, is_rounded, widened
from mmar_runtime.exchange.rounding_forms import FORMS
from mmar_runtime.weights import digest


@pytest.fixture
def fed(federation: Any) -> Any:
    """The run begins anew, with a job whose sites round to int8."""
    federation.aggregator.transfer = "int8"
    federation.fire(EventType.START_RUN)
    federation.set_global(federation.weights)
    federation.start_round(1)
    return federation


def reply(fed: Any, *, seed: int = 0, form: Any = "int8", **how: Any) -> Shareable:
    """A site's contribution: each weight moved somewhere."""
    reply: Shareable = fed.update(1, **how)
    data, random = reply["DXO"]["data"], np.random.default_rng(seed)
    for name, array in data.items():
        if array.dtype.kind == "f":
            data[name] = random.normal(size=array.shape).astype(array.dtype)
    if form is not None:
        reply["DXO"]["data"] = compacted(data, form)
    return reply


def large(fed: Any) -> str:
    """A tensor that is rounded."""
    arrays = {name: tensor.numpy() for name, tensor in fed.weights.items()}
    return next(name for name, a in arrays.items() if is_rounded(a.dtype, a.shape))


def test_the_mean_is_that_of_the_numbers_that_came(fed: Any) -> None:
    name = large(fed)
    one, two = reply(fed, seed=1, steps=1), reply(fed, seed=2, steps=3)
    moved = [widened(from_shareable(each).data)[name].astype(np.float64) for each in (one, two)]
    before = fed.weights[name].numpy().astype(np.float64)

    assert fed.submit("site-2", two)
    assert fed.submit("site-1", one)

    expected = (before + (1 * moved[0] + 3 * moved[1]) / 4).astype(np.float32)
    assert fed.aggregate()[name].numpy() == pytest.approx(expected, rel=1e-6)


def test_the_record_has_the_bytes_of_the_wire_and_the_log_their_digest(fed: Any) -> None:
    sent = from_shareable(whole := reply(fed)).data
    bytes_sent = sum(array.nbytes for array in sent.values())

    assert fed.submit("site-1", whole)

    assert fed.record.rounds[0].sites["site-1"].as_dict()["bytes"] == bytes_sent
    assert bytes_sent < sum(tensor.nbytes for tensor in fed.weights.values()) / 2
    [noted] = [one for one in fed.audit if one["event"] == "contribution-accepted"]
    assert noted["bytes"] == bytes_sent
    assert noted["tensors"] == digest({name: as_tensor(array) for name, array in sent.items()})


@pytest.mark.parametrize(
    ("form", "told"), [(None, "given float32"), ("float16", "given float16")], ids=str
)
def test_another_form_costs_that_site_its_contribution(fed: Any, form: Any, told: str) -> None:
    assert not fed.submit("site-1", reply(fed, form=form))
    assert fed.submit("site-2", reply(fed))

    outcome = fed.record.rounds[0].sites["site-1"].as_dict()
    assert outcome["status"] == "rejected"
    assert f"{large(fed)!r}: has to be int8, {told}" in outcome["reason"]
    [noted] = [one for one in fed.audit if one["event"] == "contribution-rejected"]
    assert noted["rules"] == ["transfer"]
    assert torch.isfinite(fed.aggregate()[large(fed)]).all()


def test_so_do_scales_that_are_none(fed: Any) -> None:
    spoilt = reply(fed)
    from_shareable(spoilt).data[SCALES + large(fed)][0] = np.nan

    assert not fed.submit("site-1", spoilt)
    assert (
        "has a scale that is no number" in fed.record.rounds[0].sites["site-1"].as_dict()["reason"]
    )


def test_norms_are_compared_by_what_is_added_up(fed: Any) -> None:
    fed.aggregator.limits = {"norm_ratio": 1.5}
    fed.aggregator._guard = None
    spoilt = reply(fed, seed=1)
    from_shareable(spoilt).data[SCALES + large(fed)][:] *= 1000
    assert fed.submit("site-1", reply(fed))
    assert fed.submit("site-2", spoilt)

    fed.aggregator.min_sites = 1
    assert list(fed.aggregator.settle(fed.fl_ctx)) == ["site-2"]


class Largest:
    """An aggregator of a job's own, which sees differences in float32 alone."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def accept(self, shareable: Shareable, fl_ctx: Any) -> bool:
        self.seen.append(from_shareable(shareable).data)
        return True

    def aggregate(self, fl_ctx: Any) -> Shareable:
        return DXO(DataKind.WEIGHT_DIFF, data=self.seen[-1]).to_shareable()


def test_a_jobs_own_aggregator_gets_what_would_be_added_up(federation: Any) -> None:
    own = Largest()
    federation.aggregator.transfer, federation.aggregator.aggregator = "int8", own
    federation.fire(EventType.START_RUN)
    federation.set_global(federation.weights)
    federation.start_round(1)
    came = reply(federation)
    sent = from_shareable(came).data

    assert federation.submit("site-1", came)
    federation.aggregate()

    [seen] = own.seen
    assert seen.keys() == federation.weights.keys()
    assert seen[large(federation)].tobytes() == widened(sent)[large(federation)].tobytes()
    assert from_shareable(came).data.keys() == sent.keys()  # the reply itself stays as it came


def test_a_form_that_there_is_not_ends_the_run(federation: Any) -> None:
    federation.aggregator.transfer = "int4"

    federation.fire(EventType.START_RUN)

    [told] = federation.engine.fatal
    assert told == f"transfer is 'int4', no form of {', '.join(FORMS)}"
