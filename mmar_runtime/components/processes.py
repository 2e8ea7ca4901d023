"""One training in several processes: who this one is, and what all of them have to agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist
from monai.data.utils import partition_dataset
from torch.nn.parallel import DistributedDataParallel

from mmar_runtime.errors import DataError, MmarError


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """The place of this process among those that run the same training.

    Attributes:
        rank: number of this process, from 0.
        local_rank: its number on this machine; it uses the GPU of that number.
        count: how many there are in all.
    """

    rank: int = 0
    local_rank: int = 0
    count: int = 1

    @property
    def several(self) -> bool:
        """Whether there is anybody to agree with."""
        return self.count > 1


ALONE = Processes()


def launched_processes(environment: Mapping[str, str] = os.environ) -> Processes:
    """What ``torchrun`` tells a process that it has started; alone if it was started otherwise."""
    if "WORLD_SIZE" not in environment:
        return ALONE
    return Processes(
        rank=int(environment["RANK"]),
        local_rank=int(environment.get("LOCAL_RANK", environment["RANK"])),
        count=int(environment["WORLD_SIZE"]),
    )


@contextmanager
def process_group(processes: Processes, device: torch.device) -> Iterator[None]:
    """Connect the processes: NCCL between GPUs, gloo else. Nothing for a single process."""
    if not processes.several:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        # ignite's first question is a collective operation. Asked later by a handler of one rank
        # alone, it would wait for ever.
        idist.sync()
        yield
    finally:
        dist.destroy_process_group()


def check_launch(processes: Processes, *, multi_gpu: bool) -> None:
    """Hold ``multi_gpu`` against how this process was started.

    Raises:
        MmarError: the one says several processes, the other one.
    """
    if multi_gpu and not processes.several:
        raise MmarError(
            "multi_gpu is true, but this is a single process. Start several:\n"
            "    torchrun --nproc_per_node=2 -m medl.apps.train -m MMAR --set multi_gpu=True\n"
            "    or train with --set multi_gpu=False"
        )
    if processes.several and not multi_gpu:
        raise MmarError(
            f"{processes.count} processes were started, but multi_gpu is false: each would train "
            "by itself and write the same files. Add --set multi_gpu=True"
        )


def own_part(items: list[Any], processes: Processes, *, training: bool) -> list[Any]:
    """The items of a data list that this process works on.

    For training each process gets equally many, so the last ones may appear twice; for evaluation
    each item goes to exactly one process.

    Raises:
        DataError: there are fewer items than processes.
    """
    if not processes.several:
        return items
    if len(items) < processes.count:
        raise DataError(
            f"{len(items)} cases cannot be shared by {processes.count} processes; start fewer"
        )
    parts = partition_dataset(
        items,
        num_partitions=processes.count,
        shuffle=training,
        seed=0,
        even_divisible=training,
    )
    return list(parts[processes.rank])


def averaging_gradients(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The network with gradients averaged over all processes, as the trainer needs it."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        return network
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices)


def agree_on_buffers(network: torch.nn.Module) -> None:
    """Give every process the buffers of the first one, such as batch norm's statistics."""
    for buffer in network.buffers():
        dist.broadcast(buffer, src=0)


def agreed_number(number: int, device: torch.device) -> int:
    """The first process's number, in every process."""
    shared = torch.tensor([number], dtype=torch.int64, device=device)
    dist.broadcast(shared, src=0)
    return int(shared.item())


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process; each has to ask equally often."""
    shared = torch.tensor([int(flag)], dtype=torch.int64, device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item())
