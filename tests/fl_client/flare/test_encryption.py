"""A site in an encrypted job: what comes is decrypted, what leaves is not readable, or not sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.utils.event import fire_event_to_components

from fl_client.flare.encryption import DecryptModel, EncryptReply, decrypted, encrypted
from fl_client.flare.encryption_keys import ability_faults, site_keys
from fl_client.flare.exchange import received_weights
from fl_client.flare.result_gate import REFUSED, ResultGate
from fl_client.jobs.encryption import with_encryption
from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.ckks import CLIENT_CONTEXT, SERVER_CONTEXT, Keys
from mmar_runtime.exchange.encryption import ARRAYS, LENGTHS, WEIGHT
from mmar_runtime.exchange.job_documents import FEDERATION
from mmar_runtime.flare.wire import AGGREGATION_WEIGHTS, NOT_DECRYPTED, SAMPLES, STATUS
from tests.conftest import plain_metric

MODEL = {
    "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "head.bias": np.ones(2, np.float32),
    "norm.num_batches_tracked": np.array(3),
}
LAYERS = ["conv.*"]


@pytest.fixture
def startup(workspace: Any, he_keys: tuple[bytes, bytes]) -> Path:
    """The kit of a site of a federation that encrypts."""
    folder = Path(workspace.get_startup_kit_dir())
    (folder / CLIENT_CONTEXT).write_bytes(he_keys[0])
    return folder


@pytest.fixture
def job(app: Path) -> Path:
    """The deployed job asks to encrypt the kernels of convolutions."""
    client = with_encryption({"task_data_filters": [], "task_result_filters": []}, LAYERS)
    (app / "config" / "config_fed_client.json").write_text(json.dumps(client))
    return app


def task(data: Any = MODEL, **weights: float) -> Shareable:
    shareable = DXO(DataKind.WEIGHTS, data=dict(data)).to_shareable()
    shareable.set_header(AGGREGATION_WEIGHTS, weights)
    return shareable


def update(data: Any = None, steps: Any = 4) -> Shareable:
    data = {name: np.ones_like(one) for name, one in MODEL.items()} if data is None else data
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: steps, SAMPLES: steps}
    return DXO(DataKind.WEIGHT_DIFF, data=data, meta=meta).to_shareable()


def sent(reply: Shareable, fl_ctx: FLContext, layers: list[str] = LAYERS) -> Any:
    return from_shareable(encrypt(fl_ctx, layers).process(reply, fl_ctx)).data


def encrypt(fl_ctx: FLContext, layers: list[str] = LAYERS) -> EncryptReply:
    """The filter, after the run has started."""
    filter = EncryptReply(layers)
    filter.handle_event(EventType.START_RUN, fl_ctx)
    return filter


def received(shareable: Shareable, fl_ctx: FLContext) -> Any:
    decrypt = DecryptModel()
    decrypt.handle_event(EventType.START_RUN, fl_ctx)
    return received_weights(decrypt.process(shareable, fl_ctx))


# --- what leaves


def test_an_update_leaves_with_its_layers_encrypted_and_the_rest_as_it_was(
    startup: Path, fl_ctx: FLContext
) -> None:
    DecryptModel().process(task(), fl_ctx)

    data = sent(update(), fl_ctx)

    assert data.keys() == {"head.bias", "norm.num_batches_tracked", *ARRAYS}
    assert data["head.bias"].tolist() == [1, 1]
    assert data[WEIGHT].tolist() == [4.0]
    back = decrypted(data, site_keys(startup))
    assert back["conv.weight"] == pytest.approx(MODEL["conv.weight"] + 1, rel=1e-6)


def test_the_weight_is_that_of_this_site_as_the_server_tells_it(
    startup: Path, fl_ctx: FLContext
) -> None:
    """The name by which NVFlare's own filter looks it up is the server's."""
    DecryptModel().process(task(**{"site-1": 2.5, "simulator_server": 9.0}), fl_ctx)

    data = sent(update(), fl_ctx)

    assert data[WEIGHT].tolist() == [10.0]
    back = decrypted(data, site_keys(startup))
    assert back["conv.weight"] == pytest.approx(MODEL["conv.weight"] + 1, rel=1e-6)


@pytest.mark.parametrize(("rule", "weight"), [("samples", 9), ("steps", 4), ("equal", 1)])
def test_the_weight_is_by_the_rule_of_the_job(
    startup: Path, app: Path, fl_ctx: FLContext, rule: str, weight: float
) -> None:
    workflow = {"path": FEDERATION, "args": {"min_sites": 1, "weigh_by": rule}}
    server = app / "config" / "config_fed_server.json"
    server.write_text(json.dumps({"workflows": [workflow]}))
    DecryptModel().process(task(), fl_ctx)
    reply = update()
    reply["DXO"]["meta"][SAMPLES] = 9

    assert sent(reply, fl_ctx)[WEIGHT].tolist() == [weight]


def test_a_sites_best_model_leaves_encrypted_too(startup: Path, fl_ctx: FLContext) -> None:
    reply = DXO(DataKind.WEIGHTS, data=dict(MODEL)).to_shareable()

    data = sent(reply, fl_ctx)

    assert "conv.weight" not in data
    assert data[WEIGHT].tolist() == [1.0]


def test_metrics_and_failures_pass_as_they_are(startup: Path, fl_ctx: FLContext) -> None:
    metrics = DXO(DataKind.METRICS, data={"dice": plain_metric(0.5)}).to_shareable()
    failure = make_reply(ReturnCode.EXECUTION_EXCEPTION)

    assert sent(metrics, fl_ctx) == {"dice": plain_metric(0.5)}
    assert encrypt(fl_ctx).process(failure, fl_ctx) is failure


def test_what_a_filter_has_left_out_counts_as_not_moved(startup: Path, fl_ctx: FLContext) -> None:
    DecryptModel().process(task(), fl_ctx)

    data = sent(update({"head.bias": np.ones(2, np.float32)}), fl_ctx)

    back = decrypted(data, site_keys(startup))
    assert back["conv.weight"] == pytest.approx(MODEL["conv.weight"], abs=1e-9)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (update({**MODEL, "conv.weight": np.full((2, 3), np.nan, np.float32)}), "not finite"),
        (update({**MODEL, "conv.weight": np.ones(6, np.float32)}), "shape"),
        (update(steps=None), "steps"),
    ],
)
def test_what_cannot_be_encrypted_is_not_sent(
    startup: Path, fl_ctx: FLContext, run_folder: Path, reply: Shareable, told: str
) -> None:
    """The server learns a word; the text is in the site's run folder."""
    DecryptModel().process(task(), fl_ctx)

    answer = encrypt(fl_ctx).process(reply, fl_ctx)

    assert answer.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert "DXO" not in answer
    assert answer.get_header(STATUS).startswith("weights-error (reference ")
    [file] = run_folder.glob("error-*.txt")
    assert told in file.read_text()
    assert "Traceback" in file.read_text()


