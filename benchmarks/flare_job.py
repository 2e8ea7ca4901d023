"""Jobs without training for a model of any size, run by NVFlare's simulator or in a federation."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from measure import Measured, measure

from fl_admin.demo_data import write_demo_data
from fl_server.record.files import read_run_record

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "jobs" / "spleen_ct_segmentation"
LAYERS = 20
POLICY = {"policy_version": 1, "byoc": {"mode": "on"}}
"""The sites of a benchmark run its code, whatever it is."""


def network(megabytes: float) -> dict[str, Any]:
    """Arguments of MONAI's ``FullyConnectedNet`` for as many MB of weights in float32."""
    width = max(1, round(math.sqrt(megabytes * 1e6 / 4 / (LAYERS - 1))))
    return {"in_channels": 1, "out_channels": 1, "hidden_channels": [width] * LAYERS}


def write_job(folder: Path, megabytes: float, *, sites: int, rounds: int) -> Path:
    """The example job with another network and no training; its models are evaluated at once."""
    shutil.copytree(EXAMPLE, folder)
    config = folder / "app" / "config"
    model = {"name": "FullyConnectedNet", "args": network(megabytes)}
    train = _read(config / "config_train.json")
    train["train"]["model"] = model
    _write(config / "config_train.json", {**train, "network_summary": None})
    cross = _read(config / "config_cross_validation.json")
    _write(config / "config_cross_validation.json", {**cross, "model": model})
    server = _read(config / "config_fed_server.json")
    server.update(num_rounds=rounds, min_clients=sites)
    _write(config / "config_fed_server.json", server)
    client = _read(config / "config_fed_client.json")
    client["executors"][0]["executor"]["path"] = "returning.ReturningExecutor"
    _write(config / "config_fed_client.json", client)
    _write(folder / "meta.json", {**_read(folder / "meta.json"), "min_clients": sites})
    (folder / "app" / "custom").mkdir()
    shutil.copy(HERE / "returning.py", folder / "app" / "custom")
    return folder


def write_data(folder: Path, sites: int) -> Path:
    """Volumes that the sites' checks find; nobody reads them."""
    write_demo_data(folder, sites=sites)
    return folder


def write_policy(path: Path) -> Path:
    """The policy of a throw-away site."""
    _write(path, POLICY)
    path.chmod(0o600)
    return path


def simulate(job: Path, data: Path, work: Path, *, sites: int) -> tuple[Measured, Path]:
    """Run a job by NVFlare's simulator; what it took, and the folder of the run."""
    policy = write_policy(work / "policy.json")
    words = [
        sys.executable, "-m", "fl_admin.cli.main", "simulate", str(job), "--data", str(data),
        "--sites", str(sites), "--set", "NUM_THREADS=1", "--engine", "nvflare",
        "--policy", str(policy), "-w", str(work),
    ]  # fmt: skip
    found = measure(words, log=work / "log")
    return found, work / "run-001"


def gaps(results: Path) -> list[float]:
    """Seconds from the start of each round to that of the next; the first, which warms up, not."""
    record = read_run_record(results / "run_record.json")
    starts = [round_record.started for round_record in record.rounds]
    return [(after - before).total_seconds() for before, after in pairwise(starts)][1:]


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _write(path: Path, document: Mapping[str, Any]) -> None:
    content = {key: value for key, value in document.items() if value is not None}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
