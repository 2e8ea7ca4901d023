"""The global models on the server's disk, and which of them go to cross-site validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.event_type import EventType

from fl_server.flare.exchange import weights_from
from fl_server.flare.model_locator import MmarModelLocator
from fl_server.flare.persistor import MmarModelPersistor
from fl_server.initial_model import initial_model
from fl_server.record.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL
from mmar_runtime.errors import CheckpointError, FederationError
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import digest


def app_of(federation: Any) -> Path:
    return Path(federation.engine.workspace.get_app_dir("job-1"))


def test_the_first_global_weights_are_those_of_the_jobs_own_config(federation: Any) -> None:
    expected = initial_model(Mmar.open(app_of(federation)), values={}).weights

    loaded = federation.persistor.load_model(federation.fl_ctx)

    assert digest(weights_from(loaded)) == digest(expected)


def test_before_the_run_has_started_there_is_no_model() -> None:
    with pytest.raises(FederationError, match="the initial model is not there yet"):
        _ = MmarModelPersistor().initial


def test_a_job_without_a_network_ends_the_run_with_the_reason(federation: Any) -> None:
    path = app_of(federation) / "config/config_train.json"
    document = json.loads(path.read_text())
    document["train"]["model"]["name"] = "UNte"
    path.write_text(json.dumps(document))

    MmarModelPersistor().handle_event(EventType.START_RUN, federation.fl_ctx)

    (reason,) = federation.engine.fatal
    assert reason.startswith("no initial model: ")
    assert "Did you mean 'UNet'" in reason


def test_the_servers_own_values_win_over_the_jobs(federation: Any) -> None:
    local = Path(federation.engine.workspace.get_site_config_dir())
    (local / "environment.json").write_text('{"dont_load_ckpt_model": false}')

    MmarModelPersistor().handle_event(EventType.START_RUN, federation.fl_ctx)

    (reason,) = federation.engine.fatal
    assert "there is no file of weights" in reason


def test_the_last_and_the_best_global_model_are_sent_to_every_site(federation: Any) -> None:
    federation.persistor.write(GLOBAL_MODEL, federation.weights, federation.fl_ctx)
    locator = MmarModelLocator()

    assert locator.get_model_names(federation.fl_ctx) == [GLOBAL_MODEL, BEST_GLOBAL_MODEL]
    sent = locator.locate_model(GLOBAL_MODEL, federation.fl_ctx).data
    for name, tensor in federation.weights.items():
        np.testing.assert_array_equal(sent[name], tensor.numpy())


def test_a_model_that_was_not_written_is_an_error(federation: Any) -> None:
    with pytest.raises(CheckpointError, match=f"{BEST_GLOBAL_MODEL}"):
        MmarModelLocator().locate_model(BEST_GLOBAL_MODEL, federation.fl_ctx)
