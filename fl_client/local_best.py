"""A site's own best model."""

from __future__ import annotations

from dataclasses import dataclass

from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalBest:
    """The best of the models that this site has trained and validated itself."""

    weights: Weights
    result: EvaluationResult
    round_number: int
