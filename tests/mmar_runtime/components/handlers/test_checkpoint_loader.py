"""Files of weights reach a network whole, or not at all; in part only where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from safetensors.torch import save_file

from mmar_runtime.components.handlers.checkpoint_loader import WholeCheckpointLoader
from mmar_runtime.errors import CheckpointError, WeightsError
from mmar_runtime.weights import digest, weights_of

ENGINE = Engine(lambda engine, batch: None)


def linear(value: float, features: int = 2) -> torch.nn.Linear:
    layer = torch.nn.Linear(features, 1)
    torch.nn.init.constant_(layer.weight, value)
    torch.nn.init.constant_(layer.bias, value)
    return layer


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        {"model": linear(3.0).state_dict(), "train_conf": {"epochs": 1}},
        linear(3.0).state_dict(),
        {"model": {f"module.{name}": t for name, t in linear(3.0).state_dict().items()}},
    ],
    ids=["as Clara wrote it", "bare weights", "of a data-parallel run"],
)
def test_every_kind_of_file_gives_the_same_network(tmp_path: Path, content: Any) -> None:
    network = linear(0.0)
    loader = WholeCheckpointLoader(str(saved(tmp_path / "m.pt", content)), {"model": network})

    loader(ENGINE)

    assert digest(weights_of(network)) == digest(linear(3.0).state_dict())


def test_safetensors(tmp_path: Path) -> None:
    save_file(linear(3.0).state_dict(), tmp_path / "m.safetensors")
    network = linear(0.0)

    WholeCheckpointLoader(str(tmp_path / "m.safetensors"), {"model": network})(ENGINE)

    assert digest(weights_of(network)) == digest(linear(3.0).state_dict())


def test_an_optimizer_is_loaded_beside_its_network(tmp_path: Path) -> None:
    old = torch.optim.SGD(linear(1.0).parameters(), lr=0.5)
    content = {"model": linear(3.0).state_dict(), "optimizer": old.state_dict()}
    network = linear(0.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    parts = {"model": network, "optimizer": optimizer}

    WholeCheckpointLoader(str(saved(tmp_path / "m.pt", content)), parts)(ENGINE)

    assert optimizer.param_groups[0]["lr"] == 0.5
    assert network.bias.item() == 3.0


def test_a_file_that_does_not_fit_changes_nothing_and_names_the_tensors(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt", {"model": linear(3.0, features=3).state_dict()})
    network = linear(0.0)

    with pytest.raises(WeightsError, match=r"weight: shape \(1, 2\), given \(1, 3\)"):
        WholeCheckpointLoader(str(path), {"model": network})(ENGINE)

    assert network.bias.item() == 0.0


@pytest.mark.filterwarnings("ignore:as `strict_shape` is already False")  # MONAI says it aloud
def test_in_part_where_the_config_asks_for_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt", {"model": linear(3.0, features=3).state_dict()})
    network = linear(0.0)

    WholeCheckpointLoader(str(path), {"model": network}, strict_shape=False)(ENGINE)

    assert network.bias.item() == 3.0
    assert network.weight.tolist() == [[0.0, 0.0]]


@pytest.mark.filterwarnings("ignore:as `strict_shape` is already False")  # MONAI says it aloud
def test_a_file_of_which_nothing_fits_is_refused_in_part_too(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt", {"model": {"other.weight": torch.zeros(1)}})

    with pytest.raises(WeightsError, match="not one tensor"):
        WholeCheckpointLoader(str(path), {"model": linear(0.0)}, strict=False)(ENGINE)


@pytest.mark.parametrize("name", ["model", "optimizer"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    network = linear(0.0)
    part = network if name == "model" else torch.optim.SGD(network.parameters(), lr=0.1)

    with pytest.raises(CheckpointError, match="there is no file of weights"):
        WholeCheckpointLoader(str(tmp_path / "none.pt"), {name: part})(ENGINE)
