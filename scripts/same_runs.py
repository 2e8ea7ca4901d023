"""Run the same federated jobs by two checkouts, and compare all that the runs leave.

    python scripts/same_runs.py ../old .             # every run
    python scripts/same_runs.py ../old . --only int8 # the runs of this name

Each checkout needs its own ``.venv``. Compared are the exit code, the digest of each model, the run
record and the matrix; times, versions, random references and names of processes are left out.
The exit code is 0 if all runs are equal, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmar_runtime.weights import digest, read_checkpoint

JOB = Path("jobs/spleen_ct_segmentation")
SITES = 3
UNEQUAL = {"seconds", "started", "finished", "process", "engine", "versions", "logs"}
"""The keys of a record whose values differ from run to run or by engine; only a kit has logs."""

AGGREGATOR = '''"""The median of the sites' differences."""

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable


class Median:
    def __init__(self):
        self.received = {}

    def accept(self, shareable, fl_ctx):
        site = fl_ctx.get_peer_context().get_identity_name()
        self.received[site] = from_shareable(shareable).data
        return True, False

    def aggregate(self, fl_ctx):
        sites, self.received = self.received, {}
        names = next(iter(sites.values()))
        middle = {
            name: np.median([arrays[name] for arrays in sites.values()], axis=0) for name in names
        }
        return DXO(DataKind.WEIGHT_DIFF, data=middle).to_shareable()