def test_layers_that_fit_nothing_are_told_by_the_word_of_a_config(
    startup: Path, fl_ctx: FLContext
) -> None:
    DecryptModel().process(task(), fl_ctx)

    answer = encrypt(fl_ctx, ["tail.*"]).process(update(), fl_ctx)

    assert answer.get_header(STATUS).startswith("config-refused (reference ")


def test_a_lack_of_memory_is_told_as_such(
    startup: Path, fl_ctx: FLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Keys, "encrypt", fail)
    DecryptModel().process(task(), fl_ctx)

    answer = encrypt(fl_ctx).process(update(), fl_ctx)

    assert answer.get_header(STATUS).startswith("out-of-memory (reference ")


def test_without_keys_nothing_is_sent(fl_ctx: FLContext) -> None:
    DecryptModel().process(task(), fl_ctx)

    answer = encrypt(fl_ctx).process(update(), fl_ctx)

    assert answer.get_header(STATUS).startswith("weights-error")


# --- what comes


def test_an_encrypted_model_comes_out_as_it_was(
    startup: Path, job: Path, fl_ctx: FLContext
) -> None:
    data = encrypted(MODEL, None, layers=LAYERS, weight=8.0, keys=site_keys(startup))

    found = received(task(data), fl_ctx)

    assert {n: (t.numpy().dtype, t.numpy().shape) for n, t in found.items()} == {
        name: (array.dtype, array.shape) for name, array in MODEL.items()
    }
    for name, array in MODEL.items():
        assert found[name].numpy() == pytest.approx(array, rel=1e-6, abs=1e-9)


def _of_another_weight(data: Any) -> None:
    data[WEIGHT] = data[WEIGHT] * 2


def _without_lengths(data: Any) -> None:
    del data[LENGTHS]


