"""A network that is too large is refused before memory is taken for it."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from mmar_runtime.components.builder import BuildContext, ComponentBuilder
from mmar_runtime.components.size import (
    MEMORY_BESIDES,
    memory_for,
    parameters_of,
    require_size,
)
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ComponentError, ConfigError
from mmar_runtime.mmar import Mmar

Edited = Callable[[Path, Callable[[Any], object]], Path]
HERE = Location("config_train.json") / "train" / "model"


def unet(*channels: int) -> Callable[[], torch.nn.Module]:
    strides = [2] * (len(channels) - 1)
    return lambda: UNet(3, 1, 2, channels, strides)


def built(root: Path, most: int) -> torch.nn.Module:
    context = BuildContext(device=torch.device("cpu"), max_parameters=most)
    network: torch.nn.Module = ComponentBuilder(load_train_config(Mmar.open(root)), context).get(
        "train", "model"
    )
    return network


def test_a_network_is_counted_without_its_memory() -> None:
    tracemalloc.start()
    with pytest.raises(ConfigError, match="UNet has 27650224006 parameters"):
        require_size(unet(16_000, 16_000, 16_000), most=10**9, title="UNet", location=HERE)
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


def test_counting_draws_no_random_number() -> None:
    def drawn(*, counted: bool) -> tuple[object, ...]:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        if counted:
            require_size(unet(4, 8), most=10**6, title="UNet", location=HERE)
        return torch.rand(1).item(), np.random.rand(), random.random()

    assert drawn(counted=True) == drawn(counted=False)


def test_a_config_names_no_network_over_the_limit(tiny_mmar: Path) -> None:
    exact = parameters_of(built(tiny_mmar, most=10**6))

    assert parameters_of(built(tiny_mmar, most=exact)) == exact
    with pytest.raises(ConfigError, match=f"UNet has {exact} parameters; {exact - 1} is the most"):
        built(tiny_mmar, most=exact - 1)


def test_a_network_that_cannot_be_built_without_memory_is_counted_afterwards(
    tiny_mmar: Path, edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        if torch.get_default_device().type == "meta":
            raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr("torch.nn.init.kaiming_uniform_", refused)

    with pytest.raises(ConfigError, match="10 is the most"):
        built(tiny_mmar, most=10)


def test_a_network_that_cannot_be_counted_beforehand_gets_no_more_memory_than_others() -> None:
    beyond = (MEMORY_BESIDES + 2**30) // 4  # float32

    assert torch.empty(beyond).numel() == beyond  # no page of it is touched
    with memory_for(1000), pytest.raises(RuntimeError, match="allocate"):
        torch.empty(beyond)
    assert torch.empty(beyond).numel() == beyond


def test_a_network_beyond_the_memory_is_a_fault_of_the_config(
    tiny_mmar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beyond = (MEMORY_BESIDES + 2**30) // 4
    monkeypatch.setattr("torch.nn.init.kaiming_uniform_", lambda *_, **__: torch.empty(beyond))

    with pytest.raises(ComponentError, match="UNet could not be built: RuntimeError"):
        built(tiny_mmar, most=10**4)
