"""Clara's applications by their names: ``python3 -m medl.apps.train`` is ``mmar train``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from mmar_runtime.cli.common import run_command

LOG_CONFIG = "resources/log.config"
"""Clara's applications log as this file of the MMAR says; ``mmar`` does so only when asked."""


def run_app(command: ModuleType, name: str, arguments: Sequence[str] | None) -> int:
    """Run a command of ``mmar`` under Clara's name for it; returns the exit code.

    Args:
        command: the module of ``mmar_runtime.cli`` that does the work.
        name: the application's import name, for its help.
        arguments: None means those of the process.
    """
    parser = argparse.ArgumentParser(
        prog=f"python3 -m {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    parser.set_defaults(old_scripts=True)
    # torch.distributed.launch puts it into every command line; a single process needs no rank.
    parser.add_argument("--local_rank", "--local-rank", type=int, help="accepted, and not used")
    options = parser.parse_args(arguments)
    if options.log_config is None and (Path(options.mmar) / LOG_CONFIG).is_file():
        options.log_config = LOG_CONFIG
    return run_command(command.run, options)
