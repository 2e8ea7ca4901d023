"""A site that asks for approvals runs exactly the jobs that somebody has looked at."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from fl_admin.kits.approval import Approvals
from fl_admin.kits.job_approval import JobApprovals, job_texts
from fl_admin.kits.local_files import AUTHORIZATION
from fl_client.flare.app_validator import MmarAppValidator
from fl_client.jobs.approved import job_approval_faults, job_digest
from mmar_runtime.audit import AUDIT_FILE
from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.site_policy import (
    DEFAULT_POLICY,
    SITE_POLICY_FILE,
    SitePolicy,
    read_site_policy,
)

REPOSITORY = Path(__file__).resolve().parents[3]
JOB = REPOSITORY / "jobs" / "spleen_ct_segmentation"
OWN_CODE = REPOSITORY / "tests" / "mmars" / "own_components" / "custom"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return Path(shutil.copytree(JOB, tmp_path / "job"))


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server's or a site's folder, in which the command runs; its policy asks for approvals."""
    kit = tmp_path / "kit"
    for folder in ("startup", "local"):
        (kit / folder).mkdir(parents=True)
    (kit / "local/authorization.json").write_text(json.dumps(AUTHORIZATION))
    write_policy(kit, jobs="approved")
    monkeypatch.chdir(kit)
    return kit


def write_policy(kit: Path, **keys: Any) -> None:
    file = kit / "local" / SITE_POLICY_FILE
    file.write_text(json.dumps({"policy_version": 1, **keys}))
    file.chmod(0o600)


def policy(kit: Path) -> SitePolicy:
    return read_site_policy(kit / "local" / SITE_POLICY_FILE)


def answer(kit: Path, job: Path) -> str:
    """What NVFlare is told of a job once it has unpacked its app in a kit."""
    run = kit / "an-id-of-nvflares"
    shutil.rmtree(run, ignore_errors=True)
    app = Path(shutil.copytree(job / "app", run / "app_site-1"))
    for folder in (app, app / "config"):  # of each site its own
        (folder / ".__nvfl_sig.json").write_text("{}")
    return MmarAppValidator().validate(str(app))[0]


def change(job: Path, document: str, **keys: Any) -> None:
    file = job / "app" / "config" / document
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}, indent=2) + "\n")


def approve(job: Path) -> int:
    return main(["site", "approve", str(job), "--yes"])


# --- what runs


def test_a_job_runs_once_it_is_approved_and_not_before(kit: Path, job: Path) -> None:
    digest = job_digest(job / "app")
    refused = answer(kit, job)

    assert refused.startswith("refused: approval: this site runs the jobs that it has approved")
    assert f"({digest}); its administrator runs 'mmar site approve JOB'" in refused
    assert approve(job) == 0
    assert policy(kit).approved_jobs == (digest,)
    assert answer(kit, job) == ""


CHANGES: dict[str, Any] = {
    "a number": lambda job: change(job, "config_fed_client.json", local_epochs=2),
    "a space": lambda job: append(job / "app/config/config_train.json", " "),
    "a readme": lambda job: append(job / "app/docs/README.md", "more\n"),
    "a further file": lambda job: append(job / "app/docs/more.md", "more\n"),
    "a file less": lambda job: next((job / "app/docs").glob("*")).unlink(),
    "a name": lambda job: (job / "app/config/config_inference.json").rename(
        job / "app/config/config_inference2.json"
    ),
}


