"""One site sends what it should not; it is refused, and the model is bit by bit the others'.

The first group is what NVFlare's stock aggregation takes in: numbers that are none, weights below
zero or beyond all others, shapes that broadcast, further keys, wider dtypes.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nvflare.apis.client import Client
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.fl_constant import ServerCommandKey
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.shareable import Shareable

from fl_server.flare.aggregator import MmarAggregator
from fl_server.flare.exchange import REPORT
from mmar_runtime.errors import ConfigError
from mmar_runtime.weights import digest


@pytest.fixture
def fed(federation: Any) -> Any:
    federation.start_round(1)
    return federation


def arrays_of(reply: Shareable) -> Any:
    return reply["DXO"]["data"]


def meta_of(reply: Shareable) -> Any:
    return reply["DXO"]["meta"]


def first(reply: Shareable) -> str:
    return next(name for name, array in arrays_of(reply).items() if array.ndim > 1)


def model_of_site_2_alone(fed: Any) -> str:
    aggregator = MmarAggregator(min_sites=1)
    fed.peer("site-2")
    reply = fed.sent_by("site-2", fed.update(1, step=0.5, steps=3))
    assert aggregator.accept(reply, fed.fl_ctx)
    arrays = aggregator.aggregate(fed.fl_ctx)["DXO"]["data"]
    return digest({name: fed.as_tensor(array) for name, array in arrays.items()})


def nan(reply: Shareable) -> None:
    arrays_of(reply)[first(reply)].flat[0] = math.nan


def infinite(reply: Shareable) -> None:
    arrays_of(reply)[first(reply)].flat[0] = math.inf


def overflowing(reply: Shareable) -> None:
    arrays_of(reply)[first(reply)].fill(3e38)


def scalar(reply: Shareable) -> None:
    arrays_of(reply)[first(reply)] = np.array(5.0, np.float32)


def one_row(reply: Shareable) -> None:
    name = first(reply)
    arrays_of(reply)[name] = arrays_of(reply)[name][:1].copy()


def one_more_axis(reply: Shareable) -> None:
    name = first(reply)
    arrays_of(reply)[name] = np.stack([arrays_of(reply)[name]] * 2)


def broadcast(reply: Shareable) -> None:
    name = first(reply)
    arrays_of(reply)[name] = np.broadcast_to(np.float32(1), arrays_of(reply)[name].shape)


def huge(reply: Shareable) -> None:
    arrays_of(reply)[first(reply)] = np.broadcast_to(np.float32(1), (2**20, 2**20))


def wider(reply: Shareable) -> None:
    name = first(reply)
    arrays_of(reply)[name] = arrays_of(reply)[name].astype(np.float64)


def objects(reply: Shareable) -> None:
    name = first(reply)
    arrays_of(reply)[name] = arrays_of(reply)[name].astype(object)


def further_key(reply: Shareable) -> None:
    arrays_of(reply)["extra"] = np.ones(1, np.float32)


def missing_key(reply: Shareable) -> None:
    del arrays_of(reply)[first(reply)]


def whole_model(reply: Shareable) -> None:
    reply["DXO"]["kind"] = DataKind.WEIGHTS


def steps_of(value: object) -> Callable[[Shareable], None]:
    def change(reply: Shareable) -> None:
        meta_of(reply)[MetaKey.NUM_STEPS_CURRENT_ROUND] = value

    change.__name__ = f"steps {value!r}"
    return change


def patients(reply: Shareable) -> None:
    meta_of(reply)["files"] = ["DOE_JOHN_1961.nii.gz"]


def much_metadata(reply: Shareable) -> None:
    meta_of(reply)[REPORT]["process"] = "x" * 5000


def perfect(reply: Shareable) -> None:
    meta_of(reply)[REPORT]["received_metrics"]["val_mean_dice"] = 1e9


def no_epochs(reply: Shareable) -> None:
    meta_of(reply)[REPORT]["epochs"] = "all of them"


def nothing(reply: Shareable) -> None:
    del reply["DXO"]


def no_metadata(reply: Shareable) -> None:
    reply["DXO"]["meta"] = None


STOCK_HOLE = [
    nan, infinite, overflowing, steps_of(-0.9), steps_of(-1), steps_of(0), steps_of(10**18),
    steps_of(math.inf), steps_of(True), scalar, one_row, one_more_axis, further_key, wider,
]  # fmt: skip

FURTHER = [
    broadcast, huge, objects, missing_key, whole_model, patients, much_metadata, perfect,
    no_epochs, nothing, no_metadata, steps_of("1"), steps_of(None), steps_of(1.0),
]  # fmt: skip


@pytest.mark.parametrize("spoil", [*STOCK_HOLE, *FURTHER], ids=lambda change: change.__name__)
@pytest.mark.parametrize("order", ["hostile first", "hostile last"])
def test_the_model_is_that_of_the_round_without_the_hostile_site(
    fed: Any, spoil: Callable[[Shareable], None], order: str
) -> None:
    expected = model_of_site_2_alone(fed)
    hostile = fed.update(1, step=0.25, steps=2)
    spoil(hostile)
    sent = [("site-1", hostile), ("site-2", fed.update(1, step=0.5, steps=3))]

    accepted = [fed.submit(*one) for one in (sent if order == "hostile first" else sent[::-1])]

    assert accepted == ([False, True] if order == "hostile first" else [True, False])
    assert digest(fed.aggregate()) == expected
    assert fed.record.rounds[0].sites["site-1"].status == "rejected"
    refusals = [one for one in fed.audit if one["event"] == "contribution-rejected"]
    assert [(one["site"], one["round"]) for one in refusals] == [("site-1", 1)]
    assert refusals[0]["rules"]
    assert not fed.engine.fatal


def test_the_same_contribution_unspoilt_would_count(fed: Any) -> None:
    """Else the test above would show nothing."""
    expected = model_of_site_2_alone(fed)
    fed.submit("site-1", fed.update(1, step=0.25, steps=2))
    fed.submit("site-2", fed.update(1, step=0.5, steps=3))

    assert digest(fed.aggregate()) != expected


# --- who sent it, and to what


def test_a_site_cannot_speak_for_another(fed: Any) -> None:
    """What a site says of itself is one thing, by whose connection the reply came another."""
    reply = fed.sent_by("site-1", fed.update(1, step=9.0))
    fed.peer("site-2")

    assert not fed.aggregator.accept(reply, fed.fl_ctx)
    assert fed.aggregator.rejections == {"site-1": "site: belongs to 'site-2', not to 'site-1'"}
    assert fed.submit("site-2", fed.update(1))


def test_a_failure_is_recorded_of_the_site_that_sent_it(fed: Any) -> None:
    failed = fed.sent_by("site-1", fed.update(1))
    failed.set_return_code("EXECUTION_EXCEPTION")
    fed.peer("site-2")
    fed.fire("_before_task_result_filter", __task_name__="train", __task_result__=failed)
    fed.fire("_before_process_submission")

    assert fed.record.rounds[0].sites["site-1"].status == "failed"
    assert "site-2" not in fed.record.rounds[0].sites


def test_a_reply_without_a_sender_is_rejected(fed: Any) -> None:
    fed.peer("site-1")

    assert not fed.aggregator.accept(fed.update(1), fed.fl_ctx)


def test_a_name_in_place_of_the_sender_is_rejected(fed: Any) -> None:
    reply = fed.update(1)
    reply.set_header(ServerCommandKey.FL_CLIENT, "site-1")
    fed.peer("site-1")

    assert not fed.aggregator.accept(reply, fed.fl_ctx)


def test_a_reply_to_another_job_is_rejected(fed: Any) -> None:
    peer = FLContextManager(identity_name="site-1", job_id="job-2").new_context()
    fed.fl_ctx.set_peer_context(peer)
    reply = fed.sent_by("site-1", fed.update(1))

    assert not fed.aggregator.accept(reply, fed.fl_ctx)
    assert fed.aggregator.rejections["site-1"] == "job: belongs to 'job-2', not to 'job-1'"


def test_a_reply_to_a_round_before_does_not_count_and_the_right_one_does(fed: Any) -> None:
    stale = fed.update(1, step=9.0)
    fed.submit("site-2", fed.update(1))
    fed.aggregate()
    fed.end_round()
    fed.start_round(2)

    assert not fed.submit("site-1", stale)
    assert "round: belongs to 1, not to 2" in fed.aggregator.rejections["site-1"]
    assert fed.submit("site-1", fed.update(2))


def test_a_difference_to_another_model_is_rejected(fed: Any) -> None:
    """As after a server that began the same round once more, from other weights."""
    stale = fed.update(1)
    moved = {name: tensor + 1 for name, tensor in fed.weights.items()}
    fed.start_round_again(1, moved)

    assert not fed.accept("site-1", stale)
    assert "base_model: belongs to" in fed.aggregator.rejections["site-1"]
    assert fed.accept("site-1", fed.update(1))


def test_a_replay_counts_once(fed: Any) -> None:
    expected = model_of_site_2_alone(fed)
    reply = fed.update(1, step=0.5, steps=3)

    assert fed.submit("site-2", copy.deepcopy(reply))
    for _ in range(3):
        assert not fed.submit("site-2", copy.deepcopy(reply))

    assert digest(fed.aggregate()) == expected
    assert fed.record.rounds[0].sites["site-2"].steps == 3


def test_who_was_rejected_does_not_get_a_second_try_in_the_round(fed: Any) -> None:
    assert not fed.submit("site-1", fed.update(1, steps=0))
    assert not fed.submit("site-1", fed.update(1))

    assert fed.record.rounds[0].sites["site-1"].status == "rejected"
    assert not fed.engine.fatal


def test_a_site_that_said_it_failed_may_contribute_after_all(fed: Any) -> None:
    failed = fed.answering(Shareable(), 1)
    failed.set_return_code("EXECUTION_EXCEPTION")
    fed.submit("site-1", failed)

    assert fed.submit("site-1", fed.update(1))
    assert fed.record.rounds[0].contributors == ("site-1",)
    assert not fed.engine.fatal


def test_an_answer_before_the_first_round_does_not_end_the_run(federation: Any) -> None:
    failed = Shareable()
    failed.set_return_code("EXECUTION_EXCEPTION")

    assert not federation.submit("site-1", failed)
    assert not federation.engine.fatal


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("EXECUTION_EXCEPTION", "EXECUTION_EXCEPTION"),
        ("=cmd|' /C calc'!A0", "an unknown return code"),
        (["EXECUTION_EXCEPTION"], "an unknown return code"),
    ],
)
def test_what_a_failed_site_says_is_one_of_a_few_words(fed: Any, code: Any, reason: str) -> None:
    failed = fed.answering(Shareable(), 1)
    failed.set_return_code(code)
    failed.set_header("mmar_status", "DOE_JOHN_1961.nii.gz cannot be read")
    fed.submit("site-1", failed)

    assert fed.record.rounds[0].sites["site-1"].reason == reason


# --- norms


SITES = ("site-1", "site-2", "site-3", "site-4")


@pytest.fixture
def four(fed: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A round of four sites in which norms are bounded by the median."""
    clients = [Client(name, name) for name in SITES]
    monkeypatch.setattr(fed.engine, "get_clients", lambda: clients, raising=False)
    fed.keeper._recorder = None
    fed.start_round_again(1)
    fed.aggregator.limits = {"norm_ratio": 4.0}
    return fed


