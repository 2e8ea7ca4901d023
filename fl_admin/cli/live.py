"""Shows how far a simulation is: a table that is redrawn on a terminal, lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fl_admin.report.summary import format_mean
from fl_admin.simulation.follow import SimulationView, SiteView
from fl_server.record.values import SiteMean
from mmar_runtime.names import shown

View = Callable[[SimulationView], object]


@contextmanager
def live_view() -> Iterator[View]:
    """Something to show views with, for as long as the context lasts."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    with Live(console=console, refresh_per_second=5, transient=True) as live:
        yield lambda view: live.update(progress_table(view))


def progress_table(view: SimulationView) -> Table:
    """Return a row for each site."""
    table = Table(title=headline(view), title_justify="left")
    for column in ("site", "round", "task", "epoch", "iteration", "loss", "metric"):
        table.add_column(column)
    for name, site in view.sites.items():
        table.add_row(
            Text(name),
            f"{site.round_number}/{view.rounds}" if view.rounds else "",
            Text(shown(f"{site.task} {site.model}".strip()) or "starting"),
            str(site.epoch or ""),
            f"{site.iteration[0]}/{site.iteration[1]}" if site.iteration[1] else "",
            number(site.loss),
            number(site.metric),
        )
    return table


def headline(view: SimulationView) -> str:
    """Return how far the run is, in one line."""
    if view.rounds == 0:
        return f"models are evaluated at each site, {view.elapsed:.0f} s"
    closed = len(view.record.closed_rounds) if view.record else 0
    left = (
        "" if view.seconds_left is None else f", about {view.seconds_left:.0f} s of training to go"
    )
    return f"{closed} of {view.rounds} rounds done, {view.elapsed:.0f} s{left}"


def number(value: float | None) -> str:
    """Return a number for a narrow column; empty where there is none."""
    return "" if value is None else f"{value:.4f}"


def mean_number(mean: SiteMean) -> str:
    """Return a mean over sites in a line."""
    return format_mean(mean, "{:.4f}".format)


class Lines:
    """A line when a round ends, when a site begins something else, and when a score is there."""

    def __init__(self) -> None:
        self._sites: dict[str, tuple[int, str]] = {}
        self._scores: set[int] = set()

    def __call__(self, view: SimulationView) -> None:
        """Print what is new since the last view."""
        for name, site in view.sites.items():
            state = (site.round_number, f"{site.task} {site.model}".strip())
            if site.task and self._sites.get(name) != state:
                self._sites[name] = state
                self._say(view, site, name)
        if view.record is None:
            return
        for scores in view.record.scores:
            if scores.round not in self._scores and len(scores.sites) == len(view.record.sites):
                self._scores.add(scores.round)
                mean = scores.mean[view.record.key_metric]
                print(
                    f"[{view.elapsed:4.0f} s] global model of round {scores.round}: "
                    f"mean {view.record.key_metric} {mean_number(mean)}",
                    file=sys.stderr,
                )

    def _say(self, view: SimulationView, site: SiteView, name: str) -> None:
        loss = "" if site.loss is None else f", loss {number(site.loss)}"
        place = f"round {site.round_number}/{view.rounds}, " if view.rounds else ""
        print(
            f"[{view.elapsed:4.0f} s] {name}: {place}{site.task} {site.model}".rstrip() + loss,
            file=sys.stderr,
        )
