"""The run record: for every round, who contributed what, who did not and why, and the scores.

    begin_run -> begin_round -> add_outcome (each site) -> close_round -> add_score -> finish_run

A ``RunRecord`` is a frozen value; the functions above take one and return the next. ``RunRecorder``
holds the current one during a run. Rounds count from 1: the model of round r is the global model
after the r-th aggregation, and the model of round 0 is the initial model. A round whose aggregation
has not happened (yet) is *open*: it has neither seconds nor a digest of weights. A digest may be
computed while the run goes on; until it is there, ``as_dict`` raises. Only the last round of a
record can be open, which is how a failed run shows who had answered by then.

Whatever is missing or not a finite number raises ``FederationError``; no value is ever made up.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, TypeAlias, TypeVar, get_args

from mmar_runtime.audit import AUDIT_FILE, HEAD_FORM, LEDGER_FILE
from mmar_runtime.errors import FederationError
from mmar_runtime.files import write_text_atomically
from mmar_runtime.names import NAME_FORM, is_name, shown

FORMAT_VERSION = 1

RECORD_TOPIC = "mmar.run_record"
"""The command by which an admin asks a running job for its record."""

Metrics: TypeAlias = Mapping[str, float]
RunStatus: TypeAlias = Literal["running", "complete", "failed"]
AbsenceStatus: TypeAlias = Literal["rejected", "missing", "failed"]

Part = TypeVar("Part")
Value = TypeVar("Value")

NO_ANSWER = "no contribution arrived before the round was closed"
BOTH_OR_NONE = "a closed round has both seconds and weights_sha256, an open none"


# --- values that are checked


MAX_FAILURE = 4000
"""Characters of the reason of a failed run, which lists what is missing of each site."""


def nonempty_text(value: object, name: str) -> str:
    """The same text; raises ``FederationError`` for anything else than text with content."""
    if not isinstance(value, str) or not value.strip():
        raise FederationError(f"{name}: expected a text that is not empty, found {value!r}")
    return value


def name_text(value: object, name: str) -> str:
    """The same name; raises ``FederationError`` for a text that no reader should be shown."""
    if not is_name(value):
        found = shown(value) if isinstance(value, str) else value
        raise FederationError(f"{name}: expected {NAME_FORM}, found {found!r}")
    return value


def whole_number(value: object, name: str, *, least: int) -> int:
    """``value`` as an ``int`` of at least ``least``; a bool is no number here."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise FederationError(f"{name}: expected a whole number from {least} on, found {value!r}")
    return int(value)


