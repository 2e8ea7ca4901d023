"""``print_conf``: the lines of a configuration as it runs, before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from mmar_runtime.components.builder import ComponentBuilder
from mmar_runtime.components.ignite_metrics import DefinedMetric
from mmar_runtime.config.sections import Section, TrainConfig, WorkflowConfig

SINGLE = (
    ("model", "Model"),
    ("loss", "Loss"),
    ("optimizer", "Optimizer"),
    ("lr_scheduler", "LR Scheduler"),
    ("dataset", "Dataset"),
    ("dataloader", "DataLoader"),
    ("inferer", "Inferer"),
    ("key_metric", "Key Metric"),
)
NUMBERED = (
    ("pre_transforms", "Transform"),
    ("handlers", "Handler"),
    ("post_transforms", "Post Transform"),
)
NOT_USED = "not used"


def conf_report(config: WorkflowConfig, builder: ComponentBuilder) -> Iterator[str]:
    """Yield the lines of the report; build nothing for it, so that the run stays the same.

    Args:
        config: a training or an evaluation workflow.
        builder: has built its engine; entries that it has not built are not used.
    """
    kind = "Train" if isinstance(config, TrainConfig) else "Validate"
    yield f"========== {kind} Config Result ==========="
    if isinstance(config, TrainConfig):
        yield f"Num Epochs: {config.value('epochs')}"
    settings = config.settings
    task = "Training" if kind == "Train" else "Evaluation"
    yield f"Use GPU: {settings.use_gpu}"
    yield f"Multi GPU: {settings.multi_gpu}"
    yield f"Automatic Mixed Precision: {_enabled(settings.amp)}"
    yield f"Determinism {task}: {_enabled(settings.random_seed is not None)}"
    yield f"cuDNN BenchMark: {torch.backends.cudnn.benchmark}"
    yield f"CUDA Matmul Allow TF32: {torch.backends.cuda.matmul.allow_tf32}"
    yield f"cuDNN Allow TF32: {torch.backends.cudnn.allow_tf32}"
    titles = {"train": "Train", "validate": "Validate", "": "Validate"}
    for scope, section in config.scopes.items():
        yield from _section(section, titles[scope], builder.built(scope))
    yield f"========== End of {kind} Config Result ==========="


def _section(section: Section, title: str, built: Mapping[str, Any]) -> Iterator[str]:
    for entry, label in SINGLE:
        if entry in section.entries:
            described = _described(built[entry]) if entry in built else NOT_USED
            yield f"{title} {label}: {described}"
    for label, metric in built.get("additional_metrics", {}).items():
        yield f"{title} Additional Metric #{label}: {_described(metric)}"
    for entry, label in NUMBERED:
        if entry in section.entries and entry not in built:
            yield f"{title} {label}s: {NOT_USED}"
        parts = built.get(entry, ())
        for number, part in enumerate(getattr(parts, "transforms", parts), start=1):
            yield f"{title} {label} #{number}: {_described(part)}"


def _described(built: Any) -> str:
    """Return the class; an object's own text may hold whole networks or paths of data."""
    if isinstance(built, dict):
        return ", ".join(f"{label}={_described(metric)}" for label, metric in built.items())
    cls = type(built.metric if isinstance(built, DefinedMetric) else built)
    return f"{cls.__module__}.{cls.__qualname__}"


def _enabled(flag: bool) -> str:
    return "Enabled" if flag else "Disabled"
