"""The course of a federated run, whoever carries its messages.

    open_round -> take, for each site -> close_round          in each round
    scores_wanted -> scored, for each site -> close_scores
    models_wanted -> model, for each site
    cells_wanted -> cell, for each model and each site
    end

In place of ``take``, ``model`` and ``cell`` stand ``absent``, ``model_absent`` and ``cell_absent``
where a site has nothing to give. A carrier moves tasks and replies, and decides nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from fl_server.aggregation import averaging_problems
from fl_server.encryption import ServerEncryption
from fl_server.guard.metadata import check_first
from fl_server.guard.reply_guard import PlainReplyGuard, reason_of
from fl_server.guard.values import UpdateFault
from fl_server.initial_model import InitialModel
from fl_server.model_selection import ModelSelection
from fl_server.record.cross_site import GLOBAL_MODEL, expected_models
from fl_server.record.cross_site_results import CrossSiteResults, MatrixRows, Outcome
from fl_server.record.recorder import RunRecorder, add_digest
from fl_server.record.values import RunRecord, SiteAbsence, SiteContribution
from fl_server.round_mean import RoundMean
from fl_server.run_files import RunFiles
from fl_server.updates import Received, contribution_of, restored_update
from mmar_runtime.config.loader import TRAIN_FILE
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, FederationError, Problem, WeightsError
from mmar_runtime.exchange.arrays import arrays_of
from mmar_runtime.exchange.job_documents import FACTORS_PLACE
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import (
    SCORE,
    SUBMIT,
    VALIDATE,
    Score,
    Submit,
    Train,
    Validate,
)
from mmar_runtime.exchange.metric_messages import metrics_from
from mmar_runtime.exchange.spare_memory import SpareMemory
from mmar_runtime.exchange.weighing import claim_of, factor_problems
from mmar_runtime.metrics import values_of
from mmar_runtime.weights import Weights, digest

logger = logging.getLogger(__name__)

Faults = tuple[UpdateFault, ...]
"""Why the server rejects a reply; empty for a good one."""

OwnMean = Callable[[Weights, Collection[str], Collection[str]], Weights]
"""``own(weights, sites, optional)``: the new global weights by an aggregator of the job's own."""


def failure_reason(error: Exception) -> str:
    """Return why a run has failed, for its record: the text of an error, and its place.

    >>> failure_reason(ValueError())
    'ValueError'
    """
    return ": ".join([*getattr(error, "__notes__", ()), str(error) or type(error).__name__])


def _problems(record: RunRecord, terms: JobTerms, initial: InitialModel) -> Iterator[Problem]:
    """Yield what would make the mean of every round a wrong one."""
    yield from factor_problems(terms.aggregation_weights, FACTORS_PLACE, sites=record.sites)
    if terms.rounds:
        yield from averaging_problems(
            initial.weights, Location(Path(TRAIN_FILE).name) / "train" / "model"
        )


class Note(Protocol):
    """Writes a line of the server's audit log."""

    def __call__(self, event: str, **facts: Any) -> None:
        """Note an event; a fact that is a function is called for its value."""


@dataclass(slots=True)
class _Round:
    """The open round.

    Attributes:
        number: from 1.
        mean: of what came until now.
        answered: the sites whose reply was to this round.
        failed: site that could not train -> its word for the reason; empty if it did not answer.
        rejections: site -> why its update does not count.
    """

    number: int
    mean: RoundMean
    answered: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    rejections: dict[str, str] = field(default_factory=dict)