def finite_number(value: object, name: str, *, least: float = -math.inf) -> float:
    """``value`` as a ``float``; NaN, infinities and anything below ``least`` raise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise FederationError(f"{name}: expected a number, found {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise FederationError(f"{name}: expected a finite number, found {number!r}")
    if number < least:
        raise FederationError(f"{name}: expected a number from {least:g} on, found {number!r}")
    return number


def finite_metrics(values: object, name: str) -> Metrics:
    """A read-only copy of metric name -> finite number, in the order of the names."""
    named = _mapping(values, name)
    return _read_only({key: finite_number(named[key], f"{name}[{key!r}]") for key in named})


def _log_heads(value: object) -> dict[str, str]:
    """Heads of the logs that a site has, and nothing else."""
    heads, known = _mapping(value, "logs"), (AUDIT_FILE.name, LEDGER_FILE.name)
    for name, head in heads.items():
        if name not in known or not (isinstance(head, str) and HEAD_FORM.fullmatch(head)):
            raise FederationError(f"logs: expected heads of {' and '.join(known)} alone")
    return dict(heads)


def mean_over_sites(metrics_by_site: Mapping[str, Metrics]) -> Metrics:
    """The unweighted mean over the sites of each metric that all of them report.

    A site may withhold a metric; the mean over the others would not be the federation's.

    The sum is exact until its last rounding (``math.fsum``), over the sites in the order of their
    names, so that the same scores give the same bits whatever the order of their arrival.

    >>> dict(mean_over_sites({"site-1": {"dice": 0.5}, "site-2": {"dice": 0.75, "acc": 0.9}}))
    {'dice': 0.625}

    Raises:
        FederationError: there is no site.
    """
    if not metrics_by_site:
        raise FederationError(
            "a mean over zero sites does not exist; score at least one site first"
        )
    sites = sorted(metrics_by_site)
    names = set.intersection(*(set(metrics_by_site[site]) for site in sites))
    return _read_only(
        {
            name: math.fsum(metrics_by_site[site][name] for site in sites) / len(sites)
            for name in names
        }
    )


# --- the record, part by part


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """One local epoch at one site.

    Attributes:
        epoch: the number that the site gave it, from 1.
        loss: mean training loss of the epoch.
        metrics: training metrics of the epoch; empty where the site computes none.
    """

    epoch: int
    loss: float
    metrics: Metrics = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers."""
        _settle(self, epoch=whole_number(self.epoch, "epoch", least=1))
        _settle(self, loss=finite_number(self.loss, "loss"))
        _settle(self, metrics=finite_metrics(self.metrics, "metrics"))

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of this epoch."""
        return {"epoch": self.epoch, "loss": self.loss, "metrics": dict(self.metrics)}

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """The epoch of such a JSON object."""
        return cls(**_object(value, ("epoch", "loss", "metrics")))


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteContribution:
    """What one site gave to one round, accepted by the server.

    Attributes:
        steps: optimizer steps of this round, which are the site's weight in the mean.
        sent_bytes: size of the update that arrived (``bytes`` in the JSON).
        seconds: time that the site spent on the round.
        received_metrics: the global model it received, validated on its data before training.
        local_metrics: the site's own model after training, validated on the site's data.
        epochs: the local epochs of this round, in order.
        built: how often each component had been built, such as ``train.trainer``.
        process: an opaque name of the process that trained; the same one over rounds is a warm one.
        logs: name -> head of the site's logs as they were when the update left; see ``audit``.
    """

    steps: int
    sent_bytes: int
    seconds: float
    received_metrics: Metrics
    local_metrics: Metrics
    epochs: tuple[EpochReport, ...]
    built: Mapping[str, int]
    process: str
    logs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the numbers."""
        _settle(self, steps=whole_number(self.steps, "steps", least=1))
        _settle(self, sent_bytes=whole_number(self.sent_bytes, "bytes", least=1))
        _settle(self, seconds=finite_number(self.seconds, "seconds", least=0))
        _settle(self, received_metrics=finite_metrics(self.received_metrics, "received_metrics"))
        _settle(self, local_metrics=finite_metrics(self.local_metrics, "local_metrics"))
        _settle(self, epochs=tuple(self.epochs))
        built = _mapping(self.built, "built")
        counts = {key: whole_number(built[key], f"built[{key!r}]", least=0) for key in built}
        _settle(self, built=_read_only(counts))
        name_text(self.process, "process")
        _settle(self, logs=_read_only(_log_heads(self.logs)))

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of this contribution."""
        return {
            "status": "contributed",
            "steps": self.steps,
            "bytes": self.sent_bytes,
            "seconds": self.seconds,
            "received_metrics": dict(self.received_metrics),
            "local_metrics": dict(self.local_metrics),
            "epochs": [epoch.as_dict() for epoch in self.epochs],
            "built": dict(self.built),
            "process": self.process,
            "logs": dict(self.logs),
            "reason": None,
        }

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """The contribution of such a JSON object."""
        keys = ("status", "steps", "bytes", "seconds", "received_metrics", "local_metrics")
        fields = _object(value, (*keys, "epochs", "built", "process", "logs", "reason"))
        if fields.pop("status") != "contributed" or fields.pop("reason") is not None:
            raise FederationError("a contribution has the status 'contributed' and no reason")
        fields["sent_bytes"] = fields.pop("bytes")
        fields["epochs"] = _each(fields["epochs"], "epochs", EpochReport.from_dict)
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteAbsence:
    """Why one site gave nothing to one round.

    Attributes:
        status: ``rejected`` by the server's guard, ``missing`` without an answer, or ``failed`` at
            the site.
        reason: a sentence for the person who reads the record.
    """

    status: AbsenceStatus
    reason: str

    def __post_init__(self) -> None:
        """Check that the absence is explained."""
        if self.status not in get_args(AbsenceStatus):
            allowed = ", ".join(map(repr, ("contributed", *get_args(AbsenceStatus))))
            raise FederationError(f"status: found {self.status!r}; allowed: {allowed}")
        _settle(self, reason=shown(nonempty_text(self.reason, "reason")))

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of this absence."""
        return {"status": self.status, "reason": self.reason}

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """The absence of such a JSON object."""
        return cls(**_object(value, ("status", "reason")))


