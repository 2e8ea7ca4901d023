"""``network_summary``: the layers of a network with their output shapes and parameters."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch

logger = logging.getLogger(__name__)


def log_network_summary(network: torch.nn.Module, input_size: Sequence[int]) -> None:
    """Log a line for each layer, and the number of parameters.

    The shapes come from a copy of the network on the meta device, which computes nothing.

    Args:
        network: left as it is.
        input_size: shape of the input (batch, channel, spatial...), in voxels.
    """
    shapes = _output_shapes(network, input_size)
    logger.info("network summary of %s for input %s", type(network).__name__, tuple(input_size))
    for name, layer in network.named_modules():
        if name and not list(layer.children()):
            parameters = sum(tensor.numel() for tensor in layer.parameters())
            shape = shapes.get(name, "?")
            logger.info("  %-48s %-18s %-24s %d", name, type(layer).__name__, shape, parameters)
    total = sum(tensor.numel() for tensor in network.parameters())
    logger.info("  %d parameters", total)


def _output_shapes(network: torch.nn.Module, input_size: Sequence[int]) -> dict[str, str]:
    """Return layer name -> output shape; empty for a network that fails on the meta device."""
    shapes: dict[str, str] = {}

    def record(name: str) -> Any:
        def hook(layer: torch.nn.Module, inputs: Any, output: Any) -> None:
            shapes[name] = str(tuple(output.shape)) if hasattr(output, "shape") else "?"

        return hook

    twin = copy.deepcopy(network).to("meta").eval()
    for name, layer in twin.named_modules():
        layer.register_forward_hook(record(name))
    try:
        with torch.no_grad():
            twin(torch.empty(*input_size, device="meta"))
    # An input that is wrong, or an operation that the meta device lacks: torch reports it by a
    # RuntimeError of some kind, and layers by a TypeError or a ValueError. The summary is for
    # reading alone, so the training goes on without shapes, and the log says why.
    except (RuntimeError, TypeError, ValueError) as error:
        logger.info("network summary: no output shapes: %s", error)
    return shapes
