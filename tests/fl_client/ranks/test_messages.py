"""What goes from process to process arrives as it was sent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_client.ranks.messages import (
    error_from,
    error_message,
    read_weights,
    result_from,
    update_from,
    update_message,
    write_weights,
)
from fl_client.status_words import status_word
from mmar_runtime.config.location import Location
from mmar_runtime.errors import (
    CheckpointError,
    ComponentError,
    ConfigError,
    DataError,
    LaunchError,
    NotFiniteError,
    PolicyError,
    Problem,
    UnfitDataError,
    WeightsError,
)
from mmar_runtime.exchange.messages import SiteReport, Update
from mmar_runtime.metrics import ClassValue
from mmar_runtime.results import EpochReport, EvaluationResult, Finding
from tests.conftest import metric

WHOLE = metric(
    0.1 + 0.2, 2, undefined=1, classes={"spleen": ClassValue(value=1 / 3, counted=2, missed=1)}
)


def over_the_wire(message: Any) -> Any:
    return json.loads(json.dumps(message))


def test_weights_keep_their_bits_types_shapes_and_order(tmp_path: Path) -> None:
    weights = {
        "z": torch.tensor([[1.0, math.nan], [-0.0, math.inf]]),
        "a": torch.tensor(7),
        "half": torch.tensor([0.1], dtype=torch.bfloat16),
        "turned": torch.arange(6).reshape(2, 3).t(),
        "none": torch.zeros(0, 3),
    }

    told = over_the_wire(write_weights(weights, tmp_path / "one.safetensors"))
    found = read_weights(told, tmp_path)

    assert list(found) == list(weights)
    for name, tensor in weights.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_an_update_keeps_every_digit() -> None:
    report = SiteReport(
        received_metrics={"dice": WHOLE},
        local_metrics={"dice": metric(None, 3, unit="mm", withheld=True)},
        epochs=(
            EpochReport(epoch=1, loss=1 / 3, metrics={"acc": metric(2 / 3)}),
            EpochReport(epoch=2, loss=math.nan),
        ),
        seconds=1.5,
        built={"train.model": 1},
        process="p",
    )
    difference = {"w": torch.ones(1)}
    update = Update(round_number=2, difference=difference, steps=4, report=report)

    found = update_from(over_the_wire(update_message(update)), difference)

    assert math.isnan(found.report.epochs[1].loss or 0)
    assert repr(found) == repr(update)


def test_a_result_keeps_every_digit() -> None:
    missed = Finding(case="case_7.nii.gz", label="spleen", fault="missed")
    result = EvaluationResult(
        key_metric="dice", metrics={"dice": WHOLE}, cases=3, findings=(missed,)
    )

    assert result_from(over_the_wire(result.as_dict())) == result


PROBLEMS = [Problem(Location("a.json") / "train" / 3, "is wrong", "Mend it.", "rule")]


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(PROBLEMS),
        CheckpointError("secret"),
        ComponentError("secret"),
        DataError("secret"),
        LaunchError("secret"),
        NotFiniteError("secret"),
        PolicyError("secret"),
        UnfitDataError("secret"),
        WeightsError("secret"),
        MemoryError("secret"),
        torch.OutOfMemoryError("secret"),
        KeyError("secret"),
    ],
)
def test_an_error_has_the_same_kind_text_and_status_word(error: Exception) -> None:
    found = error_from(over_the_wire(error_message(error)), "process 1 of 2")

    assert status_word(found) == status_word(error)
    if not isinstance(error, KeyError):
        assert (type(found), str(found)) == (type(error), str(error))
    else:
        assert str(found) == "KeyError: 'secret'"


def test_a_loss_that_is_not_finite_is_a_fault_of_weights_and_data_that_do_not_fit_of_data() -> None:
    assert status_word(NotFiniteError("at a.nii")) == "weights-error"
    assert status_word(UnfitDataError.of(PROBLEMS)) == "data-error"


def test_all_problems_of_a_configuration_arrive_with_their_places() -> None:
    found = error_from(over_the_wire(error_message(ConfigError(PROBLEMS))), "process 0 of 2")

    assert isinstance(found, ConfigError)
    assert list(found.problems) == PROBLEMS


def test_memory_that_ran_out_is_told_also_from_inside_a_component() -> None:
    error = ComponentError("the run failed")
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory")

    found = error_from(over_the_wire(error_message(error)), "process 1 of 2")

    assert isinstance(found, ComponentError)
    assert status_word(found) == "out-of-memory"


def test_the_note_says_in_which_process_and_where() -> None:
    try:
        raise DataError("no image")
    except DataError as error:
        message = error_message(error)

    [note] = error_from(message, "process 1 of 2").__notes__

    assert note.startswith("in process 1 of 2:\nTraceback")
    assert "test_messages.py" in note
