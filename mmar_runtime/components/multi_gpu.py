"""ignite's supervised engines on several devices, as MONAI offered them until 1.3.

They are plain ignite engines, ``run(data, max_epochs)``, for a trainer of the MMAR's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from ignite.engine import Engine, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Metric
from monai.engines.utils import default_prepare_batch, get_devices_spec
from torch.nn.parallel import DataParallel

from mmar_runtime.components.processes import averaging_gradients

Devices: TypeAlias = Sequence[torch.device | str] | None


def create_multigpu_supervised_trainer(
    net: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[Any, Any], torch.Tensor],
    devices: Devices = None,
    non_blocking: bool = False,
    prepare_batch: Callable[..., Any] = default_prepare_batch,
    output_transform: Callable[[Any, Any, Any, torch.Tensor], Any] = lambda x, y, y_pred, loss: (
        loss.item()
    ),
    distributed: bool = False,
) -> Engine:
    """Return an engine that does an optimizer step for each batch.

    Args:
        net: the network; it is moved to the first device.
        optimizer: the optimizer of the network's parameters.
        loss_fn: gets prediction and target.
        devices: where to compute: None is every GPU, an empty list the CPU. Several devices share
            each batch.
        non_blocking: whether batches are copied to a GPU in the background.
        prepare_batch: gets batch, device and ``non_blocking``; returns input and target.
        output_transform: gets input, target, prediction and loss; its result becomes
            ``engine.state.output``, by default the loss as a number.
        distributed: whether this is one of several processes, which average their gradients;
            each has one device of its own.

    Raises:
        RuntimeError: every GPU is wanted, and there is none.
        ValueError: ``distributed`` with more than one device.
    """
    network, device = _on_devices(net, devices, distributed=distributed)
    return create_supervised_trainer(
        network,
        optimizer,
        loss_fn,
        device=device,
        non_blocking=non_blocking,
        prepare_batch=prepare_batch,
        output_transform=output_transform,
    )


def create_multigpu_supervised_evaluator(
    net: torch.nn.Module,
    metrics: Mapping[str, Metric] | None = None,
    devices: Devices = None,
    non_blocking: bool = False,
    prepare_batch: Callable[..., Any] = default_prepare_batch,
    output_transform: Callable[[Any, Any, Any], Any] = lambda x, y, y_pred: (y_pred, y),
    distributed: bool = False,
) -> Engine:
    """Return an engine that predicts each batch without gradients and computes ``metrics``.

    Arguments and errors as for ``create_multigpu_supervised_trainer``, but for ``metrics``, by the
    name that they get in ``engine.state.metrics``, and ``output_transform``: it gets input, target
    and prediction, and returns the input of the metrics, by default prediction and target.
    """
    network, device = _on_devices(net, devices, distributed=distributed)
    return create_supervised_evaluator(
        network,
        metrics=dict(metrics or {}),
        device=device,
        non_blocking=non_blocking,
        prepare_batch=prepare_batch,
        output_transform=output_transform,
    )


def _on_devices(
    net: torch.nn.Module, devices: Devices, *, distributed: bool
) -> tuple[torch.nn.Module, torch.device]:
    """Return the network as it runs on the devices, and the device of the batches."""
    specs = get_devices_spec(devices)
    device = specs[0]
    if distributed and len(specs) > 1:
        raise ValueError(
            f"distributed: each process has one device, found {len(specs)}: "
            f"{', '.join(map(str, specs))}; give devices=[...] with this process's own"
        )
    net = net.to(device)
    if distributed:
        return averaging_gradients(net, device), device
    if len(specs) > 1:
        return DataParallel(net, device_ids=specs), device
    return net, device
