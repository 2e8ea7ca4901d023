"""Any model's weights -> metrics on this site's data, by ``config_cross_validation.json``."""

from __future__ import annotations

from collections import Counter

import torch

from mmar_runtime.components.builder import BuildContext
from mmar_runtime.config.nodes import WeightsFile
from mmar_runtime.config.sections import EvaluationConfig
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights
from mmar_runtime.workflows.evaluation import EvaluationWorkflow
from mmar_runtime.workflows.observing import ShouldStop
from mmar_runtime.workflows.session import settings_alone


class CrossSiteEvaluator:
    """Evaluates models from anywhere; network and data are built once for all of them.

    Args:
        config: the cross-validation workflow as it runs here.
        context: device and permissions.
        counts: counts what is built.
        should_stop: asked between iterations.

    Raises:
        ConfigError: the config names a file in place of a network.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        context: BuildContext,
        *,
        counts: Counter[str],
        should_stop: ShouldStop = lambda: False,
    ) -> None:
        if isinstance(config.model, WeightsFile):
            message = "cross-site validation needs the network itself, not a file of weights"
            advice = "Copy 'model' of the train section of config_train.json here."
            raise ConfigError([Problem(config.model.location, message, advice, "model")])
        self._workflow = EvaluationWorkflow(config, context, counts=counts, should_stop=should_stop)

    @property
    def network(self) -> torch.nn.Module:
        """What is evaluated, with the weights of the last model."""
        return self._workflow.network

    def evaluate(self, weights: Weights, *, owner: str) -> EvaluationResult:
        """Return the metrics of a model on this site's data.

        Args:
            weights: the model's weights.
            owner: whose model it is, for errors.

        Raises:
            WeightsError: the weights do not fit the network.
            RunAborted: stopped between iterations.
        """
        with settings_alone(self._workflow.config.settings):
            return self._workflow.run(weights, source=owner)
