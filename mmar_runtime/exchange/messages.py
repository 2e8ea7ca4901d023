"""What a server asks of a site, and what the site answers: values, whoever carries them.

Nothing here imports torch, so that a check of a job may read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

from mmar_runtime.metrics import Metrics
from mmar_runtime.results import EpochReport, EvaluationResult

if TYPE_CHECKING:
    from mmar_runtime.weights import Weights


TRAIN = "train"
SCORE = "score_model"
SUBMIT = "submit_model"
VALIDATE = "validate"
TASKS = (TRAIN, SCORE, SUBMIT, VALIDATE)
"""The names of a site's tasks."""

# --- tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Train a round from these weights.

    Attributes:
        weights: of the global model.
        round_number: the round, counted from 1.
        timeout: seconds that the site may take; 0 for as long as the task takes. The same below.
    """

    weights: Weights
    round_number: int
    timeout: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Validate these weights as a received global model is validated."""

    weights: Weights
    timeout: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Hand over the site's own best model."""

    timeout: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Validate:
    """Evaluate a model by the cross-site validation.

    Attributes:
        weights: of the model.
        owner: its name.
        is_global: whether the model is the federation's, not one site's.
    """

    weights: Weights
    owner: str
    is_global: bool
    timeout: float = 0


Task: TypeAlias = Train | Score | Submit | Validate


def name_of(task: Task) -> str:
    """Return the name by which jobs and logs know a task."""
    return {Train: TRAIN, Score: SCORE, Submit: SUBMIT, Validate: VALIDATE}[type(task)]


# --- answers


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReport:
    """What a site reports of one round of training, besides its weights.

    Attributes:
        received_metrics: metrics of the received model on the site's validation data.
        local_metrics: metrics of the locally trained model on the same data.
        epochs: one report for each epoch that ended in this round.
        seconds: wall time of validation and training.
        built: how often each component has been built in this process, as ``section.entry``.
        process: an opaque name of the site's process; another name means that it was restarted.
    """

    received_metrics: Metrics
    local_metrics: Metrics
    epochs: tuple[EpochReport, ...]
    seconds: float
    built: Mapping[str, int]
    process: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One site's contribution to one round.

    Attributes:
        round_number: the round, counted from 1.
        difference: local minus received weights, by name, in the dtypes of the weights.
        steps: iterations of the trainer in this round.
        samples: items that all processes drew from the training data in this round; None where the
            job does not weigh by them.
        epoch_samples: those of one epoch; None likewise.
        report: metrics, losses and seconds.
    """

    round_number: int
    difference: Weights
    steps: int
    samples: int | None = None
    epoch_samples: int | None = None
    report: SiteReport


@dataclass(frozen=True, slots=True, kw_only=True)
class BestModel:
    """A site's own best model.

    Attributes:
        weights: those that may leave the site.
        round_number: the round after which the site had the model.
        result: of the model's validation at this site.
    """

    weights: Weights
    round_number: int
    result: EvaluationResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A site could not do a task.

    Attributes:
        status: one word, with the reference under which the site keeps the text of its error;
            empty for a site that did not answer in time.
    """

    status: str


Reply: TypeAlias = Update | EvaluationResult | BestModel | Failure

# --- the closed list: what a site may send, for its own gate and for the server's guard

Kind: TypeAlias = Literal["WEIGHT_DIFF", "WEIGHTS", "METRICS"]

METADATA_KEYS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "WEIGHT_DIFF": ("steps", "samples", "epoch_samples", "report", "filter_history"),
        "WEIGHTS": ("model_round", "metrics", "filter_history"),
        "METRICS": ("cases", "filter_history"),
    }
)
"""Metadata of each kind of reply."""

REPORT_KEYS = tuple(field.name for field in fields(SiteReport))
EPOCH_KEYS = tuple(field.name for field in fields(EpochReport))

MAX_COUNT = 10**9
MAX_CASES = 10**7
"""Of the training data of one site."""

COUNTS: Mapping[str, range] = MappingProxyType(
    {
        "steps": range(1, MAX_COUNT + 1),
        "samples": range(1, MAX_COUNT + 1),
        "epoch_samples": range(1, MAX_CASES + 1),
        "model_round": range(1, MAX_COUNT + 1),
        "cases": range(1, MAX_COUNT + 1),
        "epoch": range(1, MAX_COUNT + 1),
        "built": range(MAX_COUNT + 1),
    }
)
"""The whole numbers that may stand under a key; for ``built`` those of each component."""

ANY_COUNT = range(-(2**63), 2**63)
"""The whole numbers that may stand anywhere in a reply."""

MAX_EPOCHS = 100
"""Epochs of a round: the highest ``limits.epochs_per_round`` of a site's policy."""

MAX_EPOCH_REPORTS = MAX_EPOCHS + 1
MAX_BUILT = 500
MAX_METRICS = 200
"""Metrics of one model; a site's policy may allow fewer."""

MAX_METRIC = 1e12
"""No metric is larger: sums over any number of sites stay finite."""

MAX_PROCESS_NAME = 40
STATUS_WORD = re.compile(r"[a-z][a-z-]{0,40}( \(reference [0-9a-f]{1,32}\))?")
"""The word of a site that could not do a task, and where the site keeps the text of the error."""
