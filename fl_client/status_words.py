"""All that the server learns of an error at a site: one word. Its text stays at the site."""

from __future__ import annotations

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


def status_word(error: BaseException) -> str:
    """Return the one word for an error that may leave the site."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    if any(isinstance(cause, torch.OutOfMemoryError | MemoryError) for cause in causes):
        return "out-of-memory"
    if storage_fault(error) is not None:
        return "storage-error"
    for kind, word in STATUS_WORDS:
        if isinstance(error, kind):
            return word
    return "internal-error"


def keep_error(error: Exception, *, task: object, run: Path) -> tuple[str, Path]:
    """Write an error's text into the folder of the run; return its reference and its file."""
    reference = uuid.uuid4().hex[:8]
    path = run / f"error-{reference}.txt"
    text = "".join(traceback.format_exception(error))
    path.write_text(f"{task}: {error}\n\n{text}", encoding="utf-8")
    return reference, path
