"""``mmar job create``: make a job of an MMAR."""

from __future__ import annotations

import argparse

from fl_admin.cli.job.making import add_mmar_arguments, add_target_arguments, make
from fl_admin.cli.job.settings import add_settings_arguments, add_sharing_arguments, settings_of
from mmar_runtime.cli.common import add_output_arguments, add_set_argument

HELP = "make a job of an MMAR"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_mmar_arguments(parser, min_sites="of a round")
    add_target_arguments(parser)
    parser.add_argument("--rounds", type=int, metavar="R", help="rounds of training (50)")
    add_settings_arguments(parser)
    add_sharing_arguments(parser)
    add_set_argument(parser)
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Make the job."""
    make(options, settings_of(options, min_sites=options.min_sites))
    return 0
