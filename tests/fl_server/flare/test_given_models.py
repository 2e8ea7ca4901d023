"""A job that only has its own models evaluated, as the events of NVFlare's workflow come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from safetensors.torch import save_file

from fl_server.flare.aggregator import MmarAggregator
from fl_server.flare.exchange import STATUS
from fl_server.flare.given_models import GivenModels
from fl_server.flare.model_locator import MmarModelLocator
from fl_server.flare.publish import PublishResults
from fl_server.flare.run_recorder import RunRecordKeeper
from fl_server.initial_model import initial_model
from fl_server.record.cross_site import read_cross_site_matrix
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights, digest
from tests.fl_server.flare.conftest import DICE, JOB, SITES, Federation

NAMES = ("theirs", "ours")


def app(engine: Any) -> Path:
    return Path(engine.workspace.get_app_dir(JOB))


@pytest.fixture
def weights(engine: Any) -> Weights:
    """The network's weights; the models are twice and three times that."""
    found = initial_model(Mmar.open(app(engine)), values={}).weights
    for factor, name in enumerate(NAMES, start=2):
        save_file(scaled(found, factor), app(engine) / "models" / f"{name}.safetensors")
    return found


def scaled(weights: Weights, factor: int) -> dict[str, torch.Tensor]:
    return {name: tensor * factor for name, tensor in weights.items()}


def started(engine: Any, *, min_sites: int = 2, names: Any = NAMES) -> Federation:
    persistor = GivenModels(list(names))
    aggregator = MmarAggregator(min_sites=min_sites)
    keeper = RunRecordKeeper(min_sites=min_sites)
    engine.components |= {
        "persistor": persistor,
        "aggregator": aggregator,
        "recorder": keeper,
        "model_locator": MmarModelLocator(),
    }
    manager = FLContextManager(engine=engine, identity_name="server", job_id=JOB)
    found = Federation(engine, manager.new_context(), persistor, aggregator, keeper)
    found.fire(EventType.START_RUN)
    return found


def tell(run: Federation, model: str, site: str, reply: Shareable) -> None:
    run.fire(
        AppEventType.VALIDATION_RESULT_RECEIVED,
        **{
            AppConstants.MODEL_OWNER: f"SRV_{model}",
            AppConstants.DATA_CLIENT: site,
            AppConstants.VALIDATION_RESULT: reply,
        },
    )


def metrics(value: float) -> Shareable:
    return DXO(DataKind.METRICS, data={DICE: value}).to_shareable()


def failed(word: str) -> Shareable:
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(STATUS, word)
    return reply


def publish(run: Federation) -> list[str]:
    """The reasons for which the job fails."""
    PublishResults().control_flow(Signal(), run.fl_ctx)
    return run.engine.fatal


def validated(run: Federation, **replies: Shareable) -> list[str]:
    """Begin, let every pair answer, with other replies for some, and publish."""
    run.fire(AppEventType.CROSS_VAL_INIT)
    for model in NAMES:
        for index, site in enumerate(SITES):
            reply = replies.get(f"{model}_{site[-1]}", metrics(0.25 + index / 4))
            tell(run, model, site, reply)
    return publish(run)


def test_each_model_is_sent_as_it_lies_in_the_job(engine: Any, weights: Weights) -> None:
    run = started(engine)
    locator = engine.components["model_locator"]

    assert locator.get_model_names(run.fl_ctx) == list(NAMES)
    for factor, name in enumerate(NAMES, start=2):
        sent = locator.locate_model(name, run.fl_ctx).data
        tensors = {key: torch.from_numpy(value) for key, value in sent.items()}
        assert digest(tensors) == digest(scaled(weights, factor))


