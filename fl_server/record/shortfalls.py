"""What a run asked for and did not get, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from fl_server.record.values import RoundRecord, RunRecord, SiteAbsence


def shortfalls(record: RunRecord) -> tuple[str, ...]:
    """Return a sentence for each shortfall of a run, in the order of the rounds.

    These are: sites that did not contribute, rounds with fewer contributing sites than
    ``min_sites``, global models that a site has not scored, and, once the run has ended, rounds
    that were not reached.
    """
    sentences = [*_unscored(record, 0)]
    for part in record.rounds:
        sentences += _absences(record, part)
        if not part.is_open:
            sentences += _too_few(record, part)
            sentences += _unscored(record, part.number)
    closed = len(record.closed_rounds)
    if record.status != "running" and closed < record.rounds_asked:
        sentences.append(f"{closed} of {record.rounds_asked} rounds were completed.")
    return tuple(sentences)


def unmet(record: RunRecord) -> tuple[str, ...]:
    """Return the shortfalls that make a run fail: fewer sites than ``min_sites`` did their part.

    A job that asks for fewer sites than there are goes on, and ends well, without the others.
    """
    sentences: list[str] = []
    for number in range(len(record.closed_rounds) + 1):
        scores = record.scores_of(number)
        scored = 0 if scores is None else len(scores.sites)
        if scored < record.min_sites:
            sentences += _unscored(record, number)
    for part in record.closed_rounds:
        sentences += _too_few(record, part)
    closed = len(record.closed_rounds)
    if closed < record.rounds_asked:
        sentences.append(f"{closed} of {record.rounds_asked} rounds were completed.")
    return tuple(sentences)


def _absences(record: RunRecord, part: RoundRecord) -> Iterator[str]:
    for site, outcome in part.sites.items():
        if isinstance(outcome, SiteAbsence):
            reason = outcome.reason.rstrip(".")
            yield f"Round {part.number}: {site} did not contribute ({outcome.status}: {reason})."
    if part.is_open and record.status != "running":
        for site in record.sites:
            if site not in part.sites:
                yield f"Round {part.number}: {site} had not contributed when the run ended."


def _too_few(record: RunRecord, part: RoundRecord) -> Iterator[str]:
    count = len(part.contributors)
    if count < record.min_sites:
        yield (
            f"Round {part.number}: {count} of {len(record.sites)} sites contributed,"
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
