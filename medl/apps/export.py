"""``python3 -m medl.apps.export``: write a trained network, by Clara's name for ``mmar export``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from medl.apps import run_app
from mmar_runtime.cli import export


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the application; returns the exit code."""
    return run_app(export, "medl.apps.export", arguments)


if __name__ == "__main__":
    sys.exit(main())