SiteOutcome: TypeAlias = SiteContribution | SiteAbsence


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """One round: what came from each site, and the global weights that came out.

    Attributes:
        number: from 1.
        started: when the server asked the sites, in UTC.
        sites: what is known of each site, in the order of their names.
        seconds: from the start to the aggregation; ``None`` while the round is open.
        weights_sha256: digest of the global weights after it; ``None`` while the round is open, and
            in memory until it has been computed. No document lacks it.
    """

    number: int
    started: datetime
    sites: Mapping[str, SiteOutcome] = field(default_factory=dict)
    seconds: float | None = None
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        """Check the round; a closed one needs at least one contribution."""
        _settle(self, number=whole_number(self.number, "round", least=1))
        _settle(self, started=_utc(self.started, "started"))
        _settle(self, sites=_read_only(_mapping(self.sites, "sites")))
        if self.seconds is None:
            if self.weights_sha256 is not None:
                raise FederationError(BOTH_OR_NONE)
            return
        _settle(self, seconds=finite_number(self.seconds, "seconds", least=0))
        if self.weights_sha256 is not None:
            check_digest(self.weights_sha256, "weights_sha256")
        if not self.contributors:
            raise FederationError(
                f"round {self.number} has no contribution, so it has no new global model and cannot"
                " be closed; finish the run as failed instead"
            )

    @property
    def is_open(self) -> bool:
        """Whether the aggregation of this round has not happened (yet)."""
        return self.seconds is None

    @property
    def awaits_digest(self) -> bool:
        """Whether the digest of its global model is still being computed."""
        return self.seconds is not None and self.weights_sha256 is None

    @property
    def contributors(self) -> tuple[str, ...]:
        """The sites whose contribution was accepted, in the order of their names."""
        return tuple(s for s, came in self.sites.items() if isinstance(came, SiteContribution))

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of this round.

        Raises:
            FederationError: its digest is not there yet.
        """
        if self.awaits_digest:
            raise FederationError(BOTH_OR_NONE)
        return {
            "round": self.number,
            "started": self.started.isoformat(),
            "seconds": self.seconds,
            "weights_sha256": self.weights_sha256,
            "sites": {site: outcome.as_dict() for site, outcome in self.sites.items()},
        }

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """The round of such a JSON object."""
        fields = _object(value, ("round", "started", "seconds", "weights_sha256", "sites"))
        fields["number"] = fields.pop("round")
        fields["started"] = _parse_time(fields["started"], "started")
        fields["sites"] = _each_of(fields["sites"], "sites", _outcome_from_dict)
        found = cls(**fields)
        if found.awaits_digest:
            raise FederationError(BOTH_OR_NONE)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundScores:
    """How well the global model of one round does at each site.

    Attributes:
        round: from 1; 0 is the initial model.
        sites: the metrics of each site that has scored the model, in the order of their names.
    """

    round: int
    sites: Mapping[str, Metrics]

    def __post_init__(self) -> None:
        """Check the numbers, and that they have a mean."""
        _settle(self, round=whole_number(self.round, "round", least=0))
        named = _mapping(self.sites, "sites")
        checked = {site: finite_metrics(named[site], f"sites[{site!r}]") for site in named}
        _settle(self, sites=_read_only(checked))
        mean_over_sites(self.sites)

    @property
    def mean(self) -> Metrics:
        """The unweighted mean over the sites that have scored; see ``mean_over_sites``."""
        return mean_over_sites(self.sites)

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of these scores."""
        sites = {site: dict(metrics) for site, metrics in self.sites.items()}
        return {"round": self.round, "sites": sites, "mean": dict(self.mean)}

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """The scores of such a JSON object, whose mean has to be the mean of its sites."""
        fields = _object(value, ("round", "sites", "mean"))
        stated = finite_metrics(fields.pop("mean"), "mean")
        scores = cls(**fields)
        if not _equal_metrics(stated, scores.mean):
            raise FederationError(
                f"mean: the record states {dict(stated)}, its sites give {dict(scores.mean)};"
                " the file was changed after it was written"
            )
        return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalBest:
    """The round after which a site's own model did best on the site's data, and how well."""

    round: int
    metrics: Metrics

    def __post_init__(self) -> None:
        """Check the numbers."""
        _settle(self, round=whole_number(self.round, "round", least=1))
        _settle(self, metrics=finite_metrics(self.metrics, "metrics"))

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of this model."""
        return {"round": self.round, "metrics": dict(self.metrics)}

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """The model of such a JSON object."""
        return cls(**_object(value, ("round", "metrics")))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One federated run, from its first weights to its end; the JSON names are the same.

    Attributes:
        job: name of the job.
        engine: what carried the run, such as ``nvflare``.
        started: in UTC.
        key_metric: the metric by which models are compared; a higher one is better.
        rounds_asked: how many rounds the job asks for; 0 where it only evaluates given models.
        sites: every site that was asked, in the order of their names.
        min_sites: how many of them a round needs.
        versions: package name -> version.
        initial_weights_sha256: digest of the weights of round 0; ``None`` without rounds.
        status: ``running`` until the run is finished.
        failure: why the run failed; ``None`` unless it did.
        finished: in UTC; ``None`` while running.
        rounds: in order; the last one can be open.
        scores: of the global models, by ascending round.
        best_round: the round whose global model was selected as the best; ``None`` if none was.
        local_bests: each site's own best model.
        shared_names: the tensors that the sites share; ``None`` for all of the network.
    """

    job: str
    engine: str
    started: datetime
    key_metric: str
    rounds_asked: int
    sites: tuple[str, ...]
    min_sites: int
    versions: Mapping[str, str]
    initial_weights_sha256: str | None
    status: RunStatus = "running"
    failure: str | None = None
    finished: datetime | None = None
    rounds: tuple[RoundRecord, ...] = ()
    scores: tuple[RoundScores, ...] = ()
    best_round: int | None = None
    local_bests: Mapping[str, LocalBest] = field(default_factory=dict)
    shared_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check each part, and that the parts fit each other."""
        _settle_head(self)
        _check_status(self)
        _check_rounds(self)
        _check_scores(self)
        _check_bests(self)

    @property
    def trains(self) -> bool:
        """Whether the job trains; one without rounds evaluates models that came with it."""
        return self.rounds_asked > 0

    @property
    def open_round(self) -> RoundRecord | None:
        """The round that still waits for its aggregation, if there is one."""
        return self.rounds[-1] if self.rounds and self.rounds[-1].is_open else None

    @property
    def closed_rounds(self) -> tuple[RoundRecord, ...]:
        """The rounds that gave a global model, in order."""
        return tuple(one for one in self.rounds if not one.is_open)

    @property
    def awaits_digest(self) -> bool:
        """Whether the digest of a global model is still being computed."""
        return any(one.awaits_digest for one in self.rounds)

    def scores_of(self, round_number: int) -> RoundScores | None:
        """The scores of one global model, or ``None`` where no site has scored it."""
        return next((scores for scores in self.scores if scores.round == round_number), None)

    def log_heads(self, site: str) -> dict[str, list[str]]:
        """Name of a log -> the heads that came with the contributions of a site."""
        found: dict[str, list[str]] = {}
        for one in self.rounds:
            came = one.sites.get(site)
            for name, head in came.logs.items() if isinstance(came, SiteContribution) else ():
                found.setdefault(name, []).append(head)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The JSON document of this record; ``RunRecord.from_dict`` gives an equal record back."""
        rounds = [one.as_dict() for one in self.rounds]
        return self.document(rounds, [scores.as_dict() for scores in self.scores])

    def document(self, rounds: Sequence[object], scores: Sequence[object]) -> dict[str, Any]:
        """The JSON document of this record, with these in place of its rounds and scores."""
        return {
            "format_version": FORMAT_VERSION,
            "job": self.job,
            "engine": self.engine,
            "status": self.status,
            "failure": self.failure,
            "started": self.started.isoformat(),
            "finished": None if self.finished is None else self.finished.isoformat(),
            "key_metric": self.key_metric,
            "rounds_asked": self.rounds_asked,
            "sites": list(self.sites),
            "min_sites": self.min_sites,
            "versions": dict(self.versions),
            "initial_weights_sha256": self.initial_weights_sha256,
            "rounds": rounds,
            "scores": scores,
            "best_round": self.best_round,
            "local_bests": {site: best.as_dict() for site, best in self.local_bests.items()},
            "shared_names": None if self.shared_names is None else list(self.shared_names),
        }

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """The record of a JSON document.

        Raises:
            FederationError: with the place, where anything is missing, unknown or contradictory.
        """
        # Records from before networks could be shared in part have all tensors shared.
        fields = _object({"shared_names": None, **_mapping(value, "document")}, _RUN_KEYS)
        check_format_version(fields.pop("format_version"))
        fields["started"] = _parse_time(fields["started"], "started")
        if fields["finished"] is not None:
            fields["finished"] = _parse_time(fields["finished"], "finished")
        fields["rounds"] = _each(fields["rounds"], "rounds", RoundRecord.from_dict)
        fields["scores"] = _each(fields["scores"], "scores", RoundScores.from_dict)
        fields["local_bests"] = _each_of(fields["local_bests"], "local_bests", LocalBest.from_dict)
        return cls(**fields)


