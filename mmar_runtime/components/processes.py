"""A run in several processes: the shares of its data, and the values that all agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from monai.data.utils import partition_dataset
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from mmar_runtime.components.launch import Processes
from mmar_runtime.config.location import Location
from mmar_runtime.errors import LaunchError

Item = TypeVar("Item")

PATIENCE = timedelta(days=7)
"""How long a process waits for the others. One may read its cache for hours while another is done;
their starter ends them all when one has ended."""


@contextmanager
def process_group(processes: Processes, device: torch.device) -> Iterator[None]:
    """Connect the processes, with NCCL between GPUs and gloo else; do nothing for a single process.

    Inside of an existing group, use that group.

    Raises:
        LaunchError: the group that is there connects other devices.
    """
    if not processes.several:
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    if dist.is_initialized():
        if dist.get_backend() != backend:
            raise LaunchError(
                f"these processes are connected by {dist.get_backend()}, and {device.type} needs "
                f"{backend}. Several processes need one use_gpu for all documents of a job"
            )
        yield
        return
    # The processes find each other by entries in a common store, and torchrun's store outlives
    # the group: a second group in the same process would read the addresses of the first.
    store, rank, count = next(iter(rendezvous("env://")))
    number = store.add(f"group of {rank}", 1)
    own_store = PrefixStore(f"group {number}", store)
    dist.init_process_group(backend, store=own_store, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        # ignite's first question is a collective operation. Asked later by a handler of one rank
        # alone, it would wait for ever.
        idist.sync()
        yield
    finally:
        dist.destroy_process_group()


def own_part(
    items: Sequence[Item], processes: Processes, *, training: bool, place: Location
) -> list[Item]:
    """Return the items of a data list that this process works on.

    For training, the list is shuffled, always in the same way, and dealt out; each process gets
    equally many, so some items may go to two. For evaluation each item goes to exactly one process,
    and the joined parts are the list: gathered results have the order of a single process.

    Raises:
        LaunchError: there are fewer items than processes.
    """
    if not processes.several:
        return list(items)
    if len(items) < processes.count:
        cases = "1 case" if len(items) == 1 else f"{len(items)} cases"
        raise LaunchError(
            f"{place}: {cases} cannot be shared by {processes.count} processes; start fewer"
        )
    if training:
        parts = partition_dataset(
            items, num_partitions=processes.count, shuffle=True, seed=0, even_divisible=True
        )
        return list(parts[processes.rank])
    size, larger = divmod(len(items), processes.count)  # the first processes take one item more
    start = processes.rank * size + min(processes.rank, larger)
    return list(items[start : start + size + (processes.rank < larger)])


def averaging_gradients(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Return the network with gradients averaged over all processes, as the trainer needs it."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        return network
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices)


def agree_on_buffers(network: torch.nn.Module) -> None:
    """Give every process the buffers of the first one, such as batch norm's statistics."""
    for buffer in network.buffers():
        dist.broadcast(buffer, src=0)


def agreed_number(number: int, device: torch.device) -> int:
    """Return the first process's number, in every process."""
    shared = torch.tensor([number], dtype=torch.int64, device=device)
    dist.broadcast(shared, src=0)
    return int(shared.item())


def least_number(number: int, device: torch.device) -> int:
    """Return the least of the processes' numbers, in every process."""
    shared = torch.tensor([number], dtype=torch.int64, device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MIN)
    return int(shared.item())


def asked_together(
    question: Callable[[], bool], processes: Processes, device: torch.device
) -> Callable[[], bool]:
    """Return the question with an answer that all processes share: yes if any says yes.

    Each process has to ask equally often.
    """
    if not processes.several:
        return question
    return lambda: any_process(question(), device)


def any_process(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set in any process; each has to ask equally often."""
    shared = torch.tensor([int(flag)], dtype=torch.int64, device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item())
