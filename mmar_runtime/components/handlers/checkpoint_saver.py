"""MONAI's CheckpointSaver with writes that are whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from ignite.handlers.checkpoint import BaseSaveHandler
from monai.handlers import CheckpointSaver

from mmar_runtime.errors import NotFiniteError, RunAborted
from mmar_runtime.files import write_atomically
from mmar_runtime.metrics import defined

logger = logging.getLogger(__name__)

Listener = Callable[[Path], object]


class AtomicDiskSaver(BaseSaveHandler):
    """Writes a checkpoint next to its place and moves it there.

    MONAI's own saver writes into the file itself, and deletes the previous best model before it
    writes the next file; an interruption at the wrong moment leaves no model or half a model.

    Args:
        folder: where checkpoints go.
        filename: the name that every checkpoint gets; None for ignite's own names.
        listeners: each gets the path of every checkpoint that the saver writes.
    """

    def __init__(self, folder: Path, filename: str | None, listeners: list[Listener]) -> None:
        self.folder = folder
        self.filename = filename
        self.listeners = listeners

    def __call__(
        self,
        checkpoint: Mapping[str, Any],
        filename: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint, under the fixed name if the saver has one."""
        if name := _not_a_number(checkpoint):
            raise NotFiniteError(
                f"{name} of the model is not a number, so no checkpoint is written. Models that "
                "were saved before are kept. Lower the learning rate, or look for images that are "
                "not finite"
            )
        path = self.folder / (self.filename or filename)
        write_atomically(path, lambda stream: torch.save(checkpoint, stream))
        for listener in self.listeners:
            listener(path)

    def remove(self, filename: str) -> None:
        """Delete an outdated checkpoint, unless its name is fixed: its successor replaces it."""
        if self.filename is None:
            (self.folder / filename).unlink(missing_ok=True)


def _not_a_number(checkpoint: Mapping[str, Any]) -> str:
    """Return the name of the first tensor that holds NaN; empty without any.

    Infinity may be meant, as in the mask of an attention.
    """
    waiting = list(checkpoint.items())
    while waiting:
        name, value = waiting.pop(0)
        if isinstance(value, torch.Tensor):
            if value.is_floating_point() and bool(torch.isnan(value).any()):
                return str(name)
        elif isinstance(value, Mapping):
            waiting += value.items()
    return ""


class AtomicCheckpointSaver(CheckpointSaver):
    """``CheckpointSaver`` as MONAI has it, arguments and all, but for how and when it writes.

    A run that fails leaves its last weights as the final model, as with MONAI, unless its first
    batch fails. A run that someone has stopped does not: its weights are not a result, and may be
    those of half an epoch.

    Attributes:
        listeners: each gets the path of every checkpoint that the saver writes.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], **arguments: Any) -> None:
        super().__init__(save_dir, save_dict, **arguments)
        self.listeners: list[Listener] = []
        self._key_metric: str | None = arguments.get("key_metric_name")
        self._names = {
            "_final_checkpoint": arguments.get("final_filename"),
            "_key_metric_checkpoint": arguments.get("key_metric_filename"),
            "_interval_checkpoint": None,
        }
        for attribute, filename in self._names.items():
            checkpoint = getattr(self, attribute)
            if checkpoint is not None:
                checkpoint.save_handler = AtomicDiskSaver(Path(save_dir), filename, self.listeners)

    def files(self) -> list[str]:
        """Return the names of the files that hold what this training has saved so far."""
        return [
            filename or item.filename
            for attribute, filename in self._names.items()
            if (checkpoint := getattr(self, attribute)) is not None
            for item in checkpoint._saved
        ]

    def metrics_completed(self, engine: Engine) -> None:
        """Save the model if it is the best so far; a model without a defined key metric is not."""
        name = str(self._key_metric or getattr(engine.state, "key_metric_name", None))
        if defined(float(engine.state.metrics[name])) is None:
            logger.warning("%s is undefined, so the model is not kept as the best", name)
            return
        super().metrics_completed(engine)

    def exception_raised(self, engine: Engine, e: BaseException) -> None:
        """Save the final model and raise ``e`` again; only raise it if there is none to save."""
        if isinstance(e, KeyboardInterrupt | NotFiniteError | RunAborted):
            raise e
        if engine.state.iteration <= 1:  # counted when it begins: nothing has been trained
            raise e
        super().exception_raised(engine, e)  # type: ignore[arg-type]  # ignite hands over any
