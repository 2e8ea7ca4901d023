"""The arms of the federated benchmarks: one federation each, measured from outside."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
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


def plain(data: Path, sites: int, rounds: int) -> Figures:
    """A loop in one script."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        words = [sys.executable, str(HERE / "plain_loop.py"), str(data), str(sites), str(rounds)]
        found = measure([*words, str(work)], log=work / "log")
        told = json.loads((work / "told.json").read_text())
        return figures(found, told["first_step"], told["round_seconds"])


def simulated(engine: str) -> Callable[[Path, int, int], Figures]:
    """`mmar simulate` by one of its engines."""

    def run(data: Path, sites: int, rounds: int) -> Figures:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            words = [
                sys.executable, "-m", "fl_admin.cli.main", "simulate", str(JOB),
                "--data", str(data), "--sites", str(sites), "--rounds", str(rounds),
                "--set", "NUM_THREADS=1", "--engine", engine, "-w", str(work),
            ]  # fmt: skip
            found = measure(words, log=work / "log")
            run_folder = work / "run-001"
            record = json.loads((run_folder / "results" / "run_record.json").read_text())
            steps = [
                event["time"]
                for path in run_folder.rglob("progress.jsonl")
                for event in map(json.loads, path.read_text().splitlines())
                if event["kind"] == "iteration"
            ]
            return figures(found, min(steps) - found.born, round_seconds(record))

    return run


def by_script(script: str, python: str) -> Callable[[Path, int, int], Figures]:
    """A federation of others with a client written by hand."""

    def run(data: Path, sites: int, rounds: int) -> Figures:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            words = [python, str(HERE / script), str(data), str(sites), str(rounds), str(work)]
            found = measure(words, log=work / "log", env={"PYTHONPATH": str(HERE)})
            steps = [
                json.loads(path.read_text())["first_step"] for path in work.glob("site-*.json")
            ]
            if len(steps) != sites:
                raise RuntimeError(f"{len(steps)} of {sites} sites have trained by {script}")
            return figures(found, min(steps) - found.born, [])

    return run


def round_seconds(record: Any) -> list[float]:
    """From the start of each round to that of the next."""
    from datetime import datetime

    starts = [datetime.fromisoformat(one["started"]) for one in record["rounds"]]
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

ARMS: Mapping[str, Callable[[Path, int, int], Figures]] = {
    "plain loop": plain,
    "inline": simulated("inline"),
    "nvflare engine": simulated("nvflare"),
    "nvflare recipe": by_script("recipe.py", sys.executable),
    "flower": by_script("flower.py", os.environ.get(FLOWER_PYTHON, sys.executable)),
}
USUAL_ARMS = [name for name in ARMS if name != "flower"]
