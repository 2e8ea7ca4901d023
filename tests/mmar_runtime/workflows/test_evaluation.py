"""One model over one list of data, with the weights that the config names.

The weights here are written by hand: all zero but for the last bias, so that the network says the
same class everywhere. In each volume 6 x 6 x 6 of 16 x 16 x 16 voxels are foreground.
"""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet

from mmar_runtime.components.builder import BuildContext
from mmar_runtime.config.loader import (
    CROSS_VALIDATION_FILE,
    VALIDATION_FILE,
    load_evaluation_config,
)
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import EvaluationConfig
from mmar_runtime.errors import ConfigError, DataError, RunAborted, WeightsError
from mmar_runtime.metrics import values_of
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights
from mmar_runtime.workflows.evaluation import EvaluationWorkflow, evaluate

Edited = Callable[[Path, Callable[[Any], object]], Path]

CPU = BuildContext(device=torch.device("cpu"))

FOREGROUND, VOXELS = 6**3, 16**3
ALL_FOREGROUND = {
    "val_mean_dice": 2 * FOREGROUND / (VOXELS + FOREGROUND),
    "val_acc": FOREGROUND / VOXELS,
}
ALL_BACKGROUND = {"val_mean_dice": 0.0, "val_acc": 1 - FOREGROUND / VOXELS}


def unet() -> UNet:
    """The network of the tiny MMAR."""
    return UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=[4, 8], strides=[2])


def saying(*, foreground: bool) -> Weights:
    """Weights with which the network says this class everywhere."""
    weights = {name: torch.zeros_like(tensor) for name, tensor in unet().state_dict().items()}
    [last] = [name for name, tensor in weights.items() if tensor.shape == (2,)]
    weights[last] = torch.tensor([0.0, 1.0] if foreground else [1.0, 0.0])
    return weights


def config_of(root: Path, file: str = VALIDATION_FILE, **overrides: Scalar) -> EvaluationConfig:
    return load_evaluation_config(Mmar.open(root), file=file, overrides=overrides)


def saved(root: Path, *, foreground: bool, name: str = "model.pt") -> Path:
    torch.save({"model": saying(foreground=foreground)}, root / "models" / name)
    return root


# --- Metrics -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("foreground", "metrics"), [(True, ALL_FOREGROUND), (False, ALL_BACKGROUND)]
)
def test_metrics_are_those_of_the_weights_in_the_file(
    tiny_mmar: Path, foreground: bool, metrics: dict[str, float]
) -> None:
    result = evaluate(config_of(saved(tiny_mmar, foreground=foreground)), allow_code=False)
    assert result.key_metric == "val_mean_dice"
    assert values_of(result.metrics) == pytest.approx(metrics)
    assert result.cases == 1


def test_metrics_are_written_as_csv(tiny_mmar: Path) -> None:
    evaluate(config_of(saved(tiny_mmar, foreground=True)), allow_code=False)
    with open(tiny_mmar / "eval/metrics.csv", newline="") as stream:
        written = {label: float(value) for label, value, *_ in csv.reader(stream)}
    assert written == pytest.approx(ALL_FOREGROUND)
    with open(tiny_mmar / "eval/val_mean_dice_raw.csv", newline="") as stream:
        [row] = csv.DictReader(stream)
    assert row["filename"].endswith("case_3_image.nii.gz")
    assert float(row["mean"]) == pytest.approx(ALL_FOREGROUND["val_mean_dice"])


def test_another_file_is_named_by_a_variable(tiny_mmar: Path) -> None:
    saved(tiny_mmar, foreground=False)
    saved(tiny_mmar, foreground=True, name="other.pt")
    result = evaluate(config_of(tiny_mmar, MMAR_CKPT="models/other.pt"), allow_code=False)
    assert values_of(result.metrics) == pytest.approx(ALL_FOREGROUND)


def test_torchscript_is_evaluated_without_a_checkpoint(tiny_mmar: Path) -> None:
    network = unet().eval()
    network.load_state_dict(saying(foreground=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.zeros(1, 1, 8, 8, 8)).save(tiny_mmar / "models/model.ts")
    config = config_of(tiny_mmar, dont_load_ts_model=False, dont_load_ckpt_model=True)
    assert values_of(evaluate(config, allow_code=True).metrics) == pytest.approx(ALL_FOREGROUND)


def test_a_network_of_the_config_gets_its_weights_from_the_checkpoint_loader(
    tiny_mmar: Path,
) -> None:
    config = config_of(saved(tiny_mmar, foreground=True), CROSS_VALIDATION_FILE)
    assert values_of(evaluate(config, allow_code=False).metrics) == pytest.approx(ALL_FOREGROUND)


def test_a_network_that_nothing_gives_weights_is_refused(tiny_mmar: Path) -> None:
    config = config_of(tiny_mmar, CROSS_VALIDATION_FILE, dont_load_ckpt_model=True)
    with pytest.raises(
        ConfigError, match="model: names a network, but no enabled CheckpointLoader"
    ):
        evaluate(config, allow_code=False)


# --- One workflow, several models ----------------------------------------------------------------


def test_models_are_evaluated_one_after_the_other_with_everything_built_once(
    tiny_mmar: Path,
) -> None:
    counts: Counter[str] = Counter()
    config = config_of(tiny_mmar, CROSS_VALIDATION_FILE, dont_load_ckpt_model=True)
    workflow = EvaluationWorkflow(config, CPU, counts=counts)
    assert values_of(workflow.run(saying(foreground=True)).metrics) == pytest.approx(ALL_FOREGROUND)
    assert values_of(workflow.run(saying(foreground=False)).metrics) == pytest.approx(
        ALL_BACKGROUND
    )
    assert values_of(workflow.run(saying(foreground=True)).metrics) == pytest.approx(ALL_FOREGROUND)
    assert set(counts.values()) == {1}


def test_weights_that_do_not_fit_are_refused_with_their_source(tiny_mmar: Path) -> None:
    config = config_of(tiny_mmar, CROSS_VALIDATION_FILE, dont_load_ckpt_model=True)
    workflow = EvaluationWorkflow(config, CPU)
    with pytest.raises(WeightsError, match="the weights from site-2 do not fit"):
        workflow.run({"weight": torch.ones(1)}, source="site-2")


# --- What goes wrong -----------------------------------------------------------------------------


def test_a_damaged_image_is_a_fault_of_the_data(tiny_mmar: Path) -> None:
    (tiny_mmar / "data/case_3_image.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"an image cannot be read: .*case_3_image"):
        evaluate(config_of(saved(tiny_mmar, foreground=True)), allow_code=False)


def test_a_stopped_evaluation_gives_no_result(tiny_mmar: Path) -> None:
    config = config_of(saved(tiny_mmar, foreground=True))
    with pytest.raises(RunAborted):
        evaluate(config, allow_code=False, should_stop=lambda: True)
    assert not (tiny_mmar / "eval/metrics.csv").exists()


def test_old_constructs_are_announced(tiny_mmar: Path) -> None:
    assert [notice.rule for notice in config_of(tiny_mmar).notices] == ["image-meta"]


def test_a_second_run_replaces_the_first_ones_files(tiny_mmar: Path, edited: Edited) -> None:
    for foreground in (True, False):
        evaluate(config_of(saved(tiny_mmar, foreground=foreground)), allow_code=False)
    with open(tiny_mmar / "eval/metrics.csv", newline="") as stream:
        written = {label: float(value) for label, value, *_ in csv.reader(stream)}
    assert written == pytest.approx(ALL_BACKGROUND)
