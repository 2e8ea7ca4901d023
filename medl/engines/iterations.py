"""``Iteration``, the base class of an iteration of one's own."""

from mmar_runtime.components.iterations import Iteration

__all__ = ["Iteration"]
