"""From an old MMAR to a federation in one command: ``mmar simulate`` on a plain MMAR of 2021."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import as_it_leaves

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MMAR = Path(__file__).resolve().parents[1] / "mmars" / "segmentation_3d_v4_0"
SITES = ["site-1", "site-2"]


def mmar(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fl_admin.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_an_mmar_of_the_old_dialect_is_federated_as_it_is(
    tmp_path: Path, make_mmar: Callable[..., Path], open_policy: Path
) -> None:
    (tmp_path / "data").mkdir()
    for seed, site in enumerate(SITES):
        (make_mmar(tmp_path / site, seed=seed) / "data").rename(tmp_path / "data" / site)
    before = {path: path.read_bytes() for path in MMAR.rglob("*") if path.is_file()}
    options = ["--rounds", 1, "--aggregation-weights", "site-2=3", "-w", tmp_path / "runs"]
    options += ["--policy", open_policy, "--engine", "nvflare"]  # whose server keeps an audit log

    done = mmar("simulate", MMAR, "--data", tmp_path / "data", *options, "--json")

    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["record"]["status"] == "complete"
    assert printed["cross_site"]["complete"]
    run = Path(printed["folder"])
    server = json.loads((run / "job/app/config/config_fed_server.json").read_text())
    assert server["workflows"][0]["args"]["aggregation_weights"] == {"site-2": 3}
    assert {path: path.read_bytes() for path in MMAR.rglob("*") if path.is_file()} == before

    shown = json.loads(mmar("job", "show", run / "job", "--json").stdout)
    (audit,) = run.glob("nvflare/*/server/audit/mmar_audit.jsonl")
    assert f'"job_digest":"{shown["digest"]}"' in audit.read_text()
    evaluated = mmar(
        "evaluate", "-m", run / "job/app", "-c", "config/config_cross_validation.json",
        "-e", run / "sites/site-1/environment.json",
        "--json", "--set", "dont_load_ckpt_model=False",
        f"MMAR_CKPT={run / 'results/models/FL_global_model.pt'}",
        f"MMAR_EVAL_OUTPUT_PATH={tmp_path / 'eval'}",
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    cell = printed["cross_site"]["cells"]["FL_global_model"]["site-1"]
    assert as_it_leaves(json.loads(evaluated.stdout)["metrics"]) == cell
