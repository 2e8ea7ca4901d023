"""The weighted mean itself: `python benchmarks/aggregation.py`.

The new global model from the same contributions by `fl_server.aggregation`, which also finds out
whether it is finite; by `torch.add_` into a sum in float64, which is what the mean needs; and by
`torch.add_` into one in float32.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch
from harness import in_turn, keep, rows, show

from fl_server.aggregation import InTimeWeightedMean

SECONDS = "seconds to a new global model"
STEPS = 7
Contributions = list[dict[str, torch.Tensor]]


def ours(contributions: Contributions) -> dict[str, float]:
    names = [f"site-{number:02d}" for number in range(len(contributions))]
    mean = InTimeWeightedMean(names)
    started = time.perf_counter()
    for name, contribution in zip(names, contributions, strict=True):
        mean.add(name, contribution, STEPS)
    mean.new_global(contributions[0])
    return {SECONDS: time.perf_counter() - started}


def added(contributions: Contributions, dtype: torch.dtype) -> dict[str, float]:
    before = contributions[0]
    started = time.perf_counter()
    total = {key: torch.zeros_like(tensor, dtype=dtype) for key, tensor in before.items()}
    for contribution in contributions:
        for key, tensor in contribution.items():
            total[key].add_(tensor, alpha=STEPS)
    steps = STEPS * len(contributions)
    {key: (sums / steps).add_(before[key]).to(torch.float32) for key, sums in total.items()}
    return {SECONDS: time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numbers = int(options.megabytes * 1e6 / 4 / 20)
    contributions = [
        {f"layer.{index}": torch.randn(numbers) for index in range(20)}
        for _ in range(options.sites)
    ]
    arms = {
        "torch.add_, float64": partial(added, contributions, torch.float64),
        "torch.add_, float32": partial(added, contributions, torch.float32),
        "fl_server": partial(ours, contributions),
    }
    measured = in_turn(arms, options.repetitions)
    title = f"mean of {options.sites} x {options.megabytes:g} MB"
    bars = {("fl_server", SECONDS): 1.2}
    found = rows(measured, base="torch.add_, float64", title=title, bars=bars)
    show(found)
    print(keep("aggregation", found))


if __name__ == "__main__":
    main()
