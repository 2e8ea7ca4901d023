"""One command with subcommands; nothing heavy is imported before one of them runs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from types import ModuleType
from typing import Any, NoReturn

from fl_admin.cli import audit, check, demo_data, provision, results, simulate
from fl_admin.cli.commands import add_commands
from fl_admin.cli.job import job
from fl_admin.cli.server import abort, download, jobs, submit, watch
from fl_admin.cli.site import site
from mmar_runtime.cli import data, evaluate, export, train, upgrade
from mmar_runtime.errors import did_you_mean

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

CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.*)\)$", re.DOTALL)
"""What argparse says of a word that is none of its choices."""

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


class _Parser(argparse.ArgumentParser):
    """Tells of an unknown option with the usage of the command that it was given to."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line; of a word that is not among the choices, name the nearest."""
        unknown = CHOICE.search(message)
        if unknown is not None:
            word, choices = unknown[1], [name.strip(" '") for name in unknown[2].split(",")]
            message = f"{message}\n    {did_you_mean(word, choices)}".rstrip()
        super().error(message)

    def parse_known_args(  # type: ignore[override]  # typeshed has it overloaded
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse as argparse does, but refuse unknown options."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            advice = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}\n    {advice}".rstrip())
        return options, unknown


@cache
def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(
        prog="mmar",
        description="Run Clara Train MMARs at one site, and across sites on NVFlare.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    add_commands(parser, COMMANDS)
    return parser
