"""``python3 -m medl.apps.evaluate``: validate or infer, by Clara's name for ``mmar evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from medl.apps import run_app
from mmar_runtime.cli import evaluate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the application; returns the exit code."""
    return run_app(evaluate, "medl.apps.evaluate", arguments)


if __name__ == "__main__":
    sys.exit(main())
