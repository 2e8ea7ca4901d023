"""Training by the config: in one go or in parts, to the same bits, whole or stopped."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Events

from fl_admin.cli.main import main
from mmar_runtime.config.data_list import data_check
from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import (
    CheckpointError,
    ComponentError,
    ConfigError,
    DataError,
    NotFiniteError,
    RunAborted,
)
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.results import EpochReport, EvaluationResult
from mmar_runtime.weights import digest, read_checkpoint, weights_of
from mmar_runtime.workflows.evaluation import evaluate
from mmar_runtime.workflows.session import session
from mmar_runtime.workflows.training import TrainingWorkflow, train

Edited = Callable[[Path, Callable[[Any], object]], Path]

ITERATIONS = 2
"""In an epoch: two cases, one in a batch."""


def config_of(root: Path, *, allow_code: bool = False, **overrides: Scalar) -> TrainConfig:
    checks = [component_check(allow_code=allow_code), data_check]
    return load_train_config(Mmar.open(root), overrides=overrides, checks=checks)


@contextmanager
def workflow_of(
    root: Path, *, should_stop: Callable[[], bool] = lambda: False, **overrides: Scalar
) -> Iterator[TrainingWorkflow]:
    config = config_of(root, **overrides)
    with session(config, allow_code=False) as context:
        yield TrainingWorkflow(config, context, should_stop=should_stop)


def train_json(root: Path) -> Path:
    return root / "config/config_train.json"


def checkpoints(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "models").glob("*model.pt"))


def digest_of(root: Path, name: str = "final_model.pt") -> str:
    return digest(read_checkpoint(root / "models" / name).weights)


class Countdown:
    """``should_stop`` that says yes from its n-th question on."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


# --- In one go -----------------------------------------------------------------------------------


def test_a_training_returns_what_it_found_and_leaves_both_models(tiny_mmar: Path) -> None:
    result = train(config_of(tiny_mmar), allow_code=False)
    assert [report.epoch for report in result.epochs] == [1, 2]
    assert all(report.loss is not None and 0 < report.loss < 1 for report in result.epochs)
    assert result.iterations == 2 * ITERATIONS
    assert result.key_metric == "val_mean_dice"
    assert result.best_epoch in (1, 2)
    assert result.best_metric is not None
    assert 0 <= result.best_metric <= 1
    assert checkpoints(tiny_mmar) == ["final_model.pt", "model.pt"]


def test_checkpoints_carry_the_configuration_with_its_variables_filled_in(tiny_mmar: Path) -> None:
    train(config_of(tiny_mmar, learning_rate=0.5), allow_code=False)
    for name in checkpoints(tiny_mmar):
        content = torch.load(tiny_mmar / "models" / name, weights_only=True)
        conf = content["train_conf"]
        assert conf["learning_rate"] == 0.5
        assert conf["train"]["optimizer"]["args"] == {"params": "#@model.parameters()", "lr": 0.5}
        assert conf["train"]["model"]["args"]["channels"] == [4, 8]
    assert sorted(content) == ["model", "train_conf"]


def test_a_network_learns(tiny_mmar: Path) -> None:
    result = train(config_of(tiny_mmar, epochs=8, learning_rate=0.05), allow_code=False)
    first, last = result.epochs[0].loss, result.epochs[-1].loss
    assert first is not None
    assert last is not None
    assert last < first


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(
    tiny_mmar: Path, edited: Edited
) -> None:
    digests = []
    for _ in range(2):
        train(config_of(tiny_mmar), allow_code=False)
        digests.append([digest_of(tiny_mmar, name) for name in checkpoints(tiny_mmar)])
    assert digests[0] == digests[1]
    edited(train_json(tiny_mmar), lambda conf: conf["determinism"].update(random_seed=1))
    train(config_of(tiny_mmar), allow_code=False)
    assert digest_of(tiny_mmar) not in digests[0]


def test_fine_tuning_starts_from_the_checkpoint(tiny_mmar: Path) -> None:
    train(config_of(tiny_mmar), allow_code=False)
    trained = digest_of(tiny_mmar)
    final = "models/final_model.pt"
    # A learning rate of zero changes nothing but what batch norms count; this network has none.
    config = config_of(tiny_mmar, dont_load_ckpt_model=False, MMAR_CKPT=final, learning_rate=0.0)
    train(config, allow_code=False)
    assert digest_of(tiny_mmar) == trained


