"""What holds for a whole run: device, threads, seed, TF32 and cuDNN; put back afterwards."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from monai.utils import set_determinism

from mmar_runtime.components.builder import BuildContext
from mmar_runtime.config.sections import RuntimeSettings, WorkflowConfig
from mmar_runtime.errors import ConfigError, MmarError, Problem

logger = logging.getLogger(__name__)

THREADS_VARIABLE = "NUM_THREADS"
"""A site's own value: how many threads torch computes with. It changes the last bits of sums."""


@contextmanager
def session(config: WorkflowConfig, *, allow_code: bool) -> Iterator[BuildContext]:
    """Set up this process for a run of ``config`` and put its settings back at the end.

    Raises:
        ConfigError: NUM_THREADS is not a positive whole number.
        MmarError: several processes or GPUs are asked for.
    """
    if config.settings.multi_gpu:
        raise MmarError(
            "multi_gpu is true, but several GPUs are not supported yet; "
            "run with --set multi_gpu=False"
        )
    before = _Flags.now()
    try:
        _set_threads(config)
        _apply(config.settings)
        device = choose_device(config.settings)
        yield BuildContext(
            device=device,
            amp=config.settings.amp and device.type == "cuda",
            allow_code=allow_code,
        )
    finally:
        before.restore()


def choose_device(settings: RuntimeSettings) -> torch.device:
    """The GPU of this process if there is one and the config wants it, else the CPU."""
    if settings.use_gpu and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def seed_everything(seed: int) -> None:
    """Seed every random source that torch, numpy, Python and MONAI's transforms draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _apply(settings: RuntimeSettings) -> None:
    if settings.random_seed is not None:
        set_determinism(settings.random_seed)
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


class _Flags:
    """PyTorch's process-wide settings at one moment."""

    def __init__(self, values: tuple[bool, bool, bool, bool, int]) -> None:
        self._values = values

    @classmethod
    def now(cls) -> _Flags:
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
        (
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            threads,
        ) = self._values
        torch.set_num_threads(threads)
