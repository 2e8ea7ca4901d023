"""The commonest errors of PyTorch and MONAI get advice with a place; each is raised for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.data.utils import list_data_collate
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.networks.utils import one_hot
from torch import nn

from mmar_runtime.config.loader import load_train_config
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.mmar import Mmar
from mmar_runtime.workflows.remedies import remedy

TRAIN = "config_train.json: train"


@pytest.fixture
def config(tiny_mmar: Path) -> TrainConfig:
    return load_train_config(Mmar.open(tiny_mmar))


def unet(size: int) -> object:
    network = UNet(3, 1, 2, channels=(2, 2, 2), strides=(2, 2))
    return network(torch.ones(1, 1, size, size, size))


def dice(prediction: int, label: int) -> object:
    return DiceLoss()(torch.ones(1, 2, prediction), torch.ones(1, 2, label))


ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "one value": (
        lambda: nn.BatchNorm1d(2)(torch.ones(1, 2)),
        f"{TRAIN}.dataloader.args.batch_size",
    ),
    "sizes in a batch": (
        lambda: list_data_collate([{"image": torch.ones(1)}, {"image": torch.ones(2)}]),
        f"Set {TRAIN}.dataloader.args.batch_size to 1",
    ),
    "class beyond": (
        lambda: one_hot(torch.full((1, 1, 2), 3), 2),
        f"{TRAIN}.model.args.out_channels",
    ),
    "class of cross entropy": (
        lambda: nn.CrossEntropyLoss()(torch.ones(1, 2), torch.tensor([5])),
        f"{TRAIN}.model.args.out_channels",
    ),
    "label has channels": (lambda: one_hot(torch.ones(1, 3, 2), 2), "leave to_onehot_y"),
    "skip connection": (lambda: unet(9), f"the strides in {TRAIN}.model"),
    "two shapes": (lambda: dice(2, 3), "different shapes"),
    "channels": (
        lambda: nn.Conv2d(1, 1, 1)(torch.ones(1, 4, 3, 3)),
        f"in_channels of {TRAIN}.model",
    ),
    "kernel": (lambda: nn.Conv1d(1, 1, 5)(torch.ones(1, 1, 3)), "too small for the network"),
    "number type": (
        lambda: nn.Linear(1, 1)(torch.ones(1, 1, dtype=torch.float64)),
        "add EnsureTyped with dtype",
    ),
    "label type": (
        lambda: nn.CrossEntropyLoss()(torch.ones(1, 2), torch.ones(1).double()),
        "add EnsureTyped with dtype",
    ),
    "empty": (lambda: torch.ones(0).max(), "has left no voxel"),
    "axes": (lambda: nn.Conv2d(1, 1, 1)(torch.ones(3)), f"spatial_dims of {TRAIN}.model"),
    "features": (lambda: nn.Linear(4, 1)(torch.ones(1, 3)), "images of one size"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_gets_its_remedy(config: TrainConfig, name: str) -> None:
    failing, expected = ERRORS[name]
    with pytest.raises((ValueError, RuntimeError, AssertionError, IndexError)) as raised:
        failing()
    assert expected in remedy(str(raised.value), config, config.train)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "CUDA out of memory. Tried to allocate 2 GiB",
            f"lower {TRAIN}.dataloader.args.batch_size",
        ),
        ("DefaultCPUAllocator: can't allocate memory", "lower"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error.", "--shm-size"),
        ("CUDA error: device-side assert triggered", "a class beyond the outputs"),
        ("Key `label` of transform `X` was missing in the data", "entries of the data list"),
    ],
)
def test_an_error_that_no_test_can_raise_gets_its_remedy(
    config: TrainConfig, text: str, expected: str
) -> None:
    assert expected in remedy(text, config, config.train)


def test_an_error_that_is_not_known_gets_none(config: TrainConfig) -> None:
    assert remedy("division by zero", config, config.train) == ""
