"""What the commands for a running federation share: the kit."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem

KIT_VARIABLE = "MMAR_ADMIN_KIT"


def add_kit_argument(parser: argparse.ArgumentParser) -> None:
    """``--kit DIR``, or the environment variable."""
    parser.add_argument(
        "--kit",
        type=Path,
        metavar="DIR",
        help=f"start-up kit of an admin (the environment variable {KIT_VARIABLE})",
    )


def kit_of(options: argparse.Namespace) -> Path:
    """Return the kit that was named.

    Raises:
        ConfigError: none was.
    """
    named = options.kit or os.environ.get(KIT_VARIABLE)
    if named:
        return Path(named)
    advice = f"Write --kit DIR, or set {KIT_VARIABLE}; 'mmar provision' makes kits."
    raise ConfigError([Problem(Location("--kit"), "no admin's kit is named", advice, "kit")])
