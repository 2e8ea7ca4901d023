"""``medl.engines``: the base class of Clara's iterations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer

import mmar_runtime.components.iterations
from medl.engines.iterations import Iteration


class StepEverySecond(Iteration):
    """As code for Clara has it: no constructor, and the output is only returned."""

    def __call__(self, engine: Any, batchdata: Any) -> dict[str, torch.Tensor]:
        image, label = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking)
        engine.network.train()
        pred = engine.inferer(image, engine.network)
        loss = engine.loss_function(pred, label)
        loss.backward()
        if engine.state.iteration % 2 == 0:
            engine.optimizer.step()
            engine.optimizer.zero_grad()
        return {"image": image, "label": label, "pred": pred, "loss": loss}


def test_the_name_is_the_runtimes_class() -> None:
    assert Iteration is mmar_runtime.components.iterations.Iteration


def test_an_iteration_trains_and_its_output_is_postprocessed() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 2.0)
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[
            {"image": torch.ones(1, 1), "label": torch.zeros(1, 1)} for _ in range(2)
        ],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=torch.nn.functional.mse_loss,
        iteration_update=StepEverySecond(),
        postprocessing=lambda case: {**case, "pred": case["pred"] + 100},
    )
    trainer.run()
    # Both iterations see the first weight, 2; the slope of each is 2 * 2.
    assert network.weight.item() == pytest.approx(2.0 - 0.1 * (2 * 2.0 + 2 * 2.0))
    assert trainer.state.output[0]["pred"].item() == 2.0 + 100
