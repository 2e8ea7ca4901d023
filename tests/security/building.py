"""The second line: hostile MMARs are built as a site builds them, as if no check had been there.

    python -m tests.security.building            (one JSON line for each case)

A parent that has imported torch and MONAI forks for each case. The child loads the workflow without
any check of the policy, builds every entry without the right to code, and says how far it came.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mmar_runtime.components.builder import BuildContext, ComponentBuilder
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.errors import MmarError
from mmar_runtime.mmar import Mmar
from tests.security.case import CANARY, Case
from tests.security.corpus.all import HOSTILE
from tests.security.runner import bounded, workplace
from tests.warm.server import import_slowly

FAMILIES = ("expression", "component", "substitution", "reference")
CASES = tuple(
    case
    for case in HOSTILE
    if isinstance(case, Case) and case.family in FAMILIES and case.base == "mmar"
)


def build_all(cases: tuple[Case, ...] = CASES) -> Iterator[dict[str, Any]]:
    """What came of building each case: how far it came, and whether anything was executed."""
    torch.set_num_threads(1)  # a fork of threads is none
    import_slowly()  # for all that are forked
    for case in cases:
        with workplace() as place:
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                try:
                    _child(case, place)
                finally:
                    os._exit(99)
            _, status = os.waitpid(child, 0)
            report = place / "report"
            text = report.read_text() if report.exists() else f"ended with {status}"
            printed = (place / "out").read_text(errors="replace")
            yield {
                "name": case.name,
                "came": text,
                "executed": (place / "marker").exists(),
                "leaked": CANARY in printed,
            }


def _child(case: Case, place: Path) -> None:
    os.environ["MMAR_CANARY"] = CANARY
    bounded()
    case.write(place, marker=place / "marker", secret=place / "site/secret.json")
    with (place / "out").open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    try:
        came = _build(place / "subject")
    except MmarError as error:
        came = f"refused by the loader: {type(error).__name__}"
    except BaseException:
        came = f"fault: {traceback.format_exc()}"
    (place / "report").write_text(came)


def _build(root: Path) -> str:
    """Build each entry of a training; those that refuse do not keep the others from it."""
    config = load_train_config(Mmar.open(root))
    builder = ComponentBuilder(config, BuildContext(device=torch.device("cpu")))
    refused = built = 0
    for scope, section in config.scopes.items():
        for name in section.entries:
            try:
                builder.get(scope, name)
                built += 1
            except MmarError:
                refused += 1
    return f"refused by the builder: {refused}" if refused else f"built: {built}"


def main() -> int:
    """Build every case."""
    for outcome in build_all():
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
