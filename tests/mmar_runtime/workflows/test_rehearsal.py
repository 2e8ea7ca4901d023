"""The first batch of the validation, tried before the training: it tells, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.config.loader import load_train_config
from mmar_runtime.errors import ComponentError
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import digest, read_checkpoint
from mmar_runtime.workflows.training import TrainingWorkflow, train

Edited = Callable[[Path, Callable[[Any], object]], Path]


def trained(root: Path) -> str:
    """Return the digest of the last weights."""
    train(load_train_config(Mmar.open(root)), allow_code=False)
    return digest(read_checkpoint(root / "models/final_model.pt").weights)


def edit(root: Path, edited: Edited, change: Callable[[Any], object]) -> None:
    edited(root / "config/config_train.json", lambda config: change(config["validate"]))


def test_a_training_has_the_same_weights_with_it(
    tiny_mmar: Path, make_mmar: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_rehearsal = trained(tiny_mmar)
    monkeypatch.setattr(TrainingWorkflow, "rehearse", lambda self: None)

    assert trained(make_mmar(tmp_path / "other")) == with_rehearsal


def test_a_metric_that_fails_ends_the_run_before_the_first_epoch(
    tiny_mmar: Path, edited: Edited
) -> None:
    edit(tiny_mmar, edited, lambda section: section["post_transforms"].pop())

    with pytest.raises(ComponentError, match=r"config_train.json: validate: the run failed"):
        trained(tiny_mmar)

    assert not list((tiny_mmar / "models").iterdir())


def test_a_validation_that_writes_files_is_not_tried(
    tiny_mmar: Path, edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = {
        "name": "SaveImaged",
        "args": {"keys": "pred", "output_dir": "{MMAR_EVAL_OUTPUT_PATH}"},
    }
    edit(tiny_mmar, edited, lambda section: section["post_transforms"].append(saver))
    monkeypatch.setattr(TrainingWorkflow, "run", lambda self: ())

    train(load_train_config(Mmar.open(tiny_mmar)), allow_code=False)

    assert not (tiny_mmar / "eval").exists()
