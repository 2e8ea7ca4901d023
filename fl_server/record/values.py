"""The run record: for every round, who contributed what, who did not and why, and the scores.

A ``RunRecord`` is a frozen value. Rounds count from 1: the model of round r is the global model
after the r-th aggregation, and the model of round 0 is the initial model. A round whose aggregation
has not happened (yet) is *open*: it has neither seconds nor a digest of weights. A digest may be
computed while the run goes on; until then ``as_dict`` raises. Only the last round of a record can
be open, which is how a failed run shows who had answered by then.

The fields are the keys of the JSON document, in its order. Whatever is missing or not a finite
number raises ``FederationError``; no value is ever made up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self, TypeAlias

from fl_server.record.checks import (
    FORMAT_VERSION,
    check_digest,
    check_format_version,
    checked_metrics,
    finite_number,
    mapping,
    name_text,
    nonempty_text,
    read_only,
    set_checked,
    unique_names,
    unique_texts,
    utc,
    whole_number,
)
from mmar_runtime.audit import AUDIT_FILE, HEAD_FORM, LEDGER_FILE
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.plain import from_plain, keyed, to_plain
from mmar_runtime.exchange.weighing import WeighBy, claim_of
from mmar_runtime.metrics import Metrics, MetricValue, Unit
from mmar_runtime.names import shown

RunStatus: TypeAlias = Literal["running", "complete", "failed"]
AbsenceStatus: TypeAlias = Literal["rejected", "missing", "failed"]

BOTH_OR_NONE = "a closed round has both seconds and weights_sha256, an open none"
MAX_FAILURE = 4000
"""Characters of the reason of a failed run, which lists what is missing of each site."""

CANNOT_BEGIN = "the run cannot begin"
"""How the reason begins where what was asked for is at fault, and no site was asked."""


# --- the record, part by part


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
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
        set_checked(
            self,
            epoch=whole_number(self.epoch, "epoch", least=1),
            loss=finite_number(self.loss, "loss"),
            metrics=checked_metrics(self.metrics, "metrics"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteContribution:
    """What one site gave to one round, accepted by the server.

    Attributes:
        steps: iterations of the site's trainer in this round.
        samples: items that the site drew from its training data; None where the run does not weigh
            by them.
        epoch_samples: those of one epoch, as the site states them; None likewise.
        weight: the site's in the mean; None in records from before it was recorded.
        sent_bytes: size of the update that arrived.
        seconds: time that the site spent on the round.
        received_metrics: the global model it received, validated on its data before training.
        local_metrics: the site's own model after training, validated on the site's data.
        epochs: the local epochs of this round, in order.
        built: how often each component had been built, such as ``train.trainer``.
        process: an opaque name of the process that trained; the same name over rounds means that
            the process is still the same.
        logs: name -> head of the site's logs as they were when the update left; see ``audit``.
        reason: None, for a contribution needs none.
    """

    status: Literal["contributed"] = "contributed"
    steps: int
    samples: int | None = None
    epoch_samples: int | None = None
    weight: float | None = None
    sent_bytes: int = keyed("bytes")
    seconds: float
    received_metrics: Metrics
    local_metrics: Metrics
    epochs: tuple[EpochRecord, ...]
    built: Mapping[str, int]
    process: str
    logs: Mapping[str, str] = field(default_factory=dict)
    reason: None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        built = mapping(self.built, "built")
        counts = {key: whole_number(built[key], f"built[{key!r}]", least=0) for key in built}
        set_checked(
            self,
            steps=whole_number(self.steps, "steps", least=1),
            sent_bytes=whole_number(self.sent_bytes, "bytes", least=1),
            seconds=finite_number(self.seconds, "seconds", least=0),
            received_metrics=checked_metrics(self.received_metrics, "received_metrics"),
            local_metrics=checked_metrics(self.local_metrics, "local_metrics"),
            epochs=tuple(self.epochs),
            built=read_only(counts),
            process=name_text(self.process, "process"),
            logs=read_only(mapping(self.logs, "logs")),
        )
        known = (AUDIT_FILE.name, LEDGER_FILE.name)
        for name in ("samples", "epoch_samples"):
            if getattr(self, name) is not None:
                whole_number(getattr(self, name), name, least=1)
        if self.weight is not None:
            set_checked(self, weight=finite_number(self.weight, "weight", least=0))
        for name, head in mapping(self.logs, "logs").items():
            if name not in known or not (isinstance(head, str) and HEAD_FORM.fullmatch(head)):
                raise FederationError(f"logs: expected heads of {' and '.join(known)} alone")


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
        set_checked(self, reason=shown(nonempty_text(self.reason, "reason")))


SiteOutcome: TypeAlias = SiteContribution | SiteAbsence


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """One round: what came from each site, and the global weights that came out.

    Attributes:
        number: from 1.
        started: when the server asked the sites, in UTC.
        seconds: from the start to the aggregation; ``None`` while the round is open.
        weights_sha256: digest of the global weights after it; ``None`` while the round is open, and
            in memory until it has been computed. No document lacks it.
        sites: what is known of each site, in the order of their names.
    """

    number: int = keyed("round")
    started: datetime
    seconds: float | None = None
    weights_sha256: str | None = None
    sites: Mapping[str, SiteOutcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the round; a closed one needs at least one contribution."""
        set_checked(
            self,
            number=whole_number(self.number, "round", least=1),
            started=utc(self.started, "started"),
            sites=read_only(mapping(self.sites, "sites")),
        )
        if self.seconds is None:
            if self.weights_sha256 is not None:
                raise FederationError(BOTH_OR_NONE)
            return
        set_checked(self, seconds=finite_number(self.seconds, "seconds", least=0))
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
        return tuple(
            site for site, came in self.sites.items() if isinstance(came, SiteContribution)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteMean:
    """The unweighted mean of a metric over sites.

    Attributes:
        value: the mean over the sites where the metric is defined; None if there are none.
        sites: how many these are.
        undefined: the sites that report the metric without a value, in the order of their names.
        unit: of the value.
    """

    value: float | None
    sites: int
    undefined: tuple[str, ...] = ()
    unit: Unit = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundScores:
    """How well the global model of one round does at each site.

    Attributes:
        round: from 1; 0 is the initial model.
        sites: the metrics of each site that has scored the model, in the order of their names.
        mean: of each metric over these sites; see ``mean_over_sites``.
    """

    round: int
    sites: Mapping[str, Metrics]
    mean: Mapping[str, SiteMean] = field(init=False)

    def __post_init__(self) -> None:
        """Check the numbers, and that they have a mean."""
        sites = mapping(self.sites, "sites")
        checked = {site: checked_metrics(sites[site], f"sites[{site!r}]") for site in sites}
        set_checked(
            self,
            round=whole_number(self.round, "round", least=0),
            sites=read_only(checked),
            mean=mean_over_sites(checked),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalBest:
    """The round after which a site's own model did best on the site's data, and how well."""

    round: int
    metrics: Metrics

    def __post_init__(self) -> None:
        """Check the numbers."""
        set_checked(
            self,
            round=whole_number(self.round, "round", least=1),
            metrics=checked_metrics(self.metrics, "metrics"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One federated run, from its first weights to its end.

    Attributes:
        format_version: of the document.
        job: name of the job.
        engine: what carried the run, such as ``nvflare``.
        status: ``running`` until the run is finished.
        failure: why the run failed; ``None`` unless it did.
        started: in UTC.
        finished: in UTC; ``None`` while running.
        key_metric: the metric by which models are compared; ``higher_is_better`` says which way.
        rounds_asked: how many rounds the job asks for; 0 where it only evaluates given models.
        sites: every site that was asked, in the order of their names.
        min_sites: how many of them a round needs.
        versions: package name -> version.
        initial_weights_sha256: digest of the weights of round 0; ``None`` without rounds.
        rounds: in order; the last one can be open.
        scores: of the global models, by ascending round.
        best_round: the round whose global model was selected as the best; ``None`` if none was.
        local_bests: each site's own best model.
        shared_names: the tensors that the sites share; ``None`` for all of the network.
        weigh_by: what a site claims as its weight in the mean.
    """

    format_version: int = field(init=False, default=FORMAT_VERSION)
    job: str
    engine: str
    status: RunStatus = "running"
    failure: str | None = None
    started: datetime
    finished: datetime | None = None
    key_metric: str
    rounds_asked: int
    sites: tuple[str, ...]
    min_sites: int
    versions: Mapping[str, str]
    initial_weights_sha256: str | None
    rounds: tuple[RoundRecord, ...] = ()
    scores: tuple[RoundScores, ...] = ()
    best_round: int | None = None
    local_bests: Mapping[str, LocalBest] = field(default_factory=dict)
    shared_names: tuple[str, ...] | None = None
    weigh_by: WeighBy = "samples"

    def __post_init__(self) -> None:
        """Check each part, and that the parts fit each other."""
        self._check_head()
        self._check_status()
        self._check_rounds()
        self._check_scores()
        self._check_bests()

    def _check_head(self) -> None:
        for name in ("job", "engine", "key_metric"):
            name_text(getattr(self, name), name)
        set_checked(
            self,
            started=utc(self.started, "started"),
            rounds_asked=whole_number(self.rounds_asked, "rounds_asked", least=0),
            sites=unique_names(self.sites, "sites", ordered=True),
            min_sites=whole_number(self.min_sites, "min_sites", least=1),
            rounds=tuple(self.rounds),
            scores=tuple(self.scores),
            local_bests=read_only(mapping(self.local_bests, "local_bests")),
        )
        if self.min_sites > len(self.sites):
            raise FederationError(
                f"min_sites: the job asks for {self.min_sites} sites in each round, the run has"
                f" {len(self.sites)}: {', '.join(self.sites)}; ask for fewer, or add sites"
            )
        versions = mapping(self.versions, "versions")
        for package, version in versions.items():
            nonempty_text(version, f"versions[{package!r}]")
        set_checked(self, versions=read_only(versions))
        if self.trains:
            check_digest(self.initial_weights_sha256, "initial_weights_sha256")
        elif self.initial_weights_sha256 is not None:
            raise FederationError(
                "initial_weights_sha256: a run without rounds starts from no weights"
            )
        if self.shared_names is not None:
            set_checked(self, shared_names=unique_texts(self.shared_names, "shared_names"))

    def _check_status(self) -> None:
        if self.status == "failed":
            set_checked(self, failure=shown(nonempty_text(self.failure, "failure"), MAX_FAILURE))
        elif self.failure is not None:
            raise FederationError(f"failure: a run that is {self.status} has none")
        if self.status == "running":
            if self.finished is not None:
                raise FederationError("finished: a run that is running has not finished")
            return
        set_checked(self, finished=utc(self.finished, "finished"))

    def _check_rounds(self) -> None:
        for number, part in enumerate(self.rounds, start=1):
            if part.number != number:
                raise FederationError(f"rounds: round {number} comes next, found {part.number}")
            if part.is_open and part is not self.rounds[-1]:
                raise FederationError(f"rounds: round {number} was not closed before the next one")
            self._require_known(part.sites, f"round {number}")
        if len(self.rounds) > self.rounds_asked:
            raise FederationError(f"rounds: {self.rounds_asked} were asked for, found more")
        if self.status == "complete" and len(self.closed_rounds) != self.rounds_asked:
            raise FederationError(
                f"status: {len(self.closed_rounds)} of {self.rounds_asked} rounds are closed, so"
                " the run is not complete; finish it as failed, with the reason"
            )

    def _check_scores(self) -> None:
        numbers = [scores.round for scores in self.scores]
        if numbers != sorted(set(numbers)):
            raise FederationError(
                f"scores: expected each round once and ascending, found {numbers}"
            )
        last = len(self.closed_rounds)
        for scores in self.scores:
            if scores.round > last:
                raise FederationError(
                    f"scores: round {scores.round} has no global model; the last one is of round"
                    f" {last}"
                )
            self._require_known(scores.sites, f"scores of round {scores.round}")
            for site, metrics in scores.sites.items():
                self._require_key_metric(metrics, f"scores of round {scores.round}, {site}")

    def _check_bests(self) -> None:
        if self.best_round is not None:
            number = whole_number(self.best_round, "best_round", least=0)
            if self.scores_of(number) is None:
                raise FederationError(f"best_round: the model of round {number} has no scores")
            set_checked(self, best_round=number)
        self._require_known(self.local_bests, "local_bests")
        for site, best in self.local_bests.items():
            self._require_key_metric(best.metrics, f"local_bests, {site}")
            if best.round > len(self.rounds):
                raise FederationError(f"local_bests, {site}: there was no round {best.round}")

    def _require_known(self, sites: Mapping[str, object], place: str) -> None:
        if unknown := sorted(sites.keys() - set(self.sites)):
            raise FederationError(
                f"{place}: {unknown[0]!r} is not a site of this run; its sites:"
                f" {', '.join(self.sites)}"
            )

    def _require_key_metric(self, metrics: Metrics, place: str) -> None:
        if self.key_metric not in metrics:
            raise FederationError(
                f"{place}: the key metric {self.key_metric!r} is missing; found {sorted(metrics)}"
            )

    @property
    def trains(self) -> bool:
        """Whether the job trains; one without rounds evaluates models that came with it."""
        return self.rounds_asked > 0

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher key metric is better, as its values say."""
        values = (at[self.key_metric] for scores in self.scores for at in scores.sites.values())
        return all(value.higher_is_better is not False for value in values)

    @property
    def open_round(self) -> RoundRecord | None:
        """The round that still waits for its aggregation, if there is one."""
        return self.rounds[-1] if self.rounds and self.rounds[-1].is_open else None

    @property
    def closed_rounds(self) -> tuple[RoundRecord, ...]:
        """The rounds that gave a global model, in order."""
        return tuple(part for part in self.rounds if not part.is_open)

    def scores_of(self, round_number: int) -> RoundScores | None:
        """Return the scores of one global model, or ``None`` where no site has scored it."""
        return next((scores for scores in self.scores if scores.round == round_number), None)

    def claims(self, round_number: int) -> Mapping[str, int]:
        """Return what each contributor of a round claimed as its weight."""
        return {
            site: claim_of(self.weigh_by, steps=came.steps, samples=came.samples)
            for site, came in self.rounds[round_number - 1].sites.items()
            if isinstance(came, SiteContribution)
        }

    def stated_samples(self, site: str) -> int | None:
        """Return the samples of an epoch that a site has stated; None if it has stated none."""
        for part in self.closed_rounds:
            came = part.sites.get(site)
            if isinstance(came, SiteContribution):
                return came.epoch_samples
        return None

    def log_heads(self, site: str) -> dict[str, list[str]]:
        """Name of a log -> the heads that came with the contributions of a site."""
        heads: dict[str, list[str]] = {}
        for part in self.rounds:
            came = part.sites.get(site)
            for name, head in came.logs.items() if isinstance(came, SiteContribution) else ():
                heads.setdefault(name, []).append(head)
        return heads

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of this record; ``from_dict`` gives an equal record back.

        Raises:
            FederationError: the digest of a global model is still being computed.
        """
        self.require_digests()
        document: dict[str, Any] = to_plain(self)
        return document

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Return the record of a JSON document.

        Raises:
            FederationError: with the place, where anything is missing, unknown or contradictory.
        """
        document = mapping(value, "document")
        check_format_version(document.get("format_version"))
        record = from_plain(cls, document)
        record.require_digests()
        return record

    def require_digests(self) -> None:
        """Raise while the digest of a global model is missing, which no document lacks."""
        if any(part.awaits_digest for part in self.rounds):
            raise FederationError(BOTH_OR_NONE)


def mean_over_sites(metrics_by_site: Mapping[str, Metrics]) -> Mapping[str, SiteMean]:
    """Return the unweighted mean over the sites of each metric that all of them report.

    A site may withhold a metric; the mean over the others would not be the federation's. Values in
    different units have no mean.

    The sum is exact until its last rounding (``math.fsum``), over the sites in the order of their
    names, so that the same scores give the same bits whatever the order of their arrival.

    >>> one, other = MetricValue(value=0.5, counted=2), MetricValue(value=None, counted=0)
    >>> mean_over_sites({"site-1": {"dice": one}, "site-2": {"dice": other, "acc": one}})["dice"]
    SiteMean(value=0.5, sites=1, undefined=('site-2',), unit='')

    Raises:
        FederationError: there is no site.
    """
    if not metrics_by_site:
        raise FederationError(
            "a mean over zero sites does not exist; score at least one site first"
        )
    names = set.intersection(*(set(metrics) for metrics in metrics_by_site.values()))
    sites = sorted(metrics_by_site)
    return read_only(
        {name: _mean({site: metrics_by_site[site][name] for site in sites}) for name in names}
    )


def _mean(metrics: Mapping[str, MetricValue]) -> SiteMean:
    values = [metric.value for metric in metrics.values() if metric.value is not None]
    units = {metric.unit for metric in metrics.values() if metric.value is not None}
    one_unit = len(units) == 1
    return SiteMean(
        value=math.fsum(values) / len(values) if one_unit else None,
        sites=len(values),
        undefined=tuple(site for site, metric in metrics.items() if metric.value is None),
        unit=units.pop() if one_unit else "",
    )
