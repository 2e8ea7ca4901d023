"""A site that demands privacy filters, in a real federation: what leaves, and what it costs.

site-1 cuts and noises what it sends and keeps the statistics of its batch norms; site-2 does not.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_admin.at_server.console import JobState
from fl_admin.cli.main import main
from fl_client.privacy.ledger import PrivacyLedger
from mmar_runtime.audit import AUDIT_FILE, LEDGER_FILE
from mmar_runtime.weights import read_checkpoint
from tests.federation.conftest import Federation, MakeFederation, edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PRIVACY = "fl_client.flare.privacy"
FILTERS = [
    {"path": f"{PRIVACY}.PercentilePrivacy", "args": {"percentile": 10, "gamma": 0.01}},
    {
        "path": f"{PRIVACY}.SVTPrivacy",
        "args": {"epsilon": 0.5, "epsilon_release": 1e6, "gamma": 0.01, "tau": 0.001},
    },
]
A_ROUND = 1e6 + 0.5
BUFFERS = ["*.running_mean", "*.running_var", "*.num_batches_tracked"]


def demand_filters(federation: Federation) -> None:
    """What the administrator of site-1 writes; enough for two rounds and a half."""
    local = federation.site("site-1") / "local"
    privacy = json.loads((local / "privacy.json").read_text())
    privacy["scopes"][0]["task_result_filters"] = FILTERS
    (local / "privacy.json").write_text(json.dumps(privacy))
    edit(
        local / "mmar_site_policy.json",
        required_filters=["PercentilePrivacy", "SVTPrivacy"],
        privacy={"epsilon_max": 2.5 * A_ROUND},
    )


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation) -> Federation:
    return make_federation(demand_filters)


@pytest.fixture(scope="module")
def job_with_norms(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with batch norms, and an aggregator that does without their statistics."""
    folder = Path(shutil.copytree(job, tmp_path_factory.mktemp("norms") / "spleen"))
    for name in ("config_train.json", "config_cross_validation.json"):
        file = folder / "app/config" / name
        document = json.loads(file.read_text())
        place = document["train"] if name == "config_train.json" else document
        place["model"]["args"]["norm"] = "batch"
        file.write_text(json.dumps(document))
    server = folder / "app/config/config_fed_server.json"
    document = json.loads(server.read_text())
    [workflow] = document["workflows"]
    workflow["args"]["optional_names"] = BUFFERS
    server.write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def first(federation: Federation, job_with_norms: Path) -> JobState:
    """Two rounds of both sites."""
    state = federation.run(job_with_norms)
    assert state.status == "FINISHED:COMPLETED", federation.told(state)
    return state


