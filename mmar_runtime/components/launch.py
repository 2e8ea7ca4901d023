"""The place of this process among the processes of a run, known without importing torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from mmar_runtime.errors import LaunchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """The place of this process among the processes of a training.

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

    @property
    def first(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.rank == 0


ALONE = Processes()


def launched_processes(environment: Mapping[str, str] = os.environ) -> Processes:
    """Return the processes that ``torchrun`` has started; one process if nothing has started it.

    Raises:
        LaunchError: the environment names only a part of it, or a value that is not a number.
    """
    if "WORLD_SIZE" not in environment:
        return ALONE
    return Processes(
        rank=_number("RANK", environment),
        local_rank=_number("LOCAL_RANK" if "LOCAL_RANK" in environment else "RANK", environment),
        count=_number("WORLD_SIZE", environment),
    )


def _number(name: str, environment: Mapping[str, str]) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise LaunchError(
            f"the environment has WORLD_SIZE={environment['WORLD_SIZE']!r}, so this is one of "
            f"several processes, but {name} is {text!r} and no number. Start them with torchrun, "
            "or take WORLD_SIZE out of the environment"
        )
    return int(text)


def check_launch(processes: Processes, *, multi_gpu: bool) -> None:
    """Hold ``multi_gpu`` against how this process was started.

    Raises:
        LaunchError: the config says several processes and the environment one, or the reverse.
    """
    if multi_gpu and not processes.several:
        raise LaunchError(
            "multi_gpu is true, but this is a single process. Start several:\n"
            "    torchrun --nproc_per_node=2 -m medl.apps.train -m MMAR --set multi_gpu=True\n"
            "    or run it with --set multi_gpu=False"
        )
    if processes.several and not multi_gpu:
        raise LaunchError(
            f"{processes.count} processes were started, but multi_gpu is false: each would run "
            "by itself and write the same files. Add --set multi_gpu=True"
        )
