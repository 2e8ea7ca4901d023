"""``print_conf``: the lines, and that listing a run does not change it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmar_runtime.components.builder import BuildContext
from mmar_runtime.config.loader import (
    CROSS_VALIDATION_FILE,
    load_evaluation_config,
    load_train_config,
)
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.mmar import Mmar
from mmar_runtime.workflows.conf_report import conf_report
from mmar_runtime.workflows.evaluation import EvaluationWorkflow
from mmar_runtime.workflows.training import TrainingWorkflow, train

Edited = Callable[[Path, Callable[[Any], object]], Path]

CPU = BuildContext(device=torch.device("cpu"))

SETTINGS = [
    "Use GPU: True",
    "Multi GPU: False",
    "Automatic Mixed Precision: Disabled",
    "Determinism Training: Enabled",
    f"cuDNN BenchMark: {torch.backends.cudnn.benchmark}",
    f"CUDA Matmul Allow TF32: {torch.backends.cuda.matmul.allow_tf32}",
    f"cuDNN Allow TF32: {torch.backends.cudnn.allow_tf32}",
]


def training_lines(root: Path, **overrides: Scalar) -> list[str]:
    config = load_train_config(Mmar.open(root), overrides=overrides)
    return list(conf_report(config, TrainingWorkflow(config, CPU).builder))


def evaluation_lines(root: Path, **overrides: Scalar) -> list[str]:
    config = load_evaluation_config(
        Mmar.open(root), file=CROSS_VALIDATION_FILE, overrides={"MMAR_CKPT": "x", **overrides}
    )
    without = config.with_section(config.section.without_handlers("CheckpointLoader"))
    return list(conf_report(without, EvaluationWorkflow(without, CPU).builder))


def short(lines: list[str]) -> list[str]:
    """The lines with classes instead of their paths: modules are MONAI's business."""
    return [
        f"{label}: " + ", ".join(path.rpartition(".")[2] for path in value.split(", "))
        for label, _, value in (line.partition(": ") for line in lines)
    ]


def test_a_training(tiny_mmar: Path) -> None:
    lines = training_lines(tiny_mmar)

    assert lines[:2] == ["========== Train Config Result ===========", "Num Epochs: 2"]
    assert lines[2 : 2 + len(SETTINGS)] == SETTINGS
    assert lines[-1] == "========== End of Train Config Result ==========="
    assert "Train Model: monai.networks.nets.unet.UNet" in lines
    assert short(lines[2 + len(SETTINGS) : -1]) == [
        "Train Model: UNet",
        "Train Loss: DiceLoss",
        "Train Optimizer: Adam",
        "Train LR Scheduler: StepLR",
        "Train Dataset: Dataset",
        "Train DataLoader: DataLoader",
        "Train Inferer: SimpleInferer",
        "Train Transform #1: LoadImaged",
        "Train Transform #2: EnsureChannelFirstd",
        "Train Transform #3: ScaleIntensityd",
        "Train Transform #4: RandCropByPosNegLabeld",
        "Train Transform #5: EnsureTyped",
        "Train Handler #1: LrScheduleHandler",
        "Train Handler #2: ValidationHandler",
        "Train Handler #3: AtomicCheckpointSaver",
        "Train Handler #4: StatsHandler",
        "Train Post Transform #1: Activationsd",
        "Train Post Transform #2: AsDiscreted",
        "Validate Dataset: Dataset",
        "Validate DataLoader: DataLoader",
        "Validate Inferer: SlidingWindowInferer",
        "Validate Key Metric: MeanDice",
        "Validate Additional Metric #val_acc: Accuracy",
        "Validate Transform #1: LoadImaged",
        "Validate Transform #2: EnsureChannelFirstd",
        "Validate Transform #3: ScaleIntensityd",
        "Validate Transform #4: EnsureTyped",
        "Validate Handler #1: StatsHandler",
        "Validate Handler #2: AtomicCheckpointSaver",
        "Validate Post Transform #1: Activationsd",
        "Validate Post Transform #2: AsDiscreted",
    ]
    assert "Validate Key Metric: val_mean_dice=monai.handlers.mean_dice.MeanDice" in lines


def test_a_validation(tiny_mmar: Path) -> None:
    lines = evaluation_lines(tiny_mmar, use_gpu=False, amp=True)

    assert lines[0] == "========== Validate Config Result ==========="
    assert lines[1:5] == [
        "Use GPU: False",
        "Multi GPU: False",
        "Automatic Mixed Precision: Enabled",
        "Determinism Evaluation: Disabled",
    ]
    assert short(lines)[8:12] == [
        "Validate Model: UNet",
        "Validate Dataset: Dataset",
        "Validate DataLoader: DataLoader",
        "Validate Inferer: SlidingWindowInferer",
    ]
    assert short(lines)[-3:-1] == [
        "Validate Post Transform #1: Activationsd",
        "Validate Post Transform #2: AsDiscreted",
    ]
    assert lines[-1] == "========== End of Validate Config Result ==========="


def test_what_nothing_uses_is_said_and_not_built(tiny_mmar: Path, edited: Edited) -> None:
    """A scheduler changes its optimizer when it is built; a data set may read every image."""

    def leave_out(document: Any) -> None:
        train = document["train"]
        del train["trainer"]["args"]["postprocessing"], train["trainer"]["args"]["inferer"]
        train["handlers"] = []

    edited(tiny_mmar / "config" / "config_train.json", leave_out)
    config = load_train_config(Mmar.open(tiny_mmar))
    builder = TrainingWorkflow(config, CPU).builder
    before = builder.built("train").keys()

    lines = list(conf_report(config, builder))

    assert "Train LR Scheduler: not used" in lines
    assert "Train Inferer: not used" in lines
    assert "Train Post Transforms: not used" in lines
    assert not any(line.startswith("Train Handler") for line in lines)
    assert builder.built("train").keys() == before


def test_a_training_logs_it_only_when_asked(
    tiny_mmar: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def logged(**overrides: Scalar) -> list[str]:
        values = {"epochs": 1, **overrides}
        config = load_train_config(Mmar.open(tiny_mmar), overrides=values)
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="mmar_runtime"):
            train(config, allow_code=False)
        return [message for message in caplog.messages if "Config Result" in message]

    assert logged() == []
    assert logged(print_conf=True) == [
        "========== Train Config Result ===========",
        "========== End of Train Config Result ===========",
    ]
