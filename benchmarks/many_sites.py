"""Many sites on one machine: `python benchmarks/many_sites.py`.

The example job with 2, 16 and 100 sites, a step for each site and round, by a plain loop and by the
inline engine; and whether a site and round cost the same however many sites there are. Each model
is evaluated at each site, which is most of the time. The arms run side by side, each bound to a
processor of its own, with all the processes that it starts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median

from arms_federated import ARMS, FIRST_STEP, MEMORY, ROUND, SECONDS, Work
from harness import keep, rows, show, side_by_side

from fl_admin.demo_data import write_demo_data

BARS = {
    16: {("inline", SECONDS): 1.2, ("inline", MEMORY): 2.0},
    100: {("inline", SECONDS): 1.3},
}
LIMITS = {100: 2000.0}
"""Sites -> MiB that the inline engine may take."""

PER_SITE = "seconds of a site and round"
FLAT = 1.1
EDGES = {"training": 44, "validation": 32}
"""Voxels of a volume in each direction, at most; a crop for training has 32."""

REPETITIONS = {2: 3}
"""Sites -> how often; more of them once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 16, 100])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repetitions", type=int, help="of all, in place of the usual numbers")
    parser.add_argument("--arms", nargs=2, choices=ARMS, default=["plain loop", "inline"])
    options = parser.parse_args()
    found, each = [], {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_demo_data(data, sites=max(options.sites))
        shorten(data)
        for sites in options.sites:
            work = Work(data=data, sites=sites, rounds=options.rounds, local_epochs=1)
            arms = {name: partial(one_run, name, work) for name in options.arms}
            measured = side_by_side(arms, options.repetitions or REPETITIONS.get(sites, 1))
            middle = median(figures[PER_SITE] for figures in measured["inline"])
            each[f"{sites} sites"] = [{PER_SITE: middle}]
            title = f"{sites} sites, {options.rounds} rounds"
            part = rows(measured, base=options.arms[0], title=title, bars=BARS.get(sites))
            for row in part:
                if (row["arm"], row["figure"]) == ("inline", MEMORY):
                    row["limit"] = LIMITS.get(sites)
            found += part
            keep("many_sites", found)  # a hundred sites take long enough to be interrupted
    few, *more = each
    bars = {(name, PER_SITE): FLAT for name in more}
    found += rows(each, base=few, title="inline, as sites grow", bars=bars)
    show(found)
    print(keep("many_sites", found))


def shorten(data: Path) -> None:
    """Leave each site two volumes to train on, which is one step, and one to validate on; small."""
    for path in data.glob("*/dataset.json"):
        listed = json.loads(path.read_text())
        listed["training"], listed["validation"] = listed["training"][:2], listed["validation"][:1]
        for part, edge in EDGES.items():
            for case in listed[part]:
                cut(path.parent / case["image"], path.parent / case["label"], edge)
        path.write_text(json.dumps(listed))


def cut(image: Path, label: Path, edge: int) -> None:
    """Cut a volume down to what lies around its label."""
    import nibabel
    import numpy as np

    found = np.asarray(nibabel.load(label).dataobj) > 0
    centre = [int(np.median(places)) for places in np.nonzero(found)]
    starts = [
        max(0, min(place - edge // 2, size - edge))
        for place, size in zip(centre, found.shape, strict=True)
    ]
    box = tuple(slice(start, start + edge) for start in starts)
    for path in (image, label):
        whole = nibabel.load(path)
        part = nibabel.Nifti1Image(np.asarray(whole.dataobj)[box], whole.affine, whole.header)
        nibabel.save(part, path)


def one_run(arm: str, work: Work) -> Mapping[str, float]:
    """The figures of an arm, and what a round costs for each of its sites."""
    found = dict(ARMS[arm](work))
    del found[FIRST_STEP]
    return {**found, PER_SITE: found.pop(ROUND) / work.sites}


if __name__ == "__main__":
    main()
