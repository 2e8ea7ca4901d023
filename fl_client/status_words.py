"""All that the server learns of an error at a site: one word. Its text stays at the site."""

from __future__ import annotations

import sys
import traceback
import uuid
from pathlib import Path

import torch

from mmar_runtime.errors import (
    CheckpointError,
    ComponentError,
    ConfigError,
    DataError,
    LaunchError,
    NotFiniteError,
    PolicyError,
    ProcessLostError,
    StorageError,
    WeightsError,
)
from mmar_runtime.files import storage_fault

STATUS_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (PolicyError, "policy-declined"),
    (ConfigError, "config-refused"),
    (NotFiniteError, "weights-error"),
    (DataError, "data-error"),
    (WeightsError, "weights-error"),
    (CheckpointError, "checkpoint-error"),
    (StorageError, "storage-error"),
    (torch.OutOfMemoryError, "out-of-memory"),
    (MemoryError, "out-of-memory"),
    (ComponentError, "component-error"),
    (LaunchError, "launch-error"),
    (ProcessLostError, "process-lost"),
)

NO_CPU_MEMORY = "DefaultCPUAllocator: can't allocate memory"


def status_word(error: BaseException) -> str:
    """Return the one word for an error that may leave the site."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    if any(map(_is_out_of_memory, causes)):
        return "out-of-memory"
    if storage_fault(error) is not None:
        return "storage-error"
    for kind, word in STATUS_WORDS:
        if isinstance(error, kind):
            return word
    return "internal-error"


def _is_out_of_memory(error: BaseException) -> bool:
    # torch has no class of its own for the memory of the CPU.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or NO_CPU_MEMORY in str(error)


def keep_error(error: Exception, *, task: object, run: Path) -> tuple[str, str]:
    """Keep an error's text at the site; return its reference, and where the text is.

    The text goes into the folder of the run; on a full disk to the output of the process.
    """
    reference = uuid.uuid4().hex[:8]
    path = run / f"error-{reference}.txt"
    text = f"{task}: {error}\n\n{''.join(traceback.format_exception(error))}"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as fault:
        # Not the log: NVFlare may send a site's log of errors to the server.
        sys.stderr.write(f"{path.name} cannot be written: {fault}\n{text}")
        return reference, "the output of the process"
    return reference, path.name
