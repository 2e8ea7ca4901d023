"""One site's rounds on the tiny MMAR: two training cases, so an epoch is two steps."""

from __future__ import annotations

import errno
import gc
import json
import math
import random
import subprocess
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.networks.nets import UNet

from fl_client.local_evaluation import CrossSiteEvaluator
from fl_client.local_training import LocalTrainer
from fl_client.local_work import LocalWork
from fl_client.memory.stored_rounds import StoredRounds
from fl_client.site import Site
from mmar_runtime.components.launch import Processes
from mmar_runtime.errors import (
    ComponentError,
    ConfigError,
    MmarError,
    NotFiniteError,
    RunAborted,
    WeightsError,
)
from mmar_runtime.results import EpochReport, EvaluationResult
from mmar_runtime.weights import Weights, digest, load_into, weights_of
from mmar_runtime.workflows.observing import SilentObserver
from tests.conftest import metric

Edited = Callable[[Path, Callable[[Any], object]], Path]
MakeTrainer = Callable[..., LocalTrainer]

CASES = STEPS_OF_AN_EPOCH = 2


def moved(received: Weights, difference: Weights) -> dict[str, torch.Tensor]:
    """The next global weights of a federation of one site."""
    return {name: received[name] + difference[name] for name in received}


def rounds(trainer: LocalTrainer, received: Weights, count: int) -> list[Any]:
    """The updates of several rounds, each starting from what the one before gave."""
    updates = []
    for number in range(1, count + 1):
        updates.append(trainer.train(received, number))
        received = moved(received, updates[-1].difference)
    return updates


# --- what a round gives


def dice_by_hand(weights: Weights, data: Path) -> float:
    """The Dice score of a model on the one validation case, without engines or transforms.

    The config scales the image to 0..1 and cuts it into 8 blocks of 8x8x8 voxels.
    """
    network = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=[4, 8], strides=[2])
    network.load_state_dict(dict(weights))
    network.eval()
    volume = np.asarray(nibabel.load(data / "case_3_image.nii.gz").dataobj, dtype=np.float32)
    truth = np.asarray(nibabel.load(data / "case_3_label.nii.gz").dataobj) == 1
    image = torch.from_numpy((volume - volume.min()) / (volume.max() - volume.min()))
    found = np.zeros_like(truth)
    corners = [(i, j, k) for i in (0, 8) for j in (0, 8) for k in (0, 8)]
    for i, j, k in corners:
        block = slice(i, i + 8), slice(j, j + 8), slice(k, k + 8)
        with torch.no_grad():
            found[block] = network(image[block][None, None])[0].argmax(0).numpy() == 1
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_the_received_model_is_validated_before_it_is_trained(
    make_trainer: MakeTrainer,
    received: Weights,
    evaluator: CrossSiteEvaluator,
    tiny_mmar: Path,
) -> None:
    report = make_trainer().train(received, 1).report

    independent = evaluator.evaluate(received, owner="SRV_FL_global_model")
    assert report.received_metrics == independent.metrics
    by_hand = dice_by_hand(received, tiny_mmar / "data")
    assert report.received_metrics["val_mean_dice"].value == pytest.approx(by_hand, rel=1e-6)
    assert 0 < by_hand < 1


def test_the_local_metrics_are_those_of_the_trained_model(
    make_trainer: MakeTrainer, received: Weights, evaluator: CrossSiteEvaluator
) -> None:
    trainer = make_trainer()
    update = trainer.train(received, 1)

    independent = evaluator.evaluate(weights_of(trainer.network), owner="site-1")
    assert update.report.local_metrics == independent.metrics
    assert update.report.local_metrics != update.report.received_metrics


def test_so_they_are_where_the_config_validates_less_often_than_a_round_ends(
    make_trainer: MakeTrainer, received: Weights, evaluator: CrossSiteEvaluator, tiny_mmar: Path,
    edited: Edited,
) -> None:  # fmt: skip
    edited(
        tiny_mmar / "config/config_train.json",
        lambda document: document.update(num_interval_per_valid=5),
    )
    trainer = make_trainer()
    update = trainer.train(received, 1)

    independent = evaluator.evaluate(weights_of(trainer.network), owner="site-1")
    assert update.report.local_metrics == independent.metrics


