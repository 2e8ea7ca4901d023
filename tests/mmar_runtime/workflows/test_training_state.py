"""What a training changes is taken and put back as a value."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import EarlyStopHandler

from mmar_runtime.workflows.training_state import StatefulObjects


def stopping_after(validations: int, scores: list[float]) -> tuple[Engine, EarlyStopHandler]:
    """A trainer that ends once so many validations have not beaten the best score."""
    trainer = Engine(lambda *_: None)
    handler = EarlyStopHandler(patience=validations, score_function=lambda _: scores.pop(0))
    handler.set_trainer(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, handler)
    return trainer, handler


def test_an_early_stop_goes_on_counting_where_it_was() -> None:
    trainer, handler = stopping_after(2, [0.9, 0.1, 0.1])
    trainer.run([0], max_epochs=2)
    state = StatefulObjects(trainer=trainer, parts={}, early_stops=(handler,)).state()

    again, handler = stopping_after(2, [0.1, 0.1])
    StatefulObjects(trainer=again, parts={}, early_stops=(handler,)).put_back(state)
    again.state.epoch_length, again.state.max_epochs = 1, 9
    again.run([0])

    assert again.state.epoch == 3  # the second validation that is worse than 0.9


def test_a_part_that_is_left_out_stays_as_it_is() -> None:
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    objects = StatefulObjects(
        trainer=Engine(lambda *_: None), parts={"model": network, "optimizer": optimizer}
    )
    before = copy.deepcopy(objects.state(without=network))
    optimizer.param_groups[0]["lr"] = 0.1
    torch.nn.init.constant_(network.weight, 7.0)

    objects.put_back(before, without=network)

    assert optimizer.param_groups[0]["lr"] == 0.5
    assert network.weight.item() == 7.0


def test_the_state_of_other_objects_is_refused_by_name() -> None:
    trainer = Engine(lambda *_: None)
    state = StatefulObjects(trainer=trainer, parts={"model": torch.nn.Linear(1, 1)}).state()

    with pytest.raises(ValueError, match=r"(?s)the model that is built now: .*size mismatch"):
        StatefulObjects(trainer=trainer, parts={"model": torch.nn.Linear(2, 1)}).put_back(state)
