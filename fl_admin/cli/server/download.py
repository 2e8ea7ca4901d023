"""``mmar download``: fetch what the server has of a finished job."""

from __future__ import annotations

import argparse
from pathlib import Path

from fl_admin.cli.server.kit import add_kit_argument, kit_of
from fl_admin.cli.server.submit import fetch
from mmar_runtime.cli.common import add_output_arguments, print_json, set_up_logging

HELP = "fetch the results of a finished job"
EXAMPLES = """examples:
  mmar download 5be1a0c3-... --kit kits/lead@hospital.org --out results
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("id", metavar="ID", help="the job's id, see 'mmar jobs'")
    add_kit_argument(parser)
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="results go into DIR/<id> (here)"
    )
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Fetch them."""
    from fl_admin.at_server.console import Console

    set_up_logging(verbose=options.verbose)
    with Console.connect(kit_of(options)) as console:
        folder = fetch(console, options.id, options.out).folder
    print_json({"id": options.id, "folder": str(folder)}) if options.json else print(folder)
    return 0