def submit_all(fed: Any, order: tuple[str, ...], steps: dict[str, float]) -> str:
    for site in order:
        assert fed.submit(site, fed.update(1, step=steps[site], steps=2))
    return digest(fed.aggregate())


STEPS = {"site-1": 0.1, "site-2": 0.2, "site-3": 0.3, "site-4": 50.0}


def test_an_update_far_off_the_median_is_taken_out_of_the_round(four: Any) -> None:
    found = submit_all(four, SITES, STEPS)

    sites = four.record.rounds[0].sites
    assert sites["site-4"].status == "rejected"
    assert "more than 4 times the median" in sites["site-4"].reason
    assert list(four.record.scores[0].sites) == ["site-1", "site-2", "site-3"]
    four.aggregator.reset(four.fl_ctx)
    assert found == digest_without_site_4(four)


def digest_without_site_4(fed: Any) -> str:
    aggregator = MmarAggregator(min_sites=1)
    fed.set_global(fed.weights)
    for site in SITES[:3]:
        fed.peer(site)
        assert aggregator.accept(
            fed.sent_by(site, fed.update(1, step=STEPS[site], steps=2)), fed.fl_ctx
        )
    arrays = aggregator.aggregate(fed.fl_ctx)["DXO"]["data"]
    return digest({name: fed.as_tensor(array) for name, array in arrays.items()})


