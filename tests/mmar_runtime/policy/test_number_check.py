"""Numbers of which there has to be one at least."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mmar_runtime.policy.number_check import number_check

Faults = Callable[..., list[str]]


@pytest.fixture
def faults(train_faults: Faults) -> Faults:
    """``faults(name, args)``: of a training whose data loader and trainer have these arguments."""

    def of(loader: dict[str, Any], trainer: dict[str, Any]) -> list[str]:
        train = {
            "dataloader": {"name": "DataLoader", "args": loader},
            "trainer": {"name": "SupervisedTrainer", "args": trainer},
        }
        document = {"epochs": 1, "train": train}
        found = train_faults(document, checks=[number_check])
        return [fault for fault in found if "is the least" in fault]

    return of


def test_no_batch_is_empty_and_no_training_has_no_epoch(faults: Faults) -> None:
    assert faults({"batch_size": 1}, {"max_epochs": 1}) == []
    assert faults({"batch_size": 0}, {"max_epochs": 0}) == [
        "config_train.json: train.dataloader.args.batch_size: DataLoader: batch_size is 0; "
        "1 is the least",
        "config_train.json: train.trainer.args.max_epochs: SupervisedTrainer: max_epochs is 0; "
        "1 is the least",
    ]
