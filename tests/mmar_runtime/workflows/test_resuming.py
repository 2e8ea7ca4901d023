"""An interrupted training that goes on ends with the same bits as one that was not interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine

import medl.apps.train
from mmar_runtime.config.data_list import data_check
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import CheckpointError, RunAborted
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.results import TrainResult
from mmar_runtime.weights import digest, read_checkpoint
from mmar_runtime.workflows import resuming
from mmar_runtime.workflows.resuming import SHARE_OF_TIME, ResumePoint, changed_places
from mmar_runtime.workflows.training import train
from mmar_runtime.workflows.training_state import StatefulObjects

MakeMmar = Callable[..., Path]
Edited = Callable[[Path, Callable[[Any], object]], Path]

EPOCHS = 5
RANDOM_TRANSFORMS = [
    {"name": "RandFlipd", "args": {"keys": ["image", "label"], "prob": 0.5}},
    {"name": "RandShiftIntensityd", "args": {"keys": "image", "offsets": 0.3, "prob": 0.5}},
]

# ``should_stop`` is asked six times in an epoch: when it starts, after each of its two iterations,
# when the validation starts, after its one case, and before the point is written.
QUESTIONS = 6
PLACES = {
    "at the start of an epoch": 1,
    "in the middle of an epoch": 2,
    "after the last iteration of an epoch": 3,
    "at the start of a validation": 4,
    "within a validation": 5,
    "between a validation and the point": 6,
}


@pytest.fixture
def mmar(tiny_mmar: Path, edited: Edited) -> Path:
    """The tiny MMAR with transforms that draw numbers, Adam and StepLR, for five epochs."""
    return randomized(tiny_mmar, edited)


def randomized(root: Path, edited: Edited) -> Path:
    def change(conf: Any) -> None:
        conf["epochs"] = EPOCHS
        transforms = conf["train"]["pre_transforms"]
        transforms[-1:-1] = RANDOM_TRANSFORMS

    edited(train_json(root), change)
    return root


@pytest.fixture
def point_after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "SHARE_OF_TIME", 0)


def train_json(root: Path) -> Path:
    return root / "config/config_train.json"


def config_of(root: Path, **values: Scalar) -> TrainConfig:
    checks = [component_check(allow_code=True), data_check]
    return load_train_config(Mmar.open(root), overrides=values, checks=checks)


def uninterrupted(root: Path, **values: Scalar) -> TrainResult:
    return train(config_of(root, **values), allow_code=True)


def interrupted(root: Path, *, questions: int, **values: Scalar) -> None:
    """Train until ``should_stop`` has been asked so many times."""
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) >= questions

    with pytest.raises(RunAborted):
        train(config_of(root, **values), allow_code=True, should_stop=should_stop)


def resumed(root: Path, **values: Scalar) -> TrainResult:
    return train(config_of(root, **values), allow_code=True, resume=True)


def digests(root: Path) -> dict[str, str]:
    names = ("model.pt", "final_model.pt")
    return {name: digest(read_checkpoint(root / "models" / name).weights) for name in names}


def point_of(root: Path) -> dict[str, Any]:
    """What the file holds; it can be read without trusting it."""
    content: dict[str, Any] = torch.load(root / "models/resume.pt", weights_only=True)
    return content


# --- To the same bits ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``expected(make, edited, num_workers=0)``: what an uninterrupted run reaches; made once."""
    known: dict[int, tuple[dict[str, str], TrainResult]] = {}

    def of(make: MakeMmar, edited: Edited, *, workers: int) -> tuple[dict[str, str], TrainResult]:
        if workers not in known:
            root = randomized(make(tmp_path_factory.mktemp("whole") / "mmar"), edited)
            with_workers(root, edited, workers)
            result = uninterrupted(root)
            known[workers] = digests(root), result
        return known[workers]

    return of


def with_workers(root: Path, edited: Edited, workers: int) -> None:
    def change(conf: Any) -> None:
        conf["train"]["dataloader"]["args"]["num_workers"] = workers

    edited(train_json(root), change)