def test_the_order_of_arrival_does_not_change_the_bits(four: Any) -> None:
    found = set()
    for order in list(itertools.permutations(SITES))[::5]:
        four.start_over()
        for site in order:
            four.accept(site, four.update(1, step=STEPS[site], steps=2))
        arrays = four.aggregator.aggregate(four.fl_ctx)["DXO"]["data"]
        found.add(digest({name: four.as_tensor(array) for name, array in arrays.items()}))

    assert len(found) == 1


def test_who_comes_after_the_round_was_judged_is_late(four: Any) -> None:
    """Alone it would be its own median."""
    four.submit("site-1", four.update(1, step=0.1))
    four.aggregator.settle(four.fl_ctx)

    assert not four.accept("site-4", four.update(1, step=50.0))


def test_a_fixed_bound_is_judged_on_arrival(fed: Any) -> None:
    fed.aggregator.limits = {"max_norm": 1000.0}

    assert fed.submit("site-1", fed.update(1, step=0.1))
    assert not fed.submit("site-2", fed.update(1, step=1e6))
    assert "1000 is the most" in fed.aggregator.rejections["site-2"]


def test_a_limit_that_is_none_is_refused_with_its_place(fed: Any) -> None:
    fed.aggregator.limits = {"max_norms": 1.0}

    with pytest.raises(ConfigError, match=r"limits.max_norms: unknown.*\n.*'max_norm'"):
        fed.aggregator.guard(fed.fl_ctx)


