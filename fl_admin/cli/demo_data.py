"""``mmar demo-data``: write a synthetic abdominal CT data set for each of a few sites."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmar_runtime.cli.common import add_output_arguments, print_json

HELP = "write a synthetic CT data set for each site"
EXAMPLES = """example:
  mmar demo-data build/data --sites 3 --seed 7
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="gets DIR/site-1, ...")
    parser.add_argument("--sites", type=int, default=3, help="number of sites (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (%(default)s)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a data set that this command wrote"
    )
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Write the data and say where each site's list is."""
    from fl_admin.demo_data import write_demo_data

    sites = write_demo_data(
        options.folder, sites=options.sites, seed=options.seed, overwrite=options.overwrite
    )
    if options.json:
        print_json([{"site": site.name, "datalist": str(site.datalist)} for site in sites])
        return 0
    for site in sites:
        print(
            f"{site.name}: {len(site.training)} training and {len(site.validation)} validation "
            f"cases, {site.datalist}"
        )
    return 0
