"""The MMAR runtime against the same training written by hand: `python benchmarks/runtime.py`.

Both arms run in turn, pair by pair, so that a machine whose speed drifts slows both. Printed are
medians and ranges, and the median of the paired ratios; `--json FILE` keeps every figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from arms import JOB

from fl_admin.demo_data import write_demo_data
from mmar_runtime.config.data_list import data_check
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.policy.volume_check import volume_check

ARMS = ("mmar", "by_hand")
CHECKS = 20
"""How often a configuration is loaded and checked; the median counts."""

SETTLED = 4
"""Iterations left out of the rate: the first ones allocate memory."""


def run(arm: str, data: Path, epochs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as work:
        script = str(Path(__file__).with_name("arms.py"))
        command = [sys.executable, script, arm, str(data), str(epochs), work]
        output = subprocess.run(command, check=True, capture_output=True).stdout
    found = json.loads(output)
    times = found["times"]
    return {
        "iterations per second": (len(times) - SETTLED) / (times[-1] - times[SETTLED - 1]),
        "seconds to first iteration": times[0],
        "peak memory in MiB": found["memory"],
    }


def seconds_to_check(data: Path) -> float:
    """Reading, translating and checking the job's training configuration and its data."""
    started = time.perf_counter()
    load_train_config(
        Mmar.open(JOB),
        overrides={"DATA_ROOT": str(data), "DATASET_JSON": str(data / "dataset.json")},
        checks=[component_check(allow_code=True), data_check, volume_check],
    )
    return time.perf_counter() - started


def compared(name: str, measured: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    values = {arm: [figures[name] for figures in measured[arm]] for arm in ARMS}
    ratios = [ours / theirs for ours, theirs in zip(*values.values(), strict=True)]
    return {"figure": name, **values, "ratio": statistics.median(ratios), "ratios": ratios}


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    measured: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        site = write_demo_data(Path(folder) / "data", sites=1)[0]
        for pair in range(options.pairs):
            for arm in ARMS if pair % 2 == 0 else reversed(ARMS):
                measured[arm].append(run(arm, site.directory, options.epochs))
                print(f"pair {pair + 1}: {arm} done", file=sys.stderr)
        check = 1000 * statistics.median(seconds_to_check(site.directory) for _ in range(CHECKS))
    rows = [compared(name, measured) for name in measured["mmar"][0]]
    print(f"{'figure':<28}{'mmar':>26}{'by hand':>26}{'ratio':>8}")
    for row in rows:
        cells = [spread(row[arm]) for arm in ARMS]
        print(f"{row['figure']:<28}{cells[0]:>26}{cells[1]:>26}{row['ratio']:>8.3f}")
    print(f"loading and checking the configuration, without torch: {check:.0f} ms")
    rows.append({"figure": "milliseconds to load and check", "mmar": [check]})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
