"""The arms of the federated benchmarks: one federation each, measured from outside."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from measure import Measured, measure

HERE = Path(__file__).resolve().parent
JOB = HERE.parent / "jobs" / "spleen_ct_segmentation"
Figures = Mapping[str, float]

SECONDS = "wall time in seconds"
FIRST_STEP = "seconds to the first step"
ROUND = "seconds of a round"
MEMORY = "peak memory in MiB"
PROCESSES = "processes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every arm does.

    Attributes:
        data: holds a folder for each site.
        sites: how many of them take part.
        rounds: of training.
        local_epochs: epochs of a round.
    """

    data: Path
    sites: int
    rounds: int
    local_epochs: int = 3

    def words(self) -> list[str]:
        """The same for a script."""
        return [str(self.data), *map(str, (self.sites, self.rounds, self.local_epochs))]


Arm = Callable[[Work], Figures]


def plain(work: Work) -> Figures:
    """A loop in one script."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [sys.executable, str(HERE / "plain_loop.py"), *work.words(), name]
        found = measure(words, log=folder / "log")
        told = json.loads((folder / "told.json").read_text())
        return figures(found, told["first_step"], told["round_seconds"])


def simulated(engine: str) -> Arm:
    """`mmar simulate` by one of its engines."""

    def run(work: Work) -> Figures:
        with tempfile.TemporaryDirectory() as folder:
            words = [
                sys.executable, "-m", "fl_admin.cli.main", "simulate", str(JOB),
                "--data", str(work.data), "--sites", str(work.sites),
                "--rounds", str(work.rounds), "--engine", engine, "-w", folder,
                "--set", "NUM_THREADS=1", f"LOCAL_EPOCHS={work.local_epochs}",
            ]  # fmt: skip
            found = measure(words, log=Path(folder) / "log")
            run_folder = Path(folder) / "run-001"
            record = json.loads((run_folder / "results" / "run_record.json").read_text())
            steps = [
                event["time"]
                for path in run_folder.rglob("progress.jsonl")
                for event in map(json.loads, path.read_text().splitlines())
                if event["kind"] == "iteration"
            ]
            return figures(found, min(steps) - found.born, round_seconds(record))

    return run


def by_script(script: str, python: str) -> Arm:
    """A federation of others with a client written by hand."""

    def run(work: Work) -> Figures:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            words = [python, str(HERE / script), *work.words(), name]
            found = measure(words, log=folder / "log", env={"PYTHONPATH": str(HERE)})
            told = [json.loads(path.read_text()) for path in folder.glob("site-*.json")]
            steps = [report["first_step"] for report in told]
            if len(steps) != work.sites:
                raise RuntimeError(f"{len(steps)} of {work.sites} sites have trained by {script}")
            return figures(found, min(steps) - found.born, [])

    return run


def round_seconds(record: Any) -> list[float]:
    """From the start of each round to that of the next."""
    from datetime import datetime

    starts = [datetime.fromisoformat(round_record["started"]) for round_record in record["rounds"]]
    return [(after - before).total_seconds() for before, after in pairwise(starts)]


def figures(found: Measured, first_step: float, rounds: list[float]) -> Figures:
    own = {ROUND: median(rounds)} if rounds else {}
    return {
        SECONDS: found.seconds,
        FIRST_STEP: first_step,
        **own,
        MEMORY: found.peak_pss,
        PROCESSES: found.processes,
    }


FLOWER_PYTHON = "FLOWER_PYTHON"
"""Variable that names an interpreter with Flower, whose dependencies are not the project's."""

ARMS: Mapping[str, Arm] = {
    "plain loop": plain,
    "inline": simulated("inline"),
    "nvflare engine": simulated("nvflare"),
    "nvflare recipe": by_script("recipe.py", sys.executable),
    "flower": by_script("flower.py", os.environ.get(FLOWER_PYTHON, sys.executable)),
}
USUAL_ARMS = [name for name in ARMS if name != "flower"]
