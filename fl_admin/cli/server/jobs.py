"""``mmar jobs``: the jobs that a server has."""

from __future__ import annotations

import argparse

from fl_admin.cli.server.kit import add_kit_argument, kit_of
from mmar_runtime.cli.common import add_output_arguments, print_json, set_up_logging

HELP = "list the jobs of a federation"
COLUMNS = ("id", "job", "status", "submitted", "duration", "by")
PIPE_WIDTH = 240

EXAMPLES = """examples:
  mmar jobs --kit kits/lead@hospital.org
  mmar jobs --kit KIT --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_kit_argument(parser)
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """List them, oldest first."""
    from fl_admin.at_server.console import Console

    set_up_logging(verbose=options.verbose)
    with Console.connect(kit_of(options)) as console:
        states = console.jobs()
    if options.json:
        print_json([state.as_dict() for state in states])
        return 0
    from rich.console import Console as Terminal
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(name, no_wrap=True) for name in COLUMNS))
    for job in states:
        cells = (job.job_id, job.name, job.status, job.submitted, job.duration, job.submitter)
        table.add_row(*map(Text, cells))  # a plain text would be read as markup
    terminal = Terminal()
    # A pipe has no width, and a script wants whole words.
    terminal.print(table) if terminal.is_terminal else Terminal(width=PIPE_WIDTH).print(table)
    return 0
