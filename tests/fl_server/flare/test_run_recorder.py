"""The run record as the events of NVFlare's workflows come in, one after another."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from fl_server.flare.exchange import STATUS, RefusedReply, weights_dxo
from fl_server.flare.publish import PublishResults
from fl_server.flare.run_recorder import (
    ALL_SCORED,
    MODEL_SCORED,
    RECORD_TOPIC,
    keeper_of,
)
from fl_server.record.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL, read_cross_site_matrix
from fl_server.record.run_record import RunRecord, SiteAbsence
from mmar_runtime.errors import FederationError
from mmar_runtime.weights import digest, read_checkpoint

DICE = "val_mean_dice"
SITES = ("site-1", "site-2")


def metrics(value: float) -> Shareable:
    return DXO(DataKind.METRICS, data={DICE: value}).to_shareable()


def failed(word: str = "data-error (reference 0)") -> Shareable:
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(STATUS, word)
    return reply


def run_round(fed: Any, number: int, *, received: tuple[float, ...], local: float = 0.5) -> None:
    fed.start_round(number)
    for site, value in zip(SITES, received, strict=True):
        fed.submit(site, fed.update(number, received=value, local=local))
    fed.aggregate()
    fed.end_round()


def score_last(fed: Any, *values: float) -> None:
    for site, value in zip(SITES, values, strict=True):
        reply = fed.sent_by(site, metrics(value))
        fed.fire(MODEL_SCORED, **{AppConstants.VALIDATION_RESULT: reply})
    fed.fire(ALL_SCORED)


def send_site_models(fed: Any) -> None:
    for site in SITES:
        dxo = weights_dxo(fed.weights)
        dxo.meta = {"round": 1, "metrics": {DICE: 0.9}}
        model = dxo.to_shareable()
        received = {AppConstants.RECEIVED_MODEL: model, AppConstants.RECEIVED_MODEL_OWNER: site}
        fed.fire(AppEventType.RECEIVE_BEST_MODEL, **received)


def evaluate_cell(fed: Any, model: str, site: str, result: Shareable) -> None:
    cell = {
        AppConstants.MODEL_OWNER: model,
        AppConstants.DATA_CLIENT: site,
        AppConstants.VALIDATION_RESULT: result,
    }
    fed.fire(AppEventType.VALIDATION_RESULT_RECEIVED, **cell)


def evaluate_all(fed: Any, *, but: tuple[str, str] | None = None) -> None:
    """NVFlare puts SRV_ before the names of the server's models."""
    for model in (f"SRV_{GLOBAL_MODEL}", f"SRV_{BEST_GLOBAL_MODEL}", *SITES):
        for site in SITES:
            if (model, site) != but:
                evaluate_cell(fed, model, site, metrics(0.75))


@pytest.fixture
def trained(federation: Any) -> Any:
    """Both rounds are done: scores 0.1, 0.4, and 0.3 for the models of rounds 0, 1 and 2."""
    run_round(federation, 1, received=(0.0, 0.2), local=0.5)
    run_round(federation, 2, received=(0.3, 0.5), local=0.25)
    score_last(federation, 0.3, 0.3)
    return federation


# --- a run that succeeds


def test_the_record_is_on_disk_from_the_first_round_on(federation: Any) -> None:
    federation.start_round(1)

    assert federation.record.status == "running"
    assert federation.record.sites == SITES
    assert federation.record.initial_weights_sha256 == digest(federation.weights)


def test_a_contribution_is_recorded_when_it_arrives(federation: Any) -> None:
    federation.start_round(1)
    federation.submit("site-2", federation.update(1, steps=7))

    (contribution,) = federation.record.rounds[0].sites.values()
    assert contribution.steps == 7
    assert contribution.sent_bytes == sum(t.nbytes for t in federation.weights.values())


def test_the_received_models_metrics_are_scores_of_the_round_before(trained: Any) -> None:
    record = trained.record

    assert [scores.round for scores in record.scores] == [0, 1, 2]
    assert [scores.mean[DICE] for scores in record.scores] == pytest.approx([0.1, 0.4, 0.3])


def test_each_closed_round_has_the_digest_of_its_global_model(trained: Any) -> None:
    assert trained.record.rounds[-1].weights_sha256 == digest(trained.current)
    assert len({one.weights_sha256 for one in trained.record.rounds}) == 2


def test_the_best_global_model_is_kept_while_the_workflow_still_holds_it(trained: Any) -> None:
    """Round 1's model scores best, which is known only when round 2 has been trained."""
    assert trained.record.best_round == 1
    kept = read_checkpoint(trained.results / "models" / f"{BEST_GLOBAL_MODEL}.pt").weights
    assert digest(kept) == trained.record.rounds[0].weights_sha256


