"""A server that adds up what it cannot read: the mean, the guard, the files, the keys."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal
import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from fl_server.flare.exchange import AGGREGATION_WEIGHTS
from mmar_runtime.exchange.ckks import SERVER_CONTEXT, Keys
from mmar_runtime.exchange.encryption import (
    ARRAYS,
    CIPHERTEXTS,
    WEIGHT,
    EncryptedPart,
    is_encrypted,
    plain_part,
)
from mmar_runtime.weights import read_checkpoint

Numbers = dict[str, np.ndarray]  # type: ignore[type-arg]

LAYERS = ["*.conv.*"]


@pytest.fixture
def site(he_keys: tuple[bytes, bytes]) -> Keys:
    return Keys(he_keys[0], source="client_context.tenseal")


@pytest.fixture
def startup(engine: Any, he_keys: tuple[bytes, bytes]) -> Path:
    folder = Path(engine.workspace.get_startup_kit_dir())
    (folder / SERVER_CONTEXT).write_bytes(he_keys[1])
    return folder


@pytest.fixture
def fed(startup: Path, federation: Any) -> Any:
    """The run begins anew, with a job whose sites encrypt the kernels of convolutions."""
    federation.persistor.encrypt_layers = LAYERS
    federation.fire(EventType.START_RUN)
    federation.set_global(federation.weights)
    federation.start_round(1)
    return federation


def reply(
    fed: Any, site: Keys, *, step: float = 1.0, steps: int = 1, factor: float = 1.0, number: int = 1
) -> Shareable:
    """A site's contribution: each weight moved by ``step``, some of them encrypted."""
    reply = fed.update(number, step=step, steps=steps)
    data = reply["DXO"]["data"]
    layout = fed.persistor.encryption.layout
    start = {name: tensor.numpy() for name, tensor in fed.weights.items()}
    row = layout.joined(start) + layout.joined(data)
    weight = steps * factor
    part = EncryptedPart(layout=layout, weight=weight, ciphertexts=site.encrypt(row, weight))
    for name in layout.tensors:
        del data[name]
    data.update(part.arrays)
    return reply


def opened(weights: dict[str, torch.Tensor], site: Keys) -> Numbers:
    """What a site reads in the encrypted part of a model."""
    part = EncryptedPart.of({name: tensor.numpy() for name, tensor in weights.items()})
    row = site.decrypt(part.ciphertexts, part.weight, part.layout.count)
    return part.layout.parted(row)


def moved_by(found: Numbers, fed: Any) -> set[float]:
    return {
        round(float(value), 5)
        for name, array in found.items()
        for value in (array - fed.weights[name].numpy()).ravel()
    }


def test_the_encrypted_mean_is_weighted_by_steps_like_the_plain_one(fed: Any, site: Keys) -> None:
    assert fed.submit("site-2", reply(fed, site, step=5.0, steps=3))
    assert fed.submit("site-1", reply(fed, site, step=1.0, steps=1))

    new = fed.aggregate()

    assert moved_by(opened(new, site), fed) == {(1 * 1 + 3 * 5) / 4}
    plain = {n: t.numpy() for n, t in plain_part(new).items() if t.is_floating_point()}
    assert moved_by(plain, fed) == {4.0}
    assert not set(plain) & set(fed.persistor.encryption.layout.tensors)


def test_aggregation_weights_count_and_are_told_to_the_sites(fed: Any, site: Keys) -> None:
    fed.aggregator.aggregation_weights = {"site-1": 3.0}
    fed.aggregator._guard = None
    fed.start_round_again(1)

    task = fed.tasks[1]
    assert task.get_header(AGGREGATION_WEIGHTS) == {"site-1": 3.0}
    assert fed.submit("site-1", reply(fed, site, step=1.0, factor=3.0))
    assert fed.submit("site-2", reply(fed, site, step=5.0))
    assert moved_by(opened(fed.aggregate(), site), fed) == {(3 * 1 + 5) / 4}


