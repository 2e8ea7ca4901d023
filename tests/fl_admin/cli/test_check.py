"""``mmar check``: what it prints and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fl_admin.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[3]
JOB = str(REPOSITORY / "jobs/spleen_ct_segmentation/app")
WITH_CODE = str(REPOSITORY / "tests/mmars/own_components")


def policy(folder: Path, **fields: object) -> str:
    path = folder / "mmar_site_policy.json"
    path.write_text(json.dumps({"policy_version": 1, **fields}))
    path.chmod(0o600)
    return str(path)


def test_accepted_paths_end_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", JOB]) == 0

    text = capsys.readouterr().out
    assert text.startswith(f"{JOB}: accepted\n")
    assert text.endswith("1 accepted, 0 rejected\n")


def test_one_rejected_path_ends_with_three_and_says_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", JOB, WITH_CODE]) == 3

    lines = capsys.readouterr().out.splitlines()
    assert f"{WITH_CODE}: rejected" in lines
    assert any(line.startswith("  code  config_train.json: train.") for line in lines)
    assert lines[-1] == "1 accepted, 1 rejected"


def test_json_is_one_line_for_each_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", JOB, WITH_CODE, "--json"]) == 3

    accepted, rejected = map(json.loads, capsys.readouterr().out.splitlines())
    assert (accepted["path"], accepted["verdict"], accepted["problems"]) == (JOB, "accept", [])
    assert rejected["verdict"] == "reject"
    assert {frozenset(one) for one in rejected["problems"]} == {
        frozenset({"rule", "file", "place", "message"})
    }


def test_the_sites_policy_decides(tmp_path: Path) -> None:
    assert main(["check", WITH_CODE, "--policy", policy(tmp_path, byoc={"mode": "on"})]) == 0
    assert main(["check", JOB, "--policy", policy(tmp_path, denied_components=["UNet"])]) == 3


def test_values_are_set_as_for_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", JOB, "--set", "amp=perhaps"]) == 3
    assert "  type  --set: amp" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [JOB, "/nowhere/at/all"],
        [JOB, "--policy", "/nowhere/policy.json"],
        [JOB, "--set", "1x=2"],
    ],
)
def test_what_cannot_be_asked_so_ends_with_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2

    captured = capsys.readouterr()
    assert "accepted" not in captured.out
    assert "Traceback" not in captured.err


def test_a_policy_that_loosens_a_limit_ends_with_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", JOB, "--policy", policy(tmp_path, limits={"rounds": 10**6})]) == 2
    assert "looser than the built-in limit" in capsys.readouterr().err


def test_a_path_that_is_not_there_is_refused_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tmp_path / "none")]) == 2

    refusal = capsys.readouterr().err
    assert "PATH: there is nothing at" in refusal
    assert "Name the folder of an MMAR or of a job, or a job's zip." in refusal
