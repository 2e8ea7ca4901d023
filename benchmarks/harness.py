"""Arms in turn, several times; medians, ranges and paired ratios as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Arm = Callable[[], Mapping[str, float]]
RESULTS = Path(__file__).resolve().parent / "results"


def in_turn(arms: Mapping[str, Arm], repetitions: int) -> dict[str, list[Mapping[str, float]]]:
    """Run all arms as often as asked, in one order and back, so that a drift slows all alike."""
    measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in arms}
    for repetition in range(repetitions):
        names = list(arms) if repetition % 2 == 0 else list(reversed(arms))
        for name in names:
            measured[name].append(arms[name]())
            print(f"repetition {repetition + 1}: {name} done", file=sys.stderr)
    return measured


def side_by_side(arms: Mapping[str, Arm], repetitions: int) -> dict[str, list[Mapping[str, float]]]:
    """Run all arms at the same time as often as asked, each on one processor that is its own."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < len(arms):
        raise RuntimeError(f"{len(arms)} arms need as many processors; here are {len(processors)}")

    def bound(arm: Arm, processor: int) -> Mapping[str, float]:
        os.sched_setaffinity(0, {processor})  # of this thread, and of what it starts
        return arm()

    measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in arms}
    for repetition in range(repetitions):
        turned = processors if repetition % 2 == 0 else list(reversed(processors))
        with ThreadPoolExecutor(len(arms)) as pool:
            running = {
                name: pool.submit(bound, arm, processor)
                for (name, arm), processor in zip(arms.items(), turned, strict=False)
            }
            for name, arm in running.items():
                measured[name].append(arm.result())
        print(f"repetition {repetition + 1}: {', '.join(arms)} done", file=sys.stderr)
    return measured


def rows(
    measured: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    base: str,
    title: str,
    bars: Mapping[tuple[str, str], float] | None = None,
) -> list[dict[str, Any]]:
    """One row for each figure and arm.

    Args:
        measured: of ``in_turn``.
        base: the arm to which the others are set in proportion, pair by pair.
        title: what was measured.
        bars: arm and figure -> the ratio that is wanted, at most.
    """
    found = []
    for arm, ones in measured.items():
        for figure in ones[0]:
            values = [figures[figure] for figures in ones]
            theirs = [figures.get(figure) for figures in measured[base]]
            ratios = [a / b for a, b in zip(values, theirs, strict=True) if b]
            found.append(
                {
                    "benchmark": title,
                    "figure": figure,
                    "arm": arm,
                    "values": values,
                    "median": statistics.median(values),
                    "least": min(values),
                    "most": max(values),
                    "ratio": statistics.median(ratios) if ratios else None,
                    "bar": (bars or {}).get((arm, figure)),
                }
            )
    return found


def show(found: Sequence[Mapping[str, Any]]) -> None:
    """Print the table."""
    print(f"{'figure':<34}{'arm':<24}{'median (range)':>30}{'ratio':>8}{'bar':>7}")
    for row in found:
        spread = f"{row['median']:.3f} ({row['least']:.3f}..{row['most']:.3f})"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        bar = "" if row["bar"] is None else f"{row['bar']:g}"
        print(f"{row['figure']:<34}{row['arm']:<24}{spread:>30}{ratio:>8}{bar:>7}")


def keep(name: str, found: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows, with the machine that they are of, as JSON; returns where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
    path.write_text(json.dumps({"machine": machine, "rows": list(found)}, indent=2) + "\n")
    return path
