"""``mmar results``: work on what runs have left behind.

``merge`` makes one matrix of several, such as that of a run and that of a site which joined later.
Models are joined by name, and only where a name stands for the same weights; each has to have been
evaluated by the same config_cross_validation.json; what two matrices both hold has to be equal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmar_runtime.cli.common import add_output_arguments, print_json, set_up_logging

HELP = "merge the matrices of several runs"
EXAMPLES = """examples:
  mmar results merge runs/run-001 runs/run-002 --out merged
  mmar results merge downloaded/3f6b... late_site/cross_site.json --out merged --json

Each is the folder of a simulation or of a downloaded job, their results, or a cross_site.json.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions, each with its own arguments."""
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    merge = actions.add_parser(
        "merge",
        help="one matrix of several",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    merge.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="what to merge")
    merge.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="gets JSON, CSV and a page"
    )
    add_output_arguments(merge)


def run(options: argparse.Namespace) -> int:
    """Merge, write, show."""
    from fl_admin.at_server.results import merge_results

    set_up_logging(verbose=options.verbose)
    matrix = merge_results(options.runs, options.out)
    if options.json:
        print_json({"folder": str(options.out.resolve()), "cross_site": matrix.as_dict()})
        return 0
    from rich.console import Console

    from fl_admin.report.text import matrix_table

    Console().print(matrix_table(matrix))
    missing = len(matrix.missing)
    note = "" if matrix.complete else f"; {missing} of its values are missing"
    print(f"{len(matrix.models)} models at {len(matrix.sites)} sites{note}")
    print(options.out.resolve())
    return 0
