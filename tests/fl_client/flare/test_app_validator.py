"""The site's judgement on a job as NVFlare asks for it: an answer for the researcher, and a log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fl_client.flare.app_validator import MAX_TOLD, MmarAppValidator, told
from mmar_runtime.audit import AUDIT_FILE, verify_audit
from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SITE_POLICY_FILE
from mmar_runtime.policy.verdict import verdict

APP = Path(__file__).resolve().parents[3] / "jobs" / "spleen_ct_segmentation" / "app"
SECRET_ROOT = "/data/of-this-hospital"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A site's folder with a good job deployed, as NVFlare lays it out."""
    kit = tmp_path / "kit"
    for folder in ("startup", "local", "job-1"):
        (kit / folder).mkdir(parents=True)
    shutil.copytree(APP, kit / "job-1" / "app_site-1")
    environment = {"DATA_ROOT": SECRET_ROOT, "DATASET_JSON": f"{SECRET_ROOT}/dataset.json"}
    (kit / "local" / "environment.json").write_text(json.dumps(environment))
    return kit


def answer(kit: Path) -> str:
    text, properties = MmarAppValidator().validate(str(kit / "job-1" / "app_site-1"))
    assert properties == {}
    return text


def write_policy(kit: Path, **content: Any) -> None:
    document = {"policy_version": 1, **content}
    (kit / "local" / SITE_POLICY_FILE).write_text(json.dumps(document))


def logged(kit: Path) -> list[Any]:
    verify_audit(kit / AUDIT_FILE)
    return [json.loads(line) for line in (kit / AUDIT_FILE).read_text().splitlines()]


def test_a_good_job_is_accepted_and_logged(kit: Path) -> None:
    assert answer(kit) == ""

    [line] = logged(kit)
    assert (line["event"], line["verdict"], line["job"]) == ("job-judged", "accept", "job-1")
    assert line["policy"] == DEFAULT_POLICY.digest
    assert line["signers"] == []
    assert len(line["job_digest"]) == 64


def test_code_is_refused_in_one_line_with_rule_and_place(kit: Path) -> None:
    custom = kit / "job-1/app_site-1/custom"
    custom.mkdir()
    (custom / "own.py").write_text("x = 1\n")

    text = answer(kit)

    assert text.startswith("refused: code: custom/own.py: ")
    assert "\n" not in text
    assert [line["verdict"] for line in logged(kit)] == ["reject"]


def test_an_answer_holds_nothing_of_the_site(kit: Path) -> None:
    write_policy(kit, data_roots=["/another/folder/of-this-hospital"])
    config = kit / "job-1/app_site-1/config/config_train.json"
    document = json.loads(config.read_text())
    document["train"]["handlers"][3]["args"]["save_dir"] = "{DATA_ROOT}/x"
    config.write_text(json.dumps(document))

    text = answer(kit)

    assert text.startswith("refused: path: config_train.json: train.handlers[3].args.save_dir")
    assert "of-this-hospital" not in text
    assert str(kit) not in text


def test_a_job_of_somebody_else_is_refused(kit: Path) -> None:
    write_policy(kit, signers=["lead@hub.org"])

    assert answer(kit).startswith("refused: signer: ")


def test_a_site_whose_policy_has_a_fault_takes_no_job_and_does_not_say_which(kit: Path) -> None:
    write_policy(kit, byoc={"mode": "of-this-hospital"})

    text = answer(kit)

    assert text.startswith("refused: policy: ")
    assert "of-this-hospital" not in text


def test_a_site_that_cannot_keep_its_log_takes_no_job(kit: Path) -> None:
    (kit / "audit").write_text("no folder")

    assert answer(kit).startswith("refused: audit: ")


def test_a_long_answer_is_counted() -> None:
    problems = [Problem(Location("a.json") / number, "is bad", "", "json") for number in range(9)]

    text = told(verdict("job", problems))

    assert text.count("is bad") == MAX_TOLD
    assert text.endswith("; and 6 more")
