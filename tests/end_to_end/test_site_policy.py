"""A federation of sites that round what they tell: each number leaves as the policy has it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from fl_admin.demo_data import write_demo_data
from mmar_runtime.audit import AUDIT_FILE, verify_audit
from mmar_runtime.metrics import significant
from tests.end_to_end.test_simulation import DICE, JOB, command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DIGITS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites, one round, under a policy."""
    root = tmp_path_factory.mktemp("policy")
    write_demo_data(root / "data", sites=2)
    policy = root / "mmar_site_policy.json"
    outgoing = {"metrics": [DICE], "round_digits": DIGITS}
    policy.write_text(json.dumps({"policy_version": 1, "confinement": "off", "outgoing": outgoing}))
    words = ["--sites", 2, "--rounds", 1, "--data", root / "data", "--workspace", root / "runs"]
    words += ["--engine", "nvflare"]  # whose server and sites keep audit logs
    done = subprocess.run(
        command("simulate", JOB, *words, "--policy", policy), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return root / "runs" / "run-001"


def document(run: Path, name: str) -> Any:
    return json.loads((run / "results" / f"{name}.json").read_text())


def test_no_other_metric_and_no_further_digit_has_left(run: Path) -> None:
    cells = document(run, "cross_site")["cells"]
    [first] = document(run, "run_record")["rounds"]
    reports = first["sites"].values()

    tables = [cell for model in cells.values() for cell in model.values()]
    tables += [one[part] for one in reports for part in ("received_metrics", "local_metrics")]
    assert len(tables) > 8
    for table in tables:
        assert set(table) == {DICE}
        for part in (table[DICE], *table[DICE]["classes"].values()):
            assert part["value"] == significant(part["value"], DIGITS)
    assert [one["epochs"] for one in reports] == [[], []]  # their losses have not left


def test_mmar_evaluate_gives_the_number_of_the_matrix(run: Path, tmp_path: Path) -> None:
    model, site = "FL_global_model", "site-2"
    words = [
        "-m", run / "job/app",
        "-c", "config/config_cross_validation.json",
        "-e", run / "sites" / site / "environment.json",
        "--policy", run / "sites/mmar_site_policy.json",
        "--json",
        "--set", "dont_load_ckpt_model=False", f"MMAR_CKPT={run / 'results/models' / model}.pt",
        f"MMAR_EVAL_OUTPUT_PATH={tmp_path / 'eval'}",
    ]  # fmt: skip

    done = subprocess.run(command("evaluate", *words), capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"] == document(run, "cross_site")["cells"][model][site]


@pytest.mark.parametrize("site", ["site-1", "site-2"])
@pytest.mark.parametrize("model", ["FL_global_model", "best_FL_global_model"])
def test_a_site_gets_its_number_of_the_matrix_by_itself_rounded_as_it_was_told(
    run: Path, model: str, site: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (kit,) = run.glob(f"nvflare/*/{site}")
    model_file = run / "results/models" / f"{model}.pt"

    assert main(["site", "validate", "--kit", str(kit), "--model", str(model_file), "--json"]) == 0

    found = json.loads(capfd.readouterr().out)["metrics"]
    assert found == document(run, "cross_site")["cells"][model][site]


def test_each_site_and_the_server_keep_a_log_whose_chain_holds(run: Path) -> None:
    files = {file.parents[1].name: file for file in run.rglob(AUDIT_FILE.name)}

    assert set(files) == {"server", "site-1", "site-2"}
    expected = {
        "server": {"task-out", "contribution-accepted", "global-model", "metrics-in"},
        "site-1": {"task-in", "task-out"},
        "site-2": {"task-in", "task-out"},
    }
    for name, file in files.items():
        report = verify_audit(file)
        assert report.status == "not authenticated"  # no kit, no key
        assert report.lines > 10
        events = {json.loads(line)["event"] for line in file.read_text().splitlines()}
        assert expected[name] <= events
