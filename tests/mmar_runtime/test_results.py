"""Results are values: frozen, documented, and ready for JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mmar_runtime.exchange.messages import SiteReport
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.results import EpochReport, EvaluationResult, TrainResult

EVALUATION = EvaluationResult(
    key_metric="val_mean_dice", metrics={"val_mean_dice": 0.75, "val_acc": 0.5}, cases=3
)
EPOCH = EpochReport(epoch=1, loss=0.25, metrics={"train_acc": 0.5})


def test_key_value_is_the_value_of_the_key_metric() -> None:
    assert EVALUATION.key_value == 0.75


def test_an_evaluation_without_key_metric_has_no_key_value() -> None:
    result = EvaluationResult(key_metric=None, metrics={"val_acc": 0.5}, cases=3)
    with pytest.raises(KeyError, match="no key metric"):
        _ = result.key_value


def test_results_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVALUATION.cases = 4  # type: ignore[misc]  # that is what is refused


def test_an_evaluation_as_json() -> None:
    assert json.loads(json.dumps(EVALUATION.as_dict())) == {
        "key_metric": "val_mean_dice",
        "metrics": {"val_mean_dice": 0.75, "val_acc": 0.5},
        "cases": 3,
    }


def test_a_training_as_json() -> None:
    result = TrainResult(
        epochs=(EPOCH,),
        iterations=4,
        seconds=1.23456,
        key_metric="val_mean_dice",
        best_metric=0.75,
        best_epoch=1,
        validations=1,
        checkpoints=("final_model.pt", "model.pt"),
    )
    assert json.loads(json.dumps(result.as_dict())) == {
        "epochs": [{"epoch": 1, "loss": 0.25, "metrics": {"train_acc": 0.5}}],
        "iterations": 4,
        "seconds": 1.235,
        "key_metric": "val_mean_dice",
        "best_metric": 0.75,
        "best_epoch": 1,
        "validations": 1,
        "checkpoints": ["final_model.pt", "model.pt"],
    }


def test_a_training_without_validation_has_no_best_model() -> None:
    result = TrainResult(epochs=(), iterations=4, seconds=1.0)
    assert (result.key_metric, result.best_metric, result.best_epoch) == (None, None, None)


def test_a_site_report_as_json() -> None:
    report = SiteReport(
        received_metrics={"val_mean_dice": 0.5},
        local_metrics={"val_mean_dice": 0.75},
        epochs=(EPOCH,),
        seconds=2.0,
        built={"train.model": 1},
        process="a1",
    )
    assert json.loads(json.dumps(to_plain(report))) == {
        "received_metrics": {"val_mean_dice": 0.5},
        "local_metrics": {"val_mean_dice": 0.75},
        "epochs": [{"epoch": 1, "loss": 0.25, "metrics": {"train_acc": 0.5}}],
        "seconds": 2.0,
        "built": {"train.model": 1},
        "process": "a1",
    }
