"""The point from which an interrupted training goes on as if nothing had happened.

After an epoch, the runtime writes all state of the next epoch into a file: weights, optimizer,
schedule, counters, the savers' best scores, and the state of every random source.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd

from mmar_runtime.components.builder import BuildContext
from mmar_runtime.components.handlers.checkpoint_saver import AtomicCheckpointSaver
from mmar_runtime.components.processes import agreed_number
from mmar_runtime.config.data_list import lists_of_cases
from mmar_runtime.config.file_keys import file_keys
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import CheckpointError
from mmar_runtime.files import ends_digest, write_atomically
from mmar_runtime.workflows.observing import ShouldStop
from mmar_runtime.workflows.session import seed_everything
from mmar_runtime.workflows.training_state import StatefulObjects

FORMAT = 2
SHARE_OF_TIME = 100
"""A point is written when training has since taken this many times as long as the last writing."""

MAX_LISTED = 5
MAY_CHANGE = ("epochs", "print_conf")
"""Variables that may differ between the interrupted and the resumed run."""


@dataclass(kw_only=True, eq=False)
class ResumePoint:
    """Writes the point during a training, and restores a written point before it.

    Attributes:
        path: the file.
        training: the objects with state; the epochs of its trainer are the points.
        savers: handlers that keep track of best models; none in a process that saves nothing.
        config: the configuration, which has to be equal when the training goes on.
        should_stop: a point reached while this is true is not written: the validation after the
            epoch may have been cut short.
        clock: seconds, from any start.
    """

    path: Path
    training: StatefulObjects
    savers: list[AtomicCheckpointSaver]
    config: Mapping[str, Any]
    should_stop: ShouldStop
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._written = self.clock()
        self._took = 0.0
        self._is_own = False

    def write_after_epochs(self) -> None:
        """Write the point after each epoch from now on, at a small share of the time.

        A point of an earlier training stays until this training validates for the first time:
        then this training replaces the earlier best model, and the earlier point is worthless.
        """
        self.training.trainer.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        if self.training.evaluator is not None:
            self.training.evaluator.add_event_handler(Events.STARTED, self._forget_earlier)

    def _forget_earlier(self) -> None:
        if not self._is_own:
            self.path.unlink(missing_ok=True)

    def _after_epoch(self, engine: Engine) -> None:
        if self.should_stop():
            return
        last = engine.state.epoch == engine.state.max_epochs
        if not last and self.clock() - self._written < SHARE_OF_TIME * self._took:
            return
        started = self.clock()
        content = self._content()
        write_atomically(self.path, lambda stream: torch.save(content, stream))
        self._is_own = True
        self._written = self.clock()
        self._took = self._written - started

    def _content(self) -> dict[str, Any]:
        scaler = getattr(self.training.trainer, "scaler", None)
        return {
            "format": FORMAT,
            "config": self.config,
            "training": self.training.state(),
            "savers": [saver_state(saver) for saver in self.savers],
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": random_state(),
        }

    def restore(self) -> None:
        """Continue from the written point: the trainer's next run starts with the next epoch.

        Raises:
            CheckpointError: there is no point, it cannot be read, it belongs to another config, or
                its training is complete.
        """
        content = self._read()
        trainer = self.training.trainer
        first = content["training"]["trainer"]["epoch"] + 1
        if trainer.state.max_epochs is not None and first > trainer.state.max_epochs:
            raise CheckpointError(
                f"the training of {str(self.path)!r} is complete after epoch {first - 1}; "
                "to go on, ask for more: --set epochs=..."
            )
        try:
            self.training.put_back(content["training"])
        except ValueError as error:  # code of the MMAR has changed
            raise CheckpointError(f"{str(self.path)!r} does not fit {error}") from error
        if self.savers:
            for saver, state in zip(self.savers, content["savers"], strict=True):
                restore_saver(saver, state)
        self._is_own = True

        def at_first_epoch(engine: Engine) -> None:
            # As late as possible: handlers before an epoch may draw numbers too. The scaler
            # is made anew by each run.
            restore_random(content["random"])
            scaler = getattr(engine, "scaler", None)
            if scaler is not None and content["scaler"] is not None:
                scaler.load_state_dict(content["scaler"])

        # ignite counts by the epoch's number, not by how often the event was fired in this run.
        trainer.add_event_handler(Events.EPOCH_STARTED(once=first), at_first_epoch)

    def _read(self) -> dict[str, Any]:
        if not self.path.is_file():
            raise CheckpointError(
                f"there is no {str(self.path)!r} to resume from; it is written after the first "
                "epoch. Start without --resume."
            )
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{str(self.path)!r} cannot be read: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(
                f"{str(self.path)!r} is not a point of this version. Start without --resume."
            )
        changed = changed_places(content["config"], self.config)
        if changed:
            listed = ", ".join(changed[:MAX_LISTED]) + (", ..." if changed[MAX_LISTED:] else "")
            raise CheckpointError(
                f"{str(self.path)!r} belongs to another configuration; different: {listed}\n"
                "    Only epochs may change ('data' are the cases and what is in their files); or "
                "start anew without --resume."
            )
        return content


def transforms_follow_torch(trainer: Engine, context: BuildContext) -> None:
    """Seed the data set's transforms from torch's random source at the start of each epoch.

    MONAI's transforms keep random states of their own; this way torch's state says it all. Of
    several processes, the state of the first is enough.
    """

    def seed(engine: Engine) -> None:
        dataset = getattr(engine.state.dataloader or engine.data_loader, "dataset", None)  # type: ignore[attr-defined]  # MONAI's engines have a data_loader
        drawn = int(torch.randint(2**31, ()).item())
        if context.processes.several:
            drawn = agreed_number(drawn, context.device) + context.processes.rank
            seed_everything(drawn)
        if dataset is not None:
            set_rnd(dataset, drawn)

    trainer.add_event_handler(Events.EPOCH_STARTED, seed)


def comparable(config: TrainConfig, *, processes: int) -> dict[str, Any]:
    """Return the values that have to be equal in all parts of a training.

    ``data`` are digests of the cases of each list and of their files, so no name of one is in it.
    """
    content = {**config.as_json(), "processes": processes, "data": _data_of(config)}
    return {name: value for name, value in content.items() if name not in MAY_CHANGE}


def _data_of(config: TrainConfig) -> dict[str, list[str]]:
    keys = file_keys(config)
    return {
        f"{section.location.place}.{cases.key}": [_case_digest(item, keys) for item in cases.items]
        for section, cases in lists_of_cases(config)
    }


def _case_digest(item: Mapping[str, Any], keys: Collection[str]) -> str:
    """Return a digest of a case: of its values, and of the files that it names."""
    total = hashlib.sha256(json.dumps(item, sort_keys=True).encode())
    for key in sorted(keys & item.keys()):
        value = item[key]
        for file in value if isinstance(value, list) else [value]:
            total.update(ends_digest(Path(file)))
    return total.hexdigest()


def changed_places(old: Any, new: Any, place: str = "") -> list[str]:
    """Return where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [
            changed
            for key in keys
            for changed in changed_places(old.get(key), new.get(key), f"{place}.{key}".strip("."))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            changed
            for index, (before, after) in enumerate(zip(old, new, strict=True))
            for changed in changed_places(before, after, f"{place}[{index}]")
        ]
    # max_epochs holds the value of {epochs}.
    return [] if old == new or place == "train.trainer.args.max_epochs" else [place]


