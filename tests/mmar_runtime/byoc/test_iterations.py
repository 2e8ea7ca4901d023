"""``Iteration`` fires MODEL_COMPLETED once for each call, whoever fires it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.engines import IterationEvents, SupervisedEvaluator, SupervisedTrainer
from monai.utils.enums import CommonKeys

from mmar_runtime.components.iterations import Iteration

BATCH = {"image": torch.ones(2, 1), "label": torch.zeros(2, 1)}


class Predict(Iteration):
    """The sum of the image's values; the loss is its mean."""

    def __call__(self, engine: Any, batchdata: Any) -> Any:
        pred = engine.network(batchdata["image"])
        return {CommonKeys.PRED: pred, CommonKeys.LOSS: pred.mean()}


class PredictMore(Predict):
    """Calls the method that it extends."""

    def __call__(self, engine: Any, batchdata: Any) -> Any:
        output = super().__call__(engine, batchdata)
        return {**output, "twice": 2 * output[CommonKeys.PRED]}


class PredictAndFire(Iteration):
    """As MONAI's own iterations: fires the event itself."""

    def __call__(self, engine: Any, batchdata: Any) -> Any:
        engine.state.output = {"pred": engine.network(batchdata["image"])}
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output


class Inherits(Predict):
    """Has no ``__call__`` of its own."""


class Count:
    def __init__(self) -> None:
        self.outputs: list[Any] = []

    def attach(self, engine: Engine) -> None:
        # Attached last, so it sees what decollation and post transforms have made.
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self.outputs.append(engine.state.output)


def trainer_with(iteration: Iteration, count: Count, batches: int = 3) -> Any:
    network = torch.nn.Linear(1, 1)
    return SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[dict(BATCH) for _ in range(batches)],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=torch.nn.functional.mse_loss,
        iteration_update=iteration,
        postprocessing=lambda item: {**item, "post": True},
        train_handlers=[count],
    )


@pytest.mark.parametrize("kind", [Predict, PredictMore, PredictAndFire, Inherits])
def test_the_event_is_fired_once_for_each_iteration(kind: type[Iteration]) -> None:
    count = Count()
    trainer = trainer_with(kind(), count)
    trainer.run()
    assert len(count.outputs) == 3
    assert [item["post"] for item in count.outputs[0]] == [True, True]  # one item for each case


def test_the_engine_keeps_the_decollated_output() -> None:
    trainer = trainer_with(PredictMore(), Count())
    trainer.run()
    first, second = trainer.state.output
    assert sorted(map(str, first)) == ["loss", "post", "pred", "twice"]
    assert torch.equal(first["twice"], 2 * first["pred"])
    assert first["loss"] == second["loss"]


def test_an_evaluator_takes_an_iteration_too() -> None:
    count = Count()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[dict(BATCH)],
        network=torch.nn.Linear(1, 1),
        iteration_update=Predict(),
        val_handlers=[count],
    )
    evaluator.run()
    assert len(count.outputs) == 1
    assert isinstance(evaluator.state.output, list)


def test_an_engine_without_the_event_gets_the_output_as_it_is() -> None:
    class Double(Iteration):
        def __call__(self, engine: Any, batchdata: Any) -> Any:
            return 2 * batchdata

    engine = Engine(Double())
    engine.run([1, 2])
    assert engine.state.output == 4


def test_after_an_error_the_next_call_fires_again() -> None:
    class FailsOnce(Iteration):
        failed = False

        def __call__(self, engine: Any, batchdata: Any) -> Any:
            if not self.failed:
                self.failed = True
                raise ValueError("once")
            return {"pred": batchdata["image"]}

    iteration, count = FailsOnce(), Count()
    trainer = trainer_with(iteration, count)
    trainer.state.batch = dict(BATCH)
    with pytest.raises(ValueError, match="once"):
        iteration(trainer, BATCH)
    assert count.outputs == []
    iteration(trainer, BATCH)
    assert len(count.outputs) == 1


def test_an_iteration_needs_a_method() -> None:
    class Empty(Iteration):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Empty()  # type: ignore[abstract]
