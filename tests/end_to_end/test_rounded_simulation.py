"""``--transfer`` from the command line: by both engines the same bits, and a part of the bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.weights import digest, read_checkpoint
from scripts.same_runs import comparable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SITES = ("site-1", "site-2")


@dataclass(frozen=True)
class Run:
    """What a simulation has left."""

    folder: Path

    @property
    def record(self) -> Any:
        return json.loads((self.folder / "results" / "run_record.json").read_text())

    @property
    def models(self) -> dict[str, str]:
        files = (self.folder / "results" / "models").glob("*.pt")
        return {path.stem: digest(read_checkpoint(path).weights) for path in files}

    @property
    def bytes(self) -> set[int]:
        rounds = self.record["rounds"]
        return {one["sites"][site]["bytes"] for one in rounds for site in SITES}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, open_policy: Path) -> dict[str, Run]:
    """An MMAR as it is, and rounded by each engine."""
    from tests.conftest import write_mmar

    root = tmp_path_factory.mktemp("rounded")
    (root / "data").mkdir()
    for seed, site in enumerate(SITES):
        (write_mmar(root / site, seed=seed) / "data").rename(root / "data" / site)
    source = write_mmar(root / "mmar")
    found = {}
    for name, options in {
        "float32": [],
        "int8": ["--transfer", "int8"],
        "int8 by nvflare": ["--transfer", "int8", "--engine", "nvflare"],
    }.items():
        words = [
            "simulate", source, "--data", root / "data", "--rounds", 2, "--set", "NUM_THREADS=1",
            "--policy", open_policy, "-w", root / name.replace(" ", "-"), *options,
        ]  # fmt: skip
        command = [sys.executable, "-m", "fl_admin.cli.main", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[name] = Run(root / name.replace(" ", "-") / "run-001")
    return found


def test_both_engines_give_the_same_bits(runs: dict[str, Run]) -> None:
    inline, by_nvflare = runs["int8"], runs["int8 by nvflare"]

    assert (inline.record["engine"], by_nvflare.record["engine"]) == ("inline", "nvflare")
    assert comparable(inline.record) == comparable(by_nvflare.record)
    assert inline.models == by_nvflare.models
    for name in ("cross_site.json", "cross_site.csv"):
        one, other = (run.folder / "results" / name for run in (inline, by_nvflare))
        assert one.read_text() == other.read_text()


def test_they_are_not_those_of_the_exact_run_and_took_fewer_bytes(runs: dict[str, Run]) -> None:
    exact, rounded = runs["float32"], runs["int8"]

    assert exact.models["FL_global_model"] != rounded.models["FL_global_model"]
    [whole], [sent] = exact.bytes, rounded.bytes
    assert sent < 0.6 * whole


def test_what_a_site_logged_as_rounded_the_server_logged_as_received(runs: dict[str, Run]) -> None:
    [server] = runs["int8 by nvflare"].folder.glob("nvflare/*/server/audit/mmar_audit.jsonl")
    received = {
        (one["site"], one["tensors"], one["bytes"])
        for one in map(json.loads, server.read_text().splitlines())
        if one["event"] == "contribution-accepted"
    }
    sent = set()
    for site in SITES:
        [log] = runs["int8 by nvflare"].folder.glob(f"nvflare/*/{site}/audit/mmar_audit.jsonl")
        lines = map(json.loads, log.read_text().splitlines())
        sent |= {
            (site, one["tensors"], one["bytes"]) for one in lines if one["event"] == "reply-rounded"
        }

    assert received == sent
    assert len(sent) == 2 * 2
