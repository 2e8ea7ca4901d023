"""What groups of commands share: a module for each command, and options of several words.

The module of a command has ``HELP``, ``add_arguments`` and ``run``; a group has commands in place
of ``run``. ``EXAMPLES`` may also be those of its group.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from mmar_runtime.cli.common import examples_of


def add_commands(
    parser: argparse.ArgumentParser,
    modules: Mapping[str, ModuleType],
    *,
    title: str = "commands",
    examples: str = "",
) -> None:
    """Add the commands of a group; ``options.act`` is what the chosen command runs.

    Args:
        parser: of the group.
        modules: name of the command -> its module.
        title: of the list of commands.
        examples: of the group, for commands without examples of their own.
    """
    commands = parser.add_subparsers(title=title, dest=title.removesuffix("s"), required=True)
    for name, module in modules.items():
        own = getattr(module, "EXAMPLES", None)
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            epilog=own or examples_of(f"{parser.prog} {name}", examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(act=getattr(module, "run", None))
        module.add_arguments(command)


def add_words(
    parser: argparse.ArgumentParser,
    option: str,
    metavar: str,
    text: str,
    *,
    kind: Callable[[str], object] = str,
) -> None:
    """Add an option that takes several words, and may be repeated.

    Args:
        parser: of the command.
        option: its name.
        metavar: what a word is.
        text: of the help.
        kind: makes a value of a word.
    """
    parser.add_argument(
        option, nargs="+", default=[], action="extend", metavar=metavar, type=kind, help=text
    )


def add_kit_of_site(parser: argparse.ArgumentParser) -> None:
    """Add ``--kit``: the folder of a site's kit."""
    parser.add_argument(
        "--kit", type=Path, default=Path(), metavar="DIR", help="the site's kit (this folder)"
    )


def add_json_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--json --debug``, of a command that has nothing to log."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