def append(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as stream:
        stream.write(text)


@pytest.mark.parametrize("way", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_is_changed_is_refused(kit: Path, job: Path, way: Any) -> None:
    (job / "app/docs").mkdir(exist_ok=True)
    (job / "app/docs/README.md").write_text("A job.\n")
    approve(job)
    assert answer(kit, job) == ""

    way(job)

    assert "approval: " in answer(kit, job)


@pytest.mark.parametrize("index", [0, 200, -1])
def test_a_changed_byte_of_weights_is_refused(kit: Path, job: Path, index: int) -> None:
    weights = job / "app/models/model.safetensors"
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes(bytes(range(256)))
    allowed = SitePolicy(jobs="approved", approved_jobs=(str(job_digest(job / "app")),))
    assert not list(job_approval_faults(allowed, lambda: job_digest(job / "app")))

    changed = bytearray(weights.read_bytes())
    changed[index] ^= 1
    weights.write_bytes(changed)

    assert list(job_approval_faults(allowed, lambda: job_digest(job / "app")))


def test_a_job_with_a_link_has_no_digest_and_no_approval(job: Path) -> None:
    (job / "app/models").mkdir(exist_ok=True)
    (job / "app/models/model.pt").symlink_to("/etc/passwd")
    asks = SitePolicy(jobs="approved")

    assert list(job_approval_faults(asks, lambda: job_digest(job / "app")))


def test_a_job_with_a_pipe_is_not_copied(kit: Path, job: Path) -> None:
    approvals = JobApprovals(Approvals(kit / "local" / SITE_POLICY_FILE))
    with approvals.candidate(job) as candidate:
        assert candidate.verdict.accepted

    os.mkfifo(job / "app/docs/pipe")
    with pytest.raises(ConfigError, match="docs/pipe"), approvals.candidate(job):
        pass


def test_by_default_no_job_needs_an_approval(kit: Path, job: Path) -> None:
    write_policy(kit)

    assert DEFAULT_POLICY.jobs == "signed"
    assert answer(kit, job) == ""


def test_an_approved_job_is_judged_all_the_same(kit: Path, job: Path) -> None:
    approve(job)
    write_policy(
        kit, jobs="approved", approved_jobs=list(policy(kit).approved_jobs), signers=["lead@hub"]
    )

    assert answer(kit, job).startswith("refused: signer: ")


# --- what is shown


def test_all_documents_are_shown_and_then_the_difference(
    kit: Path, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    approve(job)
    first = capsys.readouterr().out
    epochs = json.loads((job / "app/config/config_fed_client.json").read_text())["local_epochs"]
    change(job, "config_fed_client.json", local_epochs=epochs + 1)

    approve(job)
    second = capsys.readouterr().out

    assert "nothing of this name was approved before" in first
    for file in (job / "app").rglob("*.json"):
        assert f"+++ job/{file.relative_to(job / 'app')}" in first
    assert f"as a difference to {policy(kit).approved_jobs[0]}" in second
    shown = [line for line in second.splitlines() if line[:1] in ("+", "-")]
    assert [line for line in shown if "SHA-256" not in line] == [
        "--- approved/config/config_fed_client.json",
        "+++ job/config/config_fed_client.json",
        f'-  "local_epochs": {epochs},',
        f'+  "local_epochs": {epochs + 1},',
    ]
    assert "the check by this site's policy: accepted" in second


def test_another_jobs_approval_is_nothing_to_compare_with(
    kit: Path, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    approve(job)
    meta = json.loads((job / "meta.json").read_text())
    (job / "meta.json").write_text(json.dumps({**meta, "name": "another"}))
    change(job, "config_fed_client.json", local_epochs=3)
    capsys.readouterr()

    approve(job)

    assert "nothing of this name was approved before" in capsys.readouterr().out


def test_whatever_lines_do_not_show_the_digest_shows(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.pt").write_bytes(b"PK\x03\x04\0\xff")
    (tmp_path / "a.json").write_text('{"a":   1}')
    (tmp_path / "twice.json").write_text('{"a": "shown", "a": "hidden"}')
    (tmp_path / "deep.json").write_text("[" * 10_000)
    (tmp_path / "odd.md").write_bytes("a\x1b[2J\r\nb\u202e\n".encode())

    texts = job_texts(tmp_path)

    assert texts["models/model.pt"][0].startswith("6 bytes, SHA-256 ")
    assert len(texts["models/model.pt"]) == 1
    assert texts["a.json"][1:] == ["{", '  "a": 1', "}"]
    assert texts["twice.json"][1:] == ['{"a": "shown", "a": "hidden"}']
    assert texts["deep.json"][1:] == ["[" * 10_000]
    assert texts["odd.md"][1:] == ["a\\x1b[2J\\r", "b\\u202e"]
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert job_texts(tmp_path)["a.json"][0] != texts["a.json"][0]


def test_a_name_cannot_move_the_terminal(
    kit: Path, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = json.loads((job / "meta.json").read_text())
    (job / "meta.json").write_text(json.dumps({**meta, "name": "a\x1b[2J\n\ud800"}))
    (job / "app/docs").mkdir(exist_ok=True)
    (job / "app/docs/b\n\x1b[2J.md").write_text("x\n")

    approve(job)
    main(["site", "approve", "--list"])

    assert "\x1b" not in capsys.readouterr().out


# --- the decision


class Person(io.StringIO):
    """Somebody at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("words", "code"), [("y\n", 0), ("n\n", 3), ("", 3)])
def test_a_person_is_asked(
    kit: Path, job: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Person(words))

    assert main(["site", "approve", str(job)]) == code

    assert len(policy(kit).approved_jobs) == (code == 0)


def test_a_job_that_the_site_would_refuse_cannot_be_approved(
    kit: Path, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = job / "app/config/config_train.json"
    document = json.loads(config.read_text())
    document["train"]["handlers"].append({"name": "Shell", "args": {"command": "id"}})
    config.write_text(json.dumps(document))

    assert approve(job) == 3

    shown = capsys.readouterr().out
    assert "the check by this site's policy: refused" in shown
    assert "unknown-component" in shown
    assert policy(kit).approved_jobs == ()
    jobs = JobApprovals(Approvals(kit / "local" / SITE_POLICY_FILE))
    with jobs.candidate(job) as candidate, pytest.raises(ConfigError):
        jobs.approve(candidate)


def test_what_is_approved_is_what_was_shown(kit: Path, job: Path) -> None:
    """The job changes between the question and the answer."""
    shown = job_digest(job / "app")
    jobs = JobApprovals(Approvals(kit / "local" / SITE_POLICY_FILE))
    with jobs.candidate(job) as candidate:
        change(job, "config_fed_client.json", local_epochs=3)
        jobs.approve(candidate)

    assert policy(kit).approved_jobs == (shown,)
    assert "approval: " in answer(kit, job)


def test_code_of_the_job_is_shown_and_approved_with_it(
    kit: Path, job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(OWN_CODE, job / "app/custom", ignore=shutil.ignore_patterns("__pycache__"))

    assert approve(job) == 0

    assert "+class ObjectCrossEntropy(torch.nn.Module):" in capsys.readouterr().out.splitlines()
    assert policy(kit).byoc.mode == "by_hash"
    assert answer(kit, job) == ""
    (job / "app/custom/more.py").write_text("x = 1\n")
    assert "approval: " in answer(kit, job)


def test_an_approval_can_be_listed_and_withdrawn(
    kit: Path, job: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    approve(job)
    digest, name = job_digest(job / "app"), json.loads((job / "meta.json").read_text())["name"]
    capfd.readouterr()

    main(["site", "approve", "--list", "--json"])
    listed = json.loads(capfd.readouterr().out)
    assert listed["jobs"] == "approved"
    assert listed["approved_jobs"] == [{"hash": digest, "name": name}]

    assert main(["site", "approve", "--revoke", str(digest)]) == 0
    assert policy(kit).approved_jobs == ()
    assert "approval: " in answer(kit, job)
    events = [json.loads(line)["event"] for line in (kit / AUDIT_FILE).read_text().splitlines()]
    assert events[:2] == ["job-approved", "job-revoked"]


def test_approving_twice_changes_nothing(kit: Path, job: Path) -> None:
    approve(job)
    before = (kit / "local" / SITE_POLICY_FILE).read_text()

    assert approve(job) == 0

    assert (kit / "local" / SITE_POLICY_FILE).read_text() == before


def test_nothing_is_left_of_a_job_that_was_not_approved(kit: Path, job: Path) -> None:
    main(["site", "approve", str(job)])  # there is nobody to ask

    assert list((kit / "local/approved").iterdir()) == []


@pytest.mark.parametrize("name", ["nowhere", "meta.json", "empty"])
def test_what_is_no_job_is_told_so(
    kit: Path, job: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (job / "empty").mkdir()

    assert approve(job / name) == 2

    assert "is not the folder of a job" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"jobs": "aproved"}, "jobs"),
        ({"jobs": True}, "jobs"),
        ({"jobs": ["approved"]}, "jobs"),
        ({"approved_jobs": ["x"]}, "approved_jobs[0]"),
        ({"approved_jobs": "0" * 64}, "approved_jobs"),
    ],
)
def test_a_policy_that_is_not_understood_takes_no_job(
    kit: Path, job: Path, keys: dict[str, Any], place: str
) -> None:
    write_policy(kit, **keys)

    assert answer(kit, job).startswith("refused: policy: ")
    with pytest.raises(ConfigError, match=rf"{SITE_POLICY_FILE}: {place.replace('[', '.')[:4]}"):
        policy(kit)