def _checkpoints(saver: AtomicCheckpointSaver) -> Iterator[tuple[str, Any]]:
    for name in ("_final_checkpoint", "_key_metric_checkpoint", "_interval_checkpoint"):
        checkpoint = getattr(saver, name)
        if checkpoint is not None:
            yield name, checkpoint


def saver_state(saver: AtomicCheckpointSaver) -> dict[str, Any]:
    """Return which checkpoints a saver has written, and how good they are."""
    return {
        name: [[float(item.priority), item.filename] for item in checkpoint._saved]
        for name, checkpoint in _checkpoints(saver)
    }


def restore_saver(saver: AtomicCheckpointSaver, saved: Mapping[str, Any]) -> None:
    """Give a saver its former files and scores, so that a worse model replaces nothing."""
    for name, checkpoint in _checkpoints(saver):
        checkpoint.load_state_dict({"_saved": [tuple(item) for item in saved[name]]})


def random_state() -> dict[str, Any]:
    """Return the state of every random source, as tensors and plain values."""
    legacy: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = legacy
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        # That of the GPU in use; a question to another GPU would take memory there.
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": [str(kind), torch.from_numpy(keys.astype("int64")), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def restore_random(saved: Mapping[str, Any]) -> None:
    """Put every random source back."""
    torch.set_rng_state(saved["torch"])
    if torch.cuda.is_initialized() and saved["cuda"] is not None:
        torch.cuda.set_rng_state(saved["cuda"])
    kind, keys, position, has_gauss, cached = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype("uint32"), position, has_gauss, cached))
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
