"""What made-up sites answer in a run, for every carrier the same.

A script has a word for each reply; ``good`` where it has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from mmar_runtime.exchange.messages import SiteReport
from mmar_runtime.metrics import MetricValue
from mmar_runtime.results import EpochReport
from mmar_runtime.weights import Weights
from tests.conftest import metric

SITES = ("site-1", "site-2", "site-3")
JOB = "job-1"
DICE = "val_mean_dice"
ROUNDS = 2

Word = Literal["good", "nan", "large", "failed", "declined", "silent", "twice", "late"]
STATUS: Mapping[str, str] = {
    "failed": "data-error (reference 0a1b2c3d)",
    "declined": "policy-declined (reference 0a1b2c3d)",
}
STEPS: Mapping[str, float] = {"good": 1.0, "twice": 1.0, "late": 1.0, "large": 1000.0}
"""By how much a reply moves every weight."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """A run of two rounds with three sites.

    Attributes:
        updates: (round, site) -> its reply to ``train``.
        scores: site -> its score of the last model.
        models: site -> its own best model.
        cells: (model, site) -> its evaluation.
        terms: of the job, besides two rounds.
    """

    updates: Mapping[tuple[int, str], Word] = field(default_factory=dict)
    scores: Mapping[str, Word] = field(default_factory=dict)
    models: Mapping[str, Word] = field(default_factory=dict)
    cells: Mapping[tuple[str, str], Word] = field(default_factory=dict)
    terms: Mapping[str, Any] = field(default_factory=dict)


def difference(weights: Weights, word: Word) -> dict[str, torch.Tensor]:
    """An update that moves every floating-point weight by the same."""
    step = torch.nan if word == "nan" else STEPS[word]
    return {
        name: torch.full_like(tensor, step if tensor.is_floating_point() else 1)
        for name, tensor in weights.items()
    }


def report(site: str, round_number: int) -> SiteReport:
    """A site's report; each site and round has a score of its own."""
    score = 0.1 * SITES.index(site) + 0.25 * round_number
    return SiteReport(
        received_metrics={DICE: metric(score)},
        local_metrics={DICE: metric(score + 0.1)},
        epochs=(EpochReport(epoch=round_number, loss=0.5),),
        seconds=1.5,
        built={"train.trainer": 1},
        process="p",
    )


def dice(word: Word, good: float) -> MetricValue:
    """A score; no metric of ours is NaN, so this one is spoilt after it was made."""
    found = metric(good)
    if word == "nan":
        object.__setattr__(found, "value", float("nan"))
    return found