def test_the_run_is_complete_with_a_value_of_each_model_at_each_site(
    engine: Any, weights: Weights
) -> None:
    run = started(engine)

    assert validated(run) == []

    record = run.record
    assert (record.status, record.rounds_asked, record.rounds) == ("complete", 0, ())
    assert (record.initial_weights_sha256, record.sites) == (None, SITES)
    matrix = read_cross_site_matrix(run.results / "cross_site.json")
    assert (matrix.complete, matrix.models, matrix.sites) == (True, NAMES, SITES)
    assert matrix.value("ours", "site-2", DICE) == 0.5
    assert dict(matrix.weights_sha256) == {
        name: digest(scaled(weights, factor)) for factor, name in enumerate(NAMES, start=2)
    }
    assert matrix.evaluation_sha256 is not None


def test_while_it_runs_the_record_says_so(engine: Any, weights: Weights) -> None:
    run = started(engine)

    run.fire(AppEventType.CROSS_VAL_INIT)

    assert run.record.status == "running"
    assert run.audit[0]["event"] == "run-started"


def test_a_site_that_fails_fails_the_run_with_the_reason(engine: Any, weights: Weights) -> None:
    run = started(engine)

    (reason,) = validated(run, ours_2=failed("data-error (reference 0a)"))

    assert "site-2 could not evaluate ours: data-error (reference 0a)" in reason
    assert "the matrix has no value of ours at site-2" in reason
    assert run.record.failure == reason


def test_with_fewer_sites_asked_for_it_is_only_told(engine: Any, weights: Weights) -> None:
    run = started(engine, min_sites=1)

    assert validated(run, ours_2=failed("data-error (reference 0a)")) == []
    assert run.record.status == "complete"


def test_a_model_that_too_few_sites_have_evaluated_fails_the_run(
    engine: Any, weights: Weights
) -> None:
    run = started(engine, min_sites=1)

    (reason,) = validated(run, ours_1=failed("data-error"), ours_2=failed("data-error"))

    assert "the matrix has no value of ours at 2 sites" in reason


def test_what_a_site_declines_is_no_shortfall(engine: Any, weights: Weights) -> None:
    run = started(engine)
    word = "policy-declined (reference 0a)"

    assert validated(run, ours_2=failed(word), theirs_2=failed(word)) == []
    assert json.loads((run.results / "cross_site.json").read_text())["missing"] == [
        ["theirs", "site-2"],
        ["ours", "site-2"],
    ]


def test_where_nobody_evaluates_anything_the_run_fails(engine: Any, weights: Weights) -> None:
    run = started(engine)
    run.fire(AppEventType.CROSS_VAL_INIT)

    (reason,) = publish(run)

    assert "the cross-site matrix has no cell" in reason


def test_a_model_that_does_not_fit_ends_the_run_before_any_site_is_asked(
    engine: Any, weights: Weights
) -> None:
    first, *_ = weights
    spoilt = {**weights, first: torch.zeros(1)}
    save_file(spoilt, app(engine) / "models/ours.safetensors")

    started(engine)

    (reason,) = engine.fatal
    assert f"the model 'ours' does not fit the network: {first}: shape" in reason


def test_so_does_one_that_is_not_there(engine: Any, weights: Weights) -> None:
    (app(engine) / "models/theirs.safetensors").unlink()

    started(engine)

    (reason,) = engine.fatal
    assert "there is no file of weights" in reason


@pytest.mark.parametrize("name", ["../../secret", "/secret", "SRV_ours", ".ours", "", 1])
def test_a_name_that_leads_out_of_the_job_ends_the_run(
    engine: Any, weights: Weights, name: Any
) -> None:
    """The server would read the file, and send it to every site."""
    save_file(dict(weights), app(engine).parent / "secret.safetensors")

    started(engine, names=[name])

    (reason,) = engine.fatal
    assert f"{name!r} is no name of a model that a job brings" in reason


def test_the_checkpoint_of_a_training_is_not_asked_for(engine: Any, weights: Weights) -> None:
    path = app(engine) / "config/config_train.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "dont_load_ckpt_model": False}))

    started(engine)

    assert engine.fatal == []