'''


@dataclass(frozen=True, kw_only=True)
class Case:
    """A job and how it is run.

    Attributes:
        create: further options of ``mmar job create``.
        min_sites: sites that a round needs.
        rounds: of training. A second round would amplify the noise of encryption.
        simulate: further options of ``mmar simulate``.
        broken: sites of which an image cannot be read.
        aggregator: whether the job brings an aggregator of its own.
        tolerance: by how much weights may differ; encryption adds noise. 0 compares digests.
    """

    create: tuple[str, ...] = ()
    min_sites: int = SITES
    rounds: int = 2
    simulate: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    aggregator: bool = False
    tolerance: float = 0


NVFLARE = ("--engine", "nvflare")
CASES = {
    "plain-inline": Case(),
    "plain-nvflare": Case(simulate=NVFLARE),
    "workers-inline": Case(simulate=("--workers", "2")),
    "int8-inline": Case(create=("--transfer", "int8")),
    "int8-nvflare": Case(create=("--transfer", "int8"), simulate=NVFLARE),
    "shared-inline": Case(create=("--exclude-vars", "model.0.*")),
    "shared-nvflare": Case(create=("--exclude-vars", "model.0.*"), simulate=NVFLARE),
    "failing-inline": Case(min_sites=2, broken=("site-2",)),
    "failing-nvflare": Case(min_sites=2, broken=("site-2",), simulate=NVFLARE),
    "too-few-inline": Case(broken=("site-2",)),
    "too-few-nvflare": Case(broken=("site-2",), simulate=NVFLARE),
    "encrypted-nvflare": Case(create=("--he",), rounds=1, simulate=NVFLARE, tolerance=1e-6),
    "aggregator-nvflare": Case(aggregator=True, simulate=NVFLARE),
}


@dataclass(frozen=True, kw_only=True)
class Left:
    """All that a run has left, without what differs from run to run."""

    code: int
    models: dict[str, Path]
    documents: dict[str, Any]


def run(checkout: Path, case: Case, folder: Path) -> Left:
    """Make the job of a case and run it with the code of a checkout."""
    python = checkout.resolve() / ".venv/bin/python"

    def mmar(*words: object) -> int:
        command = [str(python), "-m", "fl_admin.cli.main", *map(str, words)]
        with (folder / "log.txt").open("a") as log:
            return subprocess.run(command, cwd=folder, stdout=log, stderr=log).returncode

    mmar("demo-data", "data", "--sites", SITES)
    for site in case.broken:
        image = next((folder / "data" / site / "imagesTr").glob("*case-1.nii.gz"))
        image.write_bytes(bytes(range(256)))  # shows when the site trains
    create, simulate = list(case.create), list(case.simulate)
    source = Path(shutil.copytree(checkout / JOB / "app", folder / "mmar"))
    for name in ("config_fed_server.json", "config_fed_client.json"):
        (source / "config" / name).unlink()
    if case.aggregator:
        (source / "custom").mkdir()
        (source / "custom" / "median.py").write_text(AGGREGATOR)
        create += ["--with-code", "--aggregator", "median.Median"]
        (folder / "policy.json").write_text('{"policy_version": 1, "byoc": {"mode": "on"}}')
        simulate += ["--policy", "policy.json"]
    least = ("--min-sites", case.min_sites)
    code = mmar("job", "create", source, "--out", "job", "--rounds", case.rounds, *least, *create)
    if code:
        raise SystemExit((folder / "log.txt").read_text())
    sites = ("--sites", SITES, *least, "--data", "data", "--set", "NUM_THREADS=1")
    code = mmar("simulate", "job", *sites, "-w", "runs", *simulate)
    results = folder / "runs" / "run-001" / "results"
    for model in sorted((results / "models").glob("*.encrypted.safetensors")):
        [kit] = (folder / "runs" / "run-001" / "nvflare").iterdir()
        plain = model.with_name(model.name.replace(".encrypted.safetensors", ".pt"))
        mmar("site", "decrypt", "--kit", kit, "--model", model, "--out", plain)
    return Left(
        code=code,
        models={path.stem: path for path in sorted((results / "models").glob("*.pt"))},
        documents={
            path.name: comparable(json.loads(path.read_text()))
            for path in sorted(results.glob("*.json"))
        },
    )


def comparable(value: Any) -> Any:
    """Return a document without what differs from run to run."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items() if key not in UNEQUAL}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return re.sub(r"reference [0-9a-f]{8}", "reference", value) if isinstance(value, str) else value


def differences(old: Left, new: Left, tolerance: float) -> list[str]:
    """Return a sentence for each thing in which two runs differ."""
    faults = _unequal(old.code, new.code, "exit code")
    faults += _unequal(sorted(old.models), sorted(new.models), "models")
    for name in sorted(old.models.keys() & new.models.keys()):
        before, after = (read_checkpoint(side.models[name]).weights for side in (old, new))
        if not tolerance:
            faults += _unequal(digest(before), digest(after), f"digest of {name}")
        elif (far := max(float((before[k] - after[k]).abs().max()) for k in before)) > tolerance:
            faults.append(f"weights of {name} differ by {far:g}")
    if tolerance:
        return faults + _unequal(sorted(old.documents), sorted(new.documents), "documents")
    return faults + _unequal(old.documents, new.documents)


def _unequal(old: Any, new: Any, place: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            fault
            for key in sorted(old.keys() | new.keys())
            for fault in _unequal(old.get(key, "absent"), new.get(key, "absent"), f"{place}.{key}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            fault
            for number, (before, after) in enumerate(zip(old, new, strict=True))
            for fault in _unequal(before, after, f"{place}[{number}]")
        ]
    return [] if old == new else [f"{place}: {str(old)[:120]} and {str(new)[:120]}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the runs; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="a checkout with its .venv")
    parser.add_argument("new", type=Path, help="another checkout with its .venv")
    parser.add_argument("--only", default="", help="runs whose name has this text")
    asked = parser.parse_args(arguments)
    equal = True
    for name, case in CASES.items():
        if asked.only not in name:
            continue
        with tempfile.TemporaryDirectory(prefix="same-runs-") as root:
            for side in ("old", "new"):
                Path(root, side).mkdir()
            old = run(asked.old, case, Path(root, "old"))
            new = run(asked.new, case, Path(root, "new"))
            faults = differences(old, new, case.tolerance)
        equal = equal and not faults
        seen = f"exit code {old.code}, {len(old.models)} models"
        print(f"{name:20} {seen}:", "differs" if faults else "equal", flush=True)
        for fault in faults:
            print("   ", fault)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
