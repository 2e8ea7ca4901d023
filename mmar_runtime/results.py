"""What a run returns, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from mmar_runtime.metrics import Metrics, MetricValue, is_better

ExportFormat: TypeAlias = Literal["torchscript", "torch_export", "onnx"]
ExportMethod: TypeAlias = Literal["script", "trace", "dynamic_batch", "fixed_shape"]

EXPORT_SUFFIXES: Mapping[ExportFormat, str] = MappingProxyType(
    {"torchscript": ".ts", "torch_export": ".pt2", "onnx": ".onnx"}
)
"""Format -> how the name of such a file ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """One finished epoch of training.

    Attributes:
        epoch: counted from 1, over all runs of the same trainer.
        loss: mean of the iterations' losses in this epoch; None if the engine reports none.
        metrics: metrics on the training data, if the config asks for any.
    """

    epoch: int
    loss: float | None
    metrics: Metrics = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for ``--json``."""
        return {"epoch": self.epoch, "loss": self.loss, "metrics": _plain(self.metrics)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A class that a model got wrong in a whole case.

    Attributes:
        case: the file of the case's label.
        label: the class.
        fault: what happened to it.
    """

    case: str
    label: str
    fault: Literal["missed", "predicted where it is absent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        key_metric: label of the metric by which models are compared; None if there is none.
        metrics: every metric's value.
        cases: number of items evaluated.
        findings: cases that the means do not show; they stay at the site.
    """

    key_metric: str | None
    metrics: Metrics
    cases: int
    findings: tuple[Finding, ...] = ()

    @property
    def key_value(self) -> MetricValue:
        """The key metric's value.

        Raises:
            KeyError: the configuration names no key metric.
        """
        if self.key_metric is None:
            raise KeyError("this evaluation has no key metric")
        return self.metrics[self.key_metric]

    def beats(self, best: EvaluationResult | None) -> bool:
        """Return whether the key metric is better than that of the best result so far."""
        own, other = self.key_value, None if best is None else best.key_value.value
        return is_better(own.value, other, higher_is_better=own.higher_is_better is not False)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for ``--json``."""
        return {
            "key_metric": self.key_metric,
            "metrics": _plain(self.metrics),
            "cases": self.cases,
            "findings": [asdict(finding) for finding in self.findings],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training run found.

    Attributes:
        epochs: one report for each epoch.
        iterations: optimizer steps done; None of an MMAR's own trainer that is no ignite engine.
        seconds: wall time of the training itself, building apart.
        key_metric: label of the validation's key metric; None without one.
        best_metric: best validated value of the key metric; None without a defined value.
        best_epoch: the epoch in which it was reached.
        validations: how often the training validated; None of a training without validation.
        checkpoints: names of the files of weights that the training wrote and that are left; None
            if the MMAR's own code writes them.
    """

    epochs: tuple[EpochReport, ...]
    iterations: int | None
    seconds: float
    key_metric: str | None = None
    best_metric: float | None = None
    best_epoch: int | None = None
    validations: int | None = None
    checkpoints: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for ``--json``."""
        epochs = [epoch.as_dict() for epoch in self.epochs]
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**own, "epochs": epochs, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A network as a file that runs without this project.

    Attributes:
        path: the file.
        format: what it holds.
        method: how it was made, and so what it can be used for. ``script``: all of the network's
            code. ``trace``: the way that one input took through it. ``dynamic_batch``: any number
            of inputs of one size. ``fixed_shape``: inputs of exactly one shape.
        verified: whether the file's answer to a random input was compared with the network's own.
        max_difference: the largest difference of a value between the two; None if not verified.
        input_shape: the random input's shape (batch, channel, spatial...); None if there was none.
        notices: what to know about the file besides.
    """

    path: Path
    format: ExportFormat
    method: ExportMethod
    verified: bool
    max_difference: float | None = None
    input_shape: tuple[int, ...] | None = None
    notices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for ``--json``."""
        return {**asdict(self), "path": str(self.path)}


def _plain(metrics: Metrics) -> dict[str, dict[str, Any]]:
    return {label: metric.as_dict() for label, metric in metrics.items()}
