"""Components for which MONAI needs packages that it does not install itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import HausdorffDistance
from monai.networks.nets import UNETR, SwinUNETR
from monai.transforms import FillHolesd, KeepLargestConnectedComponentd
from torch import nn


def cube(start: int, side: int) -> torch.Tensor:
    """A mask (channel, depth, height, width) of 16 voxels a side with a cube in it."""
    mask = torch.zeros(1, 16, 16, 16)
    mask[0, start : start + side, start : start + side, start : start + side] = 1
    return mask


def test_the_largest_connected_component_is_kept() -> None:
    pred = cube(2, side=4) + cube(12, side=1)

    kept = KeepLargestConnectedComponentd(keys="pred")({"pred": pred})["pred"]

    assert torch.equal(kept, cube(2, side=4))


def test_holes_are_filled() -> None:
    pred = cube(2, side=5) - cube(4, side=1)

    filled = FillHolesd(keys="pred")({"pred": pred})["pred"]

    assert torch.equal(filled, cube(2, side=5))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own call
def test_the_distance_between_two_cubes_is_their_shift() -> None:
    metric = HausdorffDistance(include_background=True, output_transform=lambda pair: pair)
    engine = Engine(lambda _, pair: pair)
    metric.attach(engine, "hd")
    shifted = torch.roll(cube(4, side=4), shifts=3, dims=1)

    state = engine.run([([cube(4, side=4)], [shifted])])

    assert state.metrics["hd"] == 3.0  # voxels


@pytest.mark.parametrize(
    "network",
    [
        lambda: SwinUNETR(in_channels=1, out_channels=2, feature_size=12, spatial_dims=2),
        lambda: UNETR(1, 2, 64, hidden_size=48, mlp_dim=48, proj_type="perceptron", spatial_dims=2),
    ],
    ids=["SwinUNETR", "UNETR"],
)
def test_a_transformer_is_built_and_runs(network: Callable[[], nn.Module]) -> None:
    with torch.no_grad():
        scores = network().eval()(torch.zeros(1, 1, 64, 64))

    assert scores.shape == (1, 2, 64, 64)
