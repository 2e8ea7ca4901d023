"""How many numbers a network has, before memory is taken for them."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import torch

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem

BYTES_WHILE_BUILT = 16
"""Of each number: itself in float64, and a copy while it is drawn."""

MEMORY_BESIDES = 2 * 2**30
"""Bytes for threads, modules and the reserves of libraries."""


def parameters_of(network: torch.nn.Module) -> int:
    """Return numbers in the parameters and buffers of a network."""
    tensors = (*network.parameters(), *network.buffers())
    return sum(tensor.numel() for tensor in tensors)


def require_size(
    build: Callable[[], torch.nn.Module], *, most: int, title: str, location: Location
) -> None:
    """Build a network without memory for its numbers, and count them.

    No random number is drawn: later components get the weights that they would have had.

    Args:
        build: makes the network; called once, on PyTorch's ``meta`` device.
        most: numbers that it may have.
        title: the network's class.
        location: where the config names it.

    Raises:
        ConfigError: it has more.
    """
    try:
        with _random_state_kept(), torch.device("meta"):
            network = build()
    except Exception:  # a few networks compute with the values of tensors; see ``memory_for``
        return
    require_no_more(network, most, title, location)


def require_no_more(network: torch.nn.Module, most: int, title: str, location: Location) -> None:
    """Refuse a network with too many numbers.

    Raises:
        ConfigError: it has more than ``most``.
    """
    parameters = parameters_of(network)
    if parameters > most:
        message = f"{title} has {parameters} parameters; {most} is the most that is allowed here"
        advice = "Use fewer or narrower layers."
        raise ConfigError([Problem(location, message, advice, "limit")])


@contextmanager
def memory_for(parameters: int) -> Iterator[None]:
    """Limit the memory of this process to the needs of a network of that many numbers.

    A network that computes with the values of tensors cannot be counted beforehand. Torch raises a
    RuntimeError beyond that limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = psutil.Process().memory_info().data + BYTES_WHILE_BUILT * parameters + MEMORY_BESIDES
    lower = most if soft == resource.RLIM_INFINITY else min(most, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (lower, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextmanager
def _random_state_kept() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
