"""The wall behind the check: hostile MMARs are built and run as if nobody had ever judged them.

    python -m tests.security.walled [NAME...]        (one JSON line for each case)
    python -m tests.security.walled --without-wall [NAME...]         (what they would do instead)

A parent that has imported torch and MONAI forks for each case. The child may run code, and trains.
A case has got through if its marker is there, if anything outside the run folder is not as it was,
or if a file of the run holds what only the site has.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from fl_admin.demo_data import write_demo_data
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.confinement.places import job_environment, make_scratch, remove_scratch
from mmar_runtime.confinement.wall import Confinement, confine
from mmar_runtime.mmar import Mmar
from mmar_runtime.workflows.training import train
from tests.conftest import write_data
from tests.security.case import CANARY, Case
from tests.security.corpus.all import HOSTILE
from tests.security.runner import bounded, workplace
from tests.warm.server import import_slowly

ROOTS = {"mmar": "subject", "old": "subject", "job": "subject/app"}
"""Base of a case -> where its MMAR lies in the run folder."""

SECONDS = 5.0
"""Of the processor, that a case is built and trains; the most take a second to train to the end."""

EPOCHS = 2
"""Of a case that does not set their number itself."""

CASES = tuple(
    case for case in HOSTILE if isinstance(case, Case) and case.base in ROOTS and case.pack is None
)


def run_all(cases: Iterable[Case], *, walled: bool = True) -> Iterator[dict[str, Any]]:
    """What came of each case, built and run."""
    torch.set_num_threads(1)  # a fork of threads is none
    import_slowly()  # for all that are forked
    folder = Path(tempfile.mkdtemp(prefix="mmar-data-"))
    write_data(folder / "small")
    (demo,) = write_demo_data(folder / "demo", sites=1)
    for case in cases:
        with workplace() as place:
            (place / "run").mkdir()
            data = demo.directory if case.base == "job" else folder / "small"
            shutil.copytree(data, place / "site/data")
            before = _content(place)
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                try:
                    _child(case, place, walled=walled)
                finally:
                    os._exit(99)
            _, status = os.waitpid(child, 0)
            remove_scratch(place / "run/scratch")
            report = place / "run/report"
            outcome = {
                "executed": (place / "marker").exists(),
                "changed": sorted(before.items() ^ _content(place).items()),
                "leaked": _holds_canary(place / "run"),
            }
            yield {
                "name": case.name,
                "came": report.read_text() if report.exists() else f"ended with {status}",
                "through": any(outcome.values()),
                **outcome,
            }


def _child(case: Case, place: Path, *, walled: bool) -> None:
    run = place / "run"
    environment = {**os.environ, "SITE_SECRET": CANARY}
    os.environ.clear()
    os.environ.update(job_environment(environment, run / "scratch") if walled else environment)
    make_scratch(run / "scratch")
    case.write(run, marker=place / "marker", secret=place / "site/secret.json")
    bounded()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # some would train for ever
    with (run / "out").open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    if walled:
        confine(Confinement(read=(place / "site/data",), write=(run,)))
    try:
        came = _run(case, run / ROOTS[case.base], place / "site/data")
    except BaseException as error:
        came = f"{type(error).__name__}: {error}"[:300]
    (run / "report").write_text(came)


def _run(case: Case, root: Path, data: Path) -> str:
    site: dict[str, Any] = {"DATA_ROOT": str(data), "DATASET_JSON": str(data / "dataset.json")}
    if not any("epochs" in changes for changes in case.edits.values()):
        site["epochs"] = EPOCHS
    (root / "models").mkdir(exist_ok=True)
    config = load_train_config(Mmar.open(root), overrides=site)
    train(config, allow_code=True)
    return "ran"


def _content(place: Path) -> dict[str, str]:
    """Path -> digest of all files outside of the run folder."""
    files = [path for path in place.rglob("*") if place / "run" not in path.parents]
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }


def _holds_canary(run: Path) -> bool:
    files = (path for path in run.rglob("*") if path.is_file() and not path.is_symlink())
    return any(CANARY.encode() in path.read_bytes() for path in files)


def main() -> int:
    """Run the named cases, or all."""
    names = [name for name in sys.argv[1:] if not name.startswith("--")]
    cases = [case for case in CASES if not names or case.name in names]
    through = 0
    for outcome in run_all(cases, walled="--without-wall" not in sys.argv):
        through += outcome["through"]
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()
    sys.stderr.write(f"{len(cases)} cases, {through} got through\n")
    return 1 if through else 0


if __name__ == "__main__":
    sys.exit(main())
