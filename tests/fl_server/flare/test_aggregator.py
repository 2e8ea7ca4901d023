"""The aggregator: one faulty contribution is rejected with its reason, and the round goes on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.shareable import Shareable

from fl_server.flare.aggregator import MmarAggregator
from fl_server.flare.exchange import REPORT
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.tensor_files import StoredWeights
from mmar_runtime.policy.tree_hash import tree_hash
from mmar_runtime.weights import digest


@pytest.fixture
def fed(federation: Any) -> Any:
    federation.start_round(1)
    return federation


def first_value(weights: dict[str, torch.Tensor]) -> float:
    return next(iter(weights.values())).flatten()[0].item()


def test_valid_contributions_move_the_global_model_by_their_weighted_mean(fed: Any) -> None:
    before = first_value(fed.weights)

    assert fed.submit("site-2", fed.update(1, step=5.0, steps=3))
    assert fed.submit("site-1", fed.update(1, step=1.0, steps=1))

    assert first_value(fed.aggregate()) == pytest.approx(before + (1 * 1 + 3 * 5) / 4, rel=1e-6)


def test_contributions_in_files_move_it_by_the_same_and_are_read_from_there(
    fed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {"site-2": 5.0, "site-1": 1.0}
    for site, step in steps.items():
        assert fed.submit(site, fed.update(1, step=step))
    by_the_wire = digest(fed.aggregate())

    fed.start_over()
    fed.start_round(1)
    for site, step in steps.items():
        assert fed.submit(site, fed.handed_over(fed.update(1, step=step), tmp_path / site))
    taken = {site: one.difference for site, one in fed.aggregator._mean._mean._waiting.items()}
    taken |= {one.site: one.difference for one in fed.aggregator._mean._mean._kept}
    assert {site: type(one) for site, one in taken.items()} == dict.fromkeys(steps, StoredWeights)
    assert digest(fed.aggregate()) == by_the_wire


def test_who_changes_a_contribution_in_a_file_is_heard_or_gets_an_error(
    fed: Any, tmp_path: Path
) -> None:
    """As a component of the job could, when NVFlare tells it of the reply."""
    before = first_value(fed.weights)
    reply = fed.handed_over(fed.update(1, step=8.0), tmp_path / "file")
    data = reply["DXO"]["data"]

    for name, array in data.items():
        with pytest.raises(ValueError, match="read-only"):
            array += 1
        data[name] = array // 2

    assert fed.submit("site-1", reply)
    assert first_value(fed.aggregate()) == pytest.approx(before + 4, rel=1e-6)


def test_the_result_is_whole_weights_and_no_difference(fed: Any) -> None:
    """What NVFlare's shareable generator takes over as they are."""
    fed.submit("site-1", fed.update(1))

    assert from_shareable(fed.aggregator.aggregate(fed.fl_ctx)).data_kind == DataKind.WEIGHTS


def test_aggregation_weights_come_from_the_job(fed: Any) -> None:
    fed.aggregator.aggregation_weights = {"site-1": 3.0}
    before = first_value(fed.weights)
    fed.submit("site-1", fed.update(1, step=1.0))
    fed.submit("site-2", fed.update(1, step=5.0))

    assert first_value(fed.aggregate()) == pytest.approx(before + (3 * 1 + 5) / 4, rel=1e-6)


def spoilt(reply: Shareable, name: str | None = None, value: Any = None) -> Shareable:
    data = reply["DXO"]["data"]
    key = name or next(iter(data))
    if value is None:
        del data[key]
    else:
        data[key] = value
    return reply


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda reply: spoilt(reply), "missing"),
        (lambda reply: spoilt(reply, "extra", torch.ones(1).numpy()), "not part of the network"),
        (lambda reply: spoilt(reply, None, torch.full((1,), math.nan).numpy()), "shape"),
    ],
)
def test_a_faulty_contribution_is_rejected_and_the_other_counts(
    fed: Any, spoil: Any, reason: str
) -> None:
    before = first_value(fed.weights)

    assert not fed.submit("site-1", spoil(fed.update(1, step=100.0)))
    assert fed.submit("site-2", fed.update(1, step=2.0))

    assert reason in fed.aggregator.rejections["site-1"]
    assert first_value(fed.aggregate()) == pytest.approx(before + 2, rel=1e-6)


