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
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.shareable import Shareable

from fl_server.flare.exchange import message_of
from mmar_runtime.config.location import Location
from mmar_runtime.exchange.ckks import SERVER_CONTEXT, Keys
from mmar_runtime.exchange.encrypted_files import read_encrypted_model
from mmar_runtime.exchange.encryption import (
    CIPHERTEXTS,
    EncryptedPart,
    Layout,
    is_encrypted,
    layout_of,
    plain_part,
)
from mmar_runtime.exchange.messages import SUBMIT, Train
from mmar_runtime.flare.wire import AGGREGATION_WEIGHTS
from tests.conftest import plain_metric
from tests.fl_server.flare.conftest import DICE, Begin, Begun

Numbers = dict[str, np.ndarray]  # type: ignore[type-arg]

LAYERS = ["*.conv.*"]


@pytest.fixture
def site(he_keys: tuple[bytes, bytes]) -> Keys:
    return Keys(he_keys[0], source="client_context.tenseal")


@pytest.fixture
def startup(kit: Path, he_keys: tuple[bytes, bytes]) -> Path:
    (kit / "startup" / SERVER_CONTEXT).write_bytes(he_keys[1])
    return kit / "startup"


@pytest.fixture
def fed(startup: Path, begin: Begin) -> Begun:
    """The job encrypts the kernels and biases of convolutions."""
    return begin(encrypt_layers=LAYERS)


def layout(fed: Begun) -> Layout:
    return layout_of(fed.weights, LAYERS, Location("x"))


def reply(
    fed: Begun, site: Keys, *, step: float = 1.0, steps: int = 1, factor: float = 1.0
) -> Shareable:
    """A site's update: each weight moved by ``step``, some of them encrypted."""
    reply = fed.update(step=step, steps=steps)
    data, hidden = reply["DXO"]["data"], layout(fed)
    start = {name: tensor.numpy() for name, tensor in fed.weights.items()}
    row = hidden.joined(start) + hidden.joined(data)
    weight = steps * factor
    part = EncryptedPart(layout=hidden, weight=weight, ciphertexts=site.encrypt(row, weight))
    for name in hidden.tensors:
        del data[name]
    data.update(part.arrays)
    return reply


def opened(weights: dict[str, torch.Tensor], site: Keys) -> Numbers:
    """What a site reads in the encrypted part of a model."""
    part = EncryptedPart.of({name: tensor.numpy() for name, tensor in weights.items()})
    return site.tensors(part)


def moved_by(found: Numbers, fed: Begun) -> set[float]:
    return {
        round(float(value), 5)
        for name, array in found.items()
        for value in (array - fed.weights[name].numpy()).ravel()
    }


def test_the_encrypted_mean_is_weighted_by_steps_like_the_plain_one(fed: Begun, site: Keys) -> None:
    assert fed.submit("site-2", reply(fed, site, step=5.0, steps=3))
    assert fed.submit("site-1", reply(fed, site, step=1.0, steps=1))

    new = fed.close_round()

    assert moved_by(opened(new, site), fed) == {(1 * 1 + 3 * 5) / 4}
    plain = {n: t.numpy() for n, t in plain_part(new).items() if t.is_floating_point()}
    assert moved_by(plain, fed) == {4.0}
    assert not set(plain) & set(layout(fed).tensors)


def test_aggregation_weights_count(startup: Path, begin: Begin, site: Keys) -> None:
    fed = begin(encrypt_layers=LAYERS, aggregation_weights={"site-1": 3.0})

    assert fed.submit("site-1", reply(fed, site, step=1.0, factor=3.0))
    assert fed.submit("site-2", reply(fed, site, step=5.0))

    assert moved_by(opened(fed.close_round(), site), fed) == {(3 * 1 + 5) / 4}


@pytest.mark.parametrize("factors", [None, {"site-1": 3.0}])
def test_sites_that_encrypt_are_told_the_factors_of_their_steps(factors: Any) -> None:
    task = Train(weights={"w": torch.zeros(1)}, round_number=1)

    message = message_of(task, rounds=1, base_model="x", factors=factors)

    assert message.get_header(AGGREGATION_WEIGHTS) == factors


def test_a_site_that_claims_another_weight_is_left_out(fed: Begun, site: Keys) -> None:
    assert not fed.submit("site-1", reply(fed, site, step=9.0, factor=100.0))
    assert fed.submit("site-2", reply(fed, site, step=2.0))

    assert "steps by the site's aggregation weight are 1" in fed.reason("site-1")
    assert moved_by(opened(fed.close_round(), site), fed) == {2.0}


def test_an_update_in_plain_is_refused(fed: Begun) -> None:
    assert not fed.submit("site-1", fed.update())
    assert "came in plain, and has to be encrypted" in fed.reason("site-1")


def test_ciphertexts_that_are_none_are_refused_and_the_round_goes_on(
    fed: Begun, site: Keys
) -> None:
    spoilt = reply(fed, site, step=9.0)
    spoilt["DXO"]["data"][CIPHERTEXTS][1000:2000] = 0

    assert not fed.submit("site-1", spoilt)
    assert fed.submit("site-2", reply(fed, site, step=2.0))

    assert "a ciphertext" in fed.reason("site-1")
    assert fed.noted("contribution-rejected")[0]["rules"] == ["encryption"]
    assert moved_by(opened(fed.close_round(), site), fed) == {2.0}