def test_a_site_that_claims_another_weight_is_left_out(fed: Any, site: Keys) -> None:
    assert not fed.submit("site-1", reply(fed, site, step=9.0, factor=100.0))
    assert fed.submit("site-2", reply(fed, site, step=2.0))

    assert "steps by the site's aggregation weight are 1" in fed.aggregator.rejections["site-1"]
    assert moved_by(opened(fed.aggregate(), site), fed) == {2.0}


def test_a_contribution_in_plain_is_refused(fed: Any) -> None:
    assert not fed.submit("site-1", fed.update(1))

    assert "came in plain, and has to be encrypted" in fed.aggregator.rejections["site-1"]


def test_ciphertexts_that_are_none_are_refused_and_the_round_goes_on(fed: Any, site: Keys) -> None:
    spoilt = reply(fed, site, step=9.0)
    spoilt["DXO"]["data"][CIPHERTEXTS][1000:2000] = 0

    assert not fed.submit("site-1", spoilt)
    assert fed.submit("site-2", reply(fed, site, step=2.0))

    assert "encryption" in fed.audit[-2]["rules"] or "encryption" in fed.audit[-1]["rules"]
    assert "a ciphertext" in fed.aggregator.rejections["site-1"]
    assert moved_by(opened(fed.aggregate(), site), fed) == {2.0}


@pytest.mark.parametrize("limits", [{}, {"norm_ratio": 100}])
@pytest.mark.parametrize("how", ["cancelled", "transparent"])
def test_a_site_whose_ciphertexts_cannot_be_added_changes_no_bit_of_the_result(
    fed: Any, site: Keys, he_keys: tuple[bytes, bytes], how: str, limits: dict[str, Any]
) -> None:
    """Once as the round is settled and once as it arrives; its plain part does not count either."""
    fed.aggregator.limits = limits
    fed.aggregator._guard = None
    good, spoilt = reply(fed, site, step=2.0), reply(fed, site, step=9.0)
    spoil(spoilt["DXO"]["data"], good["DXO"]["data"], he_keys, how)

    fed.submit("site-1", copy.deepcopy(good))
    fed.submit("site-2", spoilt)
    new = fed.aggregate()

    assert fed.aggregator._mean.contributors == ("site-1",)
    assert fed.aggregator.rejections["site-2"].startswith("update: a ciphertext ")
    [log] = [one for one in fed.audit if one["event"] == "contribution-rejected"]
    assert (log["site"], log["rules"]) == ("site-2", ["encryption"])
    fed.start_over()
    fed.submit("site-1", good)
    alone = fed.aggregate()
    assert {name: one.tolist() for name, one in new.items()} == {
        name: one.tolist() for name, one in alone.items()
    }


def spoil(data: Numbers, others: Numbers, he_keys: tuple[bytes, bytes], how: str) -> None:
    """Put ciphertexts of the right form in the place of a site's own."""
    context = tenseal.context_from(he_keys[0])
    found = []
    for one in EncryptedPart.of(others).ciphertexts:
        vector = tenseal.ckks_vector_from(context, one)
        if how == "cancelled":
            vector = -vector
        else:
            with pytest.raises(RuntimeError, match="transparent"):
                vector -= tenseal.ckks_vector_from(context, one)
        found.append(bytes(vector.serialize()))
    part = EncryptedPart.of(data)
    data.update(replace(part, ciphertexts=tuple(found)).arrays)


def test_with_a_bound_on_norms_contributions_wait_for_each_other(fed: Any, site: Keys) -> None:
    fed.aggregator.limits = {"norm_ratio": 100}
    fed.aggregator._guard = None

    assert fed.submit("site-1", reply(fed, site, step=1.0))
    assert fed.submit("site-2", reply(fed, site, step=3.0))

    assert moved_by(opened(fed.aggregate(), site), fed) == {2.0}