# --- whatever comes

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)
PLACES = st.sampled_from(
    [
        (), ("DXO",), ("DXO", "kind"), ("DXO", "data"), ("DXO", "meta"), ("DXO", "meta", REPORT),
        ("DXO", "meta", MetaKey.NUM_STEPS_CURRENT_ROUND), ("DXO", "meta", REPORT, "epochs"),
        ("DXO", "meta", REPORT, "built"), ("DXO", "meta", REPORT, "process"),
        ("DXO", "meta", REPORT, "seconds"), ("DXO", "meta", REPORT, "received_metrics"),
        ("__headers__", "__cookie_jar__"), ("__headers__", "__content_type__"),
    ]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(place=PLACES, value=PLAIN)
def test_whatever_stands_anywhere_nothing_is_raised_and_the_sum_stays(
    fed: Any, place: tuple[str, ...], value: Any
) -> None:
    fed.start_over()
    without = model_of_site_2_alone(fed)
    hostile = fed.update(1, step=0.25, steps=2)
    owner: Any = hostile
    for step in place[:-1]:
        owner = owner[step]
    if place:
        owner[place[-1]] = value
    else:
        hostile.update(DXO=value)

    accepted = fed.submit("site-1", hostile)
    fed.submit("site-2", fed.update(1, step=0.5, steps=3))
    model = digest(fed.aggregate())

    counted = ("site-1", "site-2") if accepted else ("site-2",)
    assert fed.keeper.recorder.record.rounds[0].contributors == counted
    if not accepted:
        assert model == without
    assert not fed.engine.fatal


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(code=PLAIN, status=PLAIN, jar=PLAIN)
def test_whatever_a_site_says_of_its_failure_one_word_is_recorded(
    fed: Any, code: Any, status: Any, jar: Any
) -> None:
    fed.start_over()
    failed = Shareable()
    failed.set_return_code(code)
    failed.set_header("mmar_status", status)
    failed.set_cookie_jar(jar)

    assert not fed.submit("site-1", failed)

    recorded = fed.keeper.recorder.record.rounds[0].sites.get("site-1")
    assert recorded is None or len(recorded.reason) < 200
    assert not fed.engine.fatal


def test_a_model_that_is_no_difference_is_named_so(fed: Any) -> None:
    reply = DXO(DataKind.COLLECTION, data={"a": 1}).to_shareable()

    assert not fed.submit("site-1", fed.answering(reply, 1))
    assert "kind: belongs to 'COLLECTION'" in fed.aggregator.rejections["site-1"]
