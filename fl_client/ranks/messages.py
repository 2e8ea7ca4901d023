"""Messages between a site's process and its ranks, as plain values; weights go by files."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

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
from mmar_runtime.exchange.plain import from_plain, to_plain
from mmar_runtime.exchange.tensor_files import write_tensors
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights

KINDS: Mapping[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        CheckpointError,
        ComponentError,
        DataError,
        LaunchError,
        MemoryError,
        NotFiniteError,
        PolicyError,
        UnfitDataError,
        WeightsError,
        torch.OutOfMemoryError,
    )
}
"""Errors that arrive as what they were; any other arrives as a ``RuntimeError`` with its name."""


# --- weights


def write_weights(weights: Weights, path: Path) -> dict[str, Any]:
    """Write weights to a new file; return the message that names it, and their order."""
    write_tensors(path, weights)
    return {"file": path.name, "names": list(weights)}


def read_weights(message: Mapping[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights that a message names, in the order of the sender."""
    weights = load_file(folder / message["file"])
    return {name: weights[name] for name in message["names"]}


# --- results


def update_message(update: Update) -> dict[str, Any]:
    """Return an update without its tensors."""
    return {
        "round_number": update.round_number,
        "steps": update.steps,
        "samples": update.samples,
        "epoch_samples": update.epoch_samples,
        "report": to_plain(update.report),
    }


def update_from(message: Mapping[str, Any], difference: Weights) -> Update:
    """Return the update of a message and its tensors."""
    return Update(
        round_number=message["round_number"],
        difference=difference,
        steps=message["steps"],
        samples=message["samples"],
        epoch_samples=message["epoch_samples"],
        report=from_plain(SiteReport, message["report"]),
    )


def result_from(message: Mapping[str, Any]) -> EvaluationResult:
    """Return the result of an evaluation."""
    return from_plain(EvaluationResult, message)


# --- errors


def error_message(error: BaseException) -> dict[str, Any]:
    """Return an error with its causes, and its traceback as text; for the site alone."""
    causes: list[dict[str, Any]] = []
    current: BaseException | None = error
    while current is not None:
        causes.append({"kind": type(current).__name__, "text": str(current)})
        if isinstance(current, ConfigError):
            causes[-1]["problems"] = to_plain(current.problems)
        current = current.__cause__
    return {"causes": causes, "traceback": "".join(traceback.format_exception(error))}


def error_from(message: Mapping[str, Any], whose: str) -> Exception:
    """Return the error of a message with its causes; errors of ours keep their kind.

    Args:
        message: from ``error_message``.
        whose: the process in which the error was raised, for the note with its traceback.
    """
    first, *causes = map(_error, message["causes"])
    for error, cause in zip((first, *causes), causes, strict=False):
        error.__cause__ = cause
    first.add_note(f"in {whose}:\n{message['traceback']}")
    return first


def _error(message: Mapping[str, Any]) -> Exception:
    """Return an error without its causes."""
    kind, text = message["kind"], message["text"]
    if "problems" in message:
        return ConfigError([from_plain(Problem, problem) for problem in message["problems"]])
    if kind in KINDS:
        return KINDS[kind](text)
    return RuntimeError(f"{kind}: {text}")
