"""One memory for the weights of all networks that take turns in a process.

Each site that is simulated in a process has a network of its own, built like any other, with all
that its modules remember. Only the numbers of its state dict lie in memory that the networks of the
other sites use as well: every task of a site begins by loading weights, all of them.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from monai.engines import SupervisedTrainer


class SharedStorage:
    """Lends its tensors to networks; those of equal name, shape, strides and dtype get the same.

    A network that has borrowed them holds no numbers of its own between two tasks.
    """

    def __init__(self) -> None:
        self._weights: dict[tuple[object, ...], torch.Tensor] = {}
        self._gradients: dict[tuple[object, ...], torch.Tensor] = {}

    def lend_weights(self, network: torch.nn.Module) -> None:
        """Let the parameters and the persistent buffers of a network lie in this memory."""
        for name, tensor in network.state_dict(keep_vars=True).items():
            tensor.data = self._weights.setdefault(_key(name, tensor), tensor.data)

    def lend_gradients(self, network: torch.nn.Module, trainer: object) -> None:
        """Let the gradients that are left after a training lie in this memory.

        Only of a trainer that is known to clear them before it uses them; others keep their own.
        """
        if not clears_gradients(trainer):
            return
        groups = trainer.optimizer.param_groups
        cleared = {id(parameter) for group in groups for parameter in group["params"]}
        for name, parameter in network.named_parameters():
            if parameter.grad is not None and id(parameter) in cleared:
                key = _key(name, parameter.grad)
                parameter.grad = self._gradients.setdefault(key, parameter.grad)


def clears_gradients(trainer: object) -> TypeGuard[SupervisedTrainer]:
    """Return whether each iteration of a trainer begins with ``zero_grad``: MONAI's own does."""
    return type(trainer) is SupervisedTrainer and trainer._process_function == trainer._iteration


def _key(name: str, tensor: torch.Tensor) -> tuple[object, ...]:
    return (name, tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
