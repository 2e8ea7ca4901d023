"""Checkpoints are written whole or not at all, and a stopped run leaves none of half an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from mmar_runtime.components.conf import TrainConf
from mmar_runtime.components.handlers.checkpoint_saver import AtomicCheckpointSaver
from mmar_runtime.errors import NotFiniteError, RunAborted

Step = Callable[[Engine], None]


class Training:
    """An engine whose "training" sets the one weight to the number of the iteration."""

    def __init__(self, folder: Path, step: Step = lambda engine: None, **arguments: Any) -> None:
        self.folder = folder
        self.network = torch.nn.Linear(1, 1, bias=False)

        def iterate(engine: Engine, batch: Any) -> None:
            step(engine)
            with torch.no_grad():
                self.network.weight.fill_(engine.state.iteration)

        self.engine = Engine(iterate)
        conf = TrainConf({"epochs": 2, "train": {"model": {"name": "UNet"}}})
        save_dict = {"model": self.network, "train_conf": conf}
        AtomicCheckpointSaver(str(folder), save_dict, **arguments).attach(self.engine)

    def run(self, *, epochs: int, iterations: int = 1) -> None:
        self.engine.run(range(iterations), max_epochs=epochs)

    def weight_in(self, name: str) -> float:
        content = torch.load(self.folder / name, weights_only=True)
        return float(content["model"]["weight"].item())

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def scored(training: Training, scores: list[float]) -> Training:
    """Give the engine a key metric with one value for each epoch, before the saver looks at it."""

    def score(engine: Engine) -> None:
        engine.state.metrics["dice"] = scores[engine.state.epoch - 1]

    training.engine.state.key_metric_name = "dice"  # type: ignore[attr-defined]  # as MONAI does
    handlers = training.engine._event_handlers[Events.EPOCH_COMPLETED]
    training.engine.add_event_handler(Events.EPOCH_COMPLETED, score)
    handlers.insert(0, handlers.pop())
    return training


# --- What is written -----------------------------------------------------------------------------


def test_the_final_model_gets_its_name_and_holds_the_last_weights(tmp_path: Path) -> None:
    training = Training(tmp_path, save_final=True, final_filename="final_model.pt")
    training.run(epochs=2, iterations=3)
    assert training.files == ["final_model.pt"]
    assert training.weight_in("final_model.pt") == 6.0


def test_train_conf_can_be_read_without_trusting_the_file(tmp_path: Path) -> None:
    Training(tmp_path, save_final=True, final_filename="final_model.pt").run(epochs=1)
    content = torch.load(tmp_path / "final_model.pt", weights_only=True)
    assert content["train_conf"] == {"epochs": 2, "train": {"model": {"name": "UNet"}}}


def test_a_model_without_a_defined_key_metric_is_never_the_best(tmp_path: Path) -> None:
    training = Training(tmp_path, save_key_metric=True, key_metric_filename="model.pt")
    scored(training, [math.nan, 0.5, math.inf]).run(epochs=3)
    assert training.weight_in("model.pt") == 2.0

    never = Training(tmp_path / "never", save_key_metric=True, key_metric_filename="model.pt")
    scored(never, [math.nan]).run(epochs=1)
    assert never.files == []


def test_the_best_model_is_kept_and_a_worse_one_replaces_nothing(tmp_path: Path) -> None:
    training = Training(tmp_path, save_key_metric=True, key_metric_filename="model.pt")
    scored(training, [0.5, 0.7, 0.6]).run(epochs=3)
    assert training.files == ["model.pt"]
    assert training.weight_in("model.pt") == 2.0


def test_while_a_better_model_is_written_the_previous_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(tmp_path, save_key_metric=True, key_metric_filename="model.pt")
    seen: list[float | None] = []
    save = torch.save

    def watched(content: object, stream: Any) -> None:
        present = (tmp_path / "model.pt").exists()
        seen.append(training.weight_in("model.pt") if present else None)
        save(content, stream)

    monkeypatch.setattr(torch, "save", watched)
    scored(training, [0.5, 0.7, 0.8]).run(epochs=3)
    assert seen == [None, 1.0, 2.0]
    assert training.weight_in("model.pt") == 3.0


def test_interval_checkpoints_get_ignites_names_and_the_oldest_goes(tmp_path: Path) -> None:
    training = Training(tmp_path, save_interval=1, n_saved=2)
    training.run(epochs=3)
    assert training.files == ["checkpoint_epoch=2.pt", "checkpoint_epoch=3.pt"]
    assert training.weight_in("checkpoint_epoch=2.pt") == 2.0


# --- What goes wrong -----------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_model_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(tmp_path, save_key_metric=True, key_metric_filename="model.pt")
    scored(training, [0.5, 0.7]).run(epochs=1)

    def fail(content: object, stream: Any) -> None:
        stream.write(b"half a checkpoint")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        training.run(epochs=2)
    assert training.files == ["model.pt"]
    assert training.weight_in("model.pt") == 1.0


def in_iteration(number: int, error: BaseException) -> Step:
    def step(engine: Engine) -> None:
        if engine.state.iteration == number:
            raise error

    return step


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RunAborted("stopped")])
def test_a_stopped_run_leaves_no_final_model_of_half_an_epoch(
    tmp_path: Path, stop: BaseException
) -> None:
    training = Training(
        tmp_path, in_iteration(2, stop), save_final=True, final_filename="final_model.pt"
    )
    with pytest.raises(type(stop)):
        training.run(epochs=1, iterations=3)
    assert training.files == []


def test_a_run_that_fails_leaves_its_last_weights_as_with_monai(tmp_path: Path) -> None:
    training = Training(
        tmp_path,
        in_iteration(2, ValueError("loss is nan")),
        save_final=True,
        final_filename="final_model.pt",
    )
    with pytest.raises(ValueError, match="loss is nan"):
        training.run(epochs=1, iterations=3)
    assert training.weight_in("final_model.pt") == 1.0


def test_weights_that_are_not_a_number_are_not_written(tmp_path: Path) -> None:
    training = Training(tmp_path, save_final=True, final_filename="final_model.pt")
    training.run(epochs=1)

    def lose(_: Engine) -> None:
        with torch.no_grad():
            training.network.weight.fill_(torch.nan)

    training.engine.add_event_handler(Events.EPOCH_COMPLETED, lose)
    with pytest.raises(NotFiniteError, match="weight of the model is not a number"):
        training.run(epochs=1)

    assert training.files == ["final_model.pt"]
    assert training.weight_in("final_model.pt") == 1.0  # of the run before