def _twice(data: Any) -> None:
    data["conv.weight"] = MODEL["conv.weight"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_of_another_weight, "not added up as they are said to be"),
        (_without_lengths, "cannot be used"),
        (_twice, "came in plain and encrypted"),
    ],
)
def test_a_model_that_cannot_be_read_is_an_error_of_the_task(
    startup: Path, fl_ctx: FLContext, spoil: Any, told: str
) -> None:
    data = encrypted(MODEL, None, layers=LAYERS, weight=8.0, keys=site_keys(startup))
    spoil(data)

    with pytest.raises(WeightsError, match=told):
        received(task(data), fl_ctx)


@pytest.mark.parametrize("layers", [["head.*"], ["*"]])
def test_ciphertexts_of_other_tensors_than_the_jobs_are_not_taken(
    startup: Path, job: Path, fl_ctx: FLContext, layers: list[str]
) -> None:
    """A secret tensor that a server calls by another name would leave in plain."""
    data = encrypted(MODEL, None, layers=layers, weight=8.0, keys=site_keys(startup))

    with pytest.raises(WeightsError, match="than those that the job encrypts"):
        received(task(data), fl_ctx)


def test_only_the_first_models_of_a_job_are_in_plain(
    startup: Path, job: Path, fl_ctx: FLContext
) -> None:
    """Each task has a filter of its own, and a context of its own."""
    data = encrypted(MODEL, None, layers=LAYERS, weight=8.0, keys=site_keys(startup))

    assert received(task(), fl_ctx).keys() == MODEL.keys()
    assert received(task(), fl_ctx).keys() == MODEL.keys()
    assert received(task(data), fl_ctx).keys() == MODEL.keys()
    with pytest.raises(WeightsError, match="came in plain after one that was encrypted"):
        received(task(), fl_ctx)


def test_a_server_cannot_speak_for_the_filter(startup: Path, fl_ctx: FLContext) -> None:
    shareable = task()
    shareable.set_header(NOT_DECRYPTED, "a text of the server")

    assert received(shareable, fl_ctx).keys() == MODEL.keys()


@pytest.mark.parametrize("factor", ["2", float("nan"), 0, True])
def test_an_aggregation_weight_that_is_none_is_refused(
    startup: Path, fl_ctx: FLContext, factor: Any
) -> None:
    with pytest.raises(WeightsError, match="the aggregation weight of this site came as"):
        received(task(**{"site-1": factor}), fl_ctx)


# --- the gate behind it


@pytest.fixture
def gate(startup: Path, job: Path, fl_ctx: FLContext) -> ResultGate:
    return gate_of(fl_ctx)


def gate_of(fl_ctx: FLContext, data: Any = MODEL) -> ResultGate:
    """A gate that has seen the run start and a model come."""
    gate = ResultGate()
    shareable = DecryptModel().process(task(data), fl_ctx)
    fl_ctx.set_prop(FLContextKey.TASK_DATA, shareable, private=True, sticky=False)
    for event in (EventType.START_RUN, EventType.BEFORE_TASK_EXECUTION):
        fire_event_to_components(event, [gate], fl_ctx)  # as NVFlare does: errors are only logged
    return gate


def through(gate: ResultGate, reply: Shareable, fl_ctx: FLContext) -> Shareable:
    fl_ctx.set_prop(FLContextKey.TASK_RESULT, reply, private=True, sticky=False)
    gate.handle_event(EventType.AFTER_TASK_RESULT_FILTER, fl_ctx)
    return reply


def test_an_encrypted_update_passes_the_gate(gate: ResultGate, fl_ctx: FLContext) -> None:
    reply = encrypt(fl_ctx).process(update(), fl_ctx)

    assert through(gate, reply, fl_ctx).get_return_code() == ReturnCode.OK


def test_an_update_that_nobody_has_encrypted_is_stopped(
    gate: ResultGate, fl_ctx: FLContext
) -> None:
    assert through(gate, update(), fl_ctx).get_header(STATUS) == REFUSED


@pytest.mark.parametrize("layers", [["*"], ["head.*"]])
def test_other_tensors_than_the_jobs_are_stopped(
    gate: ResultGate, fl_ctx: FLContext, layers: list[str]
) -> None:
    reply = encrypt(fl_ctx, layers).process(update(), fl_ctx)

    assert through(gate, reply, fl_ctx).get_header(STATUS) == REFUSED


