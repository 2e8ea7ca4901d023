"""What a site's process and its ranks tell each other, as plain values; weights go by files."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mmar_runtime.config.location import Location
from mmar_runtime.errors import (
    CheckpointError,
    ComponentError,
    ConfigError,
    DataError,
    LaunchError,
    PolicyError,
    Problem,
    WeightsError,
)
from mmar_runtime.exchange.messages import SiteReport, Update
from mmar_runtime.exchange.tensor_files import write_tensors
from mmar_runtime.results import EpochReport, EvaluationResult
from mmar_runtime.weights import Weights

KINDS: Mapping[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        CheckpointError,
        ComponentError,
        DataError,
        LaunchError,
        MemoryError,
        PolicyError,
        WeightsError,
        torch.OutOfMemoryError,
    )
}
"""Errors that arrive as what they were; any other arrives as a ``RuntimeError`` with its name."""


# --- weights


def write_weights(weights: Weights, path: Path) -> dict[str, Any]:
    """Write weights to a new file, and the message that names it; the order of the names counts."""
    write_tensors(path, weights)
    return {"file": path.name, "names": list(weights)}


def read_weights(message: Mapping[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    """The weights that a message names; they are as they were, in the same order."""
    found = load_file(folder / message["file"])
    return {name: found[name] for name in message["names"]}


# --- results


def update_message(update: Update) -> dict[str, Any]:
    """An update without its tensors."""
    return {
        "round_number": update.round_number,
        "steps": update.steps,
        "report": asdict(update.report),
    }


def update_from(message: Mapping[str, Any], difference: Weights) -> Update:
    """The update of a message and its tensors."""
    report = dict(message["report"])
    epochs = tuple(EpochReport(**one) for one in report.pop("epochs"))
    return Update(
        round_number=message["round_number"],
        difference=difference,
        steps=message["steps"],
        report=SiteReport(**report, epochs=epochs),
    )


def result_from(message: Mapping[str, Any]) -> EvaluationResult:
    """The result of an evaluation, from ``EvaluationResult.as_dict``."""
    return EvaluationResult(**message)


# --- errors


def error_message(error: BaseException) -> dict[str, Any]:
    """An error with its causes, and its traceback as text; for the site alone."""
    causes, current = [], error
    while True:
        causes.append({"kind": type(current).__name__, "text": str(current), **_problems(current)})
        if current.__cause__ is None:
            break
        current = current.__cause__
    return {"causes": causes, "traceback": "".join(traceback.format_exception(error))}


def error_from(message: Mapping[str, Any], whose: str) -> Exception:
    """The error of a message, of the same kind as far as it is one of ours, with its causes.

    Args:
        message: what ``error_message`` has made.
        whose: the process that it happened in, for the note with its traceback.
    """
    found: Exception | None = None
    for one in reversed(message["causes"]):
        outer = _one_error(one)
        outer.__cause__ = found
        found = outer
    assert found is not None  # an error has at least itself among its causes
    found.add_note(f"in {whose}:\n{message['traceback']}")
    return found


def _one_error(message: Mapping[str, Any]) -> Exception:
    kind, text = message["kind"], message["text"]
    if "problems" in message:
        return ConfigError([_problem(one) for one in message["problems"]])
    if kind in KINDS:
        return KINDS[kind](text)
    return RuntimeError(f"{kind}: {text}")


def _problems(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, ConfigError):
        return {}
    return {"problems": [asdict(one) for one in error.problems]}


def _problem(message: Mapping[str, Any]) -> Problem:
    place = message["location"]
    return Problem(**{**message, "location": Location(place["file"], tuple(place["path"]))})