def test_fine_tuning_from_a_missing_file_names_it(tiny_mmar: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file of weights '.*models/model\.pt'"):
        train(config_of(tiny_mmar, dont_load_ckpt_model=False), allow_code=False)


def test_fine_tuning_from_a_damaged_file_names_it(tiny_mmar: Path) -> None:
    (tiny_mmar / "models/model.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"models/model\.pt' is damaged"):
        train(config_of(tiny_mmar, dont_load_ckpt_model=False), allow_code=False)


def test_without_validation_there_is_no_best_model(tiny_mmar: Path, edited: Edited) -> None:
    def change(conf: Any) -> None:
        del conf["validate"]
        del conf["train"]["handlers"][2]

    edited(train_json(tiny_mmar), change)
    result = train(config_of(tiny_mmar), allow_code=False)
    assert (result.key_metric, result.best_metric, result.best_epoch) == (None, None, None)
    assert checkpoints(tiny_mmar) == ["final_model.pt"]


def test_a_validation_that_nothing_uses_needs_no_cases(
    tiny_mmar: Path, edited: Edited, capsys: pytest.CaptureFixture[str]
) -> None:
    def switched_off(conf: Any) -> None:
        conf["train"]["handlers"][2]["disabled"] = "{skip}"

    edited(train_json(tiny_mmar), switched_off)
    edited(tiny_mmar / "data/dataset.json", lambda lists: lists.update(validation=[]))

    assert main(["train", "-m", str(tiny_mmar), "--set", "epochs=1", "skip=False"]) == 2
    error = capsys.readouterr().err
    assert "dataset.json: validation: has to be an array with at least one item" in error
    assert "disable the ValidationHandler" in error
    assert main(["train", "-m", str(tiny_mmar), "--set", "epochs=1", "skip=True"]) == 0
    assert checkpoints(tiny_mmar) == ["final_model.pt"]


@pytest.mark.filterwarnings("ignore:'(min|cumulative)_delta' is deprecated")  # MONAI's own call
def test_a_training_ends_early_where_the_score_stays_the_same(
    tiny_mmar: Path, edited: Edited
) -> None:
    score = "lambda engine: 0 * engine.state.metrics['val_mean_dice']"
    arguments = {"patience": 1, "score_function": score, "trainer": "@trainer"}
    stop = {"name": "EarlyStopHandler", "args": arguments}
    edited(train_json(tiny_mmar), lambda conf: conf["validate"]["handlers"].append(stop))

    result = train(config_of(tiny_mmar, epochs=5), allow_code=False)

    assert [report.epoch for report in result.epochs] == [1, 2]  # the second is no better


def test_weights_of_classes_are_written_as_a_list(tiny_mmar: Path, edited: Edited) -> None:
    """DiceCELoss hands them to PyTorch's cross entropy, which takes a tensor alone."""

    def change(conf: Any) -> None:
        conf["train"]["loss"]["name"] = "DiceCELoss"
        conf["train"]["loss"]["args"]["weight"] = [0.25, 0.75]

    edited(train_json(tiny_mmar), change)
    with workflow_of(tiny_mmar) as workflow:
        weight = workflow.entry("train", "loss").cross_entropy.weight

    assert torch.equal(weight, torch.tensor([0.25, 0.75]))


def test_without_key_metric_there_is_no_best_model(tiny_mmar: Path, edited: Edited) -> None:
    def change(conf: Any) -> None:
        del conf["validate"]["key_metric"]
        del conf["validate"]["evaluator"]["args"]["key_val_metric"]
        del conf["validate"]["handlers"][1]

    edited(train_json(tiny_mmar), change)
    result = train(config_of(tiny_mmar), allow_code=False)
    assert (result.key_metric, result.best_metric, result.best_epoch) == (None, None, None)


def test_with_a_distance_as_key_metric_the_lowest_is_kept(tiny_mmar: Path, edited: Edited) -> None:
    """MONAI alone would keep the highest distance: the worst model."""

    def distance(config: Any) -> None:
        metric = config.get("validate", config)["key_metric"]
        metric["name"] = "SurfaceDistance"

    edited(train_json(tiny_mmar), distance)
    edited(tiny_mmar / "config/config_validation.json", distance)
    seen = Notebook()
    result = train(config_of(tiny_mmar, epochs=4), allow_code=False, observer=seen)

    found = {epoch: one.key_value for one, epoch in seen.validations}
    assert {value.unit for value in found.values()} == {"mm"}
    lowest = min(value.value for value in found.values() if value.value is not None)
    assert lowest < max(value.value for value in found.values() if value.value is not None)
    assert result.best_metric == lowest
    assert result.best_epoch is not None
    assert found[result.best_epoch].value == lowest
    kept = evaluate(load_evaluation_config(Mmar.open(tiny_mmar)), allow_code=False)
    assert kept.key_value.value == lowest


def test_an_undefined_key_metric_leaves_no_best_model(tiny_mmar: Path) -> None:
    """The only validation case has no foreground, so it has no Dice."""
    label = tiny_mmar / "data/case_3_label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((16, 16, 16), np.uint8), np.eye(4)), label)
    result = train(config_of(tiny_mmar), allow_code=False)
    assert (result.key_metric, result.best_metric) == ("val_mean_dice", None)
    assert checkpoints(tiny_mmar) == ["final_model.pt"]


def test_the_network_summary_is_logged_where_it_is_asked_for(
    tiny_mmar: Path, edited: Edited, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="mmar_runtime")
    summary = {"network": "@model", "input_size": [1, 1, 8, 8, 8]}
    edited(train_json(tiny_mmar), lambda conf: conf.update(network_summary=summary, epochs=1))
    train(config_of(tiny_mmar), allow_code=False)
    assert "network summary of UNet for input (1, 1, 8, 8, 8)" in caplog.text


class Notebook:
    """An observer that writes down in which order it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.validations: list[tuple[EvaluationResult, int]] = []

    def iteration(self, *, epoch: int, epochs: int, done: int, of: int, loss: float | None) -> None:
        self.told.append(f"iteration {epoch}/{epochs} {done}/{of}")

    def epoch(self, report: EpochReport, *, epochs: int) -> None:
        self.told.append(f"epoch {report.epoch}/{epochs}")

    def validation(self, result: EvaluationResult, *, epoch: int) -> None:
        self.told.append(f"validation of {result.key_metric} after {epoch}")
        self.validations.append((result, epoch))


def test_an_observer_is_told_of_everything(tiny_mmar: Path) -> None:
    notebook = Notebook()
    train(config_of(tiny_mmar, epochs=1), allow_code=False, observer=notebook)
    assert notebook.told == [
        "iteration 1/1 1/2",
        "iteration 1/1 2/2",
        "validation of val_mean_dice after 1",
        "epoch 1/1",
    ]


# --- In parts ------------------------------------------------------------------------------------


def test_epochs_go_on_counting_from_run_to_run(tiny_mmar: Path) -> None:
    with workflow_of(tiny_mmar) as workflow:
        assert [report.epoch for report in workflow.run_epochs(2)] == [1, 2]
        assert [report.epoch for report in workflow.run_epochs(2)] == [3, 4]
        assert (workflow.epoch, workflow.iteration) == (4, 4 * ITERATIONS)


def test_each_run_trains_on_from_the_weights_of_the_one_before(tiny_mmar: Path) -> None:
    with workflow_of(tiny_mmar) as workflow:
        assert workflow.network is not None
        workflow.run_epochs(1)
        first = digest(weights_of(workflow.network))
        workflow.run_epochs(1)
        assert digest(weights_of(workflow.network)) != first
        assert set(workflow.builder.counts.values()) == {1}


def test_steps_are_exactly_as_many_as_asked_for(tiny_mmar: Path) -> None:
    with workflow_of(tiny_mmar) as workflow:
        steps: list[int] = []
        optimizer = workflow.builder.get("train", "optimizer")
        optimizer.register_step_post_hook(lambda *_: steps.append(workflow.iteration))
        for count in (1, 3, 2):
            workflow.run_steps(count)
        assert steps == [1, 2, 3, 4, 5, 6]


def test_steps_go_on_within_the_epoch(tiny_mmar: Path) -> None:
    with workflow_of(tiny_mmar) as workflow:
        ended = [[report.epoch for report in workflow.run_steps(1)] for _ in "1234"]
        assert ended == [[], [1], [], [2]]


def test_an_epoch_that_two_runs_share_reports_the_losses_of_both(tiny_mmar: Path) -> None:
    with workflow_of(tiny_mmar) as workflow:
        losses: list[float] = []
        workflow.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output[0]["loss"])
        )
        workflow.run_steps(1)
        [report] = workflow.run_steps(1)
        assert report.loss == pytest.approx((losses[0] + losses[1]) / 2)


def test_what_waits_for_the_end_of_an_epoch_runs_although_each_run_is_shorter(
    tiny_mmar: Path,
) -> None:
    with workflow_of(tiny_mmar, learning_rate=0.1) as workflow:
        for _ in range(2 * ITERATIONS):
            workflow.run_steps(1)
        rates = [group["lr"] for group in workflow.builder.get("train", "optimizer").param_groups]
        assert rates == [0.1 * 0.5 * 0.5]  # StepLR halves it after each of two epochs
        assert workflow.validated is not None
        assert workflow.validated[0] == 2


def test_a_validation_is_remembered_with_its_epoch(tiny_mmar: Path) -> None:
    with workflow_of(tiny_mmar, num_interval_per_valid=2) as workflow:
        workflow.run_epochs(1)
        assert workflow.validated is None
        workflow.run_epochs(2)
        assert workflow.validated is not None
        epoch, result = workflow.validated
        assert (epoch, result.key_metric, result.cases) == (2, "val_mean_dice", 1)


# --- Stopped -------------------------------------------------------------------------------------


def test_a_stop_ends_between_iterations_and_leaves_no_checkpoint_of_half_an_epoch(
    tiny_mmar: Path,
) -> None:
    # Asked at the start of the epoch and after its first iteration.
    with workflow_of(tiny_mmar, should_stop=Countdown(2)) as workflow:
        with pytest.raises(RunAborted):
            workflow.run()
        assert workflow.iteration == 1
    assert list((tiny_mmar / "models").iterdir()) == []


def test_a_stop_in_a_later_epoch_keeps_the_checkpoints_of_the_earlier_ones(tiny_mmar: Path) -> None:
    iterations: list[int] = []

    class Counting(Notebook):
        def iteration(self, **told: Any) -> None:
            iterations.append(told["done"])

    config = config_of(tiny_mmar, epochs=5)
    with pytest.raises(RunAborted):
        train(
            config,
            allow_code=False,
            observer=Counting(),
            should_stop=lambda: len(iterations) == ITERATIONS + 1,
        )
    assert checkpoints(tiny_mmar) == ["model.pt"]
    assert list((tiny_mmar / "models").glob("*.tmp")) == []


def test_after_a_stop_that_is_withdrawn_the_training_can_go_on(tiny_mmar: Path) -> None:
    asked = [True]
    with workflow_of(tiny_mmar, should_stop=lambda: asked[0]) as workflow:
        with pytest.raises(RunAborted):
            workflow.run_epochs(1)
        asked[0] = False
        assert len(workflow.run_epochs(2)) == 2


# --- Data that does not fit ----------------------------------------------------------------------


def test_a_crop_larger_than_the_volume_names_its_place(tiny_mmar: Path, edited: Edited) -> None:
    def change(conf: Any) -> None:
        conf["train"]["pre_transforms"][3]["args"]["spatial_size"] = [32, 8, 8]

    edited(train_json(tiny_mmar), change)
    with pytest.raises(DataError, match=r"train\.pre_transforms\[3\]\.args\.spatial_size"):
        train(config_of(tiny_mmar), allow_code=False)


def test_a_missing_image_is_named_before_anything_is_built(tiny_mmar: Path) -> None:
    (tiny_mmar / "data/case_2_image.nii.gz").unlink()
    with pytest.raises(
        ConfigError, match=r"training\[1\]\.image: there is no file '.*case_2_image"
    ):
        config_of(tiny_mmar)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("dataset", ["Dataset", "CacheDataset"])
def test_an_image_that_is_damaged_is_a_fault_of_the_data(
    tiny_mmar: Path, edited: Edited, dataset: str, workers: int
) -> None:
    def change(conf: Any) -> None:
        conf["train"]["dataset"]["name"] = dataset
        conf["train"]["dataloader"]["args"]["num_workers"] = workers

    edited(train_json(tiny_mmar), change)
    config = config_of(tiny_mmar)
    image = tiny_mmar / "data/case_2_image.nii.gz"
    half = image.read_bytes()[: image.stat().st_size // 2]
    for content, told in ((b"no image", "case_2_image"), (half, "case_2_image.*end-of-stream")):
        image.write_bytes(content)
        with pytest.raises(DataError, match=f"an image cannot be read: .*{told}") as raised:
            train(config, allow_code=False)
        assert "Traceback" not in str(raised.value)


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_files(
    tiny_mmar: Path, edited: Edited
) -> None:
    file = tiny_mmar / "data/case_2_image.nii.gz"
    voxels = nibabel.load(file).get_fdata(dtype=np.float32)
    voxels[:] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)
    edited(train_json(tiny_mmar), lambda conf: conf["train"]["pre_transforms"].pop(3))

    with pytest.raises(NotFiniteError) as raised:
        train(config_of(tiny_mmar), allow_code=False)

    assert f"values of {file} are infinite or not a number" in str(raised.value)
    assert "the loss is nan in epoch 1, iteration " in str(raised.value)
    assert checkpoints(tiny_mmar) == []  # no epoch is complete, and its weights are lost


def test_images_of_different_sizes_are_no_fault(tiny_mmar: Path) -> None:
    volume = np.zeros((12, 20, 16), dtype=np.int16)
    volume[4:8] = 1
    for name in ("image", "label"):
        nibabel.save(
            nibabel.Nifti1Image(volume, np.eye(4)), tiny_mmar / f"data/case_2_{name}.nii.gz"
        )
    assert train(config_of(tiny_mmar, epochs=1), allow_code=False).iterations == ITERATIONS


# --- The MMAR's own code -------------------------------------------------------------------------

OWN_NETWORK = """
import torch

class OwnNetwork(torch.nn.Module):
    def __init__(self, out_channels=2):
        super().__init__()
        self.layer = torch.nn.Conv3d(1, out_channels, 1)

    def forward(self, image):
        return self.layer(image)
"""


@pytest.fixture
def own_code_mmar(
    tiny_mmar: Path, edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The tiny MMAR with a network of its own."""
    (tiny_mmar / "custom").mkdir()
    (tiny_mmar / "custom/own_network_of_training.py").write_text(OWN_NETWORK)
    model = {"path": "own_network_of_training.OwnNetwork", "args": {"out_channels": 2}}
    edited(train_json(tiny_mmar), lambda conf: conf["train"].update(model=model))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tiny_mmar
    sys.modules.pop("own_network_of_training", None)


def test_a_network_of_the_mmars_own_trains(own_code_mmar: Path) -> None:
    train(config_of(own_code_mmar, allow_code=True), allow_code=True)
    weights = read_checkpoint(own_code_mmar / "models/final_model.pt").weights
    assert sorted(weights) == ["layer.bias", "layer.weight"]


def test_own_code_is_refused_by_the_check_and_again_by_the_builder(own_code_mmar: Path) -> None:
    with pytest.raises(ConfigError, match="code that this site has not allowed"):
        config_of(own_code_mmar)
    with pytest.raises(ConfigError, match="code that this site has not allowed"):
        train(config_of(own_code_mmar, allow_code=True), allow_code=False)
    assert "own_network_of_training" not in sys.modules


def test_an_unknown_argument_of_own_code_gets_advice(own_code_mmar: Path, edited: Edited) -> None:
    edited(
        train_json(own_code_mmar),
        lambda conf: conf["train"]["model"].update(args={"out_chanels": 2}),
    )
    with pytest.raises(ConfigError, match=r"out_chanels: (.|\n)*Did you mean 'out_channels'\?"):
        train(config_of(own_code_mmar, allow_code=True), allow_code=True)


OWN_TRAINER = """
class OwnTrainer:
    def __init__(self, network, folder, **rest):
        self.folder = folder

    def run(self):
        open(self.folder + "/trained", "w").close()
"""


def test_a_trainer_that_is_no_engine_runs_as_a_whole_but_not_in_parts(
    own_code_mmar: Path, edited: Edited
) -> None:
    (own_code_mmar / "custom/own_trainer_of_training.py").write_text(OWN_TRAINER)
    trainer = {
        "path": "own_trainer_of_training.OwnTrainer",
        "args": {"network": "@model", "folder": "{MMAR_CKPT_DIR}"},
    }

    def change(conf: Any) -> None:
        del conf["validate"]
        conf["train"] = {"model": conf["train"]["model"], "trainer": trainer}

    edited(train_json(own_code_mmar), change)
    config = config_of(own_code_mmar, allow_code=True)
    result = train(config, allow_code=True)
    assert (result.iterations, result.epochs) == (None, ())
    assert os.path.exists(own_code_mmar / "models/trained")
    with session(config, allow_code=True) as context:
        workflow = TrainingWorkflow(config, context)
        with pytest.raises(ComponentError, match="OwnTrainer is not an ignite Engine"):
            workflow.run_epochs(1)
    sys.modules.pop("own_trainer_of_training", None)
