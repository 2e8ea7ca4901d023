"""What only a network's first answer tells: whether the post transforms fit its outputs."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents

from mmar_runtime.config import fit
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import ConfigError

OF_OUTPUTS = frozenset({"activation", "class-numbers", "classes"})
"""The rules that depend on the number of outputs."""


def check_first_answer(engine: object, config: WorkflowConfig) -> None:
    """Let the first answer of each run be looked at, where the config does not say how large it is.

    The look is at its channels alone: (batch, channel, spatial...).

    Raises:
        ConfigError: in the engine's first iteration: a number would be wrong for sure.
    """
    if not isinstance(engine, SupervisedTrainer | SupervisedEvaluator):
        return
    told = {finding.place for finding in fit.findings(config, None) if finding.certain}

    def look(engine: Engine) -> None:
        output: Any = engine.state.output
        answer = output.get("pred") if isinstance(output, dict) else None
        if engine.state.iteration > 1 or not isinstance(answer, torch.Tensor) or answer.ndim < 2:
            return
        found = [
            finding.problem
            for finding in fit.findings(config, answer.shape[1])
            if finding.certain and finding.rule in OF_OUTPUTS and finding.place not in told
        ]
        if found:
            raise ConfigError(found)

    engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, look)
