"""The first global weights: drawn from the job's seed, or read from the file that it names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_server.initial_model import InitialModel, initial_model
from mmar_runtime.errors import CheckpointError, ConfigError, WeightsError
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import OWN_MMAR_POLICY, SitePolicy
from mmar_runtime.weights import digest, write_checkpoint

Edited = Callable[[Path, Callable[[Any], object]], Path]

FINE_TUNE = {"dont_load_ckpt_model": False}


def model_of(root: Path, **values: Any) -> InitialModel:
    return initial_model(Mmar.open(root), values=values)


def set_seed(document: Any, seed: int) -> None:
    document["determinism"]["random_seed"] = seed


def test_the_same_seed_gives_the_same_bits(tiny_mmar: Path) -> None:
    first = model_of(tiny_mmar)
    torch.rand(7)  # whatever the process has drawn before does not matter

    assert digest(model_of(tiny_mmar).weights) == digest(first.weights)


def test_another_seed_gives_other_weights(tiny_mmar: Path, edited: Edited) -> None:
    before = digest(model_of(tiny_mmar).weights)

    edited(tiny_mmar / "config/config_train.json", lambda document: set_seed(document, 1))

    assert digest(model_of(tiny_mmar).weights) != before


def test_it_says_what_the_network_is_and_by_what_models_are_compared(tiny_mmar: Path) -> None:
    found = model_of(tiny_mmar)

    assert found.train_conf["train"]["model"]["name"] == "UNet"
    assert found.key_metric == "val_mean_dice"


def test_the_data_are_not_looked_at(tiny_mmar: Path) -> None:
    """A server has none."""
    shutil.rmtree(tiny_mmar / "data")

    assert model_of(tiny_mmar).weights


def test_a_job_that_sends_elsewhere_is_refused_unless_that_is_allowed(
    tiny_mmar: Path, edited: Edited
) -> None:
    def add_tracker(document: Any) -> None:
        document["train"]["handlers"].append({"name": "ClearMLStatsHandler"})

    edited(tiny_mmar / "config/config_train.json", add_tracker)

    with pytest.raises(ConfigError, match="can send metrics, images and models"):
        model_of(tiny_mmar)
    assert initial_model(Mmar.open(tiny_mmar), values={}, policy=SitePolicy(egress=True)).weights


# --- starting from a file


@pytest.fixture
def checkpoint(tiny_mmar: Path) -> dict[str, torch.Tensor]:
    """Weights other than the drawn ones, in the file that the config names."""
    drawn = model_of(tiny_mmar)
    weights = {name: tensor + 1 for name, tensor in drawn.weights.items()}
    write_checkpoint(tiny_mmar / "models/model.pt", weights, drawn.train_conf)
    return weights


def test_a_checkpoint_loader_that_is_switched_on_gives_the_weights(
    tiny_mmar: Path, checkpoint: dict[str, torch.Tensor]
) -> None:
    assert digest(model_of(tiny_mmar, **FINE_TUNE).weights) == digest(checkpoint)


def test_one_that_is_switched_off_does_not(
    tiny_mmar: Path, checkpoint: dict[str, torch.Tensor]
) -> None:
    assert digest(model_of(tiny_mmar).weights) != digest(checkpoint)


def test_a_missing_file_is_an_error_and_not_a_fresh_model(tiny_mmar: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file of weights .*model\.pt"):
        model_of(tiny_mmar, **FINE_TUNE)


def test_a_file_for_another_network_is_an_error(
    tiny_mmar: Path, checkpoint: dict[str, torch.Tensor]
) -> None:
    name = next(iter(checkpoint))
    write_checkpoint(tiny_mmar / "models/model.pt", {name: checkpoint[name]}, {})

    with pytest.raises(WeightsError, match=r"do not fit the network; none were loaded"):
        model_of(tiny_mmar, **FINE_TUNE)


@pytest.mark.parametrize("how", ["absolute", "upwards", "link"])
def test_a_file_of_the_server_is_not_taken_for_the_jobs(
    tiny_mmar: Path, checkpoint: dict[str, torch.Tensor], tmp_path: Path, how: str
) -> None:
    """It would go to every site as the first global model."""
    secret = tmp_path / "of_another_study.pt"
    (tiny_mmar / "models/model.pt").rename(secret)
    named = {"absolute": str(secret), "upwards": "../of_another_study.pt"}.get(
        how, "models/link.pt"
    )
    (tiny_mmar / "models/link.pt").symlink_to(secret)
    values = {**FINE_TUNE, "MMAR_CKPT": named}

    with pytest.raises(ConfigError, match=r"leads out of the job's folder"):
        model_of(tiny_mmar, **values)
    allowed = SitePolicy(data_roots=(tmp_path,))
    found = initial_model(
        Mmar.open(tiny_mmar), values={**values, "MMAR_CKPT": str(secret)}, policy=allowed
    )
    assert digest(found.weights) == digest(checkpoint)


def test_data_that_the_server_does_not_have_are_no_fault(tiny_mmar: Path) -> None:
    assert model_of(tiny_mmar, DATA_ROOT="/nowhere", DATASET_JSON="/nowhere/list.json").weights


# --- what a federated job needs


def test_a_config_without_a_network_is_an_error(tiny_mmar: Path, edited: Edited) -> None:
    def own_trainer(document: Any) -> None:
        document["train"] = {"trainer": {"path": "own.Trainer", "args": {}}}
        del document["validate"]

    edited(tiny_mmar / "config/config_train.json", own_trainer)

    with pytest.raises(ConfigError, match="needs an entry 'model' in 'train'"):
        initial_model(Mmar.open(tiny_mmar), values={}, policy=OWN_MMAR_POLICY)


def test_a_config_without_a_key_metric_is_an_error(tiny_mmar: Path, edited: Edited) -> None:
    def without_key_metric(document: Any) -> None:
        del document["validate"]["key_metric"]
        del document["validate"]["evaluator"]["args"]["key_val_metric"]

    edited(tiny_mmar / "config/config_train.json", without_key_metric)

    with pytest.raises(ConfigError, match="needs a 'key_metric' in 'validate'"):
        model_of(tiny_mmar)


def test_the_jobs_own_code_is_refused_unless_it_is_allowed(tiny_mmar: Path, edited: Edited) -> None:
    def own_network(document: Any) -> None:
        args = {"in_features": 2, "out_features": 1}
        document["train"]["model"] = {"path": "torch.nn.Linear", "args": args}

    edited(tiny_mmar / "config/config_train.json", own_network)

    with pytest.raises(ConfigError, match=r"train\.model"):
        model_of(tiny_mmar)
    allowed = initial_model(Mmar.open(tiny_mmar), values={}, policy=OWN_MMAR_POLICY)
    assert list(allowed.weights) == ["weight", "bias"]


# --- federations that share some tensors


def test_only_shared_tensors_are_global(tiny_mmar: Path) -> None:
    whole = model_of(tiny_mmar).weights

    found = initial_model(Mmar.open(tiny_mmar), values={}, shared=["*.conv.weight", "*.adn.*"])

    assert found.shared_names == tuple(found.weights)
    assert set(found.weights) < set(whole)
    assert all(name.endswith("conv.weight") or ".adn." in name for name in found.weights)
    assert all(found.weights[name].equal(whole[name]) for name in found.weights)


@pytest.mark.parametrize(
    "shared", [["!*.adn.*", "!*.bias"], ["*", "!*.adn.*", "!*.bias"], ["*.conv.weight"]]
)
def test_tensors_can_be_taken_out_again(tiny_mmar: Path, shared: list[str]) -> None:
    """A ``!`` before a name: all others are shared, or of the named ones the rest."""
    expected = initial_model(Mmar.open(tiny_mmar), values={}, shared=["*.conv.weight"])

    found = initial_model(Mmar.open(tiny_mmar), values={}, shared=shared)

    assert found.shared_names == expected.shared_names


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (["!encoder.*"], "fits no tensor of the network: '!encoder.*'"),
        (["*.bias", "!*"], "takes in no tensor of the network"),
        (["!"], "has to be the name of a tensor"),
        (["encoder.weigth"], "fits no tensor of the network: 'encoder.weigth'"),
        (["*"], "takes in all tensors of the network"),
        ([], "has to be an array of 1 to 1000 names"),
        ("*.bias", "has to be an array"),
        ([3], "has to be the name of a tensor"),
        (["*a*b*c*d*e*"], "has more than 4 '*'"),
    ],
)
def test_names_of_shared_tensors_are_checked(tiny_mmar: Path, shared: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        initial_model(Mmar.open(tiny_mmar), values={}, shared=shared)

    [problem] = caught.value.problems
    assert message in problem.message
    assert "shared_names" in problem.location.place
