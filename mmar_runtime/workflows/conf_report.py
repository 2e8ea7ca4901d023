"""``print_conf``: what a configuration has become, as lines, before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from mmar_runtime.components.builder import ComponentBuilder
from mmar_runtime.config.nodes import ListNode
from mmar_runtime.config.sections import (
    RuntimeSettings,
    Section,
    TrainConfig,
    WorkflowConfig,
)

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


def conf_report(config: WorkflowConfig, builder: ComponentBuilder) -> Iterator[str]:
    """The lines of the report; the config's components are those already built.

    Args:
        config: a training or an evaluation workflow.
        builder: has built its engine.
    """
    kind = "Train" if isinstance(config, TrainConfig) else "Validate"
    yield f"========== {kind} Config Result ==========="
    if isinstance(config, TrainConfig):
        yield f"Num Epochs: {config.value('epochs')}"
    yield from _settings(config.settings)
    titles = {"train": "Train", "validate": "Validate", "": "Validate"}
    for scope, section in config.scopes.items():
        yield from _section(section, scope, titles[scope], builder)
    yield f"========== End of {kind} Config Result ==========="


def _settings(settings: RuntimeSettings) -> Iterator[str]:
    yield f"Use GPU: {settings.use_gpu}"
    yield f"Multi GPU: {settings.multi_gpu}"
    yield f"Automatic Mixed Precision: {_enabled(settings.amp)}"
    yield f"Determinism: {_enabled(settings.random_seed is not None)}"
    yield f"cuDNN BenchMark: {torch.backends.cudnn.benchmark}"
    yield f"CUDA Matmul Allow TF32: {torch.backends.cuda.matmul.allow_tf32}"
    yield f"cuDNN Allow TF32: {torch.backends.cudnn.allow_tf32}"


def _section(section: Section, scope: str, title: str, builder: ComponentBuilder) -> Iterator[str]:
    for entry, label in SINGLE:
        if entry in section.entries:
            yield f"{title} {label}: {_described(builder.get(scope, entry))}"
    for label, metric in _additional(section, scope, builder).items():
        yield f"{title} Additional Metric #{label}: {_described(metric)}"
    for entry, label in NUMBERED:
        if not isinstance(section.entries.get(entry), ListNode):
            continue
        for number, part in enumerate(_parts(builder.get(scope, entry)), start=1):
            yield f"{title} {label} #{number}: {_described(part)}"


def _additional(section: Section, scope: str, builder: ComponentBuilder) -> dict[str, Any]:
    if "additional_metrics" not in section.entries:
        return {}
    return dict(builder.get(scope, "additional_metrics"))


def _parts(built: Any) -> tuple[Any, ...]:
    return tuple(getattr(built, "transforms", built))


def _described(built: Any) -> str:
    """The class; an object's own text may hold whole networks or paths of data."""
    if isinstance(built, dict):
        return ", ".join(f"{label}={_described(metric)}" for label, metric in built.items())
    return f"{type(built).__module__}.{type(built).__qualname__}"


def _enabled(flag: bool) -> str:
    return "Enabled" if flag else "Disabled"
