"""A model over a list of data, by ``config_validation.json`` and its kin."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine

from mmar_runtime.components.builder import BuildContext, ComponentBuilder
from mmar_runtime.components.measuring import Measurements
from mmar_runtime.components.network import network_from_file
from mmar_runtime.components.processes import asked_together
from mmar_runtime.config.nodes import WeightsFile
from mmar_runtime.config.sections import EvaluationConfig, Section
from mmar_runtime.errors import ConfigError, DataError, Problem, RunAborted
from mmar_runtime.files import make_folder_to_write
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights, load_into
from mmar_runtime.workflows.conf_report import conf_report
from mmar_runtime.workflows.explaining import explained
from mmar_runtime.workflows.first_answer import check_first_answer
from mmar_runtime.workflows.observing import (
    ShouldStop,
    forget_batch,
    stop_between_iterations,
)
from mmar_runtime.workflows.session import session

logger = logging.getLogger(__name__)


class EvaluationWorkflow:
    """The evaluator of a config with its network and data, built once, run as often as asked.

    Args:
        config: the evaluation workflow.
        context: device and permissions.
        counts: counts the built components.
        should_stop: asked after each iteration.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        context: BuildContext,
        *,
        counts: Counter[str] | None = None,
        should_stop: ShouldStop = lambda: False,
    ) -> None:
        self.config = config
        model = config.model
        given: dict[tuple[str, str], object] = {}
        if isinstance(model, WeightsFile):
            given["", "model"] = network_from_file(model, config, context)
        self.builder = ComponentBuilder(config, context, counts=counts, given=given)
        with explained(config):  # a data set that caches reads its images when it is built
            self.network: torch.nn.Module = self.builder.get("", "model")
            self.evaluator: Engine = self.builder.get("", "evaluator")
        self._measurements = self.builder.measurements("", self.evaluator)
        check_first_answer(self.evaluator, config)
        self._should_stop = asked_together(should_stop, context.processes, context.device)
        if not context.processes.several:
            # Processes evaluate different numbers of cases, so they could not stop together.
            stop_between_iterations(self.evaluator, should_stop)

    def run(self, weights: Weights | None = None, *, source: str = "the file") -> EvaluationResult:
        """Evaluate the network, with these weights if any are given.

        Raises:
            WeightsError: the weights do not fit the network.
            DataError: an image cannot be read or does not fit the transforms.
            RunAborted: ``should_stop`` said so.
        """
        if weights is not None:
            load_into(self.network, weights, source=source)
        require_batches(self.evaluator, self.config.section)
        with explained(self.config):
            self.evaluator.run()
        forget_batch(self.evaluator)
        if self._should_stop():
            raise RunAborted("the evaluation was stopped before it was complete")
        return result_of(self.evaluator, self._measurements)


def require_batches(engine: Engine, section: Section) -> None:
    """Raise if an engine's dataloader gives no batch, so that its run would do nothing.

    Of several processes, one may have nothing to do.

    Raises:
        DataError: there is none.
    """
    if engine.state.epoch_length == 0 and idist.get_world_size() == 1:
        raise DataError(
            f"{section.location / 'dataloader'}: gives no batch, so there is nothing to do\n"
            "    Set a smaller batch_size, or drop_last to false."
        )


def result_of(evaluator: Engine, measurements: Measurements) -> EvaluationResult:
    """Return the results of an evaluator's last run over all processes; each process has to ask."""
    state: Any = evaluator.state  # MONAI adds the attributes of the key metric
    return EvaluationResult(
        key_metric=state.key_metric_name,
        metrics=measurements.read(),
        cases=measurements.cases(),
        findings=measurements.findings(),
    )


def evaluate(
    config: EvaluationConfig, *, allow_code: bool, should_stop: ShouldStop = lambda: False
) -> EvaluationResult:
    """Evaluate the model that the config names, with the weights that it names.

    Raises:
        ConfigError: the config names a network, but nothing that gives it weights.
        Others as ``EvaluationWorkflow.run``.
    """
    loaders = [spec for spec in config.section.specs("handlers") if spec.name == "CheckpointLoader"]
    if not isinstance(config.model, WeightsFile) and not loaders:
        # Random weights, whose metrics would mean nothing.
        message = "names a network, but no enabled CheckpointLoader gives it weights"
        advice = "Run with --set dont_load_ckpt_model=False MMAR_CKPT=FILE."
        raise ConfigError([Problem(config.section.location / "model", message, advice, "model")])
    with session(config, allow_code=allow_code) as context:
        make_folder_to_write(Path(str(config.value("MMAR_EVAL_OUTPUT_PATH"))))
        workflow = EvaluationWorkflow(config, context, should_stop=should_stop)
        if config.settings.print_conf:
            for line in conf_report(config, workflow.builder):
                logger.info("%s", line)
        return workflow.run()
