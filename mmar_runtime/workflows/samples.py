"""How many items of its training data a run has drawn, over all its processes.

A sample is an item of the training data set, a case of the data list. A case of which a transform
cuts four crops is one sample, and a second epoch draws each case again. Neither the batch size nor
the number of processes changes how many samples an epoch has: where the list is not a multiple of
the processes, an item that two of them get counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ignite.engine import Engine, Events
from torch.utils.data import DataLoader

from mmar_runtime.components.launch import Processes
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ComponentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """The items of the first batches of a pass over the data.

    Attributes:
        processes: each of them takes batches of the same size.
        batch: items of a batch, but for the last one.
        items: of a pass in one process.
        distinct: of a pass in all processes together.

    >>> passes = Passes(processes=2, batch=2, items=3, distinct=5)
    >>> [passes.items_of(batches) for batches in (0, 1, 2)]
    [0, 4, 5]
    """

    processes: int
    batch: int
    items: int
    distinct: int

    def items_of(self, batches: int) -> int:
        """Return the items of so many batches in each process, from the beginning of a pass."""
        return min(self.processes * min(batches * self.batch, self.items), self.distinct)


def passes_of(loader: Any, processes: Processes, *, listed: int | None, place: Location) -> Passes:
    """Return the passes over the data of a loader.

    Args:
        loader: of the training section.
        processes: that share its data list.
        listed: items of the data list, before they were dealt out; None without a list.
        place: of the loader.

    Raises:
        ComponentError: the loader does not tell how many items a batch has.
    """
    if not isinstance(loader, DataLoader) or (
        loader.batch_size is None and loader.batch_sampler is not None
    ):
        raise ComponentError(
            f"{place}: {type(loader).__name__} does not tell how many items a batch has, so the "
            "samples of this site cannot be counted. Use a DataLoader with a batch_size, or let "
            "the job say weigh_by: steps or equal"
        )
    repeats = getattr(loader, "repeats", 1)  # ThreadDataLoader gives each batch so many times
    own = len(loader.sampler)  # type: ignore[arg-type]  # a federated job needs a length
    dealt = listed is not None and own == -(-listed // processes.count)
    return Passes(
        processes=processes.count,
        batch=loader.batch_size or 1,
        items=own * repeats,
        distinct=repeats * (listed if dealt and listed else own * processes.count),
    )


class DrawnSamples:
    """Counts the samples of an engine, however its runs begin and end within an epoch.

    Args:
        engine: the trainer.
        loader: gives its batches.
        passes: over the data of the loader.
    """

    def __init__(self, engine: Engine, loader: Any, passes: Passes) -> None:
        self._engine = engine
        self._loader_length = len(loader)
        self._passes = passes
        self._former = 0
        self._batches = 0
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        for begins in (
            Events.STARTED,
            Events.DATALOADER_STOP_ITERATION,
            Events.TERMINATE_SINGLE_EPOCH,
        ):
            engine.add_event_handler(begins, self._begin_pass)

    @property
    def total(self) -> int:
        """Samples since the counting began."""
        return self._former + self._passes.items_of(self._batches)

    @property
    def per_epoch(self) -> int:
        """Samples of one epoch."""
        length = self._engine.state.epoch_length or self._loader_length
        full, rest = divmod(length, self._loader_length)
        return full * self._passes.items_of(self._loader_length) + self._passes.items_of(rest)

    def _count(self) -> None:
        self._batches += 1

    def _begin_pass(self, *_: Any) -> None:
        self._former, self._batches = self.total, 0
