"""What the server writes later is written in its order, and before the run ends."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from nvflare.apis.event_type import EventType

from fl_server.flare import exchange
from fl_server.flare.later import Later, finish, write_later
from fl_server.record.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL
from mmar_runtime.errors import FederationError
from mmar_runtime.weights import Weights, digest

LONG = 60.0


def round_of(federation: Any, number: int, **update: float) -> Weights:
    """The rest of a round that has started; the new global model."""
    for site in ("site-1", "site-2"):
        federation.submit(site, federation.update(number, **update))
    found: Weights = federation.aggregate()
    federation.end_round()
    return found


def test_work_is_done_in_the_order_in_which_it_was_given() -> None:
    later, may, done = Later(), threading.Event(), []
    later.do(lambda: done.append(may.wait(LONG)))
    for number in range(3):
        later.do(lambda number=number: done.append(number))
    assert done == []  # nobody waits for the first

    may.set()
    later.wait()

    assert done == [True, 0, 1, 2]


def test_what_cannot_be_written_ends_the_run_with_the_reason(federation: Any) -> None:
    def write() -> None:
        raise OSError("no space left")

    write_later(federation.keeper, federation.fl_ctx, "the model 'm'", write)

    reason = "the model 'm' cannot be written: no space left"
    with pytest.raises(FederationError, match=reason):
        finish(federation.fl_ctx)
    assert federation.fatal() == [reason]


def test_the_run_ends_when_everything_is_written(federation: Any) -> None:
    may, written = threading.Event(), []
    others = set(threading.enumerate())
    federation.start_round(1)
    write_later(
        federation.keeper, federation.fl_ctx, "this", lambda: written.append(may.wait(LONG))
    )
    threading.Timer(0.2, may.set).start()

    federation.fire(EventType.END_RUN)

    assert written == [True]
    assert federation.record.status == "failed"
    assert set(threading.enumerate()) <= others


def test_a_models_file_that_cannot_be_written_fails_the_run(federation: Any) -> None:
    federation.start_round(1)
    (federation.results / "models").write_text("a file where the folder should be")

    round_of(federation, 1)

    record = federation.ended_record()
    assert record.status == "failed"
    assert f"the model {GLOBAL_MODEL!r} cannot be written" in (record.failure or "")


def test_what_fails_while_the_results_are_published_is_told_and_nobody_waits_for_ever(
    federation: Any,
) -> None:
    """The end of the run needs the lock of the record, which whoever publishes holds."""

    def write() -> None:
        raise OSError("no space left")

    federation.start_round(1)
    round_of(federation, 1)
    write_later(federation.keeper, federation.fl_ctx, "this", write)

    with pytest.raises(FederationError, match="this cannot be written: no space left"):
        federation.keeper.publish(federation.fl_ctx)
    assert federation.fatal() == ["this cannot be written: no space left"]


def test_the_global_model_is_hashed_once_in_a_round(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(weights: Any) -> str:
        hashed.append(digest(weights))
        return hashed[-1]

    monkeypatch.setattr(exchange, "digest", counted)
    federation.start_round(1)
    model = round_of(federation, 1)

    assert federation.record.rounds[0].weights_sha256 == digest(model)
    assert len(hashed) == len(set(hashed)) == 2  # the first model, and that of the round


def test_the_best_model_is_a_second_name_of_the_last(federation: Any) -> None:
    federation.start_round(1)
    round_of(federation, 1, received=0.25)
    federation.start_round(2)
    round_of(federation, 2, received=0.5)

    best = federation.persistor.read(BEST_GLOBAL_MODEL, federation.fl_ctx)
    assert digest(best) == federation.record.rounds[0].weights_sha256
    assert {path.name for path in (federation.results / "models").iterdir()} == {
        f"{BEST_GLOBAL_MODEL}.pt",
        f"{GLOBAL_MODEL}.pt",
    }
