"""A site's progress as one value: taken out, put into another trainer, gone on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from fl_client.local_training import LocalTrainer
from mmar_runtime.errors import WeightsError
from mmar_runtime.weights import Weights, digest

MakeTrainer = Callable[..., LocalTrainer]


def after(received: Weights, trainer: LocalTrainer, number: int) -> dict[str, torch.Tensor]:
    """The local weights of a round."""
    update = trainer.train(received, number)
    return {name: received[name] + moved for name, moved in update.difference.items()}


WORK: tuple[Mapping[str, Any], ...] = (
    {"epochs": 1},
    {"steps": 3},  # which ends within an epoch of two
)


@pytest.mark.parametrize("work", WORK)
def test_a_trainer_goes_on_where_another_one_was(
    make_trainer: MakeTrainer, received: Weights, work: Mapping[str, Any]
) -> None:
    first = make_trainer(**work)
    one = after(received, first, 1)
    progress = first.progress()
    expected = first.train(one, 2)

    second = make_trainer(**work)
    second.put_back(progress)
    found = second.train(one, 2)

    assert digest(found.difference) == digest(expected.difference)
    assert found.steps == expected.steps
    assert found.report.epochs == expected.report.epochs
    assert second.best is not None
    assert first.best is not None
    assert digest(second.best.weights) == digest(first.best.weights)


def test_without_it_the_second_round_ends_elsewhere(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    """Adam's moments and the schedule's step matter, so the test above shows something."""
    first = make_trainer()
    one = after(received, first, 1)

    assert digest(make_trainer().train(one, 2).difference) != digest(first.train(one, 2).difference)


def test_a_later_round_does_not_change_what_was_handed_out(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    trainer = make_trainer()
    trainer.train(received, 1)
    progress = trainer.progress()
    moments = progress.parts["optimizer"]["state"][0]["exp_avg"].clone()

    trainer.train(received, 2)

    assert torch.equal(progress.parts["optimizer"]["state"][0]["exp_avg"], moments)
    assert progress.engines["trainer"]["epoch"] == 1


def test_the_progress_of_another_training_is_refused(
    make_trainer: MakeTrainer, received: Weights
) -> None:
    shares_less = make_trainer(shared=["model.0.*"])

    with pytest.raises(WeightsError, match="with other components"):
        shares_less.put_back(make_trainer().progress())
