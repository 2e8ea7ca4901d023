"""An aggregator that a job brings along: what it gets, in which order, and what it may return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from mmar_runtime.errors import FederationError, WeightsError


class Largest:
    """Keeps the largest of all changes; answers as Clara's aggregators did."""

    def __init__(self) -> None:
        self.sites: list[str] = []
        self.updates: list[dict[str, Any]] = []

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> tuple[bool, bool]:
        self.sites.append(fl_ctx.get_peer_context().get_identity_name())
        self.updates.append(from_shareable(shareable).data)
        return True, len(self.updates) == 2

    def aggregate(self, fl_ctx: FLContext) -> Any:
        updates, self.updates = self.updates, []
        largest = {name: np.max([one[name] for one in updates], axis=0) for name in updates[0]}
        return DXO(DataKind.WEIGHT_DIFF, data=largest).to_shareable()


@pytest.fixture
def own() -> Largest:
    return Largest()


@pytest.fixture
def fed(federation: Any, own: Largest) -> Any:
    return started(federation, own)


def started(federation: Any, own: Any) -> Any:
    federation.aggregator.aggregator = own
    federation.fire(EventType.START_RUN)
    federation.start_round(1)
    return federation


def first_value(weights: Any) -> float:
    return float(next(iter(weights.values())).flatten()[0])


def test_its_result_becomes_the_model(fed: Any) -> None:
    before = first_value(fed.weights)
    fed.submit("site-1", fed.update(1, step=1.0))
    fed.submit("site-2", fed.update(1, step=5.0))

    assert first_value(fed.aggregate()) == pytest.approx(before + 5, rel=1e-6)


def test_it_gets_contributions_in_the_order_of_names_with_their_senders(
    fed: Any, own: Largest
) -> None:
    fed.submit("site-2", fed.update(1))
    fed.submit("site-1", fed.update(1))
    fed.aggregate()

    assert own.sites == ["site-1", "site-2"]


def test_the_guard_stands_before_it(fed: Any, own: Largest) -> None:
    faulty = fed.update(1, step=float("nan"))

    assert not fed.submit("site-1", faulty)
    assert fed.submit("site-2", fed.update(1, step=5.0))
    fed.aggregate()

    assert own.sites == ["site-2"]


def test_a_bound_by_the_median_holds_for_it_as_well(federation: Any, own: Largest) -> None:
    federation.aggregator.limits = {"norm_ratio": 1.2}
    fed = started(federation, own)
    fed.submit("site-1", fed.update(1, step=1.0))
    fed.submit("site-2", fed.update(1, step=1000.0))
    fed.aggregate()

    assert own.sites == ["site-1"]


def test_nothing_is_summed_besides(fed: Any) -> None:
    """A mean that nobody reads would cost two models' memory and the time of the sums."""
    fed.submit("site-1", fed.update(1))
    fed.submit("site-2", fed.update(1))
    mean = fed.aggregator._round_mean(fed.fl_ctx)

    assert mean.contributors == ("site-1", "site-2")
    with pytest.raises(WeightsError, match="missing"):
        mean.new_global(fed.weights)


def test_each_round_has_its_own_contributions(fed: Any, own: Largest) -> None:
    """Who says nothing in a round is not counted by what it said before."""
    for number, sites in ((1, ("site-1", "site-2")), (2, ("site-2",))):
        for site in sites:
            fed.submit(site, fed.update(number))
        fed.aggregate()
        fed.aggregator.reset(fed.fl_ctx)
        if number == 1:
            fed.start_round(2)

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
    federation: Any, own: Largest, returned: Any, error: Any, text: str
) -> None:
    own.aggregate = lambda fl_ctx: returned  # type: ignore[method-assign]
    fed = started(federation, own)
    fed.submit("site-1", fed.update(1))

    with pytest.raises(error, match=text):
        fed.aggregate()


def test_one_that_takes_nothing_ends_the_round(federation: Any, own: Largest) -> None:
    own.accept = lambda *_: (False, False)  # type: ignore[method-assign]
    fed = started(federation, own)
    fed.submit("site-1", fed.update(1))

    with pytest.raises(FederationError, match="took none of the contributions"):
        fed.aggregate()


def test_a_class_without_the_two_methods_ends_the_run_before_it_starts(federation: Any) -> None:
    started(federation, object())

    assert "has no accept" in federation.engine.fatal[0]
