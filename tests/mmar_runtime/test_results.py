"""Results are values: frozen, documented, and ready for JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mmar_runtime.exchange.messages import SiteReport
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.metrics import MetricValue
from mmar_runtime.results import EpochReport, EvaluationResult, TrainResult

DICE = MetricValue(value=0.75, counted=2, undefined=1)
ACCURACY = MetricValue(value=0.5, counted=3)
EVALUATION = EvaluationResult(
    key_metric="val_mean_dice", metrics={"val_mean_dice": DICE, "val_acc": ACCURACY}, cases=3
)
EPOCH = EpochReport(epoch=1, loss=0.25, metrics={"train_acc": ACCURACY})


def test_key_value_is_the_value_of_the_key_metric() -> None:
    assert EVALUATION.key_value == DICE


def test_an_evaluation_without_key_metric_has_no_key_value() -> None:
    result = EvaluationResult(key_metric=None, metrics={"val_acc": ACCURACY}, cases=3)
    with pytest.raises(KeyError, match="no key metric"):
        _ = result.key_value


def test_results_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVALUATION.cases = 4  # type: ignore[misc]  # that is what is refused


def test_an_evaluation_as_json() -> None:
    assert json.loads(json.dumps(EVALUATION.as_dict())) == {
        "key_metric": "val_mean_dice",
        "metrics": {"val_mean_dice": DICE.as_dict(), "val_acc": ACCURACY.as_dict()},
        "cases": 3,
        "findings": [],
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
        "epochs": [{"epoch": 1, "loss": 0.25, "metrics": {"train_acc": ACCURACY.as_dict()}}],
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
        received_metrics={"val_mean_dice": ACCURACY},
        local_metrics={"val_mean_dice": DICE},
        epochs=(EPOCH,),
        seconds=2.0,
        built={"train.model": 1},
        process="a1",
    )
    assert json.loads(json.dumps(to_plain(report))) == {
        "received_metrics": {"val_mean_dice": ACCURACY.as_dict()},
        "local_metrics": {"val_mean_dice": DICE.as_dict()},
        "epochs": [{"epoch": 1, "loss": 0.25, "metrics": {"train_acc": ACCURACY.as_dict()}}],
        "seconds": 2.0,
        "built": {"train.model": 1},
        "process": "a1",
    }