def test_the_last_global_model_can_be_the_best(federation: Any) -> None:
    run_round(federation, 1, received=(0.0, 0.0))
    run_round(federation, 2, received=(0.1, 0.1))
    score_last(federation, 0.9, 0.9)

    assert federation.record.best_round == 2
    kept = read_checkpoint(federation.results / "models" / f"{BEST_GLOBAL_MODEL}.pt").weights
    assert digest(kept) == federation.record.rounds[1].weights_sha256


def test_a_sites_best_model_says_itself_of_which_round_it_is(trained: Any) -> None:
    send_site_models(trained)

    assert {site: best.round for site, best in trained.record.local_bests.items()} == {
        "site-1": 1,
        "site-2": 1,
    }


def test_a_site_model_is_kept_beside_the_global_ones(trained: Any) -> None:
    send_site_models(trained)

    assert sorted(path.name for path in (trained.results / "models").iterdir()) == [
        "FL_global_model.pt", "best_FL_global_model.pt", "site-1.pt", "site-2.pt",
    ]  # fmt: skip


def publish(fed: Any) -> list[str]:
    PublishResults().control_flow(Signal(), fed.fl_ctx)
    return fed.engine.fatal


def test_a_run_with_everything_is_published_as_complete(trained: Any) -> None:
    send_site_models(trained)
    evaluate_all(trained)

    assert publish(trained) == []

    assert trained.record.status == "complete"
    matrix = read_cross_site_matrix(trained.results / "cross_site.json")
    assert matrix.complete
    assert matrix.models == (GLOBAL_MODEL, BEST_GLOBAL_MODEL, *SITES)
    assert (trained.results / "cross_site.csv").is_file()


def test_the_end_of_the_run_does_not_change_a_complete_record(trained: Any) -> None:
    evaluate_all(trained)
    publish(trained)

    trained.fire(EventType.END_RUN)

    assert trained.record.status == "complete"


# --- a run that falls short


def test_a_missing_cell_fails_the_run_and_names_it(trained: Any) -> None:
    evaluate_all(trained, but=("site-2", "site-1"))

    assert publish(trained) == ["the matrix has no value of site-2 at site-1"]
    assert trained.record.status == "failed"
    assert not read_cross_site_matrix(trained.results / "cross_site.json").complete


def test_an_evaluation_that_failed_is_told_with_its_status_word(trained: Any) -> None:
    evaluate_all(trained, but=("site-2", "site-1"))
    evaluate_cell(trained, "site-2", "site-1", failed("out-of-memory (reference 0)"))

    (reason,) = publish(trained)
    assert "site-1 could not evaluate site-2: out-of-memory (reference 0)" in reason


def test_an_evaluation_that_the_server_refused_is_told_with_the_reason(trained: Any) -> None:
    evaluate_all(trained, but=("site-2", "site-1"))
    refused = RefusedReply("metrics.val_mean_dice: found nan", metrics(math.nan))
    evaluate_cell(trained, "site-2", "site-1", refused)

    (reason,) = publish(trained)
    assert "could not evaluate site-2: refused by the server: metrics.val_mean_dice" in reason


def test_a_job_that_needs_fewer_sites_ends_well_without_the_others(trained: Any) -> None:
    trained.keeper.min_sites = 1
    send_site_models(trained)
    evaluate_all(trained, but=("site-2", "site-1"))

    assert publish(trained) == []
    assert trained.record.status == "complete"


def test_a_global_model_that_too_few_have_evaluated_fails_such_a_job(trained: Any) -> None:
    trained.keeper.min_sites = 1
    send_site_models(trained)
    for site in SITES:
        evaluate_cell(trained, BEST_GLOBAL_MODEL, site, metrics(0.5))

    (reason,) = publish(trained)

    assert f"the matrix has no value of {GLOBAL_MODEL} at 2 sites" in reason


def test_what_a_site_declines_by_its_policy_is_no_failure(trained: Any) -> None:
    send_site_models(trained)
    evaluate_all(trained, but=("site-2", "site-1"))
    evaluate_cell(trained, "site-2", "site-1", failed("policy-declined (reference 0)"))

    assert publish(trained) == []


def test_a_site_may_keep_its_model_at_home(trained: Any) -> None:
    for site in SITES:
        for model in (GLOBAL_MODEL, BEST_GLOBAL_MODEL, "site-1"):
            evaluate_cell(trained, model, site, metrics(0.5))
    declined = failed("policy-declined (reference 0)")
    received = {AppConstants.RECEIVED_MODEL: declined, AppConstants.RECEIVED_MODEL_OWNER: "site-2"}
    trained.fire(AppEventType.RECEIVE_BEST_MODEL, **received)

    assert publish(trained) == []


def test_without_any_evaluation_there_is_no_matrix(trained: Any) -> None:
    (reason,) = publish(trained)

    assert "no cross-site result" in reason
    assert not (trained.results / "cross_site.json").exists()