@pytest.mark.parametrize("steps", [0, -1, True, 1.5, None])
def test_a_contribution_without_a_right_number_of_steps_is_rejected(fed: Any, steps: Any) -> None:
    assert not fed.submit("site-1", fed.update(1, steps=steps))
    assert "steps: has to be a whole number" in fed.aggregator.rejections["site-1"]


def test_values_that_are_not_finite_are_rejected(fed: Any) -> None:
    assert not fed.submit("site-1", fed.update(1, step=math.nan))
    assert "not finite" in fed.aggregator.rejections["site-1"]


def test_whole_weights_in_place_of_a_difference_are_rejected(fed: Any) -> None:
    """Added to the global model they would double it."""
    reply = DXO(DataKind.WEIGHTS, data=fed.update(1)["DXO"]["data"]).to_shareable()

    assert not fed.submit("site-1", fed.answering(reply, 1))
    assert "WEIGHT_DIFF" in fed.aggregator.rejections["site-1"]


@pytest.mark.parametrize("part", ["received_metrics", "local_metrics", "epochs", "process"])
def test_a_report_that_lacks_something_is_rejected(fed: Any, part: str) -> None:
    """Its numbers go into the record, and a record with a hole is none."""
    reply = fed.update(1)
    del reply["DXO"]["meta"][REPORT][part]

    assert not fed.submit("site-1", reply)
    assert part in fed.aggregator.rejections["site-1"]


def test_the_heads_of_a_sites_logs_go_into_record_and_log(fed: Any) -> None:
    heads = {"mmar_audit.jsonl": "7:" + "a" * 64}
    reply = fed.update(1)
    reply.set_header("mmar_logs", heads)

    assert fed.submit("site-1", reply)
    assert fed.record.rounds[0].sites["site-1"].logs == heads
    assert fed.audit[-1]["logs"] == heads


@pytest.mark.parametrize("heads", ["7", ["7"], {"mmar_audit.jsonl": "a\nb"}, {"x": 1}, {1: 2}])
def test_heads_of_another_form_are_rejected(fed: Any, heads: Any) -> None:
    reply = fed.update(1)
    reply.set_header("mmar_logs", heads)

    assert not fed.submit("site-1", reply)
    assert "logs" in fed.aggregator.rejections["site-1"]


def test_no_report_at_all_is_rejected(fed: Any) -> None:
    reply = fed.update(1)
    del reply["DXO"]["meta"][REPORT]

    assert not fed.submit("site-1", reply)
    assert "carries no report" in fed.aggregator.rejections["site-1"]


def test_metrics_that_are_not_finite_are_rejected(fed: Any) -> None:
    assert not fed.submit("site-1", fed.update(1, received=math.nan))
    assert "val_mean_dice: is not finite" in fed.aggregator.rejections["site-1"]


def test_a_second_contribution_of_a_site_is_rejected(fed: Any) -> None:
    before = first_value(fed.weights)

    assert fed.submit("site-1", fed.update(1, step=1.0))
    assert not fed.accept("site-1", fed.update(1, step=100.0))

    assert first_value(fed.aggregate()) == pytest.approx(before + 1, rel=1e-6)


def test_a_contribution_of_somebody_else_is_rejected(fed: Any) -> None:
    assert not fed.accept("site-9", fed.update(1))
    assert fed.aggregator.rejections["site-9"] == "site: site-9 is no site of this run"


# --- stragglers


