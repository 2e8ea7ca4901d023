"""``mmar``: the entry. It imports the commands itself, so that Ctrl-C meanwhile ends in a line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

STOPPED = 130
"""The exit code of a command that Ctrl-C has ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        from fl_admin.cli.parser import build_parser
        from mmar_runtime.cli.common import run_command

        options = build_parser().parse_args(arguments)
    except KeyboardInterrupt:
        print("mmar: stopped by SIGINT before it began", file=sys.stderr)
        return STOPPED
    return run_command(options.act, options)


if __name__ == "__main__":
    sys.exit(main())