_RUN_KEYS = ("format_version", *RunRecord.__dataclass_fields__)


# --- from one record to the next


def begin_run(
    *,
    job: str,
    engine: str,
    started: datetime,
    key_metric: str,
    rounds_asked: int,
    sites: tuple[str, ...],
    min_sites: int,
    versions: Mapping[str, str],
    initial_weights_sha256: str | None,
    shared_names: tuple[str, ...] | None = None,
) -> RunRecord:
    """The record of a run before its first round."""
    return RunRecord(
        job=job,
        engine=engine,
        started=started,
        key_metric=key_metric,
        rounds_asked=rounds_asked,
        sites=sites,
        min_sites=min_sites,
        versions=versions,
        initial_weights_sha256=initial_weights_sha256,
        shared_names=shared_names,
    )


def begin_round(record: RunRecord, number: int, started: datetime) -> RunRecord:
    """The record with round ``number`` open; it has to be the one after the last closed round."""
    _require_running(record)
    return replace(record, rounds=(*record.rounds, RoundRecord(number=number, started=started)))


def add_outcome(record: RunRecord, site: str, outcome: SiteOutcome) -> RunRecord:
    """The record with what came from one site in the open round; once for each site."""
    current = _require_open_round(record)
    if site in current.sites:
        raise FederationError(
            f"round {current.number}: {site} is recorded already"
            f" ({current.sites[site].as_dict()['status']}); a site counts once in each round"
        )
    return _with_last_round(record, replace(current, sites={**current.sites, site: outcome}))


def change_outcome(record: RunRecord, site: str, outcome: SiteOutcome) -> RunRecord:
    """The record with another outcome for a site of the open round, of which one is recorded.

    A contribution is taken out again where the whole round shows it to be unfit; then the score
    that came with it is taken out too. A site that failed may contribute after all.
    """
    current = _require_open_round(record)
    if site not in current.sites:
        raise FederationError(f"round {current.number}: nothing is recorded of {site}")
    changed = _with_last_round(record, replace(current, sites={**current.sites, site: outcome}))
    if isinstance(outcome, SiteContribution):
        return changed
    return _without_score(changed, current.number - 1, site)


