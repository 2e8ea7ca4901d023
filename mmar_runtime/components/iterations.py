"""``Iteration``: a trainer's or evaluator's work on a batch, written by the MMAR's author."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeAlias

from monai.engines import IterationEvents

IterationMethod: TypeAlias = Callable[[Any, Any, Any], Any]


class Iteration(ABC):
    """Base class of an iteration; an engine gets it as its ``iteration_update``.

    A subclass defines ``__call__(self, engine, batchdata)`` and returns the iteration's output, a
    dictionary with ``image``, ``label``, ``pred`` and, in training, ``loss``.

    MONAI decollates the output and applies the post transforms when ``MODEL_COMPLETED`` is fired,
    and leaves firing it to the iteration. So an iteration that only returns its output would have
    its predictions measured as they come out of the network. Here the event is fired once for
    each call: after the outermost ``__call__``, unless that has fired it itself. The events in
    between (``FORWARD_COMPLETED``, ``LOSS_COMPLETED``, ``BACKWARD_COMPLETED``) are the
    subclass's to fire where it wants handlers to step in.
    """

    _running = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap the subclass's own ``__call__``; an inherited ``__call__`` is wrapped already."""
        super().__init_subclass__(**kwargs)
        method = cls.__dict__.get("__call__")
        if method is not None and not getattr(method, "__isabstractmethod__", False):
            setattr(cls, "__call__", _completing(method))  # noqa: B010  # mypy refuses the other way

    @abstractmethod
    def __call__(self, engine: Any, batchdata: Any) -> Any:
        """Return the output of one iteration.

        Args:
            engine: MONAI's trainer or evaluator, with ``network``, ``optimizer``,
                ``loss_function``, ``inferer``, ``prepare_batch`` and ``state``.
            batchdata: from the data loader: tensors (batch, channel, spatial...) by key.
        """


def _completing(method: IterationMethod) -> IterationMethod:
    """Return the same method, followed by ``MODEL_COMPLETED`` where it is the outermost call."""
    event = IterationEvents.MODEL_COMPLETED

    @wraps(method)
    def call(self: Any, engine: Any, batchdata: Any) -> Any:
        # In super().__call__ the iteration is not complete yet; an engine of ignite's own has no
        # such step.
        if self._running or not engine.has_registered_events(event):
            return method(self, engine, batchdata)
        fired: list[bool] = []
        self._running = True
        try:
            with engine.add_event_handler(event, lambda: fired.append(True)):
                output = method(self, engine, batchdata)
            if fired:
                return output
            # Who handles the event looks for the output here; ignite itself puts it there later.
            engine.state.output = output
            engine.fire_event(event)
            return engine.state.output
        finally:
            self._running = False

    return call
