"""The examples of docs/look-up/custom-code, run as they are there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events

from mmar_runtime.config.data_list import data_check
from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import CheckpointError, ComponentError, ConfigError
from mmar_runtime.metrics import values_of
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.policy.volume_check import volume_check
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import digest, read_checkpoint
from mmar_runtime.workflows.evaluation import evaluate
from mmar_runtime.workflows.session import session
from mmar_runtime.workflows.training import TrainingWorkflow, train

MakeExample = Callable[..., Path]
Edited = Callable[[Path, Callable[[Any], object]], Path]

CASES = 2


def config_of(root: Path, **overrides: Scalar) -> TrainConfig:
    checks = [component_check(allow_code=True), data_check, volume_check]
    return load_train_config(Mmar.open(root), overrides=overrides, checks=checks)


@contextmanager
def workflow_of(root: Path, **overrides: Scalar) -> Iterator[TrainingWorkflow]:
    config = config_of(root, **overrides)
    with session(config, allow_code=True) as context:
        yield TrainingWorkflow(config, context)


class Validations:
    """An observer that keeps the results."""

    def __init__(self) -> None:
        self.results: list[EvaluationResult] = []

    def iteration(self, **_: object) -> None: ...

    def epoch(self, *_: object, **__: object) -> None: ...

    def validation(self, result: EvaluationResult, *, epoch: int) -> None:
        self.results.append(result)


# --- Components ----------------------------------------------------------------------------------


def test_components_of_each_kind(example: MakeExample) -> None:
    root, seen = example("own_parts"), Validations()
    result = train(config_of(root, epochs=1), allow_code=True, observer=seen)
    assert result.iterations == CASES * 3  # times=3
    assert result.epochs[0].loss is not None
    assert 0 < result.epochs[0].loss < 0.5  # weight=0.5 of a loss below 1
    error = seen.results[0].metrics["foreground_error"].value
    assert error is not None
    assert error >= 0
    assert error == int(error)  # a number of voxels: the predictions are one-hot
    weights = read_checkpoint(root / "models/final_model.pt").weights
    assert sorted(weights) == ["layer.bias", "layer.weight"]


# --- Handlers ------------------------------------------------------------------------------------


def test_a_handler_hands_the_network_another_input(example: MakeExample) -> None:
    root = example("own_extra_input")
    result = train(config_of(root, epochs=1), allow_code=True)
    assert result.iterations == CASES
    assert read_checkpoint(root / "models/final_model.pt").weights["layer.weight"].shape[1] == 2


def test_a_handler_keeps_the_weights_at_the_start_for_the_loss(example: MakeExample) -> None:
    root = example("own_initial_weights")
    with workflow_of(root, epochs=1) as workflow:
        assert workflow.network is not None
        before = [weight.detach().clone() for weight in workflow.network.parameters()]
        workflow.run()
        pairs = workflow.builder.get("train", "loss").pairs
        assert all(torch.equal(start, one) for (_, start), one in zip(pairs, before, strict=True))
        assert any(not torch.equal(now, start) for now, start in pairs)


def test_a_handler_changes_the_prediction_before_the_loss(example: MakeExample) -> None:
    root = example("own_noise")
    losses = []
    for std in (0.0, 5.0):
        path = root / "config/config_train.json"
        path.write_text(path.read_text().replace('"std": 0.1', f'"std": {std}'))
        losses.append(train(config_of(root, epochs=1), allow_code=True).epochs[0].loss)
        path.write_text(path.read_text().replace(f'"std": {std}', '"std": 0.1'))
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", ["own_stop", "old_stop"])
def test_a_handler_stops_the_run(example: MakeExample, name: str) -> None:
    result = train(config_of(example(name)), allow_code=True)
    assert result.iterations == 1  # a Dice loss is below 2 at once


def test_a_handler_that_waits_for_a_lower_loss_does_not_stop_the_run(
    example: MakeExample, edited: Edited
) -> None:
    root = example("own_stop")
    edited(
        root / "config/config_train.json",
        lambda conf: conf["train"]["handlers"][-1].update(args={"loss": -1.0}),
    )
    assert train(config_of(root), allow_code=True).iterations == 2 * CASES


def test_the_old_handler_unwrapped_fails_and_the_error_names_the_wrapper(
    example: MakeExample, edited: Edited
) -> None:
    root = example("old_stop")
    bare = {"path": "old_stop.StopAtLowLoss", "args": {"loss": 2.0}}
    edited(
        root / "config/config_train.json",
        lambda conf: conf["train"]["handlers"].__setitem__(-1, bare),
    )
    with pytest.raises(ComponentError) as raised:
        train(config_of(root), allow_code=True)
    text = str(raised.value)
    assert "TypeError: list indices must be integers" in text
    assert "train.handlers[5]" in text
    assert '"path": "mmar_runtime.components.compat.batch_output_handler"' in text
    assert '"handler": "old_stop.StopAtLowLoss"' in text


# --- Iterations ----------------------------------------------------------------------------------


def test_an_iteration_accumulates_gradients_as_monai_would(
    example: MakeExample, edited: Edited, make_mmar: Callable[[Path], Path], tmp_path: Path
) -> None:
    own = example("own_iteration")
    train(config_of(own, epochs=1), allow_code=True)
    theirs = make_mmar(tmp_path / "theirs")
    edited(
        theirs / "config/config_train.json",
        lambda conf: conf["train"]["trainer"]["args"].update(accumulation_steps=2),
    )
    train(config_of(theirs, epochs=1), allow_code=False)
    digests = [
        digest(read_checkpoint(root / "models/final_model.pt").weights) for root in (own, theirs)
    ]
    assert digests[0] == digests[1]


def test_after_an_iteration_of_ones_own_the_output_is_decollated_and_postprocessed(
    example: MakeExample,
) -> None:
    with workflow_of(example("own_iteration"), epochs=1) as workflow:
        outputs: list[Any] = []
        workflow.engine.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output)
        )
        workflow.run()
        output = outputs[-1]
        assert isinstance(output, list)
        assert sorted(output[0]) == ["image", "label", "loss", "pred"]
        # AsDiscreted makes one-hot predictions of two classes.
        assert output[0]["pred"].shape == (2, 8, 8, 8)
        assert set(output[0]["pred"].unique().tolist()) <= {0.0, 1.0}


# --- Trainers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "counter"),
    [("own_trainer", "steps"), ("old_trainer", "accumulated")],
)
def test_a_trainer_with_events_of_its_own(example: MakeExample, name: str, counter: str) -> None:
    with workflow_of(example(name), epochs=1, amp=True, use_gpu=False) as workflow:
        workflow.run()
        assert getattr(workflow.engine.state, counter) == CASES
        assert workflow.engine.state.device == torch.device("cpu")  # nobody wrote a device
        assert workflow.trainer.amp is False  # it needs a GPU


def test_without_its_base_class_the_old_trainer_fails_and_the_error_says_what_to_do(
    example: MakeExample,
) -> None:
    root = example("old_trainer")
    module = root / "custom/old_trainer.py"
    code = module.read_text()
    code = code.replace("(AdditionalEvents, SupervisedTrainer)", "(SupervisedTrainer)")
    module.write_text(code)
    with pytest.raises(ComponentError) as raised:
        train(config_of(root), allow_code=True)
    assert "is not a valid event for this OldTrainer" in str(raised.value)
    assert "mmar_runtime.components.compat.AdditionalEvents" in str(raised.value)


# --- A workflow of one's own ---------------------------------------------------------------------


def test_a_trainer_may_be_the_whole_workflow(example: MakeExample) -> None:
    root = example("own_workflow", alone=True)
    result = train(config_of(root, print_conf=True), allow_code=True)
    assert (result.epochs, result.iterations, result.key_metric) == ((), None, None)
    weights = read_checkpoint(root / "models/model.pt").weights
    # It learns the sum of its three inputs; 20 steps bring it near.
    assert weights["weight"].tolist()[0] == pytest.approx([1.0, 1.0, 1.0], abs=0.3)


def test_a_workflow_of_ones_own_is_seeded(example: MakeExample) -> None:
    root = example("own_workflow", alone=True)
    digests = set()
    for _ in range(2):
        train(config_of(root), allow_code=True)
        digests.add(digest(read_checkpoint(root / "models/model.pt").weights))
    assert len(digests) == 1


def test_a_workflow_of_ones_own_cannot_be_resumed(example: MakeExample) -> None:
    root = example("own_workflow", alone=True)
    with pytest.raises(CheckpointError, match=r"train\.trainer: Trainer keeps its networks"):
        train(config_of(root), allow_code=True, resume=True)


# --- Old code ------------------------------------------------------------------------------------


def test_a_transform_for_numpy_arrays_runs_inside_the_wrapper(example: MakeExample) -> None:
    root = example("old_noise")
    digests = []
    for _ in range(2):
        train(config_of(root, epochs=1), allow_code=True)
        digests.append(digest(read_checkpoint(root / "models/final_model.pt").weights))
    assert digests[0] == digests[1]  # its noise is seeded


@pytest.mark.parametrize("workers", [0, 2])
def test_without_the_wrapper_the_error_names_it(
    example: MakeExample, edited: Edited, workers: int
) -> None:
    root = example("old_noise")

    def change(conf: Any) -> None:
        bare = {"path": "old_noise.AddNoised", "args": {"keys": ["image"], "std": 0.1}}
        conf["train"]["pre_transforms"][-1] = bare
        conf["train"]["dataloader"]["args"]["num_workers"] = workers

    edited(root / "config/config_train.json", change)
    with pytest.raises(ComponentError) as raised:
        train(config_of(root), allow_code=True)
    text = str(raised.value)
    assert "Cannot interpret 'torch.float32' as a data type" in text
    assert "train.pre_transforms[5]" in text
    assert '"path": "mmar_runtime.components.compat.numpy_transform"' in text
    assert '"transform": "old_noise.AddNoised"' in text


# --- MONAI's engines -----------------------------------------------------------------------------


def test_a_gan_trains_and_resumes_to_the_same_bits(example: MakeExample, edited: Edited) -> None:
    root = example("own_gan", alone=True)

    def weights() -> list[float]:
        content = torch.load(root / "models/final_model.pt", weights_only=True)
        return [float(one.sum()) for part in content.values() for one in part.values()]

    assert train(config_of(root), allow_code=True).iterations == 2
    whole = weights()
    train(config_of(root, epochs=1), allow_code=True)
    assert weights() != whole
    train(config_of(root), allow_code=True, resume=True)
    assert weights() == whole


def test_several_networks_make_one_prediction(example: MakeExample) -> None:
    """Here the same weights twice, whose mean is what one of the networks predicts alone."""
    root = example("ensemble", file="config_validation.json")
    train(config_of(root, epochs=1), allow_code=False)
    alone = load_evaluation_config(
        Mmar.open(root), file="config/config_cross_validation.json", overrides=both(root)
    )
    single = evaluate(alone, allow_code=False)
    both_config = load_evaluation_config(
        Mmar.open(root), overrides=both(root), checks=[component_check(allow_code=False)]
    )
    ensemble = evaluate(both_config, allow_code=False)
    assert values_of(ensemble.metrics) == pytest.approx(values_of(single.metrics))


def both(root: Path) -> dict[str, Scalar]:
    return {"MMAR_CKPT": str(root / "models/final_model.pt"), "dont_load_ckpt_model": False}


def test_prepare_batch_passes_another_input(example: MakeExample) -> None:
    root = example("own_two_inputs")
    with workflow_of(root, epochs=1) as workflow:
        weight = workflow.builder.get("train", "model").layer.weight
        before = weight.detach().clone()
        workflow.run()
        # Without the input its weights would meet zeros, and stay.
        assert not torch.equal(weight[:, 1], before[:, 1])


def test_engines_of_several_devices_in_a_workflow_of_ones_own(example: MakeExample) -> None:
    root = example("own_devices", alone=True)
    with workflow_of(root) as workflow:
        workflow.run()
        assert isinstance(workflow.trainer.trainer.state.output, float)
        assert workflow.trainer.evaluator.state.metrics["error"] < 3.0


# --- Where no code is allowed --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "own_parts",
        "own_iteration",
        "own_trainer",
        "old_noise",
        "old_stop",
    ],
)
def test_without_permission_nothing_of_it_is_imported(example: MakeExample, name: str) -> None:
    root = example(name)
    before = set(sys.modules)
    with pytest.raises(ConfigError, match="code that this site has not allowed"):
        load_train_config(Mmar.open(root), checks=[component_check(allow_code=False)])
    assert not {name for name in set(sys.modules) - before if name.startswith(("own_", "old_"))}