def test_a_second_round_starts_from_an_encrypted_model(fed: Any, site: Keys) -> None:
    for name in ("site-1", "site-2"):
        assert fed.submit(name, reply(fed, site, step=1.0))
    fed.aggregate()
    fed.end_round()
    fed.start_round(2)

    for name, step in (("site-1", 1.0), ("site-2", 4.0)):
        assert fed.submit(name, reply(fed, site, step=step, number=2))
    assert moved_by(opened(fed.aggregate(), site), fed) == {2.5}


def test_models_on_the_disk_hold_no_encrypted_tensor_in_plain(fed: Any, site: Keys) -> None:
    fed.submit("site-1", reply(fed, site, step=1.0))
    new = fed.aggregate()
    fed.end_round()

    [file] = (fed.results / "models").iterdir()

    kept = fed.persistor.read("FL_global_model", fed.fl_ctx)
    assert file.name == "FL_global_model.encrypted.safetensors"
    assert {name: one.tolist() for name, one in kept.items()} == {
        name: one.tolist() for name, one in new.items()
    }
    content = file.read_bytes()
    for array in opened(new, site).values():
        assert array.tobytes() not in content


def test_log_and_record_say_what_is_encrypted_and_by_which_library(fed: Any) -> None:
    [started] = [one for one in fed.audit if one["event"] == "run-started"]

    assert started["encrypted"] == list(fed.persistor.encryption.layout.tensors)
    assert "tenseal" in fed.record.versions


def test_a_sites_model_is_kept_encrypted(fed: Any, site: Keys) -> None:
    part = fed.persistor.encryption.layout
    row = part.joined({name: tensor.numpy() for name, tensor in fed.weights.items()})
    arrays = EncryptedPart(layout=part, weight=1.0, ciphertexts=site.encrypt(row, 1.0)).arrays
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

    fed.persistor.write("site-1", tensors, fed.fl_ctx)

    assert is_encrypted(fed.persistor.read("site-1", fed.fl_ctx))


def test_the_first_model_is_in_plain_as_everybody_can_draw_it(fed: Any) -> None:
    assert not ARRAYS.keys() & fed.current.keys()
    assert fed.fl_ctx.get_prop(AppConstants.GLOBAL_MODEL) is not None


# --- keys


def test_a_server_without_keys_ends_the_run_before_it_starts(federation: Any) -> None:
    federation.persistor.encrypt_layers = LAYERS

    federation.fire(EventType.START_RUN)

    assert "provisioned without 'he: true'" in federation.engine.fatal[0]


def test_a_server_that_has_the_secret_key_does_not_run(
    startup: Path, federation: Any, he_keys: tuple[bytes, bytes]
) -> None:
    (startup / SERVER_CONTEXT).write_bytes(he_keys[0])
    federation.persistor.encrypt_layers = LAYERS

    federation.fire(EventType.START_RUN)

    assert "holds the secret key, which a server must not have" in federation.engine.fatal[0]


def test_without_the_extra_the_run_ends_before_it_starts(
    startup: Path, federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_server.flare.encryption.extra_is_installed", lambda: False)
    federation.persistor.encrypt_layers = LAYERS

    federation.fire(EventType.START_RUN)

    assert "pip install 'mmar-fl[he]'" in federation.engine.fatal[0]


def test_layers_that_fit_nothing_end_the_run_before_it_starts(
    startup: Path, federation: Any
) -> None:
    federation.persistor.encrypt_layers = ["encoder.*"]

    federation.fire(EventType.START_RUN)

    assert "encrypt_layers[0]: fits no tensor of the network" in federation.engine.fatal[0]


def test_without_encryption_everything_is_as_before(federation: Any) -> None:
    federation.start_round(1)
    federation.submit("site-1", federation.update(1))
    federation.aggregate()
    federation.end_round()

    assert federation.tasks[1].get_header(AGGREGATION_WEIGHTS) is None
    assert read_checkpoint(federation.results / "models" / "FL_global_model.pt").weights
    assert WEIGHT not in federation.current
