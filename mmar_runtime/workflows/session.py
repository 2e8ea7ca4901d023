"""The settings of a whole run: device, threads, seed, TF32 and cuDNN; restored afterwards."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from monai.utils import set_determinism

from mmar_runtime.components.builder import BuildContext
from mmar_runtime.components.launch import ALONE, Processes, check_launch, launched_processes
from mmar_runtime.components.processes import process_group
from mmar_runtime.config.sections import THREADS_VARIABLE, RuntimeSettings, WorkflowConfig
from mmar_runtime.errors import ConfigError, LaunchError, Problem
from mmar_runtime.policy.site_policy import DEFAULT_POLICY

logger = logging.getLogger(__name__)


@contextmanager
def session(
    config: WorkflowConfig,
    *,
    allow_code: bool,
    max_parameters: int = DEFAULT_POLICY.limits.parameters,
) -> Iterator[BuildContext]:
    """Set up this process for a run of ``config`` and put its settings back at the end.

    Args:
        config: the workflow.
        allow_code: whether components may come from the MMAR's own code.
        max_parameters: numbers that a network may have.

    Raises:
        ConfigError: NUM_THREADS is not a positive whole number.
        LaunchError: multi_gpu and the number of started processes contradict each other, or there
            are fewer GPUs than processes.
    """
    processes = launched_processes()
    check_launch(processes, multi_gpu=config.settings.multi_gpu)
    before = Flags.now()
    try:
        _set_threads(config)
        device = choose_device(config.settings, processes)
        with process_group(processes, device), ExitStack() as at_end:
            _apply(config.settings, processes)
            yield BuildContext(
                device=device,
                processes=processes,
                amp=config.settings.amp and device.type == "cuda",
                allow_code=allow_code,
                max_parameters=max_parameters,
                at_end=at_end,
            )
    finally:
        before.restore()


@contextmanager
def settings_alone(settings: RuntimeSettings) -> Iterator[None]:
    """Set cuDNN and TF32 as a config says, after any former run; restore them at the end.

    A session leaves settings alone that its config does not mention. So an evaluation after a
    training would have other last digits on a GPU than an evaluation in a fresh process.
    Here such settings have PyTorch's first values.
    """
    before = Flags.now()
    try:
        torch.backends.cudnn.deterministic = settings.random_seed is not None
        torch.backends.cudnn.benchmark = bool(settings.cudnn_benchmark)
        torch.backends.cuda.matmul.allow_tf32 = bool(settings.tf32)
        torch.backends.cudnn.allow_tf32 = settings.tf32 is not False
        yield
    finally:
        before.restore()


def choose_device(settings: RuntimeSettings, processes: Processes = ALONE) -> torch.device:
    """Return the GPU of this process if there is one and the config wants it, else the CPU.

    Raises:
        LaunchError: there are more processes than GPUs.
    """
    if not settings.use_gpu or not torch.cuda.is_available():
        return torch.device("cpu")
    number = processes.local_rank if processes.several else torch.cuda.current_device()
    if number >= torch.cuda.device_count():
        raise LaunchError(
            f"process {number} of this machine needs a GPU of its own, and there are "
            f"{torch.cuda.device_count()}. Start as many processes as there are GPUs, or set "
            "use_gpu to false"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def seed_everything(seed: int) -> None:
    """Seed every random source that torch, numpy, Python and MONAI's transforms draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _apply(settings: RuntimeSettings, processes: Processes) -> None:
    if settings.random_seed is not None:
        # Each process draws its own crops; the network's weights are the first process's anyway.
        set_determinism(settings.random_seed + processes.rank)
    if settings.cudnn_benchmark is not None:
        torch.backends.cudnn.benchmark = settings.cudnn_benchmark
    if settings.tf32 is not None:
        torch.backends.cuda.matmul.allow_tf32 = settings.tf32
        torch.backends.cudnn.allow_tf32 = settings.tf32


def _set_threads(config: WorkflowConfig) -> None:
    variable = config.variables.get(THREADS_VARIABLE)
    if variable is None:
        return
    value = variable.value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        message = f"has to be a positive whole number, found {value!r}"
        raise ConfigError([Problem(variable.source / THREADS_VARIABLE, message, "", "type")])
    torch.set_num_threads(value)


class Flags:
    """PyTorch's process-wide settings at one moment."""

    def __init__(self, values: tuple[bool, bool, bool, bool, int]) -> None:
        self._values = values

    @classmethod
    def now(cls) -> Flags:
        """Return the settings at this moment."""
        return cls(
            (
                torch.backends.cudnn.benchmark,
                torch.backends.cudnn.deterministic,
                torch.backends.cuda.matmul.allow_tf32,
                torch.backends.cudnn.allow_tf32,
                torch.get_num_threads(),
            )
        )

    def restore(self) -> None:
        """Set them again."""
        (
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            threads,
        ) = self._values
        torch.set_num_threads(threads)
