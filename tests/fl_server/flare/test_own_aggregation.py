"""An aggregator that a job brings along: what it gets, in which order, and what it may return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from mmar_runtime.errors import FederationError, WeightsError
from mmar_runtime.exchange.rounding import is_rounded, restored, rounded
from mmar_runtime.weights import Weights
from tests.fl_server.flare.conftest import Begin, Begun


class Largest:
    """Keeps the largest of all changes; answers as Clara's aggregators did."""

    def __init__(self) -> None:
        self.sites: list[str] = []
        self.updates: list[dict[str, Any]] = []
        self.seen: list[dict[str, Any]] = []

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> tuple[bool, bool]:
        self.sites.append(fl_ctx.get_peer_context().get_identity_name())
        self.updates.append(from_shareable(shareable).data)
        self.seen.append(self.updates[-1])
        return True, len(self.updates) == 2

    def aggregate(self, fl_ctx: FLContext) -> Any:
        updates, self.updates = self.updates, []
        largest = {name: np.max([one[name] for one in updates], axis=0) for name in updates[0]}
        return DXO(DataKind.WEIGHT_DIFF, data=largest).to_shareable()


@pytest.fixture
def own() -> Largest:
    return Largest()


@pytest.fixture
def fed(begin: Begin, own: Largest) -> Begun:
    return begin(aggregator=own)


def first_value(weights: Weights) -> float:
    return float(next(iter(weights.values())).flatten()[0])


def test_it_gets_updates_in_the_order_of_names_and_its_result_becomes_the_model(
    fed: Begun, own: Largest
) -> None:
    fed.submit("site-3", fed.update(step=5.0))
    fed.submit("site-1", fed.update(step=1.0))

    assert first_value(fed.close_round()) == pytest.approx(first_value(fed.weights) + 5, rel=1e-6)
    assert own.sites == ["site-1", "site-3"]


def test_the_guard_stands_before_it(fed: Begun, own: Largest) -> None:
    assert not fed.submit("site-1", fed.update(step=float("nan")))
    assert fed.submit("site-2", fed.update(step=5.0))
    fed.close_round()

    assert own.sites == ["site-2"]


def test_a_bound_by_the_median_holds_for_it_as_well(begin: Begin, own: Largest) -> None:
    fed = begin(aggregator=own, limits={"norm_ratio": 1.2})
    for site, step in (("site-1", 1.0), ("site-2", 1000.0), ("site-3", 1.0)):
        fed.submit(site, fed.update(step=step))
    fed.close_round()

    assert own.sites == ["site-1", "site-3"]


def test_each_round_has_its_own_updates(fed: Begun, own: Largest) -> None:
    """Who says nothing in a round is not counted by what it said before."""
    fed.submit("site-1", fed.update())
    fed.submit("site-2", fed.update())
    fed.close_round()
    fed.open_round()
    fed.submit("site-2", fed.update())
    fed.close_round()

    assert own.sites == ["site-1", "site-2", "site-2"]


@pytest.mark.parametrize(
    ("returned", "error", "text"),
    [
        (None, FederationError, "the reply holds no data"),
        (DXO(DataKind.METRICS, data={"dice": 1}).to_shareable(), FederationError, "no weights"),
        (
            DXO(DataKind.WEIGHT_DIFF, data={"x": np.ones(1)}).to_shareable(),
            WeightsError,
            "missing",
        ),
    ],
)
def test_anything_else_than_the_model_is_not_kept(
    fed: Begun, own: Largest, returned: Any, error: type[Exception], text: str
) -> None:
    own.aggregate = lambda fl_ctx: returned  # type: ignore[method-assign]
    fed.submit("site-1", fed.update())

    with pytest.raises(error, match=text):
        fed.close_round()


def test_an_aggregator_that_takes_nothing_ends_the_round(fed: Begun, own: Largest) -> None:
    own.accept = lambda *_: (False, False)  # type: ignore[method-assign]
    fed.submit("site-1", fed.update())

    with pytest.raises(FederationError, match="took none of the contributions"):
        fed.close_round()


def test_a_class_without_the_two_methods_ends_the_run_before_it_starts(begin: Begin) -> None:
    assert "has no accept" in begin(aggregator=object()).fatal[0]


def test_updates_that_came_rounded_reach_it_as_float32(begin: Begin, own: Largest) -> None:
    fed = begin(aggregator=own, transfer="int8")
    reply = fed.update()
    sent = rounded(reply["DXO"]["data"], "int8")
    reply["DXO"]["data"] = dict(sent)
    large = next(n for n, t in fed.weights.items() if is_rounded(t.numpy().dtype, t.shape))

    assert fed.submit("site-1", reply)
    fed.close_round()

    [seen] = own.seen
    assert seen.keys() == fed.weights.keys()
    assert seen[large].tobytes() == restored(sent)[large].tobytes()
    assert reply["DXO"]["data"].keys() == sent.keys()  # the reply itself stays as it came
