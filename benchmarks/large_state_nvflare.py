"""Rounds of large models by NVFlare's simulator: `python benchmarks/large_state_nvflare.py`.

Two sites, no training: this project's server and sites, with guard, mean, digests, audit logs,
record and checkpoints; and NVFlare's own FedAvg recipe with a client that returns the model as it
came. Told are seconds of a round, and the memory of the process that is the server.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

from flare_job import HERE, gaps, simulate, write_data, write_job
from harness import in_turn, keep, rows, show
from measure import Measured, measure

Arm = Callable[[float, int], tuple[Measured, list[float]]]

SITES = 2
SECONDS = "seconds of a round"
MEMORY = "server memory / model size"
ALL_MEMORY = "all memory / model size"
TINY = 0.001
WORKER = "simulator_worker"
"""What stands in the command line of a simulated site."""


def ours(megabytes: float, rounds: int, data: Path) -> tuple[Measured, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        job = write_job(work / "job", megabytes, sites=SITES, rounds=rounds)
        found, run = simulate(job, data, work, sites=SITES)
        return found, gaps(run / "results")


def recipe(megabytes: float, rounds: int) -> tuple[Measured, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        words = [str(HERE / "large_state_recipe.py"), str(megabytes), str(SITES), str(rounds)]
        found = measure(
            [sys.executable, *words, str(work)], log=work / "log", env={"PYTHONPATH": str(HERE)}
        )
        times = json.loads((work / "site-1.json").read_text())
        if len(times) != rounds:
            raise RuntimeError(f"site-1 has seen {len(times)} of {rounds} rounds")
        return found, [after - before for before, after in pairwise(times)][1:]


def figures(arm: Arm, megabytes: float, rounds: int) -> dict[str, float]:
    """An arm's figures; its memory without that of the same arm with hardly any model."""
    base, _ = arm(TINY, 4)
    found, seconds = arm(megabytes, rounds)
    size = megabytes * 1e6 / 2**20
    return {
        SECONDS: median(seconds),
        MEMORY: (server(found) - server(base)) / size,
        ALL_MEMORY: (found.peak_rss - base.peak_rss) / size,
    }


def server(found: Measured) -> float:
    """MiB of the process that is the server: the largest that is no site."""
    return max(peak for words, peak in found.of_process.items() if WORKER not in words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[200, 1000])
    parser.add_argument("--rounds", type=int, default=6, help="the first two do not count")
    parser.add_argument("--repetitions", type=int, default=2)
    names = ("nvflare recipe", "nvflare engine")
    parser.add_argument("--arms", nargs="+", choices=names, default=list(names))
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder) / "data", SITES)
        for size in options.megabytes:
            every = {
                "nvflare recipe": partial(figures, recipe),
                "nvflare engine": partial(figures, partial(ours, data=data)),
            }
            arms = {name: partial(every[name], size, options.rounds) for name in options.arms}
            measured = in_turn(arms, options.repetitions)
            title = f"{size:g} MB, {SITES} sites"
            bars = {("nvflare engine", SECONDS): 0.6}
            part = rows(measured, base=options.arms[0], title=title, bars=bars)
            for row in part:
                if row["arm"] == "nvflare engine" and row["figure"] == MEMORY:
                    row["limit"] = 3.0
            found += part
    show(found)
    print(keep("large_state_nvflare", found))


if __name__ == "__main__":
    main()
