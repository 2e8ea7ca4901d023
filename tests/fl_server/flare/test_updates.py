"""Updates by NVFlare's messages: what came in files, and the server's log with its chain."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.shareable import Shareable

from fl_server.flare.exchange import received_from
from fl_server.updates import Received
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.arrays import as_sent
from mmar_runtime.exchange.messages import TRAIN
from mmar_runtime.exchange.tensor_files import StoredWeights, read_tensors, write_tensors
from mmar_runtime.policy.files.tree_hash import tree_hash
from mmar_runtime.weights import Weights, digest
from tests.fl_server.flare.conftest import JOB, Begin, Begun


@pytest.fixture
def fed(begin: Begin) -> Begun:
    return begin()


def in_files(fed: Begun, reply: Shareable, path: Path) -> Shareable:
    """The reply as it comes in a simulation: its tensors in a file."""
    sent = as_sent(reply["DXO"]["data"])
    assert isinstance(sent, dict)
    write_tensors(path, sent)
    reply["DXO"]["data"] = read_tensors(path, keeper=None)
    runner = SimpleNamespace(config=SimpleNamespace(task_result_filters={}))
    for key, value in {
        FLContextKey.RUNNER: runner,
        FLContextKey.TASK_NAME: TRAIN,
        FLContextKey.TASK_RESULT: reply,
    }.items():
        fed.fl_ctx.set_prop(key, value, private=True, sticky=False)
    fed.server.engine.fire_event(EventType.BEFORE_TASK_RESULT_FILTER, fed.fl_ctx)
    return reply


def first_value(weights: Weights) -> float:
    return float(next(iter(weights.values())).flatten()[0])


def test_updates_in_files_move_the_model_by_the_same_and_are_read_from_there(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_the_wire, fed = begin(), begin()
    kinds: list[type] = []

    def seen(reply: Shareable, fl_ctx: Any) -> Received:
        found = received_from(reply, fl_ctx)
        kinds.append(type(found.weights()))
        return found

    monkeypatch.setattr("fl_server.flare.controller.received_from", seen)
    for site, step in {"site-2": 5.0, "site-1": 1.0}.items():
        assert by_the_wire.submit(site, by_the_wire.update(step=step))
        assert fed.submit(site, in_files(fed, fed.update(step=step), tmp_path / site))

    assert digest(fed.close_round()) == digest(by_the_wire.close_round())
    assert kinds == [dict, StoredWeights] * 2


def test_whoever_changes_an_update_in_a_file_is_heard_or_gets_an_error(
    fed: Begun, tmp_path: Path
) -> None:
    """As a component of the job could, when NVFlare tells it of the reply."""
    reply = in_files(fed, fed.update(step=8.0), tmp_path / "file")
    data = reply["DXO"]["data"]

    for name, array in data.items():
        with pytest.raises(ValueError, match="read-only"):
            array += 1
        data[name] = array // 2

    assert fed.submit("site-1", reply)
    assert first_value(fed.close_round()) == pytest.approx(first_value(fed.weights) + 4, rel=1e-6)


def test_the_log_begins_with_the_digest_of_the_job_and_follows_the_rounds(
    fed: Begun, kit: Path
) -> None:
    fed.submit("site-1", fed.update(steps=7))
    fed.submit("site-2", fed.update(steps=0))
    new = fed.close_round()

    started, accepted, rejected, model = fed.audit

    assert (started["event"], started["sites"]) == ("run-started", ["site-1", "site-2", "site-3"])
    assert started["job_digest"] == tree_hash(kit / JOB / "app_server")
    assert started["tensors"] == digest(fed.weights)
    assert (accepted["event"], accepted["site"], accepted["steps"]) == (
        "contribution-accepted",
        "site-1",
        7,
    )
    assert (rejected["event"], rejected["site"]) == ("contribution-rejected", "site-2")
    assert (model["event"], model["tensors"]) == ("global-model", digest(new))
    assert {line["job"] for line in fed.audit} == {JOB}


def go_on(fed: Begun) -> None:
    """The log is written on a thread: a later step meets what it could not write."""
    fed.close_round()
    fed.run.end()


def test_without_an_audit_log_the_run_does_not_go_on(fed: Begun, kit: Path) -> None:
    assert fed.audit
    folder = kit / "audit"
    (folder / "mmar_audit.jsonl").unlink()
    folder.rmdir()
    folder.write_text("")
    fed.submit("site-1", fed.update())

    with pytest.raises(FederationError, match="the audit log of this server cannot be written"):
        go_on(fed)
    folder.unlink()