@pytest.fixture(scope="module")
def results(
    federation: Federation, first: JobState, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return federation.download(first.job_id, tmp_path_factory.mktemp("first")) / "workspace/results"


def test_buffers_of_the_private_site_stay_there_and_the_servers_are_sane(
    federation: Federation, results: Path
) -> None:
    accepted = [
        one for one in federation.audit("localhost") if one["event"] == "contribution-accepted"
    ]
    left_out = {one["site"]: one.get("left_out", []) for one in accepted[:4]}
    weights = read_checkpoint(results / "models/FL_global_model.pt").weights

    assert left_out["site-2"] == []
    assert {name.rpartition(".")[2] for name in left_out["site-1"]} == {
        one.removeprefix("*.") for one in BUFFERS
    }
    variances = [one for name, one in weights.items() if name.endswith("running_var")]
    counts = [one for name, one in weights.items() if name.endswith("num_batches_tracked")]
    assert variances
    assert all(torch.isfinite(one).all() and (one >= 0).all() for one in variances)
    assert all(one.dtype == torch.int64 and one > 0 for one in counts)


def test_its_own_model_is_evaluated_nowhere_and_that_is_no_shortfall(results: Path) -> None:
    cells = json.loads((results / "cross_site.json").read_text())["cells"]

    assert "site-2" in cells
    assert "site-1" not in cells


def test_both_rounds_are_in_the_ledger(federation: Federation, first: JobState) -> None:
    account = PrivacyLedger(federation.site("site-1")).account()

    assert account.by("job") == {first.job_id: 2 * A_ROUND}
    assert [one.round_number for one in account.spendings] == [1, 2]
    assert federation.log_status("site-1", LEDGER_FILE) == "intact"
    assert (federation.site("site-2") / LEDGER_FILE).read_bytes() == b""


def test_the_record_has_the_heads_of_the_sites_logs(
    federation: Federation, results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """So a cut end shows: here of a copy, in which the last line of the ledger is missing."""
    kit, record = federation.site("site-1"), str(results / "run_record.json")
    known = ["--record", record, "--site", "site-1"]
    assert main(["audit", "verify", str(kit / AUDIT_FILE), str(kit / LEDGER_FILE), *known]) == 0

    copy = Path(shutil.copytree(kit / "audit", tmp_path / "audit")) / LEDGER_FILE.name
    copy.write_text("".join(copy.read_text().splitlines(keepends=True)[:-1]))
    command = ["audit", "verify", str(copy), "--key", str(kit / "startup/client.key")]
    assert main(command) == 3  # the audit log next to it names the line
    copy.with_name(AUDIT_FILE.name).unlink()
    assert main(command) == 0
    capfd.readouterr()
    assert main([*command, *known]) == 3
    assert "line 2 is known from elsewhere and gone" in capfd.readouterr().out


def test_the_site_sees_what_is_spent(
    federation: Federation, first: JobState, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", "privacy", "--kit", str(federation.site("site-1")), "--json"]) == 0

    told = json.loads(capfd.readouterr().out)
    assert told["spent"] == 2 * A_ROUND
    assert told["epsilon_max"] == 2.5 * A_ROUND
    assert [one["job"] for one in told["jobs"]] == [first.job_id]


def test_another_job_finds_the_budget_spent_and_trains_nothing_there(
    federation: Federation, first: JobState, job_with_norms: Path, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(job_with_norms, tmp_path / "again"))
    edit(again / "meta.json", min_clients=1)
    edit(again / "app/config/config_fed_server.json", min_clients=1, num_rounds=1)

    state = federation.run(again)

    assert state.status == "FINISHED:COMPLETED", federation.told(state)
    folder = federation.download(state.job_id, tmp_path / "results")
    record = json.loads((folder / "workspace/results/run_record.json").read_text())
    [round_] = record["rounds"]
    assert "policy-declined" in json.dumps(absences(round_)["site-1"])
    events = federation.audit("site-1")
    trained = [one for one in events if one["event"] == "task-out" and one["task"] == "train"]
    assert {one["job"] for one in trained} == {first.job_id}
    assert PrivacyLedger(federation.site("site-1")).account().spent == 2 * A_ROUND


def absences(round_: dict[str, Any]) -> dict[str, Any]:
    return {site: one for site, one in round_["sites"].items() if "status" in one}


def test_a_filter_of_the_job_that_would_come_too_late_is_refused(
    federation: Federation, first: JobState, job_with_norms: Path, tmp_path: Path
) -> None:
    late = Path(shutil.copytree(job_with_norms, tmp_path / "late"))
    config = late / "app/config/config_fed_client.json"
    chain = {
        "tasks": ["train"],
        "filters": [{"path": f"{PRIVACY}.ExcludeVars", "args": {"exclude_vars": ["*.bias"]}}],
    }
    edit(config, task_result_filters=[chain])

    state = federation.run(late)

    assert state.status == "FINISHED:FAILED_TO_RUN"
    answer = " ".join(state.deployment.values())
    assert "refused: privacy: config_fed_client.json" in answer
    assert "comes behind PercentilePrivacy of the site" in answer
