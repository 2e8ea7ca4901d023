"""What the guard judges by, what it finds, and how it shows what a site sent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from mmar_runtime.exchange.encryption import Layout
from mmar_runtime.exchange.messages import ANY_COUNT, MAX_COUNT, Kind
from mmar_runtime.exchange.rounding import Arrays
from mmar_runtime.exchange.rounding_forms import Rounding
from mmar_runtime.exchange.weighing import WeighBy

Range: TypeAlias = tuple[float, float]

MAX_FAULTS = 12
"""Faults that the guard reports of a reply; there may be more."""

MAX_METADATA_BYTES = 64 * 1024
"""A report of 100 epochs, the most that a round has, with three metrics each takes about half."""

MAX_SHOWN = 60

WEIGHT_RATIO = 100.0
"""Sites of a federation differ in size: the largest may have a hundred times the median."""


@dataclass(frozen=True, slots=True)
class UpdateFault:
    """One reason to refuse a reply.

    Attributes:
        rule: a short stable identifier, such as ``shape``.
        place: the tensor, or the place in the metadata.
        message: what was found there, and what is allowed.
    """

    rule: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateLimits:
    """Bounds that a federation sets.

    Attributes:
        max_bytes: of all tensors together; None for as many as the model has.
        max_norm: Euclidean norm of a difference over all its floating-point tensors; None for
            ``tensors.MAX_NORM_FACTOR`` times that of the model, and one.
        norm_ratio: the same bound as a multiple of the round's median; None for none.
        weight_ratio: the most that a site may claim as its weight, as a multiple of the median.
        max_steps: optimizer steps of one site in one round. An integer buffer, such as a counter of
            batches, moves by no more than this either.
        metadata_bytes: of everything but the tensors.
        metric_ranges: least and greatest value of a metric, by name.
    """

    max_bytes: int | None = None
    max_norm: float | None = None
    norm_ratio: float | None = None
    weight_ratio: float = WEIGHT_RATIO
    max_steps: int = MAX_COUNT
    metadata_bytes: int = MAX_METADATA_BYTES
    metric_ranges: Mapping[str, Range] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the server awaits.

    Attributes:
        site: the sender, as the connection was authenticated.
        job: id of the job.
        kind: a difference of weights, whole weights, or metrics alone.
        model: the global model, to which a difference is added; names, shapes and dtypes of the
            tensors are its. Empty where only metrics are awaited.
        optional: names of tensors that may be missing.
        key_metric: has to be among the metrics.
        metric_names: there may be no others; None where the job does not tell.
        directions: whether higher is better, by metric.
        round: number of the round; None where a reply belongs to none.
        base_model: digest of the model that was sent; None where it is not compared.
        contributors: who has answered already.
        largest: of each floating-point tensor of the model its ``largest_magnitude``, where whoever
            judges several replies has computed it before.
        encrypted: the tensors that come encrypted, which ``model`` does not have; None for none.
        weigh_by: what the site claims as its weight in the mean.
        epoch_samples: those that the site has stated in a former round; None where it has not.
        usual_claim: the median of the claims of the last round; None in the first one.
        factor: of the site's claim: claim by factor is the weight of what is encrypted.
        transfer: the form in which large tensors of a difference come; None for as they are.
        steps: optimizer steps that the job asks for in a round; 0 where it asks for epochs.
    """

    site: str
    job: str
    kind: Kind = "WEIGHT_DIFF"
    model: Arrays = field(default_factory=dict)
    optional: Collection[str] = ()
    key_metric: str | None = None
    metric_names: Collection[str] | None = None
    directions: Mapping[str, bool | None] = field(default_factory=dict)
    round: int | None = None
    base_model: str | None = None
    contributors: Collection[str] = ()
    largest: Mapping[str, float] = field(default_factory=dict)
    encrypted: Layout | None = None
    weigh_by: WeighBy = "steps"
    epoch_samples: int | None = None
    usual_claim: float | None = None
    factor: float = 1.0
    transfer: Rounding | None = None
    steps: int = 0


def shown_value(value: object) -> str:
    """Return a value for a message: a plain value as it is, of all others only the type."""
    if type(value) is str:
        return shown_name(value)
    if value is None or type(value) in (bool, float):
        return repr(value)
    if type(value) is int and value in ANY_COUNT:
        return repr(value)
    return f"a {type(value).__name__[:MAX_SHOWN]}"


def shown_name(name: str) -> str:
    """Return a name for a message, with escapes for all but ASCII."""
    return ascii(name[:MAX_SHOWN])


def listed(names: Iterable[str]) -> str:
    """Return the first few names for a message."""
    return "[" + ", ".join(map(shown_name, sorted(names)[:8])) + "]"
