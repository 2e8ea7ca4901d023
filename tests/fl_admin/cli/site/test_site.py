"""``mmar site approve``: what it shows, what it asks, and how it ends."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from fl_admin.cli.main import main
from fl_client.privacy.ledger import PrivacyLedger
from mmar_runtime.policy.files.tree_hash import tree_hash

REPOSITORY = Path(__file__).resolve().parents[4]


@pytest.fixture
def mmar(tmp_path: Path) -> str:
    folder = shutil.copytree(REPOSITORY / "tests/mmars/own_components", tmp_path / "mmar")
    return str(folder)


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site's kit, in which the command runs."""
    (tmp_path / "kit/local").mkdir(parents=True)
    (tmp_path / "kit/startup").mkdir()
    monkeypatch.chdir(tmp_path / "kit")
    return tmp_path / "kit"


class Person(io.StringIO):
    """Somebody at a terminal."""

    def isatty(self) -> bool:
        return True


def policy(kit: Path) -> dict[str, object]:
    document = json.loads((kit / "local/mmar_site_policy.json").read_text())
    return dict(document["byoc"])


@pytest.mark.parametrize("answer", ["y\n", "Yes\n"])
def test_a_yes_approves_what_was_shown(
    kit: Path,
    mmar: str,
    answer: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", Person(answer))

    assert main(["site", "approve", mmar]) == 0

    digest = tree_hash(Path(mmar) / "custom")
    assert policy(kit) == {"mode": "by_hash", "approved": [digest]}
    shown = capsys.readouterr().out
    assert "+class ObjectCrossEntropy(torch.nn.Module):" in shown.splitlines()
    assert shown.index("+class ObjectCrossEntropy") < shown.index("May this code run")


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yeah\n"])
def test_anything_else_does_not(
    kit: Path, mmar: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Person(answer))

    assert main(["site", "approve", mmar]) == 3

    assert not (kit / "local/mmar_site_policy.json").exists()


def test_where_nobody_can_be_asked_the_answer_is_no(
    kit: Path, mmar: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))

    assert main(["site", "approve", mmar]) == 3

    assert "there is nobody to ask" in capsys.readouterr().err


def test_with_json_the_code_is_shown_beside_the_document(
    kit: Path, mmar: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", "approve", mmar, "--yes", "--json"]) == 0

    printed = capfd.readouterr()
    digest = tree_hash(Path(mmar) / "custom")
    assert json.loads(printed.out) == {
        "result": "approved", "hash": digest, "mode": "by_hash", "approved": [digest],
        "jobs": "signed", "approved_jobs": [],
    }  # fmt: skip
    assert "+class ObjectCrossEntropy" in printed.err


def test_a_job_with_approved_code_passes_the_check_until_it_is_revoked(
    kit: Path, mmar: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["check", mmar, "--policy", "local/mmar_site_policy.json"]
    main(["site", "approve", mmar, "--yes"])
    assert main(check) == 0

    assert main(["site", "approve", "--revoke", tree_hash(Path(mmar) / "custom")]) == 0

    assert main(check) == 3


def test_code_that_was_changed_does_not_pass(kit: Path, mmar: str) -> None:
    main(["site", "approve", mmar, "--yes"])
    (Path(mmar) / "custom/own_loss.py").write_text("import os\n")

    assert main(["check", mmar, "--policy", "local/mmar_site_policy.json"]) == 3


def test_the_list_names_hashes_and_copies(
    kit: Path, mmar: str, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["site", "approve", mmar, "--yes"])
    capfd.readouterr()

    main(["site", "approve", "--list", "--json"])
    listed = json.loads(capfd.readouterr().out)
    main(["site", "approve", "--list"])

    digest = tree_hash(Path(mmar) / "custom")
    assert listed == {
        "mode": "by_hash", "approved": [{"hash": digest, "copy": f"local/approved/{digest}"}],
        "jobs": "signed", "approved_jobs": [],
    }  # fmt: skip
    assert capfd.readouterr().out.splitlines()[0] == "byoc.mode is by_hash; 1 approved"


@pytest.mark.parametrize("words", [[], ["mmar", "--list"], ["--list", "--revoke", "0"]])
def test_one_thing_at_a_time(
    kit: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", "approve", *words]) == 2

    assert "takes one of PATH, --list and --revoke HASH" in capsys.readouterr().err


def test_outside_of_a_kit_it_says_where_to_run(
    tmp_path: Path, mmar: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["site", "approve", mmar]) == 2

    assert "Run this in the folder of the site's kit" in capsys.readouterr().err


# --- the privacy budget


def spend(kit: Path, epsilon: float, job: str) -> None:
    facts = {"job": job, "round": 1, "filter": "SVTPrivacy", "data": "0123456789ab"}
    PrivacyLedger(kit).spend(epsilon, None, **facts)


def test_the_budget_is_shown_by_job_with_what_is_left(
    kit: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = {"policy_version": 1, "privacy": {"epsilon_max": 2}}
    (kit / "local/mmar_site_policy.json").write_text(json.dumps(content))
    for epsilon, job in ((0.5, "first"), (0.5, "first"), (0.25, "second")):
        spend(kit, epsilon, job)

    assert main(["site", "privacy"]) == 0

    lines = capfd.readouterr().out.splitlines()
    assert lines == [
        "spent:  epsilon 1.25 in 3 contributions",
        "bound:  2, of which 0.75 are left",
        "data:   0123456789ab  1.25",
        "job:    first  1 in 2",
        "job:    second  0.25 in 1",
    ]


def test_a_site_that_has_spent_nothing(kit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "privacy", "--kit", str(kit), "--json"]) == 0

    told = json.loads(capfd.readouterr().out)
    assert (told["spent"], told["epsilon_max"], told["left"], told["jobs"]) == (0, None, None, [])


def test_a_ledger_that_was_changed_is_no_account(
    kit: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spend(kit, 0.5, "first")
    ledger = PrivacyLedger(kit).path
    ledger.write_text(ledger.read_text().replace("0.5", "0.1"))

    assert main(["site", "privacy"]) != 0

    assert "line 1: was changed: its digest is another" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("startup", "told"),
    [
        (None, "is not a site's kit"),
        ("fed_server.json", "is the kit of a server"),
        ("fed_admin.json", "is the kit of an admin"),
    ],
)
def test_what_is_no_site_s_kit_has_no_budget(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], startup: str | None, told: str
) -> None:
    (tmp_path / "local").mkdir()
    if startup is not None:
        (tmp_path / "startup").mkdir()
        (tmp_path / "startup" / startup).write_text("{}")

    assert main(["site", "privacy", "--kit", str(tmp_path)]) == 2

    captured = capfd.readouterr()
    assert told in captured.err
    assert captured.out == ""
