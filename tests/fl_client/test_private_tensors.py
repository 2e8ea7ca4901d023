"""A site that shares some tensors: what leaves, what stays, and what a received model becomes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_client.private_tensors import PrivateTensors
from fl_client.site import Site
from fl_server.initial_model import initial_model
from mmar_runtime.errors import ConfigError, WeightsError
from mmar_runtime.weights import Weights, weights_of

MakeTrainer = Callable[..., Any]

NETWORK = {"body.weight": torch.zeros(2), "head.weight": torch.zeros(2)}
SHARED = ["*.conv.weight", "*.conv.bias"]


def tensors(body: float, head: float) -> Weights:
    return {"body.weight": torch.full((2,), body), "head.weight": torch.full((2,), head)}


def values(weights: Weights) -> dict[str, float]:
    return {name: tensor[0].item() for name, tensor in weights.items()}


def test_all_is_shared_unless_the_job_says_otherwise() -> None:
    private = PrivateTensors(NETWORK, None)

    assert private.shared(NETWORK).keys() == NETWORK.keys()
    assert values(private.join(tensors(1, 2), trained=True)) == {"body.weight": 1, "head.weight": 2}


def test_private_tensors_stay_and_meet_the_next_model() -> None:
    private = PrivateTensors(NETWORK, ["body.*"])

    private.keep(tensors(1, 2))

    assert values(private.shared(tensors(1, 2))) == {"body.weight": 1}
    assert values(private.join({"body.weight": torch.full((2,), 7.0)})) == {
        "body.weight": 7,
        "head.weight": 2,
    }


def test_private_tensors_that_are_not_finite_are_not_kept() -> None:
    private = PrivateTensors(NETWORK, ["body.*"])
    private.keep(tensors(1, 2))

    with pytest.raises(WeightsError, match=r"not finite, in head\.weight"):
        private.keep(tensors(3, math.nan))

    assert values(private.join({"body.weight": torch.zeros(2)}))["head.weight"] == 2


def test_a_tensor_that_is_not_shared_is_not_taken_from_the_server() -> None:
    with pytest.raises(WeightsError, match=r"sent 'head\.weight', which is not shared"):
        PrivateTensors(NETWORK, ["body.*"]).join(tensors(1, 2))


def test_untrained_tensors_evaluate_nothing() -> None:
    """They are random, and so would be what they give."""
    private = PrivateTensors(NETWORK, ["body.*"])

    with pytest.raises(WeightsError, match="has not trained"):
        private.join({"body.weight": torch.zeros(2)}, trained=True)


def test_names_that_fit_nothing_are_refused_with_their_place() -> None:
    with pytest.raises(ConfigError, match=r"shared_names\[0\]: fits no tensor"):
        PrivateTensors(NETWORK, ["trunk.*"])


def test_a_round_with_shared_tensors(make_trainer: MakeTrainer, site: Site) -> None:
    received = initial_model(site.mmar, values={}, shared=SHARED).weights
    trainer = make_trainer(shared=SHARED)
    before = weights_of(trainer.network)

    update = trainer.train(received, 1)

    assert update.difference.keys() == received.keys()
    after = weights_of(trainer.network)
    moved = [name for name in after if name not in received and not after[name].equal(before[name])]
    assert moved
    evaluated = trainer.for_evaluation(received)
    assert all(evaluated[name].equal(after[name]) for name in moved)
    assert trainer.shared(after).keys() == received.keys()


def test_a_trainer_knows_what_leaves_and_what_no_optimizer_moves(
    make_trainer: MakeTrainer, tiny_mmar: Path, edited: Callable[..., Path]
) -> None:
    """Buffers by the network's word, not by their names."""
    file = tiny_mmar / "config/config_train.json"
    edited(file, lambda conf: conf["train"]["model"]["args"].update(norm="batch"))

    trainer = make_trainer(shared=["!*.num_batches_tracked"])

    state = trainer.network.state_dict()
    parameters = {name for name, _ in trainer.network.named_parameters()}
    assert trainer.shared_tensors.buffers == state.keys() - parameters
    assert any(name.endswith("running_var") for name in trainer.shared_tensors.buffers)
    assert trainer.shared_tensors.sizes == {
        name: tensor.numel() for name, tensor in state.items() if "num_batches" not in name
    }
