"""How far a site's training is, as one value: all that its next round depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalBest:
    """The best of the models that this site has trained and validated itself."""

    weights: Weights
    result: EvaluationResult
    round_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerProgress:
    """What a ``LocalTrainer`` hands out between two rounds and takes back: tensors, plain values.

    The network's weights are not part of it: each round begins with received ones, and the tensors
    that a site does not share are in ``own``. Neither are handlers of a job's own that count
    something by themselves; nor random sources, which are seeded anew for each round.

    Attributes:
        parts: state of optimizer, schedule and whatever else of the section 'train' has one.
        engines: counters and best metric of the trainer and of the validation's evaluator.
        losses: of the iterations of an epoch that is not over.
        savers: which checkpoints have been written, and how good they are.
        own: the tensors that this site keeps to itself.
        own_is_trained: whether they come out of a training.
        best: the site's best model.
        counts: how often each entry has been built.
    """

    parts: Mapping[str, Mapping[str, Any]]
    engines: Mapping[str, Mapping[str, Any]]
    losses: tuple[float, ...]
    savers: tuple[Mapping[str, Any], ...]
    own: Weights
    own_is_trained: bool
    best: LocalBest | None
    counts: Mapping[str, int]
