"""A job with code of its own in a real federation: it runs where all have approved this very code.

site-2 asks for approvals of whole jobs. The server builds the network from the MMAR as well, so its
administrator approves too.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fl_admin.cli.main import main
from tests.federation.conftest import SITES, Federation, MakeFederation, edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CODE = '''"""A loss of this job's own."""

from monai.losses import DiceCELoss


class OwnLoss(DiceCELoss):
    """Nothing but another name."""
'''


PARTS = Path(__file__).resolve().parents[2] / "docs/look-up/custom-code/own_federation.py"
"""A filter and an aggregator of the job's own, from the documentation."""


@pytest.fixture(scope="module")
def job_with_code(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(job, tmp_path_factory.mktemp("code") / "spleen"))
    (folder / "app/custom").mkdir()
    (folder / "app/custom/own_loss.py").write_text(CODE)
    config = folder / "app/config/config_train.json"
    document = json.loads(config.read_text())
    args = {"to_onehot_y": True, "softmax": True}
    document["train"]["loss"] = {"path": "own_loss.OwnLoss", "args": args}
    config.write_text(json.dumps(document))
    shutil.copy(PARTS, folder / "app/custom")
    server = folder / "app/config/config_fed_server.json"
    document = json.loads(server.read_text())
    [workflow] = document["workflows"]
    workflow["args"]["aggregator"] = {"path": "own_federation.Median", "args": {}}
    server.write_text(json.dumps(document))
    chain = {"tasks": ["train"], "filters": [{"path": "own_federation.Halved", "args": {}}]}
    edit(folder / "app/config/config_fed_client.json", task_result_filters=[chain])
    return folder


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation, job_with_code: Path) -> Federation:
    def approve(federation: Federation) -> None:
        edit(federation.site("site-2") / "local/mmar_site_policy.json", jobs="approved")
        for kit in (federation.server, *map(federation.site, SITES)):
            policy = str(kit / "local/mmar_site_policy.json")
            assert main(["site", "approve", str(job_with_code), "--policy", policy, "--yes"]) == 0

    return make_federation(approve)


def test_approved_code_runs(federation: Federation, job_with_code: Path) -> None:
    state = federation.run(job_with_code)

    assert state.status == "FINISHED:COMPLETED"
    for site in SITES:
        lines = federation.audit(site)
        events = [one["event"] for one in lines]
        approved = [one for one in events if one.endswith("-approved")]
        assert approved == ["code-approved", "job-approved"][: 1 + (site == "site-2")]
        judged = [one for one in lines if one["event"].endswith("-judged")]
        assert [one["event"] for one in judged] == ["job-judged", "mmar-judged"]
        assert [one["verdict"] for one in judged] == ["accept", "accept"]
    accepted = [
        one for one in federation.audit("localhost") if one["event"] == "contribution-accepted"
    ]
    assert len(accepted) == 2 * len(SITES)  # the guard stands before the own aggregator


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own_loss.py", CODE + "\nimport os\n"),
        ("more.py", ""),
        ("json.py", ""),
        ("__pycache__/own_loss.cpython-311.pyc", ""),
    ],
)
def test_any_other_code_is_refused(
    federation: Federation, job_with_code: Path, tmp_path: Path, name: str, text: str
) -> None:
    changed = Path(shutil.copytree(job_with_code, tmp_path / "changed"))
    file = changed / "app/custom" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)

    state = federation.run(changed)

    assert state.status == "FINISHED:FAILED_TO_RUN"
    assert any("refused: code: " in answer for answer in state.deployment.values()), state


def test_a_site_that_asks_for_approvals_runs_no_other_job(
    federation: Federation, job_with_code: Path, tmp_path: Path
) -> None:
    """site-2 does; the code is the same, and one number of the job is another."""
    changed = Path(shutil.copytree(job_with_code, tmp_path / "changed"))
    edit(changed / "app/config/config_fed_client.json", local_epochs=2)

    state = federation.run(changed)

    refused = "refused: approval: this site runs the jobs that it has approved"
    assert state.deployment["site-2"].startswith(refused)
    assert state.deployment["site-1"] == "OK"


def test_a_class_of_code_that_is_not_there_is_refused(
    federation: Federation, job_with_code: Path, tmp_path: Path
) -> None:
    """The approved code is the same; only what the configuration asks for is not in it."""
    changed = Path(shutil.copytree(job_with_code, tmp_path / "changed"))
    chain = {"tasks": ["train"], "filters": [{"path": "own_federatio.Halved", "args": {}}]}
    edit(changed / "app/config/config_fed_client.json", task_result_filters=[chain])

    state = federation.run(changed)

    assert state.status == "FINISHED:FAILED_TO_RUN"
    assert any("refused: allow-list: " in answer for answer in state.deployment.values()), state


def test_approved_code_allows_no_class_of_nvflares(
    federation: Federation, job_with_code: Path, tmp_path: Path
) -> None:
    """NVFlare leaves out its own list of classes for a job with code; ours still holds."""
    hostile = Path(shutil.copytree(job_with_code, tmp_path / "hostile"))
    config = hostile / "app/config/config_fed_client.json"
    document = json.loads(config.read_text())
    touch = {"args": ["touch", str(tmp_path / "marker")]}
    document["components"].append({"id": "x", "path": "subprocess.Popen", "args": touch})
    config.write_text(json.dumps(document))

    state = federation.run(hostile)

    assert state.status == "FINISHED:FAILED_TO_RUN"
    assert any("refused: allow-list: " in answer for answer in state.deployment.values()), state
    assert not (tmp_path / "marker").exists()