def test_the_difference_is_exactly_local_minus_received(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    trainer = make_trainer()

    update = trainer.train(received, 1)

    local = weights_of(trainer.network)
    assert update.difference.keys() == received.keys()
    assert all(torch.equal(update.difference[name], local[name] - received[name]) for name in local)
    assert any(tensor.abs().max() > 0 for tensor in update.difference.values())


def test_the_received_tensors_are_left_as_they_are(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    before = digest(received)
    trainer = make_trainer()

    trainer.train(received, 1)
    trainer.score(received)

    assert digest(received) == before


def test_a_round_starts_from_the_received_weights_and_not_from_the_last_local_ones(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    trainer = make_trainer()
    first = trainer.train(received, 1)
    second = trainer.train(received, 2)

    assert second.report.received_metrics == first.report.received_metrics


def test_training_on_the_sites_data_lowers_the_loss(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    (update,) = rounds(make_trainer(epochs=10), received, 1)

    losses = [report.loss for report in update.report.epochs]
    assert losses[-1] < losses[0]


# --- over the rounds


def test_everything_is_built_once_for_all_rounds(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    built = [update.report.built for update in rounds(make_trainer(), received, 3)]

    assert built[0] == built[1] == built[2]
    assert {count for name, count in built[0].items() if name.startswith("train.")} == {1}
    # The received model is scored by an evaluator without handlers, on the same data.
    assert built[0]["validate.evaluator"] == 2
    assert built[0]["validate.dataset"] == 1


def test_no_batch_is_kept_until_the_next_round(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    """Many sites may wait in one process, and a GPU may be wanted by others meanwhile."""
    trainer = make_trainer()
    images: list[weakref.ref[torch.Tensor]] = []
    trainer.engine.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: images.append(weakref.ref(engine.state.batch[0]["image"])),
    )

    trainer.train(received, 1)

    gc.collect()
    assert [image() for image in images] == [None] * STEPS_OF_AN_EPOCH
    assert trainer.engine.state.output is None


def test_epochs_go_on_counting(make_trainer: MakeTrainer, received: Weights) -> None:
    updates = rounds(make_trainer(epochs=2), received, 3)

    assert [[report.epoch for report in update.report.epochs] for update in updates] == [
        [1, 2],
        [3, 4],
        [5, 6],
    ]
    assert [update.round_number for update in updates] == [1, 2, 3]


def test_the_learning_rate_goes_on_falling(make_trainer: MakeTrainer, received: Weights) -> None:
    """StepLR halves it after each epoch; a scheduler built anew would begin again at 0.01."""
    trainer = make_trainer(epochs=2)
    rounds(trainer, received, 2)

    (group,) = trainer._workflow.engine.optimizer.param_groups
    assert group["lr"] == pytest.approx(0.01 * 0.5**4)


def test_the_process_has_one_name_in_all_rounds(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    updates = rounds(make_trainer(process="1234-abcd"), received, 2)

    assert {update.report.process for update in updates} == {"1234-abcd"}


# --- how much a round trains


@pytest.mark.parametrize("epochs", [1, 3])
def test_whole_epochs_are_trained(
    make_trainer: MakeTrainer, received: Weights, epochs: int
) -> None:
    updates = rounds(make_trainer(epochs=epochs), received, 2)

    assert [update.steps for update in updates] == [epochs * STEPS_OF_AN_EPOCH] * 2
    assert [update.samples for update in updates] == [epochs * CASES] * 2
    assert {update.epoch_samples for update in updates} == {CASES}


@pytest.mark.parametrize(
    ("entry", "argument", "steps"),
    [("dataloader", "batch_size", 1), ("trainer", "accumulation_steps", 2)],
)
def test_neither_large_batches_nor_accumulated_gradients_change_the_samples(
    make_trainer: MakeTrainer,
    received: Weights,
    tiny_mmar: Path,
    edited: Edited,
    entry: str,
    argument: str,
    steps: int,
) -> None:
    edited(
        tiny_mmar / "config/config_train.json",
        lambda config: config["train"][entry]["args"].update({argument: 2}),
    )

    (update,) = rounds(make_trainer(), received, 1)

    assert (update.steps, update.samples) == (steps, CASES)


def test_samples_are_counted_where_the_job_weighs_by_them(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    (update,) = rounds(make_trainer(weigh_by="steps"), received, 1)

    assert (update.samples, update.epoch_samples) == (None, None)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_so_many_steps_are_trained_also_over_the_end_of_an_epoch(
    make_trainer: MakeTrainer, received: Weights, steps: int
) -> None:
    trainer = make_trainer(steps=steps)

    updates = rounds(trainer, received, 3)

    assert [update.steps for update in updates] == [steps] * 3
    optimizer = trainer._workflow.engine.optimizer
    assert {int(state["step"]) for state in optimizer.state.values()} == {3 * steps}


def test_epochs_that_end_within_steps_are_reported_once_each(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    """Rounds of 3 steps end epochs of 2 steps after step 2, after 4 and 6, and after 8."""
    updates = rounds(make_trainer(steps=3), received, 3)

    ended = [[report.epoch for report in update.report.epochs] for update in updates]
    assert ended == [[1], [2, 3], [4]]


def test_the_model_after_some_steps_is_validated(
    make_trainer: MakeTrainer, received: Weights, evaluator: CrossSiteEvaluator
) -> None:
    """The validation of the last whole epoch would be that of an earlier model."""
    trainer = make_trainer(steps=3)
    update = trainer.train(received, 1)

    independent = evaluator.evaluate(weights_of(trainer.network), owner="site-1")
    assert update.report.local_metrics == independent.metrics


@pytest.mark.parametrize(
    "work", [{"epochs": 0}, {"epochs": -1}, {"steps": -1}, {"epochs": 0, "steps": 0}]
)
def test_a_round_without_work_is_refused(work: dict[str, int]) -> None:
    with pytest.raises(MmarError, match="at least one epoch, or a positive number of steps"):
        LocalWork(**work)
    assert LocalWork(epochs=0, steps=1).steps == 1


# --- the same bits everywhere


def digests(trainer: LocalTrainer, received: Weights, count: int = 2) -> list[str]:
    return [digest(update.difference) for update in rounds(trainer, received, count)]


FRESH_PROCESS = """
import json, sys
from collections import Counter
from pathlib import Path
from fl_client.local_training import LocalTrainer
from fl_client.local_work import LocalWork
from fl_client.memory.stored_rounds import StoredRounds
from fl_client.site import Site
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import digest, read_checkpoint
from mmar_runtime.workflows.session import session
from tests.conftest import site_values

root, weights, work = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
site = Site(name="site-1", mmar=Mmar.open(root), values=site_values(root))
config = site.train_config()
with session(config, allow_code=False) as context:
    trainer = LocalTrainer(
        site, config, context, work=LocalWork(**work), process="p", counts=Counter()
    )
    received = dict(read_checkpoint(weights).weights)
    for number in (1, 2):
        difference = trainer.train(received, number).difference
        print("digest", digest(difference))
        received = {name: received[name] + difference[name] for name in received}
"""


@pytest.mark.parametrize("work", [{"epochs": 1}, {"steps": 3}])
def test_a_fresh_process_gives_the_same_bits(
    make_trainer: MakeTrainer,
    received: Weights,
    tiny_mmar: Path,
    work: dict[str, int],
    warm_python: Path,
) -> None:
    torch.rand(5), random.random(), np.random.rand(3)  # a process that has drawn numbers before
    torch.save(dict(received), tiny_mmar / "models/received.pt")
    command = [str(warm_python), "-c", FRESH_PROCESS, str(tiny_mmar)]
    arguments = [str(tiny_mmar / "models/received.pt"), json.dumps(work)]

    printed = subprocess.run(
        [*command, *arguments], check=True, capture_output=True, text=True
    ).stdout

    lines = [line.split()[1] for line in printed.splitlines() if line.startswith("digest ")]
    assert lines == digests(make_trainer(**work), received)


def test_numbers_drawn_between_two_rounds_change_nothing(
    make_trainer: MakeTrainer, received: Weights, evaluator: CrossSiteEvaluator
) -> None:
    """Scoring, cross-site evaluation or anybody else may draw from the process's generators."""
    undisturbed = digests(make_trainer(), received)

    trainer = make_trainer()
    first = trainer.train(received, 1)
    torch.rand(5), random.random(), np.random.rand(3)
    trainer.score(received)
    evaluator.evaluate(received, owner="site-2")
    second = trainer.train(moved(received, first.difference), 2)

    assert [digest(first.difference), digest(second.difference)] == undisturbed


def test_another_site_name_gives_other_bits(make_trainer: MakeTrainer, received: Weights) -> None:
    assert digests(make_trainer(name="site-2"), received) != digests(make_trainer(), received)


def test_another_seed_gives_other_bits(
    make_trainer: MakeTrainer, received: Weights, tiny_mmar: Path, edited: Edited
) -> None:
    before = digests(make_trainer(), received)
    edited(
        tiny_mmar / "config/config_train.json",
        lambda document: document["determinism"].update(random_seed=1),
    )

    assert digests(make_trainer(), received) != before


def test_another_round_draws_other_numbers(make_trainer: MakeTrainer, received: Weights) -> None:
    first, second = make_trainer().train(received, 1), make_trainer().train(received, 2)

    assert digest(first.difference) != digest(second.difference)


def test_of_several_processes_each_draws_from_the_seed_of_site_and_round_plus_its_rank(
    make_trainer: MakeTrainer, site: Site
) -> None:
    trainer = make_trainer()
    seed = site.round_seed(0, 3)

    for rank in (0, 1):
        trainer._processes = Processes(rank=rank, local_rank=rank, count=2)
        trainer._seed(3)
        expected = torch.Generator().manual_seed(seed + rank)
        assert torch.equal(torch.rand(4), torch.rand(4, generator=expected))
        assert random.random() == random.Random(seed + rank).random()


def test_a_site_that_was_restarted_draws_what_it_would_have_drawn(
    make_trainer: MakeTrainer, received: Weights, tiny_mmar: Path, edited: Edited
) -> None:
    """With plain gradient descent a trainer has no state, so only random numbers could differ."""

    def without_state(document: Any) -> None:
        document["train"]["optimizer"]["name"] = "SGD"
        document["train"]["lr_scheduler"]["args"]["gamma"] = 1.0

    edited(tiny_mmar / "config/config_train.json", without_state)
    _, second = rounds(make_trainer(), received, 2)

    (first,) = rounds(make_trainer(), received, 1)
    restarted = make_trainer().train(moved(received, first.difference), 2)

    assert digest(restarted.difference) == digest(second.difference)


@pytest.mark.parametrize("work", [{"epochs": 1}, {"steps": 3}], ids=["epochs", "steps"])
@pytest.mark.parametrize("shared", [None, ["model.1.*"]], ids=["all shared", "own tensors"])
def test_a_site_whose_process_was_lost_goes_on_to_the_same_bits(
    make_trainer: MakeTrainer,
    received: Weights,
    tmp_path: Path,
    work: dict[str, Any],
    shared: list[str] | None,
) -> None:
    """Optimizer, schedule, counters, own tensors and the best model come from a file."""
    stored, undisturbed = StoredRounds(tmp_path), make_trainer(**work, shared=shared)
    models, updates = [undisturbed.shared(received)], []
    for number in (1, 2, 3):
        updates.append(undisturbed.train(models[-1], number))
        models.append(moved(models[-1], updates[-1].difference))
        if number < 3:
            stored.write(number, undisturbed.state())

    for number in (2, 3):  # the answer to round 2 may have been lost as well
        restarted = make_trainer(**work, shared=shared)
        restarted.put_back(stored.read(stored.newest(before=number)))
        update = restarted.train(models[number - 1], number)

        assert digest(update.difference) == digest(updates[number - 1].difference)
        assert update.report.epochs == updates[number - 1].report.epochs
    assert restarted.best is not None
    assert undisturbed.best is not None
    assert digest(restarted.best.weights) == digest(undisturbed.best.weights)
    assert restarted.best.result == undisturbed.best.result


# --- the site's best model


class Validations(SilentObserver):
    """Keeps every validation of a model that was trained here, with that model's digest."""

    def __init__(self) -> None:
        self.trainer: LocalTrainer | None = None
        self.found: list[tuple[float | None, str]] = []

    def validation(self, result: EvaluationResult, *, epoch: int) -> None:
        assert self.trainer is not None
        self.found.append((result.key_value.value, digest(weights_of(self.trainer.network))))


def test_the_best_model_is_the_best_of_those_validated_here(
    make_trainer: MakeTrainer, received: Weights, evaluator: CrossSiteEvaluator
) -> None:
    observer = Validations()
    trainer = observer.trainer = make_trainer(epochs=2, observer=observer)
    rounds(trainer, received, 3)

    best = trainer.best
    assert best is not None
    values = [value for value, _ in observer.found if value is not None]
    assert len(values) == 3 * 2
    assert len(set(values)) > 1
    # `index` finds the first of equal values: at a tie the earlier model stays.
    assert digest(best.weights) == observer.found[values.index(max(values))][1]
    assert best.result.key_value.value == max(values)
    assert best.result == evaluator.evaluate(best.weights, owner="site-1")


@pytest.mark.parametrize(
    ("higher_is_better", "values"),
    [(True, (0.25, 0.5, 0.5, 0.125)), (False, (0.75, 0.5, 0.5, 0.625))],
)
def test_a_worse_or_an_equal_model_does_not_take_its_place(
    make_trainer: MakeTrainer,
    received: Weights,
    higher_is_better: bool,
    values: tuple[float, ...],
) -> None:
    trainer = make_trainer()
    kept = []
    for value in values:
        with torch.no_grad():
            next(trainer.network.parameters()).fill_(value)
        found = {"dice": metric(value, higher_is_better=higher_is_better)}
        result = EvaluationResult(key_metric="dice", metrics=found, cases=1)
        trainer.validation(result, epoch=1)
        kept.append(trainer.best)

    assert kept[0] is not kept[1]
    assert kept[1] is kept[2] is kept[3]
    assert next(iter(kept[1].weights.values())).unique().tolist() == [0.5]


def test_a_foreign_model_never_becomes_the_best(
    make_trainer: MakeTrainer, received: Weights, evaluator: CrossSiteEvaluator
) -> None:
    trainer = make_trainer(epochs=20)
    rounds(trainer, received, 1)
    good = trainer.best
    assert good is not None

    poor = make_trainer(name="site-2")
    poor.train(received, 1)
    before = poor.best
    assert before is not None
    assert good.result.beats(before.result)  # so it would be kept, were it trained

    assert poor.score(good.weights).key_value == good.result.key_value
    assert evaluator.evaluate(good.weights, owner="site-1").key_value == good.result.key_value
    assert poor.best is before


def test_the_received_model_is_not_the_sites_own_even_if_it_is_the_best(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    teacher = make_trainer(epochs=20)
    teacher.train(received, 1)
    good = teacher.best
    assert good is not None

    trainer = make_trainer(name="site-2")
    trainer.train(good.weights, 1)

    assert trainer.best is not None
    assert digest(trainer.best.weights) != digest(good.weights)


def test_before_the_first_round_there_is_no_best_model(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    trainer = make_trainer()
    trainer.score(received)

    assert trainer.best is None


# --- stopping


class StopAfter(SilentObserver):
    """Asks for a stop once so many iterations of training are done."""

    def __init__(self, iterations: int) -> None:
        self.left = iterations
        self.epochs: list[EpochReport] = []

    def iteration(self, **_: Any) -> None:
        self.left -= 1

    def epoch(self, report: EpochReport, *, epochs: int) -> None:
        self.epochs.append(report)

    def __call__(self) -> bool:
        return self.left <= 0


def test_a_stop_between_iterations_ends_the_round(
    make_trainer: MakeTrainer, received: Weights, tiny_mmar: Path
) -> None:
    stop = StopAfter(iterations=1)
    trainer = make_trainer(epochs=50, observer=stop, should_stop=stop)

    with pytest.raises(RunAborted):
        trainer.train(received, 1)

    assert stop.left == 0
    assert stop.epochs == []
    assert trainer.best is None
    assert list((tiny_mmar / "models").glob("*.pt")) == []


def test_a_stop_during_the_validation_ends_the_round_before_any_step(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    trainer = make_trainer(should_stop=lambda: True)

    with pytest.raises(RunAborted, match="during validation"):
        trainer.train(received, 1)

    assert trainer._workflow.iteration == 0


def test_after_a_stop_the_next_round_is_a_whole_one(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    stop = StopAfter(iterations=1)
    trainer = make_trainer(epochs=1, observer=stop, should_stop=stop)
    with pytest.raises(RunAborted):
        trainer.train(received, 1)
    stop.left = 100

    update = trainer.train(received, 1)

    assert update.steps == STEPS_OF_AN_EPOCH
    assert len(update.report.epochs) == 1


# --- a round that fails changes nothing


class Fault:
    """Something that goes wrong in the second step of a round; once."""

    def __init__(self, trainer: LocalTrainer, do: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.steps = 0
        self._do = do
        self._hook = trainer.network.register_forward_hook(self._after_forward)

    def _after_forward(self, network: torch.nn.Module, _: object, output: Any) -> Any:
        self.steps += network.training
        if self.steps < STEPS_OF_AN_EPOCH:
            return output
        self._hook.remove()
        return self._do(output)


def raising(error: BaseException) -> Callable[[torch.Tensor], torch.Tensor]:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise error

    return fail


FAULTS: Mapping[str, tuple[Callable[[torch.Tensor], torch.Tensor], type[BaseException]]] = {
    "a loss that is not a number": (lambda output: output * math.nan, NotFiniteError),
    "an error": (raising(RuntimeError("sizes do not match")), ComponentError),
    "no memory": (raising(MemoryError()), ComponentError),
    "a full disk": (raising(OSError(errno.ENOSPC, "No space left on device")), MmarError),
    "an interrupt": (raising(KeyboardInterrupt()), KeyboardInterrupt),
}


@pytest.mark.parametrize("work", [{"epochs": 2}, {"steps": 3}], ids=["epochs", "steps"])
@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_round_that_failed_a_site_is_where_it_was_before(
    make_trainer: MakeTrainer, received: Weights, fault: str, work: dict[str, int]
) -> None:
    """Weights, optimizer, schedule, counters, engines and best model."""
    do, error = FAULTS[fault]
    undisturbed, trainer = make_trainer(**work), make_trainer(**work)
    expected = rounds(undisturbed, received, 2)
    (first,) = rounds(trainer, received, 1)
    best, after_first = trainer.best, moved(received, first.difference)

    Fault(trainer, do)
    with pytest.raises(error):
        trainer.train(after_first, 2)
    assert trainer.best is best
    again = trainer.train(after_first, 2)

    assert digest(again.difference) == digest(expected[1].difference)
    assert again.steps == expected[1].steps
    assert again.samples == expected[1].samples
    assert again.report.epochs == expected[1].report.epochs
    assert again.report.local_metrics == expected[1].report.local_metrics


def test_after_a_first_round_that_failed_everything_is_new(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    (expected,) = rounds(make_trainer(epochs=2), received, 1)
    trainer = make_trainer(epochs=2)

    Fault(trainer, lambda output: output * math.nan)
    with pytest.raises(NotFiniteError):
        trainer.train(received, 1)

    assert digest(trainer.train(received, 1).difference) == digest(expected.difference)


# --- what is refused


def test_weights_that_do_not_fit_are_refused_by_name_and_leave_the_network_alone(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    trainer = make_trainer()
    load_into(trainer.network, received, source="a test")
    name, *others = received
    spoilt: Mapping[str, torch.Tensor] = {
        **{other: received[other] + 1 for other in others},
        name: torch.zeros(7),
    }

    with pytest.raises(WeightsError) as caught:
        trainer.train(spoilt, 1)

    assert f"{name}: shape" in str(caught.value)
    assert digest(weights_of(trainer.network)) == digest(received)


def test_a_model_that_is_not_a_number_any_more_is_not_sent(
    make_trainer: MakeTrainer, received: Weights, tiny_mmar: Path, edited: Edited
) -> None:
    def diverge(document: Any) -> None:
        """Multiply each weight by 1 - 1000 * 1000 in each step."""
        document["learning_rate"] = 1000
        document["train"]["optimizer"]["args"] |= {
            "weight_decay": 1000,
            "decoupled_weight_decay": True,
        }
        document["train"]["lr_scheduler"]["args"]["gamma"] = 1

    edited(tiny_mmar / "config/config_train.json", diverge)

    trainer = make_trainer(epochs=5)
    with pytest.raises(NotFiniteError, match=r"the loss is (nan|inf) in epoch \d+, iteration"):
        trainer.train(received, 1)


def test_a_model_that_is_not_a_number_any_more_is_no_best_model(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    trainer = make_trainer()
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(math.nan)

    found = {"val_mean_dice": metric(0.0)}
    trainer.validation(
        EvaluationResult(key_metric="val_mean_dice", metrics=found, cases=1),
        epoch=1,
    )

    assert trainer.best is None


def test_a_validation_without_a_number_is_no_best_one(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    trainer = make_trainer()
    for value in (None, 0.25, None):
        metrics = {"val_mean_dice": metric(value)}
        result = EvaluationResult(key_metric="val_mean_dice", metrics=metrics, cases=1)
        trainer.validation(result, epoch=1)

    assert trainer.best is not None
    assert trainer.best.result.key_value.value == 0.25


def test_a_config_without_validation_is_refused(
    make_trainer: MakeTrainer, tiny_mmar: Path, edited: Edited
) -> None:
    def without_validation(document: Any) -> None:
        del document["validate"]
        handlers = document["train"]["handlers"]
        document["train"]["handlers"] = [
            handler for handler in handlers if handler["name"] != "ValidationHandler"
        ]

    edited(tiny_mmar / "config/config_train.json", without_validation)

    with pytest.raises(ConfigError, match="needs a section 'validate'"):
        make_trainer()
