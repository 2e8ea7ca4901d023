"""Contributions that lack some tensors: only those that the job's aggregator does without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.shareable import Shareable

BIAS = "*.conv.bias"


@pytest.fixture
def fed(federation: Any) -> Any:
    """The job does without the biases of convolutions."""
    federation.aggregator.optional_names = [BIAS]
    federation.start_round(1)
    return federation


def without(reply: Shareable, *names: str) -> Shareable:
    for name in names:
        del reply["DXO"]["data"][name]
    return reply


def biases(fed: Any) -> list[str]:
    return [name for name in fed.weights if name.endswith(".conv.bias")]


def test_each_tensor_has_the_mean_of_those_who_sent_it(fed: Any) -> None:
    """The biases by site-2 alone, all else by both."""
    assert fed.submit("site-1", without(fed.update(1, step=1.0), *biases(fed)))
    assert fed.submit("site-2", fed.update(1, step=5.0, steps=3))

    moved = {name: one - fed.weights[name] for name, one in fed.aggregate().items()}

    for name, change in moved.items():
        expected = 5.0 if name in biases(fed) else (1 * 1 + 3 * 5) / 4
        if change.is_floating_point():
            assert change.numpy() == pytest.approx(np.full(change.shape, expected), rel=1e-5)


def test_what_nobody_sent_stays(fed: Any) -> None:
    for site in ("site-1", "site-2"):
        assert fed.submit(site, without(fed.update(1), *biases(fed)))

    found = fed.aggregate()

    assert all(found[name].equal(fed.weights[name]) for name in biases(fed))


def test_the_log_says_what_was_left_out(fed: Any) -> None:
    fed.submit("site-1", without(fed.update(1), *biases(fed)))
    fed.submit("site-2", fed.update(1))

    first, second = (one for one in fed.audit if one["event"] == "contribution-accepted")

    assert first["left_out"] == sorted(biases(fed))
    assert "left_out" not in second


def test_any_other_tensor_has_to_be_there(fed: Any) -> None:
    other = next(name for name in fed.weights if name not in biases(fed))

    assert not fed.submit("site-1", without(fed.update(1), other))
    assert f"{other}: missing" in fed.aggregator.rejections["site-1"]


def test_a_tensor_that_is_there_is_judged_like_any_other(fed: Any) -> None:
    reply = fed.update(1)
    reply["DXO"]["data"][biases(fed)[0]][...] = np.nan

    assert not fed.submit("site-1", reply)


def test_nothing_at_all_is_no_contribution(federation: Any) -> None:
    federation.aggregator.optional_names = ["*"]
    federation.start_round(1)
    reply = federation.update(1)
    reply["DXO"]["data"].clear()

    assert not federation.submit("site-1", reply)
    assert "has no tensor at all" in federation.aggregator.rejections["site-1"]


def test_a_pattern_that_is_none_ends_the_run_before_it_trains(federation: Any) -> None:
    federation.aggregator.optional_names = ["*a*b*c*d*e"]

    federation.fire(EventType.START_RUN)

    assert "has more than 4 '*'" in federation.engine.fatal[0]