@pytest.mark.parametrize("limits", [{}, {"norm_ratio": 100}])
@pytest.mark.parametrize("how", ["cancelled", "transparent"])
def test_a_site_whose_ciphertexts_cannot_be_added_changes_no_bit_of_the_result(
    startup: Path,
    begin: Begin,
    site: Keys,
    he_keys: tuple[bytes, bytes],
    how: str,
    limits: dict[str, Any],
) -> None:
    """Once as the round is closed and once as it arrives; its plain part does not count either."""
    fed, alone = (begin(encrypt_layers=LAYERS, limits=limits) for _ in range(2))
    good, spoilt = reply(fed, site, step=2.0), reply(fed, site, step=9.0)
    spoil(spoilt["DXO"]["data"], good["DXO"]["data"], he_keys, how)

    fed.submit("site-1", copy.deepcopy(good))
    fed.submit("site-2", spoilt)
    alone.submit("site-1", good)
    new, expected = fed.close_round(), alone.close_round()

    assert fed.run.record.rounds[0].contributors == ("site-1",)
    assert fed.reason("site-2").startswith("update: a ciphertext ")
    assert {name: one.tolist() for name, one in new.items()} == {
        name: one.tolist() for name, one in expected.items()
    }
    [line] = fed.noted("contribution-rejected")
    assert (line["site"], line["rules"]) == ("site-2", ["encryption"])


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


def test_with_a_bound_on_norms_updates_wait_for_each_other(
    startup: Path, begin: Begin, site: Keys
) -> None:
    fed = begin(encrypt_layers=LAYERS, limits={"norm_ratio": 100})

    assert fed.submit("site-1", reply(fed, site, step=1.0))
    assert fed.submit("site-2", reply(fed, site, step=3.0))

    assert moved_by(opened(fed.close_round(), site), fed) == {2.0}


def test_a_second_round_starts_from_an_encrypted_model(fed: Begun, site: Keys) -> None:
    fed.submit("site-1", reply(fed, site, step=1.0))
    fed.close_round()
    fed.open_round()

    for name, step in (("site-1", 1.0), ("site-2", 4.0)):
        assert fed.submit(name, reply(fed, site, step=step))
    assert moved_by(opened(fed.close_round(), site), fed) == {2.5}


def test_models_on_the_disk_hold_no_encrypted_tensor_in_plain(fed: Begun, site: Keys) -> None:
    assert not is_encrypted(fed.weights)  # everybody can draw the first model
    fed.submit("site-1", reply(fed, site, step=1.0))
    new = fed.close_round()
    assert fed.audit  # all is written

    file = fed.folder / "models" / "FL_global_model.encrypted.safetensors"

    kept = read_encrypted_model(file).weights
    assert {name: one.tolist() for name, one in kept.items()} == {
        name: one.tolist() for name, one in new.items()
    }
    content = file.read_bytes()
    assert not any(array.tobytes() in content for array in opened(new, site).values())
    assert not list(file.parent.glob("*.pt"))


def test_log_and_record_say_what_is_encrypted_and_by_which_library(fed: Begun) -> None:
    [started] = fed.noted("run-started")

    assert started["encrypted"] == list(layout(fed).tensors)
    assert "tenseal" in fed.run.record.versions


def test_a_sites_model_is_kept_encrypted(fed: Begun, site: Keys) -> None:
    hidden = layout(fed)
    start = {name: tensor.numpy() for name, tensor in fed.weights.items()}
    row = hidden.joined(start)
    part = EncryptedPart(layout=hidden, weight=1.0, ciphertexts=site.encrypt(row, 1.0))
    plain = {name: one for name, one in start.items() if name not in hidden.tensors}
    meta = {"round": 1, "metrics": {DICE: plain_metric(0.5)}}
    dxo = DXO(DataKind.WEIGHTS, data={**plain, **part.arrays}, meta=meta)

    fed.submit("site-1", dxo.to_shareable(), task=SUBMIT)

    assert fed.noted("model-in")[0]["site"] == "site-1"
    assert is_encrypted(
        read_encrypted_model(fed.folder / "models" / "site-1.encrypted.safetensors").weights
    )


# --- keys


def test_a_server_without_keys_ends_the_run_before_it_starts(begin: Begin) -> None:
    assert "provisioned without 'he: true'" in begin(encrypt_layers=LAYERS).fatal[0]


def test_a_server_that_has_the_secret_key_does_not_run(
    startup: Path, begin: Begin, he_keys: tuple[bytes, bytes]
) -> None:
    (startup / SERVER_CONTEXT).write_bytes(he_keys[0])

    [told] = begin(encrypt_layers=LAYERS).fatal

    assert "holds the secret key, which a server must not have" in told


def test_without_the_extra_the_run_ends_before_it_starts(
    startup: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_server.flare.encryption.extra_is_installed", lambda: False)

    assert "pip install 'mmar-fl[he]'" in begin(encrypt_layers=LAYERS).fatal[0]


def test_layers_that_fit_nothing_end_the_run_before_it_starts(startup: Path, begin: Begin) -> None:
    [told] = begin(encrypt_layers=["encoder.*"]).fatal

    assert "encrypt_layers[0]: fits no tensor of the network" in told
