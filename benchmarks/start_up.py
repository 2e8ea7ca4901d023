"""From the command to the first optimizer step: `python benchmarks/start_up.py`.

Two sites, one round of the example job; a plain loop, both engines, NVFlare's recipe; and how long
a mistake in the configuration takes to be told.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from arms_federated import ARMS, FIRST_STEP, JOB, USUAL_ARMS, Work
from harness import in_turn, keep, rows, show

from fl_admin.demo_data import write_demo_data

REFUSED = "seconds until a mistake is reported"


def refusal(data: Path) -> dict[str, float]:
    """A misspelt argument of the network."""
    with tempfile.TemporaryDirectory() as folder:
        job = Path(shutil.copytree(JOB, Path(folder) / "job"))
        config = job / "app" / "config" / "config_train.json"
        config.write_text(config.read_text().replace('"num_res_units"', '"num_res_unit"', 1))
        words = [sys.executable, "-m", "fl_admin.cli.main", "simulate", str(job)]
        started = time.perf_counter()
        options = ["--data", str(data), "-w", folder]
        done = subprocess.run([*words, *options], capture_output=True, text=True)
        seconds = time.perf_counter() - started
    if done.returncode != 2 or "Did you mean 'num_res_units'" not in done.stderr:
        raise RuntimeError(f"the mistake was not told: {done.stderr}")
    return {REFUSED: seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=USUAL_ARMS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_demo_data(data, sites=options.sites)

        work = Work(data=data, sites=options.sites, rounds=1)

        def start(arm: str) -> dict[str, float]:
            return {FIRST_STEP: ARMS[arm](work)[FIRST_STEP]}

        arms = {name: partial(start, name) for name in options.arms}
        measured = in_turn(arms, options.repetitions)
        refused = in_turn({"mmar simulate": partial(refusal, data)}, options.repetitions)
    bars = {("inline", FIRST_STEP): 1.3, ("nvflare engine", FIRST_STEP): 3.0}
    found = rows(measured, base=options.arms[0], title="start", bars=bars)
    found += rows(refused, base="mmar simulate", title="start")
    show(found)
    print(keep("start_up", found))


if __name__ == "__main__":
    main()