@pytest.mark.usefixtures("point_after_each_epoch")
@pytest.mark.parametrize(
    ("place", "workers"),
    [
        *((place, 0) for place in PLACES),
        ("in the middle of an epoch", 2),
        ("within a validation", 2),
    ],
)
def test_a_resumed_training_reaches_the_same_bits(
    mmar: Path,
    make_mmar: MakeMmar,
    edited: Edited,
    expected: Callable[..., Any],
    place: str,
    workers: int,
) -> None:
    with_workers(mmar, edited, workers)
    models, whole = expected(make_mmar, edited, workers=workers)

    interrupted(mmar, questions=2 * QUESTIONS + PLACES[place])  # in the third epoch
    assert point_of(mmar)["training"]["trainer"]["epoch"] == 2
    result = resumed(mmar)

    assert digests(mmar) == models
    assert result.epochs == whole.epochs[2:]
    assert result.iterations == whole.iterations
    assert (result.best_metric, result.best_epoch) == (whole.best_metric, whole.best_epoch)


@pytest.mark.usefixtures("point_after_each_epoch")
def test_it_may_be_interrupted_again(
    mmar: Path, make_mmar: MakeMmar, edited: Edited, expected: Callable[..., Any]
) -> None:
    models, _ = expected(make_mmar, edited, workers=0)
    interrupted(mmar, questions=QUESTIONS + 2)
    for _ in range(2):  # each time an epoch further
        asked: list[int] = []

        def should_stop(asked: list[int] = asked) -> bool:
            asked.append(1)
            return len(asked) > QUESTIONS + 2

        with pytest.raises(RunAborted):
            train(config_of(mmar), allow_code=True, should_stop=should_stop, resume=True)
    assert point_of(mmar)["training"]["trainer"]["epoch"] == 3
    resumed(mmar)
    assert digests(mmar) == models


