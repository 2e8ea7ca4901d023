"""``python3 -m medl.apps.train``: train an MMAR, by Clara's name for ``mmar train``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from medl.apps import run_app
from mmar_runtime.cli import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the application; returns the exit code."""
    return run_app(train, "medl.apps.train", arguments)


if __name__ == "__main__":
    sys.exit(main())
