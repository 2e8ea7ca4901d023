"""A federation's overhead on top of a plain loop: `python benchmarks/round_overhead.py`.

Two sites, five rounds of the example job on made-up volumes, by a plain loop, by both engines of
`mmar simulate`, and by NVFlare's own recipe with a client written by hand.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from arms_federated import ARMS, FIRST_STEP, MEMORY, SECONDS, USUAL_ARMS, Work
from harness import in_turn, keep, rows, show

from fl_admin.demo_data import write_demo_data

BARS = {
    ("inline", SECONDS): 1.15,
    ("inline", FIRST_STEP): 1.3,
    ("inline", MEMORY): 2.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=USUAL_ARMS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_demo_data(data, sites=options.sites)
        work = Work(data=data, sites=options.sites, rounds=options.rounds)
        arms = {name: partial(ARMS[name], work) for name in options.arms}
        measured = in_turn(arms, options.repetitions)
    title = f"{options.sites} sites, {options.rounds} rounds"
    found = rows(measured, base=options.arms[0], title=title, bars=BARS)
    show(found)
    print(keep("round_overhead", found))


if __name__ == "__main__":
    main()
