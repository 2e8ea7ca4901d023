"""``mmar abort``: stop a job of a federation at the server and at all sites."""

from __future__ import annotations

import argparse

from fl_admin.cli.server.kit import add_kit_argument, kit_of
from mmar_runtime.cli.common import add_output_arguments, print_json, set_up_logging

HELP = "stop a job of a federation"
EXAMPLES = """examples:
  mmar abort 5be1a0c3-... --kit kits/lead@hospital.org
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("id", metavar="ID", help="the job's id, see 'mmar jobs'")
    add_kit_argument(parser)
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Stop it."""
    from fl_admin.at_server.console import Console

    set_up_logging(verbose=options.verbose)
    with Console.connect(kit_of(options)) as console:
        console.abort(options.id)
    print_json({"id": options.id, "aborted": True}) if options.json else print("aborted")
    return 0