def test_a_site_that_failed_is_recorded_with_its_status_word(federation: Any) -> None:
    federation.start_round(1)
    federation.submit("site-1", federation.answering(failed(), 1))

    expected = SiteAbsence(status="failed", reason="data-error (reference 0)")
    assert federation.record.rounds[0].sites["site-1"] == expected


def test_a_contribution_that_was_rejected_is_recorded_with_the_reason(federation: Any) -> None:
    federation.start_round(1)
    federation.submit("site-1", federation.update(1, steps=0))

    outcome = federation.record.rounds[0].sites["site-1"]
    assert outcome.status == "rejected"
    assert outcome.reason.startswith("steps: has to be a whole number")


def test_a_site_that_did_not_answer_makes_the_run_fall_short(federation: Any) -> None:
    federation.start_round(1)
    federation.submit("site-1", federation.update(1))
    federation.aggregate()
    federation.end_round()

    assert federation.record.rounds[0].sites["site-2"].status == "missing"
    assert any(
        "site-2 did not contribute" in reason for reason in publish(federation)[0].split(";")
    )


@pytest.mark.parametrize("reply", ["update", "failure"])
def test_a_straggler_does_not_fail_the_run_and_its_next_answer_counts(
    federation: Any, reply: str
) -> None:
    """Its answer to round 1 comes in round 2, and is recorded in neither."""
    federation.start_round(1)
    federation.submit("site-1", federation.update(1))
    federation.aggregate()
    federation.end_round()
    federation.start_round(2)

    late = federation.update(1) if reply == "update" else federation.answering(failed(), 1)
    federation.submit("site-2", late)
    assert "site-2" not in federation.record.rounds[1].sites

    assert federation.submit("site-2", federation.update(2, steps=9))
    assert federation.record.rounds[1].sites["site-2"].steps == 9
    assert federation.engine.fatal == []


def test_a_straggler_between_two_rounds_does_not_fail_the_run(federation: Any) -> None:
    federation.start_round(1)
    federation.submit("site-1", federation.update(1))
    federation.aggregate()
    federation.end_round()

    assert not federation.submit("site-2", federation.update(1))

    assert federation.engine.fatal == []


# --- a run that ends early


def test_a_fatal_error_is_the_failure_of_the_record(federation: Any) -> None:
    federation.start_round(1)

    federation.fire(EventType.FATAL_SYSTEM_ERROR, **{FLContextKey.EVENT_DATA: "no space left"})

    assert (federation.record.status, federation.record.failure) == ("failed", "no space left")


def test_a_run_that_ends_without_results_is_no_success(federation: Any) -> None:
    federation.start_round(1)

    federation.fire(EventType.END_RUN)

    assert federation.record.status == "failed"
    assert federation.record.failure == "the run ended before its results were complete"


def test_a_record_that_cannot_be_kept_ends_the_run(federation: Any) -> None:
    """NVFlare would log the error and go on without a record."""
    federation.start_round(1)
    federation.start_round(1)  # a round that is open already

    (reason,) = federation.engine.fatal
    assert reason.startswith("the run record cannot be kept: ")


def test_without_scores_no_model_can_be_selected(federation: Any) -> None:
    federation.start_round(1)

    federation.fire(AppEventType.BEFORE_AGGREGATION)

    assert "no site has scored the global model of round 0" in federation.engine.fatal[0]


def test_no_file_is_left_half_written(trained: Any) -> None:
    assert list(Path(trained.results).rglob("*.tmp")) == []


def test_publishing_needs_a_record_keeper(federation: Any) -> None:
    with pytest.raises(FederationError, match="'persistor' is no RunRecordKeeper"):
        keeper_of(federation.engine, "persistor")


def test_the_weights_in_a_checkpoint_are_those_of_the_model(trained: Any) -> None:
    kept = read_checkpoint(trained.results / "models" / f"{GLOBAL_MODEL}.pt")

    assert all(torch.equal(kept.weights[name], trained.current[name]) for name in kept.weights)
    assert kept.train_conf is not None
    assert kept.train_conf["train"]["model"]["name"] == "UNet"


def test_a_model_that_does_not_say_how_good_it_is_falls_short(trained: Any) -> None:
    model = weights_dxo(trained.weights).to_shareable()
    received = {AppConstants.RECEIVED_MODEL: model, AppConstants.RECEIVED_MODEL_OWNER: "site-1"}
    trained.fire(AppEventType.RECEIVE_BEST_MODEL, **received)
    evaluate_all(trained)

    [reason] = publish(trained)
    assert "site-1 submitted no usable model" in reason


def test_an_admin_may_ask_a_running_job_for_its_record(federation: Any) -> None:
    ask = federation.engine.commands[RECORD_TOPIC]
    assert ask(RECORD_TOPIC, {}, federation.fl_ctx) == {}  # no round has begun

    federation.start_round(1)

    told = RunRecord.from_dict(ask(RECORD_TOPIC, {}, federation.fl_ctx))
    assert told == federation.record
    assert told.rounds[0].is_open
