"""How far a simulation is: reads what sites and server write while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fl_server.record.files import read_run_record
from fl_server.record.values import RunRecord
from mmar_runtime.errors import FederationError


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """Where one site is.

    Attributes:
        task: what it does: ``train``, ``validate``, ...; empty before the first task.
        round_number: from 1; 0 before the first round.
        epoch: epoch of the current round and of all before it.
        iteration: iterations done in this epoch, and how many it has.
        loss: last loss that was told.
        metric: last validated value of the key metric.
    """

    task: str = ""
    model: str = ""
    round_number: int = 0
    epoch: int = 0
    iteration: tuple[int, int] = (0, 0)
    loss: float | None = None
    metric: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationView:
    """How far a simulation is.

    Attributes:
        sites: each site's state.
        rounds: rounds asked for.
        record: the run record so far; None before the first round.
        elapsed: seconds since the start.
        seconds_left: an estimate from the rounds so far; None before the first has ended.
    """

    sites: Mapping[str, SiteView]
    rounds: int
    record: RunRecord | None
    elapsed: float
    seconds_left: float | None


@dataclass
class _Tail:
    """The complete lines of a growing file, each given out once."""

    path: Path
    offset: int = 0

    def lines(self) -> list[str]:
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                text = stream.read()
        except FileNotFoundError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self.offset += len(complete)
        return complete.decode("utf-8").splitlines()


@dataclass
class RunFollower:
    """Follows one simulation by the files that its sites and its server write.

    Args:
        progress: site -> the file of its progress.
        record_file: the file of the run record.
        rounds: rounds asked for.
    """

    progress: Mapping[str, Path]
    record_file: Path
    rounds: int
    _views: dict[str, SiteView] = field(default_factory=dict)
    _tails: dict[str, _Tail] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _record: RunRecord | None = None
    _record_stamp: int = 0

    def __post_init__(self) -> None:
        for site, file in self.progress.items():
            self._tails[site] = _Tail(file)
            self._views[site] = SiteView()

    def look(self) -> SimulationView:
        """Return the state at this moment."""
        for site, tail in self._tails.items():
            for line in tail.lines():
                self._views[site] = after_event(self._views[site], json.loads(line))
        record = self._latest_record()
        return SimulationView(
            sites=dict(self._views),
            rounds=self.rounds,
            record=record,
            elapsed=time.monotonic() - self._started,
            seconds_left=seconds_left(record),
        )

    def _latest_record(self) -> RunRecord | None:
        try:
            stamp = self.record_file.stat().st_mtime_ns
            if stamp != self._record_stamp:
                self._record = read_run_record(self.record_file)
                self._record_stamp = stamp
        except (FileNotFoundError, FederationError):
            return self._record
        return self._record


def after_event(view: SiteView, event: Mapping[str, Any]) -> SiteView:
    """Return a site's state after one more line of its progress."""
    view = replace(view, round_number=event["round"])
    match event["kind"]:
        case "task":
            return replace(view, task=event["task"], model=event["model"], iteration=(0, 0))
        case "iteration":
            done = (event["done"], event["of"])
            return replace(view, epoch=event["epoch"], iteration=done, loss=event["loss"])
        case "epoch":
            return replace(view, epoch=event["epoch"], loss=event["loss"])
        case "validation":
            return replace(view, metric=event["metrics"].get(event["key_metric"]))
        case _:
            return view


def seconds_left(record: RunRecord | None) -> float | None:
    """Seconds until training is over, if the rounds to come take as long as those so far."""
    if record is None or not record.closed_rounds:
        return None
    done = [closed.seconds for closed in record.closed_rounds if closed.seconds is not None]
    return sum(done) / len(done) * (record.rounds_asked - len(done))
