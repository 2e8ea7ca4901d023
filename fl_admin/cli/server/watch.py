"""``mmar watch``: follow a job of a federation to its end."""

from __future__ import annotations

import argparse
from pathlib import Path

from fl_admin.cli.server.kit import add_kit_argument, kit_of
from fl_admin.cli.server.submit import add_start_argument, follow
from mmar_runtime.cli.common import add_output_arguments, set_up_logging

HELP = "follow a job of a federation to its end"
EXAMPLES = """examples:
  mmar watch 5be1a0c3-... --kit kits/lead@hospital.org
  mmar watch ID --kit KIT --out results

Ctrl-C ends the watching, not the job. The exit code is 0 if the job completed, 1 if it
did not, 2 if something here has to be mended first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("id", metavar="ID", help="the job's id, see 'mmar jobs'")
    add_kit_argument(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="fetch the results into DIR/<id>")
    add_start_argument(parser)
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Follow it."""
    from fl_admin.at_server.console import Console

    set_up_logging(verbose=options.verbose)
    with Console.connect(kit_of(options)) as console:
        return follow(console, options.id, options)
