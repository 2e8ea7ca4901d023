"""``mmar``: one command with subcommands; nothing heavy is imported before one of them runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType

from fl_admin.cli import (
    abort,
    audit,
    check,
    demo_data,
    download,
    job,
    jobs,
    provision,
    results,
    simulate,
    site,
    submit,
    watch,
)
from mmar_runtime.cli import data, evaluate, export, train, upgrade
from mmar_runtime.cli.common import run_command

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "evaluate": evaluate,
    "export": export,
    "upgrade": upgrade,
    "check": check,
    "audit": audit,
    "site": site,
    "job": job,
    "simulate": simulate,
    "results": results,
    "provision": provision,
    "submit": submit,
    "jobs": jobs,
    "watch": watch,
    "abort": abort,
    "download": download,
    "demo-data": demo_data,
    "data": data,
}

EXAMPLES = """examples:
  mmar demo-data build/data --sites 3
  mmar simulate jobs/spleen_ct_segmentation --sites 3 --rounds 3 --data build/data -w build/run
  mmar train -m path/to/mmar --set epochs=20
"""


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"mmar-fl {version('mmar-fl')}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="mmar",
        description="Run Clara Train MMARs at one site, and across sites on NVFlare.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = build_parser().parse_args(arguments)
    return run_command(COMMANDS[options.command].run, options)


if __name__ == "__main__":
    sys.exit(main())
