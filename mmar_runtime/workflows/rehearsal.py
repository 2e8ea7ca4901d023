"""The validation on its first batch, before a training that may take hours to come to it."""

from __future__ import annotations

from collections.abc import Iterable

from ignite.engine import Engine
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from torch.utils.data import DataLoader, IterableDataset

from mmar_runtime.config.consistency import has_own_engine
from mmar_runtime.config.grids import title_of, transforms_of
from mmar_runtime.config.sections import Section, TrainConfig
from mmar_runtime.workflows.explaining import explained
from mmar_runtime.workflows.observing import forget_batch
from mmar_runtime.workflows.resuming import random_state, restore_random

LEAVES_TRACES = ("Rand", "Save")
"""How the names of transforms begin that draw random numbers of their own, or write files."""


def rehearse_validation(evaluator: Engine, metrics: Iterable[Metric], config: TrainConfig) -> None:
    """Put the first batch through the network, the post transforms and the metrics, and forget it.

    The run goes on as if this had not been: no handler runs, and each random source has its
    former state. A validation that this cannot be promised for is not tried.

    Raises:
        DataError, ComponentError: the validation would fail.
    """
    if not isinstance(evaluator, SupervisedEvaluator):
        return
    loader = evaluator.data_loader
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return
    if not _leaves_no_trace(config.scopes["validate"]):
        return
    used = tuple(metrics)

    def measure() -> None:  # inside the engine, so that an error names its section
        for metric in used:
            metric.reset()
            metric.iteration_completed(evaluator)

    before = random_state()
    measuring = evaluator.add_event_handler(IterationEvents.MODEL_COMPLETED, measure)
    try:
        with measuring, explained(config):
            for indices in loader.batch_sampler or ():
                evaluator.state.batch = loader.collate_fn([loader.dataset[i] for i in indices])
                evaluator._iteration(evaluator, evaluator.state.batch)
                break
    finally:
        for metric in used:
            metric.reset()
        forget_batch(evaluator)
        restore_random(before)


def _leaves_no_trace(section: Section) -> bool:
    """Return whether nothing is written or drawn, and no own handler changes what is measured."""
    own = has_own_engine(section) or any(spec.path for spec in section.specs("handlers"))
    titles = [
        title_of(spec)
        for slot in ("pre_transforms", "post_transforms")
        for spec in transforms_of(section, slot)
    ]
    return not own and not any(title.startswith(LEAVES_TRACES) for title in titles)