def _without_score(record: RunRecord, round_number: int, site: str) -> RunRecord:
    left = []
    for scores in record.scores:
        if scores.round == round_number:
            sites = {name: found for name, found in scores.sites.items() if name != site}
            left += [replace(scores, sites=sites)] if sites else []
        else:
            left.append(scores)
    return replace(record, scores=tuple(left))


def close_round(record: RunRecord, seconds: float, weights_sha256: str | None) -> RunRecord:
    """The record with its open round aggregated; without a digest, ``add_digest`` has to follow.

    A site of which nothing was recorded is recorded as missing: that nothing came from it before
    the round was closed is then a fact.

    Raises:
        FederationError: no round is open, or no site contributed to it.
    """
    current = _require_open_round(record)
    silent = SiteAbsence(status="missing", reason=NO_ANSWER)
    sites = {site: current.sites.get(site, silent) for site in record.sites}
    closed = replace(current, sites=sites, seconds=seconds, weights_sha256=weights_sha256)
    return _with_last_round(record, closed)


def add_digest(record: RunRecord, round_number: int, weights_sha256: str) -> RunRecord:
    """The record with the digest of the global model of a round that was closed without."""
    waiting = [one.number for one in record.rounds if one.awaits_digest]
    if round_number not in waiting:
        raise FederationError(f"round {round_number} awaits no digest")
    rounds = [
        replace(one, weights_sha256=weights_sha256) if one.number == round_number else one
        for one in record.rounds
    ]
    return replace(record, rounds=tuple(rounds))


def add_score(record: RunRecord, round_number: int, site: str, metrics: Metrics) -> RunRecord:
    """The record with one site's metrics of the global model of round ``round_number``."""
    _require_running(record)
    before = record.scores_of(round_number)
    known = {} if before is None else dict(before.sites)
    if site in known:
        raise FederationError(f"round {round_number}: {site} has scored the global model already")
    after = RoundScores(round=round_number, sites={**known, site: metrics})
    others = [scores for scores in record.scores if scores.round != round_number]
    ordered = sorted([*others, after], key=lambda scores: scores.round)
    return replace(record, scores=tuple(ordered))


def select_best_round(record: RunRecord, round_number: int) -> RunRecord:
    """The record with the round whose global model is the best so far; it has to have scores."""
    _require_running(record)
    return replace(record, best_round=round_number)


def add_local_best(record: RunRecord, site: str, round_number: int, metrics: Metrics) -> RunRecord:
    """The record with a site's own best model, in place of an earlier one of that site."""
    _require_running(record)
    best = LocalBest(round=round_number, metrics=metrics)
    return replace(record, local_bests={**record.local_bests, site: best})


def finish_run(
    record: RunRecord,
    status: Literal["complete", "failed"],
    failure: str | None,
    finished: datetime,
) -> RunRecord:
    """The record of the ended run; a complete one has closed every round that was asked for."""
    _require_running(record)
    return replace(record, status=status, failure=failure, finished=finished)


def without_open_round(record: RunRecord) -> RunRecord:
    """The record to resume from: a round that was interrupted is run anew, so it is left out."""
    return replace(record, rounds=record.closed_rounds)