def test_a_contribution_to_an_earlier_round_is_rejected(fed: Any) -> None:
    fed.submit("site-1", fed.update(1))
    fed.aggregate()
    fed.end_round()
    fed.start_round(2)

    assert not fed.accept("site-2", fed.update(1))
    assert "round: belongs to 1, not to 2" in fed.aggregator.rejections["site-2"]


@pytest.mark.parametrize("reset", [False, True])
def test_one_that_arrives_after_its_round_was_aggregated_does_not_count_in_the_next(
    fed: Any, reset: bool
) -> None:
    """NVFlare hands it over as long as the next round has not started."""
    fed.submit("site-1", fed.update(1))
    fed.aggregate()
    if reset:
        fed.aggregator.reset(fed.fl_ctx)

    assert not fed.accept("site-2", fed.update(1, step=100.0))
    assert fed.aggregator.rejections["site-2"] == "round: arrived after the round was aggregated"

    fed.end_round()
    fed.start_round(2)
    assert fed.accept("site-2", fed.update(2))


# --- too few


def test_with_fewer_contributions_than_the_job_asks_for_there_is_no_model(fed: Any) -> None:
    fed.aggregator.min_sites = 2
    fed.submit("site-1", fed.update(1))
    fed.submit("site-2", fed.update(1, steps=0))

    with pytest.raises(FederationError, match=r"1 sites contributed, the job asks for 2; rej.*'s"):
        fed.aggregator.aggregate(fed.fl_ctx)


def test_without_any_contribution_there_is_no_model(federation: Any) -> None:
    aggregator = MmarAggregator(min_sites=0)

    with pytest.raises(FederationError, match="nothing to average"):
        aggregator.aggregate(federation.fl_ctx)


def reporting(reply: Shareable, **metrics: float) -> Shareable:
    reply["DXO"]["meta"][REPORT]["received_metrics"] = metrics
    return reply


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"val_acc": 0.5}, "the key metric 'val_mean_dice' is missing"),
        ({"val_mean_dice": 0.5, "speed": 0.5}, "may hold ['val_acc', 'val_mean_dice']"),
        ({"val_mean_dice": math.nan}, "finite"),
        ({"val_mean_dice": 1.5}, "has to be a number from 0 to 1"),
    ],
)
def test_metrics_that_cannot_be_averaged_cost_one_contribution_and_not_the_run(
    fed: Any, metrics: dict[str, float], reason: str
) -> None:
    assert fed.submit("site-2", fed.update(1))
    assert not fed.submit("site-1", reporting(fed.update(1), **metrics))

    assert reason in fed.aggregator.rejections["site-1"]
    assert not fed.engine.fatal


# --- the audit log


def test_contributions_and_the_new_model_are_noted_with_their_digests(fed: Any) -> None:
    fed.submit("site-1", fed.update(1, steps=7))
    weights = fed.aggregate()

    accepted, model = fed.audit[-2:]
    size = sum(tensor.nbytes for tensor in weights.values())
    assert (accepted["event"], accepted["site"], accepted["steps"]) == (
        "contribution-accepted",
        "site-1",
        7,
    )
    assert (model["event"], model["contributors"]) == ("global-model", ["site-1"])
    assert (model["bytes"], model["tensors"]) == (size, digest(weights))
    assert accepted["bytes"] == size


def test_the_run_begins_with_the_digest_of_the_job(fed: Any) -> None:
    app = Path(fed.engine.workspace.get_app_dir("job-1"))

    [first] = fed.audit

    assert (first["event"], first["sites"]) == ("run-started", ["site-1", "site-2"])
    assert first["job_digest"] == tree_hash(app)
    assert first["tensors"] == digest(fed.weights)


def test_without_an_audit_log_the_run_does_not_go_on(fed: Any) -> None:
    folder = Path(fed.engine.workspace.get_root_dir()) / "audit"
    fed.wait()
    (folder / "mmar_audit.jsonl").unlink()
    folder.rmdir()
    folder.write_text("")

    fed.submit("site-1", fed.update(1))

    assert "the audit log of this server cannot be written" in fed.fatal()[0]