def test_plain_tensors_beside_the_encrypted_ones_are_stopped(
    gate: ResultGate, fl_ctx: FLContext
) -> None:
    reply = encrypt(fl_ctx).process(update(), fl_ctx)
    reply["DXO"]["data"]["conv.weight"] = MODEL["conv.weight"]

    assert through(gate, reply, fl_ctx).get_header(STATUS) == REFUSED


def test_the_gate_stops_all_where_it_cannot_tell_what_is_encrypted(
    startup: Path, job: Path, fl_ctx: FLContext
) -> None:
    encryption = encrypt(fl_ctx)
    (job / "config" / "config_fed_client.json").write_text("{")
    gate = gate_of(fl_ctx)

    reply = encryption.process(update(), fl_ctx)

    assert through(gate, reply, fl_ctx).get_header(STATUS) == REFUSED


def test_the_gate_stops_all_where_a_model_has_no_layer_to_encrypt(
    startup: Path, job: Path, fl_ctx: FLContext
) -> None:
    """Also where an earlier model had."""
    gate = gate_of(fl_ctx)
    other = DXO(DataKind.WEIGHTS, data={"head.bias": MODEL["head.bias"]}).to_shareable()
    fl_ctx.set_prop(FLContextKey.TASK_DATA, other, private=True, sticky=False)
    fire_event_to_components(EventType.BEFORE_TASK_EXECUTION, [gate], fl_ctx)

    metrics = DXO(DataKind.METRICS, data={"dice": plain_metric(0.5)}).to_shareable()

    assert through(gate, metrics, fl_ctx).get_header(STATUS) == REFUSED


def test_the_gate_reads_what_is_encrypted_when_the_run_starts(
    gate: ResultGate, fl_ctx: FLContext, job: Path
) -> None:
    (job / "config" / "config_fed_client.json").unlink()

    assert through(gate, update(), fl_ctx).get_header(STATUS) == REFUSED
    reply = encrypt(fl_ctx).process(update(), fl_ctx)
    assert through(gate, reply, fl_ctx).get_return_code() == ReturnCode.OK


def test_a_filter_that_did_not_read_what_the_job_encrypts_takes_no_encrypted_model(
    startup: Path, job: Path, fl_ctx: FLContext
) -> None:
    data = encrypted(MODEL, None, layers=LAYERS, weight=8.0, keys=site_keys(startup))

    with pytest.raises(WeightsError):
        received_weights(DecryptModel().process(task(data), fl_ctx))


def test_ciphertexts_of_a_job_that_encrypts_nothing_are_stopped(
    startup: Path, job: Path, fl_ctx: FLContext
) -> None:
    (job / "config" / "config_fed_client.json").unlink()
    gate = gate_of(fl_ctx)

    reply = encrypt(fl_ctx).process(update(), fl_ctx)

    assert through(gate, reply, fl_ctx).get_header(STATUS) == REFUSED


# --- whether this site can do it


def ability(app: Path, startup: Path) -> list[str]:
    return [one.message for one in ability_faults(app, startup)]


def test_a_site_with_keys_can(job: Path, startup: Path) -> None:
    assert ability(job, startup) == []


def test_a_server_with_its_keys_can(job: Path, startup: Path, he_keys: tuple[bytes, bytes]) -> None:
    (startup / CLIENT_CONTEXT).rename(startup / SERVER_CONTEXT)
    (startup / SERVER_CONTEXT).write_bytes(he_keys[1])

    assert ability(job, startup) == []


def test_a_job_that_encrypts_nothing_asks_for_no_keys(app: Path, workspace: Any) -> None:
    assert ability(app, Path(workspace.get_startup_kit_dir())) == []


def test_a_federation_without_keys_cannot(job: Path, workspace: Any) -> None:
    [told] = ability(job, Path(workspace.get_startup_kit_dir()))

    assert "provisioned without 'he: true'" in told


def test_without_the_extra_a_site_cannot(
    job: Path, startup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_client.flare.encryption_keys.extra_is_installed", lambda: False)

    [told] = ability(job, startup)

    assert "run pip install 'mmar-fl[he]'" in told


def test_keys_that_cannot_be_read_are_told(job: Path, startup: Path) -> None:
    (startup / CLIENT_CONTEXT).write_bytes(b"no keys")

    [told] = ability(job, startup)

    assert "client_context.tenseal holds no keys that can be read" in told