class RunRecorder:
    """Owns the record while a run goes on; hands out frozen snapshots of it.

    The methods can be called from several threads, as contributions arrive on threads of their own.

    Args:
        record: of ``begin_run``, or of an interrupted run after ``without_open_round``.
        now: the time of day, in UTC.
        timer: seconds that only ever grow, for durations.
    """

    def __init__(
        self,
        record: RunRecord,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over a record without an open round."""
        if record.open_round is not None:
            # Its start was measured by the timer of another process.
            raise FederationError(
                f"round {record.open_round.number} of the record is open; resume from"
                " without_open_round(record), which runs it anew"
            )
        self._record = record
        self._now = now
        self._timer = timer
        self._round_start = 0.0
        # Each update reads the record and replaces it: two at once would lose one.
        self._lock = threading.Lock()

    @property
    def record(self) -> RunRecord:
        """The record as it stands now."""
        return self._record

    def start_round(self, number: int) -> None:
        """Open round ``number``, from 1."""
        with self._lock:
            self._record = begin_round(self._record, number, self._now())
            self._round_start = self._timer()

    def contribution(self, site: str, contribution: SiteContribution) -> None:
        """A contribution was accepted."""
        self._add(site, contribution)

    def rejected(self, site: str, reason: str) -> None:
        """A contribution arrived and was not accepted."""
        self._add(site, SiteAbsence(status="rejected", reason=reason))

    def changed(self, site: str, outcome: SiteOutcome) -> None:
        """What is recorded of a site in the open round was not the last word."""
        with self._lock:
            self._record = change_outcome(self._record, site, outcome)

    def missing(self, site: str, reason: str) -> None:
        """No answer will come, for a known reason; without one, ``close_round`` records it."""
        self._add(site, SiteAbsence(status="missing", reason=reason))

    def failed(self, site: str, reason: str) -> None:
        """The site answered that it could not train."""
        self._add(site, SiteAbsence(status="failed", reason=reason))

    def close_round(self, weights_sha256: str | None = None) -> None:
        """The open round is aggregated; sites of which nothing is recorded are missing.

        Without a digest, ``digest`` has to follow.
        """
        with self._lock:
            seconds = self._timer() - self._round_start
            self._record = close_round(self._record, seconds, weights_sha256)

    def digest(self, round_number: int, weights_sha256: str) -> None:
        """The digest of the global model of a round that was closed without."""
        with self._lock:
            self._record = add_digest(self._record, round_number, weights_sha256)

    def score(self, round_number: int, site: str, metrics: Metrics) -> None:
        """A site has scored the global model of a round; 0 is the initial model."""
        with self._lock:
            self._record = add_score(self._record, round_number, site, metrics)

    def best(self, round_number: int) -> None:
        """The global model of this round was selected as the best so far."""
        with self._lock:
            self._record = select_best_round(self._record, round_number)

    def local_best(self, site: str, round_number: int, metrics: Metrics) -> None:
        """A site's own model of this round is its best so far."""
        with self._lock:
            self._record = add_local_best(self._record, site, round_number, metrics)

    def finish(
        self, status: Literal["complete", "failed"], failure: str | None = None
    ) -> RunRecord:
        """The run has ended; the final record."""
        with self._lock:
            self._record = finish_run(self._record, status, failure, self._now())
            return self._record

    def _add(self, site: str, outcome: SiteOutcome) -> None:
        with self._lock:
            self._record = add_outcome(self._record, site, outcome)


# --- what fell short


def shortfalls(record: RunRecord) -> tuple[str, ...]:
    """A sentence for everything that the run asked for and did not get, in the order of the rounds.

    These are: sites that did not contribute, rounds with fewer contributing sites than
    ``min_sites``, global models that a site has not scored, and, once the run has ended, rounds
    that were not reached.
    """
    sentences = [*_unscored(record, 0)]
    for one in record.rounds:
        sentences += _absences(record, one)
        if not one.is_open:
            sentences += _too_few(record, one)
            sentences += _unscored(record, one.number)
    closed = len(record.closed_rounds)
    if record.status != "running" and closed < record.rounds_asked:
        sentences.append(f"{closed} of {record.rounds_asked} rounds were completed.")
    return tuple(sentences)


def unmet(record: RunRecord) -> tuple[str, ...]:
    """The shortfalls that make a run fail: what fewer sites than ``min_sites`` did.

    A job that asks for fewer sites than there are goes on, and ends well, without the others.
    """
    sentences: list[str] = []
    for number in range(len(record.closed_rounds) + 1):
        scores = record.scores_of(number)
        scored = 0 if scores is None else len(scores.sites)
        if scored < record.min_sites:
            sentences += _unscored(record, number)
    for one in record.closed_rounds:
        sentences += _too_few(record, one)
    closed = len(record.closed_rounds)
    if closed < record.rounds_asked:
        sentences.append(f"{closed} of {record.rounds_asked} rounds were completed.")
    return tuple(sentences)


def _absences(record: RunRecord, one: RoundRecord) -> Iterator[str]:
    for site, outcome in one.sites.items():
        if isinstance(outcome, SiteAbsence):
            reason = outcome.reason.rstrip(".")
            yield f"Round {one.number}: {site} did not contribute ({outcome.status}: {reason})."
    if one.is_open and record.status != "running":
        for site in record.sites:
            if site not in one.sites:
                yield f"Round {one.number}: {site} had not contributed when the run ended."


def _too_few(record: RunRecord, one: RoundRecord) -> Iterator[str]:
    count = len(one.contributors)
    if count < record.min_sites:
        yield (
            f"Round {one.number}: {count} of {len(record.sites)} sites contributed,"
            f" {record.min_sites} are required."
        )


def _unscored(record: RunRecord, round_number: int) -> Iterator[str]:
    if not record.trains:
        return
    scores = record.scores_of(round_number)
    scored = {} if scores is None else scores.sites
    model = "initial model" if round_number == 0 else "global model"
    for site in record.sites:
        if site not in scored:
            yield f"Round {round_number}: {site} has not scored the {model}."


# --- on disk


class RecordFile:
    """A record on the disk, as JSON text with a line for each round and for each model's scores.

    It is written several times in a round, and Python writes JSON slowly: so a round that is as it
    was keeps its line.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[tuple[str, int], tuple[object, str]] = {}

    def write(self, record: RunRecord) -> None:
        """Write the record; a reader sees the former file or the whole new one.

        Raises:
            OSError: it cannot be written; the former file is there still.
            ValueError: the record holds a number that JSON does not know.
        """
        write_text_atomically(self._path, self._text(record))

    def _text(self, record: RunRecord) -> str:
        rounds = [self._line("rounds", index, one) for index, one in enumerate(record.rounds)]
        scores = [self._line("scores", index, one) for index, one in enumerate(record.scores)]
        parts = []
        for key, value in record.document(rounds, scores).items():
            if key in ("rounds", "scores") and value:
                lines = ",\n".join(f"    {line}" for line in value)
                parts.append(f"  {in_a_line(key)}: [\n{lines}\n  ]")
            else:
                parts.append(f"  {in_a_line(key)}: {in_a_line(value)}")
        return "{\n" + ",\n".join(parts) + "\n}\n"

    def _line(self, key: str, index: int, value: RoundRecord | RoundScores) -> str:
        """A frozen value in a line, which is made once for it."""
        known, line = self._lines.get((key, index), (None, ""))
        if known is not value:
            line = in_a_line(value.as_dict())
            self._lines[key, index] = (value, line)
        return line


def write_run_record(path: Path, record: RunRecord) -> None:
    """Write a record once; see ``RecordFile``."""
    RecordFile(path).write(record)


def read_run_record(path: Path) -> RunRecord:
    """The record in a JSON file; ``FederationError`` names the file and the place of a fault."""
    with _inside(str(path)):
        return RunRecord.from_dict(parse_json(path))


def in_a_line(value: object) -> str:
    """The JSON text of a value; a number that JSON does not know raises."""
    return json.dumps(value, allow_nan=False)


def json_text(document: Mapping[str, Any]) -> str:
    """The document as indented JSON text; a number that JSON does not know raises."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def parse_json(path: Path) -> object:
    """The JSON document of a file, as it is; ``FederationError`` where it is no JSON."""
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FederationError(f"this is no JSON document: {error}") from error
    return document


# --- checks of the whole record


def _settle_head(record: RunRecord) -> None:
    for name in ("job", "engine", "key_metric"):
        name_text(getattr(record, name), name)
    _settle(record, started=_utc(record.started, "started"))
    _settle(record, rounds_asked=whole_number(record.rounds_asked, "rounds_asked", least=0))
    _settle(record, sites=unique_names(record.sites, "sites", ordered=True))
    _settle(record, min_sites=whole_number(record.min_sites, "min_sites", least=1))
    if record.min_sites > len(record.sites):
        raise FederationError(
            f"min_sites: {record.min_sites} sites are required, the run has {len(record.sites)}"
        )
    versions = _mapping(record.versions, "versions")
    for package, version in versions.items():
        nonempty_text(version, f"versions[{package!r}]")
    _settle(record, versions=_read_only(versions))
    if record.trains:
        check_digest(record.initial_weights_sha256, "initial_weights_sha256")
    elif record.initial_weights_sha256 is not None:
        raise FederationError("initial_weights_sha256: a run without rounds starts from no weights")
    if record.shared_names is not None:
        _settle(record, shared_names=unique_texts(record.shared_names, "shared_names"))
    for name in ("rounds", "scores"):
        _settle(record, **{name: tuple(getattr(record, name))})
    _settle(record, local_bests=_read_only(_mapping(record.local_bests, "local_bests")))


def _check_status(record: RunRecord) -> None:
    if record.status not in get_args(RunStatus):
        allowed = ", ".join(map(repr, get_args(RunStatus)))
        raise FederationError(f"status: found {record.status!r}; allowed: {allowed}")
    if record.status == "failed":
        _settle(record, failure=shown(nonempty_text(record.failure, "failure"), MAX_FAILURE))
    elif record.failure is not None:
        raise FederationError(f"failure: a run that is {record.status} has none")
    if record.status == "running":
        if record.finished is not None:
            raise FederationError("finished: a run that is running has not finished")
        return
    _settle(record, finished=_utc(record.finished, "finished"))


def _check_rounds(record: RunRecord) -> None:
    for index, one in enumerate(record.rounds):
        if one.number != index + 1:
            raise FederationError(f"rounds: round {index + 1} comes next, found {one.number}")
        if one.is_open and one is not record.rounds[-1]:
            raise FederationError(f"rounds: round {one.number} was not closed before the next one")
        _require_known(record, one.sites, f"round {one.number}")
    if len(record.rounds) > record.rounds_asked:
        raise FederationError(f"rounds: {record.rounds_asked} were asked for, found more")
    if record.status == "complete" and len(record.closed_rounds) != record.rounds_asked:
        raise FederationError(
            f"status: {len(record.closed_rounds)} of {record.rounds_asked} rounds are closed, so"
            " the run is not complete; finish it as failed, with the reason"
        )


def _check_scores(record: RunRecord) -> None:
    numbers = [scores.round for scores in record.scores]
    if numbers != sorted(set(numbers)):
        raise FederationError(f"scores: expected each round once and ascending, found {numbers}")
    last = len(record.closed_rounds)
    for scores in record.scores:
        if scores.round > last:
            raise FederationError(
                f"scores: round {scores.round} has no global model; the last one is of round {last}"
            )
        _require_known(record, scores.sites, f"scores of round {scores.round}")
        for site, metrics in scores.sites.items():
            _require_key_metric(record, metrics, f"scores of round {scores.round}, {site}")


def _check_bests(record: RunRecord) -> None:
    if record.best_round is not None:
        number = whole_number(record.best_round, "best_round", least=0)
        if record.scores_of(number) is None:
            raise FederationError(f"best_round: the model of round {number} has no scores")
        _settle(record, best_round=number)
    _require_known(record, record.local_bests, "local_bests")
    for site, best in record.local_bests.items():
        _require_key_metric(record, best.metrics, f"local_bests, {site}")
        if best.round > len(record.rounds):
            raise FederationError(f"local_bests, {site}: there was no round {best.round}")


def _require_running(record: RunRecord) -> None:
    if record.status != "running":
        raise FederationError(f"the run is {record.status}; its record cannot be changed any more")


def _require_open_round(record: RunRecord) -> RoundRecord:
    _require_running(record)
    if record.open_round is None:
        raise FederationError("no round is open; start one before recording what came from a site")
    return record.open_round


def _with_last_round(record: RunRecord, one: RoundRecord) -> RunRecord:
    return replace(record, rounds=(*record.rounds[:-1], one))


def _require_known(record: RunRecord, sites: Mapping[str, object], place: str) -> None:
    unknown = sorted(sites.keys() - set(record.sites))
    if unknown:
        raise FederationError(
            f"{place}: {unknown[0]!r} is not a site of this run; its sites:"
            f" {', '.join(record.sites)}"
        )


def _require_key_metric(record: RunRecord, metrics: Metrics, place: str) -> None:
    if record.key_metric not in metrics:
        raise FederationError(
            f"{place}: the key metric {record.key_metric!r} is missing; found {sorted(metrics)}"
        )


# --- reading JSON


def check_format_version(found: object) -> None:
    """Raise for a document of another format than the one that this code writes."""
    if found != FORMAT_VERSION or isinstance(found, bool):
        raise FederationError(
            f"format_version: expected {FORMAT_VERSION}, found {found!r}; read the file with the"
            " version of mmar-fl that wrote it"
        )


def unique_names(values: object, name: str, *, ordered: bool = False) -> tuple[str, ...]:
    """The names as a tuple, sorted where ``ordered``; none or a repeated one raises."""
    names = tuple(name_text(value, name) for value in unique_texts(values, name))
    return tuple(sorted(names)) if ordered else names


def unique_texts(values: object, name: str) -> tuple[str, ...]:
    """The texts as a tuple; raises unless there is one, none is empty and none is repeated."""
    if not isinstance(values, (list, tuple)) or not values:
        raise FederationError(f"{name}: expected at least one name, found {values!r}")
    texts = tuple(nonempty_text(value, name) for value in values)
    if len(set(texts)) != len(texts):
        raise FederationError(f"{name}: expected each name once, found {list(texts)}")
    return texts


def _object(value: object, keys: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object with exactly these keys; the value of each is checked by its dataclass."""
    found = dict(_mapping(value, "document"))
    missing = [key for key in keys if key not in found]
    unknown = sorted(set(found) - set(keys))
    if missing:
        raise FederationError(f"missing: {', '.join(missing)}")
    if unknown:
        raise FederationError(f"unknown: {', '.join(unknown)}; known: {', '.join(keys)}")
    return found


def _outcome_from_dict(value: object) -> SiteOutcome:
    if _mapping(value, "site").get("status") == "contributed":
        return SiteContribution.from_dict(value)
    return SiteAbsence.from_dict(value)


def _each(values: object, name: str, read: Callable[[object], Part]) -> tuple[Part, ...]:
    if not isinstance(values, list):
        raise FederationError(f"{name}: expected a list, found {values!r}")
    parts = []
    for index, value in enumerate(values):
        with _inside(f"{name}[{index}]"):
            parts.append(read(value))
    return tuple(parts)


def _each_of(values: object, name: str, read: Callable[[object], Part]) -> dict[str, Part]:
    parts = {}
    for key, value in _mapping(values, name).items():
        with _inside(f"{name}[{key!r}]"):
            parts[key] = read(value)
    return parts


@contextmanager
def _inside(place: str) -> Iterator[None]:
    """Put the place in front of the message of a fault found there."""
    try:
        yield
    except FederationError as error:
        raise FederationError(f"{place}: {error}") from error


def _parse_time(value: object, name: str) -> datetime:
    try:
        return datetime.fromisoformat(nonempty_text(value, name))
    except ValueError as error:
        raise FederationError(f"{name}: expected an ISO 8601 time, found {value!r}") from error


def _utc(value: object, name: str) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise FederationError(f"{name}: expected a time with its time zone, found {value!r}")
    return value.astimezone(UTC)


def check_digest(value: object, name: str) -> None:
    """Raise for anything else than a SHA-256 in hexadecimal digits."""
    if not isinstance(value, str) or re.fullmatch("[0-9a-f]{64}", value) is None:
        raise FederationError(f"{name}: expected 64 hexadecimal digits (SHA-256), found {value!r}")


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FederationError(f"{name}: expected an object, found {value!r}")
    for key in value:
        name_text(key, f"a name in {name}")
    return value


def _read_only(values: Mapping[str, Value]) -> Mapping[str, Value]:
    """A copy that nobody can change, in the order of the names."""
    return MappingProxyType({key: values[key] for key in sorted(values)})


def _settle(owner: object, **values: object) -> None:
    """Set checked values on a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(owner, name, value)


def _equal_metrics(one: Metrics, other: Metrics) -> bool:
    """Equal up to the last digits, in which another way of summing may differ."""
    return one.keys() == other.keys() and all(
        math.isclose(one[name], other[name], rel_tol=1e-9, abs_tol=1e-12) for name in one
    )
