"""The network's layers as log lines."""

from __future__ import annotations

import logging

import pytest
import torch

from mmar_runtime.components.summary import log_network_summary


@pytest.fixture(autouse=True)
def info_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mmar_runtime")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages without the spaces that align them."""
    return [" ".join(record.getMessage().split()) for record in caplog.records]


def test_each_layer_has_a_line_with_its_shape_and_parameters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.ReLU())
    log_network_summary(network, (2, 1, 8, 8, 8))
    assert lines(caplog) == [
        "network summary of Sequential for input (2, 1, 8, 8, 8)",
        # 4 kernels of 3 x 3 x 3 and as many biases; 8 - 3 + 1 voxels a side are left
        f"0 Conv3d (2, 4, 6, 6, 6) {4 * 27 + 4}",
        "1 ReLU (2, 4, 6, 6, 6) 0",
        f"{4 * 27 + 4} parameters",
    ]


def test_the_network_is_left_as_it_is() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    log_network_summary(network, (4, 2))
    assert network.training
    assert all(torch.equal(before[name], new) for name, new in network.state_dict().items())
    assert not network[0]._forward_hooks


class NeedsNumbers(torch.nn.Module):
    """Looks at its input's values, which are not there on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layer(image) if image.max().item() > 0 else image


def test_a_network_whose_shapes_cannot_be_told_is_listed_without_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_network_summary(NeedsNumbers(), (1, 2))
    assert "no output shapes" in caplog.text
    assert "layer Linear ? 3" in lines(caplog)


def test_an_input_with_a_single_voxel_left_is_told(caplog: pytest.LogCaptureFixture) -> None:
    log_network_summary(torch.nn.Sequential(torch.nn.InstanceNorm1d(2)), (1, 2, 1))
    assert "no output shapes" in caplog.text


def test_an_input_that_does_not_fit_is_told(caplog: pytest.LogCaptureFixture) -> None:
    log_network_summary(torch.nn.Sequential(torch.nn.Linear(2, 1)), (1, 3))
    assert "no output shapes" in caplog.text
