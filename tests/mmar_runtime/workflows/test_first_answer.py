"""A network's first answer is looked at, where the config does not say how large it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.engines import SupervisedEvaluator

from mmar_runtime.config.sections import EvaluationConfig
from mmar_runtime.errors import ConfigError
from mmar_runtime.workflows.first_answer import check_first_answer

DOCUMENT: dict[str, Any] = {
    "model": {"ckpt_path": "model.pt"},
    "post_transforms": [{"name": "AsDiscreted", "args": {"keys": "pred", "argmax": True}}],
    "key_metric": {
        "name": "MeanDice",
        "log_label": "val_mean_dice",
        "args": {"output_transform": "#monai.handlers.from_engine(['pred', 'label'])"},
    },
    "evaluator": {"name": "SupervisedEvaluator"},
}


def test_classes_that_would_be_compared_by_number_are_found_at_once(
    load_evaluation: Callable[..., EvaluationConfig],
) -> None:
    config = load_evaluation(DOCUMENT)

    def run(outputs: int) -> None:
        data = [{"image": torch.zeros(1, 1, 4, 4), "label": torch.zeros(1, 1, 4, 4)}]
        engine = SupervisedEvaluator(
            device=torch.device("cpu"), val_data_loader=data, network=torch.nn.Conv2d(1, outputs, 1)
        )
        check_first_answer(engine, config)
        engine.run()

    run(2)
    with pytest.raises(ConfigError, match=r"post_transforms\[0\]: argmax .* has 3 outputs"):
        run(3)
