"""What lies between two rounds, with sites that need no time: `python benchmarks/round_gap.py`.

The model goes to two sites, each sends a difference of zeros, and the next round starts: by the
inline engine, by NVFlare's simulator, and in a provisioned federation over mutual TLS on this
machine. Guard, mean, digests, gate, audit logs, record and checkpoints are all there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from flare_job import gaps, simulate, write_data, write_job, write_policy
from harness import in_turn, keep, rows, show
from large_state import in_child

from fl_admin.at_server.console import Console
from fl_admin.jobs.job import Job
from fl_admin.kits.approval import set_byoc_right
from fl_admin.simulation.local_federation import LocalFederation
from mmar_runtime.policy.site_policy import SITE_POLICY_FILE

SITES = 2
DEPLOYED = "federation, mTLS"
GAP = "seconds between rounds"
NINTH = "the same, nine of ten below"
LIMITS = {
    ("inline", 0.1): 0.02,
    ("inline", 20.0): 0.1,
    ("simulator", 0.1): 0.1,
    ("simulator", 20.0): 0.3,
    (DEPLOYED, 0.1): 0.1,
    (DEPLOYED, 20.0): 0.5,
}
"""Arm and MB of the model -> seconds, at most."""


def inline(megabytes: float, rounds: int) -> dict[str, float]:
    return {GAP: in_child("inline", megabytes, rounds)["seconds of a round"]}


def simulated(megabytes: float, rounds: int, data: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        job = write_job(work / "job", megabytes, sites=SITES, rounds=rounds)
        _, run = simulate(job, data, work, sites=SITES)
        return spread(gaps(run / "results"))


def deployed(megabytes: float, rounds: int, federation: LocalFederation) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        job = Job.open(write_job(work / "job", megabytes, sites=SITES, rounds=rounds))
        with Console.connect(federation.lead) as console:
            job_id = console.submit(job)
            state = console.follow(job_id, lambda *_: None)
            if not state.completed:
                raise RuntimeError(f"{state}\n{federation.last_lines('localhost')}")
            results = console.download(job_id, work / "results") / "workspace" / "results"
        return spread(gaps(results))


def spread(seconds: list[float]) -> dict[str, float]:
    return {GAP: median(seconds), NINTH: quantiles(seconds, n=10)[-1]}


@contextmanager
def federation(folder: Path, data: Path) -> Iterator[LocalFederation]:
    """Kits of sites that run this benchmark's code, and the processes of all of them."""
    found = LocalFederation.provisioned(folder, environment={"OMP_NUM_THREADS": "1"})
    for kit in (found.server, *map(found.site, found.sites)):
        write_policy(kit / "local" / SITE_POLICY_FILE)
        set_byoc_right(kit / "local", "any")
    for site in found.sites:
        root = data / site
        values = {"DATA_ROOT": str(root), "DATASET_JSON": str(root / "dataset.json")}
        found.give(site, {**values, "NUM_THREADS": 1})
    with found:
        found.start()
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.1, 20])
    parser.add_argument("--rounds", type=int, default=22, help="the first two do not count")
    parser.add_argument("--repetitions", type=int, default=3)
    names = ("inline", "simulator", DEPLOYED)
    parser.add_argument("--arms", nargs="+", choices=names, default=list(names))
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder) / "data", SITES)
        needed = DEPLOYED in options.arms
        place = Path(folder) / "federation"
        with federation(place, data) if needed else nullcontext() as running:
            for size in options.megabytes:
                every = {
                    "inline": partial(inline, size, options.rounds),
                    "simulator": partial(simulated, size, options.rounds, data),
                    DEPLOYED: partial(deployed, size, options.rounds, running),
                }
                arms = {name: every[name] for name in options.arms}
                measured = in_turn(arms, options.repetitions)
                part = rows(measured, base=options.arms[0], title=f"{size:g} MB, {SITES} sites")
                for row in part:
                    row["ratio"] = None
                    if row["figure"] == GAP:
                        row["limit"] = LIMITS.get((row["arm"], size))
                found += part
    show(found)
    print(keep("round_gap", found))


if __name__ == "__main__":
    main()
