"""One site sends what it should not: the server rejects it, and the model is the others'.

The first group is what NVFlare's stock aggregation takes in: numbers that are none, weights below
zero or beyond all others, shapes that broadcast, further keys, wider dtypes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.shareable import Shareable

from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, EXECUTOR
from mmar_runtime.flare.wire import LOGS, REPORT, STATUS
from mmar_runtime.weights import Weights
from tests.fl_server.flare.conftest import JOB, Begin, Begun


@pytest.fixture
def fed(begin: Begin) -> Begun:
    return begin(num_rounds=1000)


def arrays_of(reply: Shareable) -> Any:
    return reply["DXO"]["data"]


def meta_of(reply: Shareable) -> Any:
    return reply["DXO"]["meta"]


def first(reply: Shareable) -> str:
    return next(name for name, array in arrays_of(reply).items() if array.ndim > 1)


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
    meta_of(reply)[REPORT]["received_metrics"]["val_mean_dice"]["value"] = 1e9


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


def moved_alone(fed: Begun, step: float) -> Weights:
    """The first model, moved as by one site alone."""
    return {
        name: tensor + (step if tensor.is_floating_point() else 1)
        for name, tensor in fed.weights.items()
    }


@pytest.mark.parametrize("spoil", [*STOCK_HOLE, *FURTHER], ids=lambda change: change.__name__)
def test_the_model_is_that_of_the_round_without_the_hostile_site(
    fed: Begun, spoil: Callable[[Shareable], None]
) -> None:
    hostile = fed.update(step=0.25, steps=2)
    spoil(hostile)

    assert not fed.submit("site-1", hostile)
    assert fed.submit("site-2", fed.update(step=0.5, steps=3))

    found, expected = fed.close_round(), moved_alone(fed, 0.5)
    assert all(found[name].numpy() == pytest.approx(one.numpy()) for name, one in expected.items())
    assert fed.outcome("site-1").status == "rejected"  # type: ignore[union-attr]
    [line] = fed.noted("contribution-rejected")
    assert (line["site"], line["round"]) == ("site-1", 1)
    assert line["rules"]
    assert not fed.fatal


def test_the_same_update_unspoilt_would_count(fed: Begun) -> None:
    """Else the test above would show nothing."""
    assert fed.submit("site-1", fed.update(step=0.25, steps=2))


def test_a_site_has_no_more_steps_than_the_job_asks_its_executor_for(
    begin: Begin, kit: Path
) -> None:
    steps = {"path": EXECUTOR, "args": {"steps_aggregation": "{steps_aggregation}"}}
    client = {"steps_aggregation": 2, "executors": [{"tasks": ["train"], "executor": steps}]}
    (kit / JOB / "app_server/config" / CLIENT_CONFIG).write_text(json.dumps(client))
    fed = begin()

    assert not fed.submit("site-1", fed.update(steps=3))
    assert fed.reason("site-1") == "steps: has to be a whole number from 1 to 2, found 3"
    assert fed.submit("site-2", fed.update(steps=2))


# --- who sent it, and to what


def test_a_site_cannot_speak_for_another(fed: Begun) -> None:
    """What a site says of itself is one thing, by whose connection the reply came another."""
    assert not fed.submit("site-1", fed.update(step=9.0), peer="site-2")
    assert fed.reason("site-1") == "site: belongs to 'site-2', not to 'site-1'"
    assert fed.submit("site-2", fed.update())


def test_a_reply_to_another_job_is_rejected(fed: Begun) -> None:
    assert not fed.submit("site-1", fed.update(), job="job-2")
    assert fed.reason("site-1") == "job: belongs to 'job-2', not to 'job-1'"


def test_a_straggler_does_not_count_and_its_own_later_reply_does(fed: Begun) -> None:
    stale = fed.update(step=9.0)
    fed.submit("site-2", fed.update())
    fed.close_round()
    fed.open_round()

    assert not fed.submit("site-1", stale)
    assert fed.outcome("site-1") is None
    assert fed.submit("site-1", fed.update())


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("EXECUTION_EXCEPTION", "EXECUTION_EXCEPTION"),
        ("=cmd|' /C calc'!A0", "an unknown return code"),
        (["EXECUTION_EXCEPTION"], "an unknown return code"),
    ],
)
def test_what_a_failed_site_says_is_one_of_a_few_words(fed: Begun, code: Any, reason: str) -> None:
    failed = fed.answering(Shareable())
    failed.set_return_code(code)
    failed.set_header(STATUS, "DOE_JOHN_1961.nii.gz cannot be read")
    fed.submit("site-1", failed)

    assert fed.reason("site-1") == reason


def test_an_answer_before_the_first_round_does_not_end_the_run(begin: Begin) -> None:
    fed = begin()
    fed.submit("site-1", fed.update())
    fed.close_round()
    failed = Shareable()
    failed.set_return_code("EXECUTION_EXCEPTION")

    assert not fed.submit("site-2", failed)
    assert not fed.fatal


def test_a_reply_of_another_kind_is_named_so(fed: Begun) -> None:
    reply = DXO(DataKind.COLLECTION, data={"a": 1}).to_shareable()

    assert not fed.submit("site-1", fed.answering(reply))
    assert "kind: belongs to 'COLLECTION'" in fed.reason("site-1")


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
        ("DXO",), ("DXO", "kind"), ("DXO", "data"), ("DXO", "meta"), ("DXO", "meta", REPORT),
        ("DXO", "meta", MetaKey.NUM_STEPS_CURRENT_ROUND), ("DXO", "meta", REPORT, "epochs"),
        ("DXO", "meta", REPORT, "built"), ("DXO", "meta", REPORT, "process"),
        ("DXO", "meta", REPORT, "seconds"), ("DXO", "meta", REPORT, "received_metrics"),
        ("DXO", "meta", REPORT, "received_metrics", "val_mean_dice"),
        ("DXO", "meta", REPORT, "received_metrics", "val_mean_dice", "value"),
        ("DXO", "meta", REPORT, "received_metrics", "val_mean_dice", "classes"),
        ("__headers__", "__cookie_jar__"), ("__headers__", "__content_type__"),
        ("__headers__", LOGS),
    ]
)  # fmt: skip


def put(reply: Shareable, place: tuple[str, ...], value: Any) -> None:
    """Have a value stand at some place of a reply."""
    owner: Any = reply
    for step in place[:-1]:
        owner = owner[step]
    owner[place[-1]] = value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(place=PLACES, value=PLAIN)
def test_whatever_stands_anywhere_nothing_is_raised_and_the_mean_is_of_those_that_count(
    fed: Begun, place: tuple[str, ...], value: Any
) -> None:
    if fed.run.record.open_round is None:
        fed.open_round()
    hostile = fed.update(step=0.25)
    put(hostile, place, value)
    before = fed.run.scores_wanted().weights

    steps = [0.25] if fed.submit("site-1", hostile) else []
    assert fed.submit("site-2", fed.update(step=0.5))
    new = fed.close_round()

    found = {
        float((new[name] - one).mean()) for name, one in before.items() if one.is_floating_point()
    }
    expected = sum([*steps, 0.5]) / (len(steps) + 1)
    assert all(one == pytest.approx(expected, rel=1e-3) for one in found)
    assert fed.server.controller._failure is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(code=PLAIN, status=PLAIN, jar=PLAIN)
def test_whatever_a_site_says_of_its_failure_one_word_is_recorded(
    fed: Begun, code: Any, status: Any, jar: Any
) -> None:
    if fed.run.record.open_round is None:
        fed.open_round()
    failed = Shareable()
    failed.set_return_code(code)
    failed.set_header(STATUS, status)
    failed.set_cookie_jar(jar)

    assert not fed.submit("site-1", failed)

    recorded = fed.outcome("site-1")
    assert recorded is None or len(fed.reason("site-1")) < 200
    assert fed.server.controller._failure is None
    fed.submit("site-2", fed.update())
    fed.close_round()
