"""The recorder of a run: it holds the current record and hands out frozen snapshots of it.

start_round -> contribution, rejected or failed (each site) -> close_round -> score -> finish
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from fl_server.record.values import (
    LocalBest,
    RoundRecord,
    RoundScores,
    RunRecord,
    SiteAbsence,
    SiteContribution,
    SiteOutcome,
)
from mmar_runtime.errors import FederationError
from mmar_runtime.metrics import Metrics

NO_ANSWER = "no contribution arrived before the round was closed"
SERVER_ENDED = "the server's process ended while the job was running"
NO_SIGN_OF_LIFE = "the site showed no sign of life, so the round did not wait for it"


class RunRecorder:
    """Owns the record while a run goes on.

    The methods can be called from several threads, as contributions arrive on threads of their own.

    Args:
        record: of a run before its first round.
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
        self._record = record
        self._now = now
        self._timer = timer
        self._round_start = 0.0
        # Each method reads the record and replaces it: two at once would lose an update.
        self._lock = threading.Lock()

    @property
    def record(self) -> RunRecord:
        """The record as it stands now."""
        return self._record

    def start_round(self, number: int) -> None:
        """Open round ``number``, from 1; it has to follow the last closed round."""
        with self._lock:
            opened = RoundRecord(number=number, started=self._now())
            record = self._running()
            self._record = replace(record, rounds=(*record.rounds, opened))
            self._round_start = self._timer()

    def contribution(self, site: str, contribution: SiteContribution) -> None:
        """Record a contribution that was accepted."""
        self._add(site, contribution)

    def rejected(self, site: str, reason: str) -> None:
        """Record that a contribution arrived and was not accepted."""
        self._add(site, SiteAbsence(status="rejected", reason=reason))

    def failed(self, site: str, reason: str) -> None:
        """Record that the site answered that it could not train."""
        self._add(site, SiteAbsence(status="failed", reason=reason))

    def lost(self, site: str) -> None:
        """Record that the site shows no sign of life."""
        self._add(site, SiteAbsence(status="missing", reason=NO_SIGN_OF_LIFE))

    def changed(self, site: str, outcome: SiteOutcome) -> None:
        """Record another outcome for a site of the open round, of which an outcome is recorded.

        A contribution is taken out again where the whole round shows it to be unfit; then the score
        that came with it is taken out too. A site that failed may contribute after all.
        """
        with self._lock:
            current = self._open_round()
            if site not in current.sites:
                raise FederationError(f"round {current.number}: nothing is recorded of {site}")
            self._change(replace(current, sites={**current.sites, site: outcome}))
            if isinstance(outcome, SiteAbsence):
                self._remove_score(current.number - 1, site)

    def close_round(self, weights_sha256: str | None = None) -> None:
        """Record the aggregation of the open round; without a digest, ``digest`` has to follow.

        A site of which nothing was recorded is recorded as missing: that nothing came from it
        before the round was closed is then a fact.

        Raises:
            FederationError: no round is open, or no site contributed to it.
        """
        with self._lock:
            seconds = self._timer() - self._round_start
            current = self._open_round()
            silent = SiteAbsence(status="missing", reason=NO_ANSWER)
            sites = {site: current.sites.get(site, silent) for site in self._record.sites}
            self._change(
                replace(current, sites=sites, seconds=seconds, weights_sha256=weights_sha256)
            )

    def digest(self, round_number: int, weights_sha256: str) -> None:
        """Record the digest of the global model of a round that was closed without."""
        with self._lock:
            self._record = add_digest(self._record, round_number, weights_sha256)

    def score(self, round_number: int, site: str, metrics: Metrics) -> None:
        """Record a site's metrics of the global model of a round; 0 is the initial model."""
        with self._lock:
            before = self._running().scores_of(round_number)
            known = {} if before is None else dict(before.sites)
            if site in known:
                raise FederationError(
                    f"round {round_number}: {site} has scored the global model already"
                )
            self._set_scores(round_number, {**known, site: metrics})

    def best(self, round_number: int) -> None:
        """Record that the global model of this round, which has scores, is the best so far."""
        with self._lock:
            self._record = replace(self._running(), best_round=round_number)

    def local_best(self, site: str, round_number: int, metrics: Metrics) -> None:
        """Record a site's own best model, in place of an earlier one of that site."""
        with self._lock:
            best = LocalBest(round=round_number, metrics=metrics)
            record = self._running()
            self._record = replace(record, local_bests={**record.local_bests, site: best})

    def finish(
        self, status: Literal["complete", "failed"], failure: str | None = None
    ) -> RunRecord:
        """Record the end of the run; return the final record."""
        with self._lock:
            self._record = finish_run(self._record, status, failure, self._now())
            return self._record

    def _running(self) -> RunRecord:
        _require_running(self._record)
        return self._record

    def _open_round(self) -> RoundRecord:
        if (current := self._running().open_round) is None:
            raise FederationError(
                "no round is open; start one before recording what came from a site"
            )
        return current

    def _add(self, site: str, outcome: SiteOutcome) -> None:
        with self._lock:
            current = self._open_round()
            if site in current.sites:
                raise FederationError(
                    f"round {current.number}: {site} is recorded already"
                    f" ({current.sites[site].status}); a site counts once in each round"
                )
            self._change(replace(current, sites={**current.sites, site: outcome}))

    def _change(self, last_round: RoundRecord) -> None:
        rounds = (*self._record.rounds[:-1], last_round)
        self._record = replace(self._record, rounds=rounds)

    def _remove_score(self, round_number: int, site: str) -> None:
        if (scores := self._record.scores_of(round_number)) is not None:
            left = {name: metrics for name, metrics in scores.sites.items() if name != site}
            self._set_scores(round_number, left)

    def _set_scores(self, round_number: int, sites: dict[str, Metrics]) -> None:
        scores = [scores for scores in self._record.scores if scores.round != round_number]
        if sites:
            scores.append(RoundScores(round=round_number, sites=sites))
        ordered = sorted(scores, key=lambda scores: scores.round)
        self._record = replace(self._record, scores=tuple(ordered))


def add_digest(record: RunRecord, round_number: int, weights_sha256: str) -> RunRecord:
    """Return the record with the digest of the global model of a round that was closed without."""
    waiting = [part.number for part in record.rounds if part.awaits_digest]
    if round_number not in waiting:
        raise FederationError(f"round {round_number} awaits no digest")
    rounds = [
        replace(part, weights_sha256=weights_sha256) if part.number == round_number else part
        for part in record.rounds
    ]
    return replace(record, rounds=tuple(rounds))


def finish_run(
    record: RunRecord,
    status: Literal["complete", "failed"],
    failure: str | None,
    finished: datetime,
) -> RunRecord:
    """Return the record of the ended run; a complete one has closed every round asked for."""
    _require_running(record)
    return replace(record, status=status, failure=failure, finished=finished)


def _require_running(record: RunRecord) -> None:
    if record.status != "running":
        raise FederationError(f"the run is {record.status}; its record cannot be changed any more")
