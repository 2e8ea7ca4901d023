"""Shows how far a job at a server is: a table on a terminal, lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fl_admin.at_server.console import JobState
from fl_admin.cli.live import mean_number, number
from fl_server.record.values import RunRecord, SiteAbsence, SiteContribution
from mmar_runtime.metrics import Metrics, in_short

View = Callable[[JobState, RunRecord | None], object]
COLUMNS = ("site", "round", "state", "steps", "loss", "received", "own", "seconds")
LONGEST_STATE = 60


@contextmanager
def job_view() -> Iterator[View]:
    """Something to show a job with, for as long as the context lasts."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield JobLines()
        return
    started = time.monotonic()
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda state, record: live.update(
            job_table(state, record, time.monotonic() - started)
        )


def job_table(state: JobState, record: RunRecord | None, elapsed: float) -> Group:
    """Return a row for each site's part in the last round, and why the job has not started."""
    table = Table(title=Text(headline(state, record, elapsed)), title_justify="left")
    for column in COLUMNS:
        table.add_column(column)
    if record is None:
        for site, answer in state.deployment.items():
            if site != "server":
                progress = "starting" if answer == "OK" else answer[:LONGEST_STATE]
                table.add_row(Text(site), "", Text(progress))
    else:
        for row in site_rows(record):
            table.add_row(*map(Text, row))
    return Group(table, *(Text(line) for line in waiting_lines(state)))


def headline(state: JobState, record: RunRecord | None, elapsed: float) -> str:
    """Return how far the job is, in one line."""
    done = ""
    if record is not None:
        done = f", {len(record.closed_rounds)} of {record.rounds_asked} rounds done"
        scores = record.scores[-1:] or ()
        for score in scores:
            mean = mean_number(score.mean[record.key_metric])
            done += f", round {score.round}: mean {record.key_metric} {mean}"
    return f"{state.name}: {state.status}{done}, {elapsed:.0f} s"


def site_rows(record: RunRecord) -> Iterator[tuple[str, ...]]:
    """Yield each site in the round that is open, or in the last one."""
    last = record.rounds[-1] if record.rounds else None
    for site in record.sites:
        if last is None:
            yield (site, "", "starting")
            continue
        place = f"{last.number}/{record.rounds_asked}"
        match last.sites.get(site):
            case SiteContribution() as contribution:
                metric = record.key_metric
                over = not last.is_open and last.number == record.rounds_asked
                yield (
                    site,
                    place,
                    "cross-site" if over else "contributed",
                    str(contribution.steps),
                    number(contribution.epochs[-1].loss if contribution.epochs else None),
                    _metric(contribution.received_metrics, metric),
                    _metric(contribution.local_metrics, metric),
                    f"{contribution.seconds:.1f}",
                )
            case SiteAbsence() as absence:
                yield (site, place, f"{absence.status}: {absence.reason}"[:LONGEST_STATE])
            case _:
                yield (site, place, "training")


def _metric(metrics: Metrics, label: str) -> str:
    return in_short(metrics[label]) if label in metrics else ""


def waiting_lines(state: JobState) -> Iterator[str]:
    """Yield why the server has not started a job so far."""
    if state.waits_for_sites:
        yield from (f"not started yet: {obstacle}" for obstacle in state.obstacles[-1:])


class JobLines:
    """Prints a line when a job's status changes, when a site contributes, and for each score."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, state: JobState, record: RunRecord | None) -> None:
        """Print what is new."""
        self._say(f"{state.name}: {state.status}")
        for line in (*waiting_lines(state), *state.refusals):
            self._say(line)
        for line in () if record is None else record_lines(record):
            self._say(line)

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            print(line, file=sys.stderr, flush=True)


def record_lines(record: RunRecord) -> Iterator[str]:
    """Yield how far a run is: a line for each site's part in a round, and for each global score."""
    for round_record in record.rounds:
        place = f"round {round_record.number}/{record.rounds_asked}"
        for site, outcome in round_record.sites.items():
            if isinstance(outcome, SiteAbsence):
                yield f"{place}: {site} did not contribute ({outcome.status}: {outcome.reason})"
            else:
                done = f"{outcome.steps} steps in {outcome.seconds:.1f} s"
                yield f"{place}: {site} contributed, {done}"
        if not round_record.is_open:
            yield f"{place} done in {round_record.seconds:.1f} s"
    for scores in record.scores:
        if len(scores.sites) == len(record.sites):
            mean = mean_number(scores.mean[record.key_metric])
            yield f"global model of round {scores.round}: mean {record.key_metric} {mean}"
