"""Many sites on one machine: `python benchmarks/many_sites.py`.

The example job with 16 and 100 sites, by a plain loop and by the inline engine; and whether a site
and round cost the same however many sites there are.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from arms_federated import ARMS, MEMORY, ROUND, SECONDS
from harness import in_turn, keep, rows, show

from fl_admin.demo_data import write_demo_data

BARS = {
    16: {("inline", SECONDS): 1.2, ("inline", MEMORY): 2.0},
    100: {("inline", SECONDS): 1.3},
}
LIMITS = {100: 2000.0}
"""Sites -> MiB that the inline engine may take."""

PER_SITE = "seconds of a site and round"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, nargs="+", default=[16, 100])
    parser.add_argument("--flat", type=int, nargs="+", default=[2, 8, 64], help="0: leave out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["plain loop", "inline"])
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_demo_data(data, sites=max(*options.sites, *options.flat))
        for sites in options.sites:
            arms = {name: partial(ARMS[name], data, sites, options.rounds) for name in options.arms}
            title = f"{sites} sites, {options.rounds} rounds"
            measured = in_turn(arms, options.repetitions)
            part = rows(measured, base=options.arms[0], title=title, bars=BARS.get(sites))
            for one in part:
                if (one["arm"], one["figure"]) == ("inline", MEMORY):
                    one["limit"] = LIMITS.get(sites)
            found += part
        counts = [sites for sites in options.flat if sites]
        if counts:
            flat = {f"{sites} sites": partial(per_site, data, sites) for sites in counts}
            measured = in_turn(flat, options.repetitions)
            bars = {(f"{sites} sites", PER_SITE): 1.1 for sites in counts[1:]}
            title = "cost of a site and round, inline"
            found += rows(measured, base=f"{counts[0]} sites", title=title, bars=bars)
    show(found)
    print(keep("many_sites", found))


def per_site(data: Path, sites: int) -> dict[str, float]:
    """Seconds of a round divided by the sites; the first round, which builds, is left out."""
    return {PER_SITE: ARMS["inline"](data, sites, 4)[ROUND] / sites}


if __name__ == "__main__":
    main()