def test_it_goes_on_from_the_last_point_although_that_is_some_epochs_old(
    mmar: Path,
    make_mmar: MakeMmar,
    edited: Edited,
    expected: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it is where epochs take less time than ``SHARE_OF_TIME`` writings."""
    monkeypatch.setattr(resuming, "SHARE_OF_TIME", 10**6)
    models, _ = expected(make_mmar, edited, workers=0)
    interrupted(mmar, questions=4 * QUESTIONS + 2)
    assert point_of(mmar)["training"]["trainer"]["epoch"] == 1
    resumed(mmar)
    assert digests(mmar) == models


@pytest.mark.usefixtures("point_after_each_epoch")
def test_a_worse_model_does_not_replace_the_best_one_from_before_the_interruption(
    mmar: Path, edited: Edited
) -> None:
    def change(conf: Any) -> None:
        # From the third epoch on the steps are so large that nothing of the network is left.
        conf["train"]["lr_scheduler"]["args"].update(step_size=2, gamma=100)

    edited(train_json(mmar), change)
    whole = uninterrupted(mmar)
    models = digests(mmar)
    assert whole.best_epoch in (1, 2)
    for path in (mmar / "models").iterdir():
        path.unlink()

    interrupted(mmar, questions=3 * QUESTIONS + 2)
    result = resumed(mmar)

    assert digests(mmar) == models
    assert (result.best_metric, result.best_epoch) == (whole.best_metric, whole.best_epoch)


@pytest.mark.usefixtures("point_after_each_epoch")
def test_train_stats_of_a_resumed_training_keep_the_best_metric(
    mmar: Path,
) -> None:
    interrupted(mmar, questions=3 * QUESTIONS + 2)
    best = point_of(mmar)["training"]["evaluator"]["best_metric"]
    # From here on nothing is learned, so that the best one stays.
    point = point_of(mmar)
    for group in point["training"]["parts"]["optimizer"]["param_groups"]:
        group["lr"] = 0.0
    point["training"]["parts"]["lr_scheduler"]["base_lrs"] = [0.0]
    torch.save(point, mmar / "models/resume.pt")

    assert medl.apps.train.main(["-m", str(mmar), "--resume", "--write_train_stats"]) == 0

    stats = json.loads((mmar / "models/train_stats.json").read_text())
    assert stats["best_validation_metric"] == best
    assert stats["best_validation_epoch"] <= 3
    assert (stats["current_epoch"], stats["total_epochs"]) == (EPOCHS, EPOCHS)
    assert stats["current_iteration"] == stats["total_iterations"] == 2 * EPOCHS


@pytest.mark.usefixtures("point_after_each_epoch")
def test_a_checkpoint_loader_does_not_put_its_file_in_the_place_of_the_resumed_weights(
    mmar: Path,
) -> None:
    uninterrupted(mmar, epochs=1)
    (mmar / "models/final_model.pt").rename(mmar / "models/start.pt")
    values: dict[str, Scalar] = {"dont_load_ckpt_model": False, "MMAR_CKPT": "models/start.pt"}
    uninterrupted(mmar, **values)
    tuned = digests(mmar)

    interrupted(mmar, questions=2 * QUESTIONS + 2, **values)
    (mmar / "models/start.pt").unlink()  # it is not even read
    resumed(mmar, **values)

    assert digests(mmar) == tuned


@pytest.mark.usefixtures("point_after_each_epoch")
def test_more_epochs_may_be_asked_for(
    mmar: Path, make_mmar: MakeMmar, edited: Edited, expected: Callable[..., Any]
) -> None:
    models, _ = expected(make_mmar, edited, workers=0)
    uninterrupted(mmar, epochs=3)
    result = resumed(mmar, epochs=EPOCHS)
    assert [report.epoch for report in result.epochs] == [4, 5]
    assert digests(mmar) == models


KILLED_WHILE_WRITING = """
import os, signal, sys
import torch
import medl.apps.train
from mmar_runtime.workflows import resuming

resuming.SHARE_OF_TIME = 0
save, points = torch.save, []

def save_half(content, stream):
    points.append(1) if "random" in content else None
    if len(points) == 3:
        stream.write(b"half of it")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(content, stream)

torch.save = save_half
medl.apps.train.main(["-m", sys.argv[1]])
"""


@pytest.mark.slow
def test_after_kill_9_in_the_middle_of_writing_the_point_before_is_whole(
    mmar: Path,
    make_mmar: MakeMmar,
    edited: Edited,
    expected: Callable[..., Any],
    warm_python: Path,
) -> None:
    models, _ = expected(make_mmar, edited, workers=0)
    command = [str(warm_python), "-c", KILLED_WHILE_WRITING, str(mmar)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert point_of(mmar)["training"]["trainer"]["epoch"] == 2
    resumed(mmar)
    assert digests(mmar) == models


# --- What it costs -------------------------------------------------------------------------------


class Clock:
    """Time that passes only when someone says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowPart:
    """A network whose state takes some seconds to be written."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds, self.written = clock, seconds, 0

    def state_dict(self) -> dict[str, Any]:
        self.clock.now += self.seconds
        self.written += 1
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        raise AssertionError("nothing is resumed here")


def writings(folder: Path, *, epochs: int, epoch_takes: float, writing_takes: float) -> int:
    clock = Clock()
    part = SlowPart(clock, writing_takes)

    def iterate(engine: Engine, batch: Any) -> None:
        clock.now += epoch_takes

    trainer = Engine(iterate)
    point = ResumePoint(
        path=folder / "resume.pt",
        training=StatefulObjects(trainer=trainer, parts={"model": part}),
        savers=[],
        config={},
        should_stop=lambda: False,
        clock=clock,
    )
    point.write_after_epochs()
    trainer.run([0], max_epochs=epochs)
    return part.written


def test_long_epochs_are_each_followed_by_a_point(tmp_path: Path) -> None:
    hour, second = 3600.0, 1.0
    assert writings(tmp_path, epochs=10, epoch_takes=hour, writing_takes=second) == 10


def test_writing_takes_a_small_share_of_the_time_however_short_the_epochs_are(
    tmp_path: Path,
) -> None:
    epochs = 10 * SHARE_OF_TIME
    written = writings(tmp_path, epochs=epochs, epoch_takes=1.0, writing_takes=1.0)
    # After the first epoch, then each time SHARE_OF_TIME of them have passed, and after the last.
    assert written == 1 + (epochs - 1) // SHARE_OF_TIME + 1
    assert written <= epochs / 20


# --- Refused -------------------------------------------------------------------------------------


def refused(root: Path, match: str, **values: Scalar) -> None:
    with pytest.raises(CheckpointError, match=match):
        resumed(root, **values)


def test_a_changed_configuration_is_refused_with_the_places_that_differ(
    mmar: Path, edited: Edited
) -> None:
    interrupted(mmar, questions=QUESTIONS + 2)

    def change(conf: Any) -> None:
        conf["learning_rate"] = 0.5
        conf["train"]["pre_transforms"][3]["args"]["num_samples"] = 2

    edited(train_json(mmar), change)
    refused(
        mmar,
        r"resume\.pt' belongs to another configuration; different: learning_rate, "
        r"train\.optimizer\.args\.lr, train\.pre_transforms\[3\]\.args\.num_samples\n"
        r".*start anew without --resume",
    )


def test_changed_cases_and_files_are_refused_by_their_number(mmar: Path, edited: Edited) -> None:
    interrupted(mmar, questions=QUESTIONS + 2)
    image = mmar / "data/case_1_image.nii.gz"
    content = image.read_bytes()

    image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(mmar, r"different: data\.train\.training\[0\]\n")
    image.write_bytes(content)
    edited(mmar / "data/dataset.json", lambda lists: lists["training"].reverse())
    refused(mmar, r"different: data\.train\.training\[0\], data\.train\.training\[1\]")


def test_only_epochs_may_differ_and_their_copy_in_the_trainer() -> None:
    old = {"train": {"trainer": {"args": {"max_epochs": 2}}, "a": [1, {"b": 2}]}}
    new = {"train": {"trainer": {"args": {"max_epochs": 3}}, "a": [1, {"b": 3}], "c": 4}}
    assert changed_places(old, new) == ["train.a[1].b", "train.c"]
    assert changed_places(old, old) == []


def test_of_many_differences_five_are_named(mmar: Path, edited: Edited) -> None:
    interrupted(mmar, questions=QUESTIONS + 2)
    edited(train_json(mmar), lambda conf: [conf.update({f"own_{n}": n}) for n in range(7)])
    refused(mmar, r"different: own_0, own_1, own_2, own_3, own_4, \.\.\.\n")


def test_without_a_point_it_says_so(mmar: Path) -> None:
    refused(mmar, r"there is no '.*models/resume\.pt' to resume from.*Start without --resume")
    interrupted(mmar, questions=2)  # in the first epoch
    refused(mmar, "there is no")


def test_a_complete_training_says_so_and_what_to_ask_for(mmar: Path) -> None:
    uninterrupted(mmar, epochs=2)
    before = digests(mmar)
    refused(mmar, r"is complete after epoch 2; to go on, ask for more: --set epochs=", epochs=2)
    assert digests(mmar) == before


@pytest.mark.parametrize("kept", [0, 100, -200])
def test_a_truncated_point_is_refused(mmar: Path, kept: int) -> None:
    interrupted(mmar, questions=QUESTIONS + 2)
    path = mmar / "models/resume.pt"
    path.write_bytes(path.read_bytes()[:kept])
    refused(mmar, r"resume\.pt' cannot be read")


def test_another_file_in_its_place_is_refused(mmar: Path) -> None:
    uninterrupted(mmar)
    (mmar / "models/model.pt").rename(mmar / "models/resume.pt")
    refused(mmar, r"is not a point of this version\. Start without --resume")


OWN_TRAINER = """
class OwnTrainer:
    def run(self):
        pass
"""


def test_a_trainer_that_keeps_its_networks_to_itself_cannot_be_resumed(
    tiny_mmar: Path, edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny_mmar / "custom").mkdir()
    (tiny_mmar / "custom/own_trainer_of_resuming.py").write_text(OWN_TRAINER)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def change(conf: Any) -> None:
        del conf["validate"]
        conf["train"] = {"trainer": {"path": "own_trainer_of_resuming.OwnTrainer"}}

    edited(train_json(tiny_mmar), change)
    refused(tiny_mmar, r"train\.trainer: OwnTrainer keeps its networks to itself")
    sys.modules.pop("own_trainer_of_resuming", None)


class Trap:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_the_file_is_executed(mmar: Path, tmp_path: Path) -> None:
    (mmar / "models").mkdir(exist_ok=True)
    torch.save({"format": 1, "config": Trap(tmp_path / "executed")}, mmar / "models/resume.pt")
    refused(mmar, "cannot be read")
    assert not (tmp_path / "executed").exists()


def test_a_network_whose_code_has_changed_is_refused(mmar: Path) -> None:
    interrupted(mmar, questions=QUESTIONS + 2)
    point = point_of(mmar)
    point["training"]["parts"]["model"] = {"layer.weight": torch.zeros(1)}
    torch.save(point, mmar / "models/resume.pt")
    refused(mmar, r"resume\.pt' does not fit the model that is built now")


# --- Anew ----------------------------------------------------------------------------------------


def test_a_new_training_leaves_the_point_of_an_earlier_one_until_it_replaces_its_models(
    mmar: Path,
) -> None:
    """Whoever forgets --resume can still stop in time; later the point would lead astray."""
    interrupted(mmar, questions=QUESTIONS + 2)
    interrupted(mmar, questions=3, learning_rate=0.5)  # before its first validation
    assert point_of(mmar)["config"]["learning_rate"] == 0.01
    interrupted(mmar, questions=5, learning_rate=0.5)  # within it
    assert not (mmar / "models/resume.pt").exists()