class FederatedRun:
    """One run, from its first weights to its published results.

    Replies may come on several threads; whatever a site sends, nothing is raised for it.

    Args:
        record: of a run before its first round.
        job: the id by which replies name the job.
        terms: what the job asks for.
        initial: where the run starts.
        files: where models and record are written.
        evaluation_sha256: digest of how the job evaluates models.
        given: the models of a job that trains none: name -> what reads the weights.
        encryption: what is needed to add up encrypted tensors; None if the job encrypts none.
        own_mean: an aggregator of the job's own in place of the weighted mean.
        spare: memory for copies where updates are lent for the time of ``take`` alone; None where
            they are the run's to keep.
        note: writes the server's audit log; a simulation has none.

    Raises:
        ConfigError: a factor of a site is of no site of the run, or a tensor has no mean.
    """

    def __init__(
        self,
        record: RunRecord,
        job: str,
        terms: JobTerms,
        initial: InitialModel,
        files: RunFiles,
        *,
        evaluation_sha256: str,
        given: Mapping[str, Callable[[], Weights]] | None = None,
        encryption: ServerEncryption | None = None,
        own_mean: OwnMean | None = None,
        spare: SpareMemory | None = None,
        note: Note = lambda event, **facts: None,
    ) -> None:
        if problems := [*_problems(record, terms, initial)]:
            raise ConfigError(problems)
        self._guard = PlainReplyGuard(
            initial,
            job,
            terms.limits,
            optional_names=terms.optional_names,
            encrypted=None if encryption is None else encryption.layout,
            weigh_by=terms.weigh_by,
            factors=terms.aggregation_weights,
            transfer=terms.transfer,
            steps=terms.steps_aggregation,
        )
        self._terms = terms
        self._weights: Weights = initial.weights
        self._key_metric = initial.key_metric
        self._files = files
        self._evaluation_sha256 = evaluation_sha256
        self._given = given or {}
        self._encryption = encryption
        self._own_mean = own_mean
        self._spare = spare
        self._note = note
        self._recorder = RunRecorder(record)
        self._selection = ModelSelection(
            self._recorder,
            initial.key_metric,
            higher_is_better=initial.metrics.higher_is_better,
        )
        self._cross_site = CrossSiteResults()
        self._hashing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digests")
        self._round_digests: dict[int, Future[str]] = {}
        self._digests: dict[str, Future[str]] = {}
        self._round: _Round | None = None
        self._submitted: set[str] = set()
        self._scoring_is_over = self._submission_is_over = False
        self._own_models: list[str] = []
        self._validated: dict[str, set[str]] = {}
        self._lock = threading.RLock()

    @property
    def record(self) -> RunRecord:
        """The record as it stands, once the digests of all its models are there."""
        record = self._recorder.record
        for closed in (part.number for part in record.rounds if part.awaits_digest):
            record = add_digest(record, closed, self._round_digests[closed].result())
        return record

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of the run, in the order of their names."""
        return self._recorder.record.sites

    def base_model(self) -> str:
        """Return the name of the global model that the sites of the open round start from."""
        return f"model of round {len(self._recorder.record.closed_rounds)}"

    def digest_of(self, weights: Weights) -> str | Callable[[], str] | None:
        """Return the digest of a model that is sent, or the function that gives the digest later.

        The digest of the current global model is taken once, whoever asks.
        """
        if weights is not self._weights:
            return cache(partial(digest, weights))
        number = len(self._recorder.record.closed_rounds)
        first = self._recorder.record.initial_weights_sha256
        return self._round_digests[number].result if number else first

    def close(self) -> None:
        """End the threads, when all is written."""
        self._hashing.shutdown(wait=True)
        self._files.close()

    # --- training

    def open_round(self) -> Train:
        """Open the next round; what its sites are asked for."""
        with self._lock:
            number = len(self._recorder.record.rounds) + 1
            self._recorder.start_round(number)
            mean = RoundMean(
                self.sites,
                min_sites=self._terms.min_sites,
                aggregation_weights=self._terms.aggregation_weights,
                weight_ratio=self._guard.weight_ratio if self._usual_claim() is None else None,
                norm_ratio=self._guard.norm_ratio,
                optional_names=self._guard.optional,
                encryption=self._encryption,
                averages=self._own_mean is None,
                spare=self._spare,
            )
            self._round = _Round(number, mean)
            self._write_record()
            return Train(
                weights=self._weights, round_number=number, timeout=self._terms.train_timeout
            )

    def take(
        self, site: str, reply: Received, *, counted: Callable[[], None] = lambda: None
    ) -> Faults:
        """Take a site's update; why not, where the server rejects it.

        A reply to another round than the open one is not recorded: the site's own may follow.

        Args:
            site: its sender, as the carrier knows it.
            reply: what came.
            counted: called for an update that counts, before the round can be closed.
        """
        with self._lock:
            faults = self._judged(lambda: self._update_faults(site, reply), "update")
            faults = faults or self._counted(self._open(), site, reply)
            if faults:
                self._reject(site, reply, faults)
            else:
                counted()
            self._write_record(soon=False)
            return faults

    def _update_faults(self, site: str, reply: Received) -> Faults:
        if site not in self.sites:
            return (UpdateFault("site", "site", f"{site} is not a site of this run"),)
        if (current := self._round) is None:
            return (UpdateFault("late", "round", "arrived after the round was aggregated"),)
        faults = self._guard.contribution_faults(
            reply.data,
            reply.metadata,
            site=site,
            round_number=current.number,
            model=arrays_of(self._weights),
            base_model=self.base_model(),
            contributors=current.answered,
            epoch_samples=self._recorder.record.stated_samples(site),
            usual_claim=self._usual_claim(),
        )
        if not any(fault.rule in ("round", "base_model") for fault in faults):
            current.answered.add(site)
        return faults

    def _usual_claim(self) -> float | None:
        """Return the median of the claims in the last closed round; None before there is one."""
        record = self._recorder.record
        last = len(record.closed_rounds)
        return median(record.claims(last).values()) if last else None

    def _counted(self, current: _Round, site: str, reply: Received) -> Faults:
        """Add an update that the guard has let through to the mean and to the record.

        What fails in the sum itself is raised: half an update may be in it.
        """
        try:
            update = reply.update(current.number)
            claim = claim_of(self._terms.weigh_by, steps=update.steps, samples=update.samples)
            weight = claim * self._terms.aggregation_weights.get(site, 1.0)
            contribution = contribution_of(update, reply.logs, weight=weight)
            difference = update.difference
            addend = None if self._encryption is None else self._encryption.loaded(difference)
            whole = restored_update(difference)
        except FederationError as error:
            return (UpdateFault("report", "report", str(error)),)
        except WeightsError as error:
            return (UpdateFault("encryption", "update", str(error)),)
        except Exception as error:
            return self._unreadable("update", error)
        if (fault := current.mean.add(site, whole, claim, addend)) is not None:
            return (fault,)
        self._record_contribution(current, site, contribution)
        left_out = [name for name in self._guard.optional if name not in difference]
        self._note(
            "contribution-accepted",
            site=site,
            round=current.number,
            steps=contribution.steps,
            weight=contribution.weight,
            bytes=contribution.sent_bytes,
            logs=dict(contribution.logs),
            tensors=partial(digest, difference),
            **({"left_out": sorted(left_out)} if left_out else {}),
        )
        return ()

    def _record_contribution(
        self, current: _Round, site: str, contribution: SiteContribution
    ) -> None:
        if self._is_recorded(site):  # it failed, or seemed to, and has contributed after all
            current.rejections.pop(site, None)
            self._recorder.changed(site, contribution)
        else:
            self._recorder.contribution(site, contribution)
        self._recorder.score(current.number - 1, site, contribution.received_metrics)

    def _reject(self, site: str, reply: Received, faults: Faults) -> None:
        reason, current = self._note_rejection(site, faults), self._round
        named = reply.metadata.get("round") if type(reply.metadata) is dict else None
        if current is not None and self._is_awaited(site, named):
            current.rejections[site] = reason
            self._recorder.rejected(site, reason)

    def _note_rejection(self, site: str, faults: Faults) -> str:
        """Log why the server rejects an update; the sentence for the record."""
        reason = reason_of(faults)
        logger.warning("contribution of %s rejected: %s", site, reason)
        self._note(
            "contribution-rejected",
            site=site,
            round=len(self._recorder.record.rounds),
            rules=sorted({fault.rule for fault in faults}),
            reason=reason,
        )
        return reason

    def _is_awaited(self, site: str, round_number: int | None) -> bool:
        """Return whether a reply may be a site's first to the open round."""
        current = self._round
        return (
            current is not None
            and site in self.sites
            and not self._is_recorded(site)
            and round_number in (None, current.number)
        )

    def _is_recorded(self, site: str) -> bool:
        """Return whether the record knows what came of a site in the open round."""
        current = self._recorder.record.open_round
        return current is not None and site in current.sites

    def absent(self, site: str, status: str, *, round_number: int | None = None) -> None:
        """Record that a site could not train; go on if enough others are left.

        Args:
            site: whose reply says so.
            status: the site's word for the reason; empty where it did not answer in time.
            round_number: the round that the reply is to, where the carrier knows.

        Raises:
            FederationError: too few sites are left for the round.
        """
        with self._lock:
            if (current := self._round) is None or not self._is_awaited(site, round_number):
                return
            current.failed[site] = status
            if not status:
                logger.warning("%s did not answer in round %d in time", site, current.number)
                return
            self._recorder.failed(site, status)
            self._write_record()
            left = len(self.sites) - len(current.failed)
            if left < self._terms.min_sites:
                failures = [
                    f"{site} failed in round {current.number}: {status}; "
                    for site, status in sorted(current.failed.items())
                    if status
                ]
                asked = self._terms.min_sites
                message = f"{''.join(failures)}{left} sites are left, the job asks for {asked}"
                raise FederationError(message)

    def lost(self, site: str) -> None:
        """Record that an open round is closed without a site, which shows no sign of life."""
        with self._lock:
            if self._is_awaited(site, None):
                logger.warning("%s shows no sign of life", site)
                self._recorder.lost(site)

    def close_round(self) -> None:
        """Aggregate the open round: its mean is the new global model.

        Raises:
            FederationError: fewer sites contributed than the job asks for, or no site has scored
                the model of the round before.
            WeightsError: the new weights are not finite; the ones before stay.
        """
        with self._lock:
            current = self._open()
            for site, fault in current.mean.settle().items():
                reason = self._note_rejection(site, (fault,))
                current.rejections[site] = reason
                self._recorder.changed(site, SiteAbsence(status="rejected", reason=reason))
            self._round = None
            current.mean.require_enough(current.rejections)
            if self._selection.is_best(current.number - 1):
                self._files.best_model(self._weights, current.number - 1)
            self._weights = self._new_global(current)
            is_last = current.number == self._terms.rounds
            self._files.global_model(self._weights, current.number, soon=is_last)
            self._record_model(current.number)
            self._note(
                "global-model",
                round=current.number,
                contributors=list(current.mean.contributors),
                bytes=sum(tensor.nbytes for tensor in self._weights.values()),
                tensors=self._round_digests[current.number].result,
            )
            self._write_record()

    def _open(self) -> _Round:
        if self._round is None:
            raise FederationError("no round is open")
        return self._round

    def _new_global(self, current: _Round) -> Weights:
        if self._own_mean is None:
            return current.mean.new_global(self._weights)
        self._files.wait()  # it may change what came, whose digests are still to be taken
        sites, optional = current.mean.contributors, self._guard.optional
        return self._own_mean(self._weights, sites, optional)

    def _record_model(self, number: int) -> None:
        """Take the digest of the new model while the sites work on, one at a time."""
        if number > 1:
            self._recorder.digest(number - 1, self._round_digests[number - 1].result())
        self._round_digests[number] = self._hashing.submit(digest, self._weights)
        self._recorder.close_round()

    # --- the scores of the last model

    def scores_wanted(self) -> Score:
        """Return the last global model, which no round scores."""
        return Score(weights=self._weights, timeout=self._terms.score_timeout)

    def scored(self, site: str, reply: Received) -> Faults:
        """Take a site's score of the last global model."""
        with self._lock:
            if self._scoring_is_over:
                return self._late(SCORE, site, "score", "arrived after the last model was judged")
            number = len(self._recorder.record.rounds)
            scores = self._recorder.record.scores_of(number)
            faults = check_first(site, () if scores is None else scores.sites) or self._judged(
                lambda: self._guard.score_faults(reply.data, reply.metadata, site=site), "score"
            )
            if faults:
                self._refused("score", site, faults)
            else:
                metrics = metrics_from(reply.data)
                self._recorder.score(number, site, metrics)
                self._note("metrics-in", site=site, metrics=values_of(metrics))
            return faults

    def close_scores(self) -> None:
        """Select the last global model if it is the best.

        Raises:
            FederationError: no site has scored it.
        """
        with self._lock:
            self._scoring_is_over = True
            number = len(self._recorder.record.rounds)
            if self._selection.is_best(number):
                self._files.best_model(self._weights, number)
            self._write_record()

    # --- cross-site validation

    def models_wanted(self) -> Submit:
        """Return each site's own best model."""
        return Submit(timeout=self._terms.submit_timeout)

    def model(self, site: str, reply: Received) -> Faults:
        """Keep a site's own model, which every site is asked to evaluate."""
        with self._lock:
            if self._submission_is_over:
                return self._late(SUBMIT, site, "model", "arrived after the models were sent out")
            faults = self._judged(
                lambda: self._guard.model_faults(
                    reply.data, reply.metadata, site=site, answered=self._submitted
                ),
                "model",
            )
            if faults:
                self._cross_site.model_failed(site, self._refused("model", site, faults))
            else:
                weights = reply.weights()
                metadata = reply.metadata
                metrics = metrics_from(metadata["metrics"])
                self._recorder.local_best(site, metadata["model_round"], metrics)
                self._digests[site] = self._hashing.submit(digest, weights)
                self._own_models.append(site)
                self._files.model(site, weights)
                size = sum(tensor.nbytes for tensor in weights.values())
                self._note("model-in", site=site, bytes=size, tensors=self._digests[site].result)
                self._write_record(soon=False)
            self._submitted.add(site)
            return faults

    def model_absent(self, site: str, status: str) -> None:
        """Record that a site has no model to give, or keeps it at home."""
        with self._lock:
            if status and not self._submission_is_over and not check_first(site, self._submitted):
                self._cross_site.model_failed(site, status)
            self._submitted.add(site)

    def cells_wanted(self) -> Iterator[Validate]:
        """Yield each model that every site is asked to evaluate, one after another."""
        of_server = self._of_server()
        with self._lock:
            self._submission_is_over = True
            owners = (*of_server, *sorted(self._own_models))
            self._write_record()
        for owner in owners:
            self._validated[owner] = set()
            yield Validate(
                weights=self._model_of(owner),
                owner=owner,
                is_global=owner in of_server,
                timeout=self._terms.validation_timeout,
            )

    def _of_server(self) -> tuple[str, ...]:
        return expected_models(()) if self._terms.rounds else tuple(self._given)

    def _model_of(self, owner: str) -> Weights:
        """Return the weights of a model; the digest of the server's is taken by the way."""
        if owner in self._own_models:
            return self._files.read(owner)
        if owner == GLOBAL_MODEL and self._terms.rounds:
            self._digests[owner] = self._round_digests[self._terms.rounds]
            return self._weights
        weights = self._given[owner]() if owner in self._given else self._files.read(owner)
        self._digests[owner] = self._hashing.submit(digest, weights)
        return weights

    def cell(self, owner: str, site: str, reply: Received) -> Faults:
        """Take the metrics of a model at a site."""
        with self._lock:
            if owner not in self._validated or self._recorder.record.status != "running":
                return self._late(VALIDATE, site, "model", f"nobody waits for metrics of {owner!r}")
            answered = self._validated[owner]
            faults = self._judged(
                lambda: self._guard.validation_faults(
                    reply.data, reply.metadata, site=site, answered=answered
                ),
                "metrics",
            )
            if faults:
                refused = self._refused("metrics", site, faults, model=owner)
                self._cross_site.cell_failed(owner, site, refused)
            else:
                metrics = metrics_from(reply.data)
                self._cross_site.cell(owner, site, metrics)
                self._note("metrics-in", site=site, model=owner, metrics=values_of(metrics))
            answered.add(site)
            return faults

    def cell_absent(self, owner: str, site: str, status: str) -> None:
        """Record that a site could not evaluate a model, or declined to."""
        with self._lock:
            answered = self._validated.get(owner, {site})
            if status and not check_first(site, answered):
                self._cross_site.cell_failed(owner, site, status)
            answered.add(site)

    # --- the end

    def end(self) -> Outcome:
        """Write matrix and record; the run is complete, or failed where something is missing.

        Raises:
            Exception: what kept a file from being written.
        """
        with self._lock:
            self._files.wait()
            outcome = self._cross_site.publish(
                self.record, self._files.folder, rows=self._rows(), min_sites=self._terms.min_sites
            )
            for sentence in outcome.messages:
                logger.warning("%s", sentence)
            if outcome.blocking:
                self._recorder.finish("failed", "; ".join(outcome.blocking))
            else:
                self._recorder.finish("complete")
            self._write_record()
            self._files.wait()
            return outcome

    def fail(self, reason: str) -> None:
        """End the run early; what its rounds have given until now is kept.

        The files are written while the carrier goes on; ``close`` waits for them. A file that
        cannot be written is named in the log alone: the run fails already.
        """
        with self._lock:
            if self._recorder.record.status == "running":
                self._recorder.finish("failed", reason)
            self._round = None
            self._scoring_is_over = self._submission_is_over = True
            self._files.tolerate()
            number = len(self._recorder.record.closed_rounds)
            if number > self._files.written:
                self._files.global_model(self._weights, number, soon=True)
            self._write_record()

    def _rows(self) -> MatrixRows:
        of_server = self._of_server()
        models = expected_models(self.sites) if self._terms.rounds else of_server
        digests = {name: self._digests[name].result() for name in models if name in self._digests}
        return MatrixRows(
            key_metric=self._key_metric,
            models=models,
            of_server=of_server,
            weights_sha256=digests,
            evaluation_sha256=self._evaluation_sha256,
        )

    def _write_record(self, *, soon: bool = True) -> None:
        self._files.record(lambda: self.record, soon=soon)

    @staticmethod
    def _judged(judge: Callable[[], Faults], what: str) -> Faults:
        """Return the faults of a judge; a reply that no judge can read is a fault of its sender."""
        try:
            return judge()
        except Exception as error:
            return FederatedRun._unreadable(what, error)

    @staticmethod
    def _unreadable(what: str, error: Exception) -> Faults:
        logger.exception("a reply cannot be judged", exc_info=error)
        return (UpdateFault("unreadable", what, f"cannot be judged ({type(error).__name__})"),)

    @staticmethod
    def _late(task: str, site: str, place: str, message: str) -> Faults:
        logger.warning("late reply of %s to %s is not used", site, task)
        return (UpdateFault("late", place, message),)

    def _refused(self, what: str, site: str, faults: Faults, **about: str) -> str:
        """Log why the server refuses a reply; the sentence for the record."""
        reason = reason_of(faults)
        logger.warning("%s of %s refused: %s", what, site, reason)
        rules = sorted({fault.rule for fault in faults})
        self._note("reply-refused", site=site, rules=rules, reason=reason, **about)
        return f"refused by the server: {reason}"
