"""What the commands for a running federation share: the kit, a job's id, and showing a job."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem

if TYPE_CHECKING:
    from fl_admin.console import JobState
    from fl_server.run_record import RunRecord

KIT_VARIABLE = "MMAR_ADMIN_KIT"


def add_kit_argument(parser: argparse.ArgumentParser) -> None:
    """``--kit DIR``, or the environment variable."""
    parser.add_argument(
        "--kit",
        type=Path,
        metavar="DIR",
        help=f"start-up kit of an admin (the environment variable {KIT_VARIABLE})",
    )


def kit_of(options: argparse.Namespace) -> Path:
    """The kit that was named.

    Raises:
        ConfigError: none was.
    """
    named = options.kit or os.environ.get(KIT_VARIABLE)
    if named:
        return Path(named)
    advice = f"Write --kit DIR, or set {KIT_VARIABLE}; 'mmar provision' makes kits."
    raise ConfigError([Problem(Location("--kit"), "no admin's kit is named", advice, "kit")])


class JobLines:
    """Prints a line when a job's status changes, when a site contributes, and for each score."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, state: JobState, record: RunRecord | None) -> None:
        """Print what is new."""
        self._say(f"{state.name}: {state.status}")
        for refusal in state.refusals:
            self._say(refusal)
        for line in () if record is None else record_lines(record):
            self._say(line)

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            print(line, file=sys.stderr, flush=True)


def record_lines(record: RunRecord) -> list[str]:
    """How far a run is: a line for each site's part in a round, and for each global score."""
    lines = []
    for one in record.rounds:
        for site in sorted(one.sites):
            done = "contributed" if site in one.contributors else "did not contribute"
            lines.append(f"round {one.number}/{record.rounds_asked}: {site} {done}")
        if not one.is_open:
            lines.append(f"round {one.number}/{record.rounds_asked} done in {one.seconds:.1f} s")
    for scores in record.scores:
        if len(scores.sites) == len(record.sites):
            value = scores.mean[record.key_metric]
            lines.append(
                f"global model of round {scores.round}: mean {record.key_metric} {value:.4f}"
            )
    return lines
