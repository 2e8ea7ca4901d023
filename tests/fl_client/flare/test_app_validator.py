"""The site's judgement on a job as NVFlare asks for it: an answer for the researcher, and a log."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from fl_admin.kits.local_files import STOCK_LAUNCHER
from fl_client import site_data
from fl_client.flare import app_validator
from fl_client.flare.app_validator import MAX_TOLD, MmarAppValidator, told
from fl_client.jobs.wall import LAUNCHER
from fl_client.privacy.ledger import PrivacyLedger
from fl_client.versions import VERSIONS_FILE
from mmar_runtime.audit import AUDIT_FILE, LEDGER_FILE, AuditLog, verify_audit
from mmar_runtime.audit_keys import LogKey
from mmar_runtime.config.location import Location
from mmar_runtime.confinement.wall import Wall
from mmar_runtime.errors import Problem
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SITE_POLICY_FILE
from mmar_runtime.policy.verdict import MAX_TEXT, verdict
from tests.conftest import write_json

APP = Path(__file__).resolve().parents[3] / "jobs" / "spleen_ct_segmentation" / "app"
SECRET = "CANARY"
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
    assert not verify_audit(kit / AUDIT_FILE, LogKey.of_kit(kit)).findings
    return [json.loads(line) for line in (kit / AUDIT_FILE).read_text().splitlines()]


def test_a_good_job_is_accepted_and_logged(kit: Path) -> None:
    assert answer(kit) == ""

    [line] = logged(kit)
    assert (line["event"], line["verdict"], line["job"]) == ("job-judged", "accept", "job-1")
    assert line["policy"] == DEFAULT_POLICY.digest
    assert line["signers"] == []
    assert len(line["job_digest"]) == 64


def test_a_job_is_judged_without_torch_and_monai(kit: Path) -> None:
    """The parent process of a site or server does nothing else with a job."""
    program = """
import sys
from fl_client.flare.app_validator import MmarAppValidator
answer, _ = MmarAppValidator().validate(sys.argv[1])
assert not answer, answer
print(sorted({"torch", "monai", "ignite"} & set(sys.modules)))
"""
    app = kit / "job-1" / "app_site-1"

    found = subprocess.run(
        [sys.executable, "-c", program, str(app)], capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "[]"


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


def test_an_answer_does_not_show_which_folders_a_site_has(kit: Path) -> None:
    """A job that names a path itself is refused, whether or not the path is the site's."""
    config = kit / "job-1/app_site-1/config/config_train.json"
    document = json.loads(config.read_text())
    dataset = document["train"]["dataset"]
    dataset["data_list_file_path"] = "/another/folder/of-this-hospital/list.json"
    config.write_text(json.dumps(document))

    answers = set()
    for root in ("/another/folder/of-this-hospital", "/elsewhere"):
        write_policy(kit, data_roots=[root])
        answers.add(answer(kit))

    [text] = answers
    assert text.startswith("refused: path: config_train.json: train.dataset")


def test_a_site_that_approves_whole_jobs_takes_no_other(kit: Path) -> None:
    write_policy(kit, jobs="approved")
    assert answer(kit).startswith("refused: approval: this site runs the jobs that it has approved")

    [line] = logged(kit)
    write_policy(kit, jobs="approved", approved_jobs=[line["job_digest"]])
    assert answer(kit) == ""


def test_a_job_of_somebody_else_is_refused(kit: Path) -> None:
    write_policy(kit, signers=["lead@hub.org"])

    assert answer(kit).startswith("refused: signer: ")


@pytest.mark.parametrize(("verified", "said"), [(True, ""), (False, "refused: signer: ")])
def test_a_signature_that_does_not_hold_names_nobody(
    kit: Path, monkeypatch: pytest.MonkeyPatch, verified: bool, said: str
) -> None:
    write_policy(kit, signers=["lead@hub.org"])
    (kit / "startup/rootCA.pem").touch()
    (kit / "job-1/app_site-1" / SIGNATURE_FILES[0]).touch()
    found = verified, [("lead@hub.org", None, None)]
    name = "verify_folder_signature_and_get_signers"
    monkeypatch.setattr(app_validator, name, lambda *_: found)

    assert answer(kit).startswith(said)
    assert [line["verdict"] for line in logged(kit)] == ["accept" if verified else "reject"]


def test_a_site_whose_policy_has_a_fault_takes_no_job_and_does_not_say_which(kit: Path) -> None:
    write_policy(kit, byoc={"mode": "of-this-hospital"})

    text = answer(kit)

    assert text.startswith("refused: policy: ")
    assert "of-this-hospital" not in text


def test_a_site_that_cannot_keep_its_log_takes_no_job(kit: Path) -> None:
    (kit / "audit").write_text("no folder")

    assert answer(kit).startswith("refused: audit: ")


def test_an_answer_is_one_line_that_can_be_printed() -> None:
    text = told(verdict("job", [Problem(Location("a.json"), "is\nbad\x1b[2J", "", "json")]))

    assert text.startswith("refused: json: a.json: is")
    assert text.isprintable()
    long = [Problem(Location("a.json"), sign * 10_000, "", "json") for sign in "abc"]
    assert len(told(verdict("job", long))) <= MAX_TEXT + 3


def test_a_long_answer_is_counted() -> None:
    problems = [Problem(Location("a.json") / number, "is bad", "", "json") for number in range(9)]

    text = told(verdict("job", problems))

    assert text.count("is bad") == MAX_TOLD
    assert text.endswith("; and 6 more")


# --- what the site itself lacks


@pytest.fixture
def site_kit(kit: Path, tmp_path: Path) -> Path:
    """The same in a kit as provisioned, with data: one training and one validation case."""
    (kit / "startup/fed_client.json").write_text("{}")
    data = tmp_path / "data"
    data.mkdir()
    cases = {}
    for key in ("training", "validation"):
        case = {name: f"patient-{SECRET}-{key}-{name}.nii.gz" for name in ("image", "label")}
        for name in case.values():
            (data / name).write_bytes(b"")
        cases[key] = [case]
    (data / "dataset.json").write_text(json.dumps(cases))
    environment = {"DATA_ROOT": str(data), "DATASET_JSON": str(data / "dataset.json")}
    (kit / "local" / "environment.json").write_text(json.dumps(environment))
    return kit


def write_versions(kit: Path, **versions: str) -> None:
    (kit / VERSIONS_FILE).write_text(json.dumps(versions))


def other_minor(package: str) -> str:
    major, minor, *_ = version(package).split(".")
    return f"{major}.{int(minor) + 1}.0"


def test_a_site_with_its_data_takes_a_good_job(site_kit: Path) -> None:
    write_versions(site_kit, monai=version("monai"), torch=version("torch").partition("+")[0])

    assert answer(site_kit) == ""


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        (LAUNCHER, ""),
        (STOCK_LAUNCHER, "refused: confinement: "),
        ("nvflare.app_opt.job_launcher.slurm.ClientSlurmJobLauncher", "refused: confinement: "),
    ],
)
def test_a_site_that_requires_confinement_needs_the_launcher_that_confines(
    site_kit: Path, monkeypatch: pytest.MonkeyPatch, launcher: str, said: str
) -> None:
    whole = Wall(landlock=7, call_filter=True)
    monkeypatch.setattr("fl_client.flare.app_validator.kernel_wall", lambda: whole)
    resources = {"components": [{"id": "process_launcher", "path": launcher, "args": {}}]}
    write_json(site_kit / "local/resources.json.default", resources)
    assert answer(site_kit) == ""  # by default a job runs with what is there

    write_policy(site_kit, confinement="required")

    assert answer(site_kit).partition("this site")[0] == said

    # NVFlare reads the file without an ending, where a site has one.
    confining = {"components": [{"id": "process_launcher", "path": LAUNCHER, "args": {}}]}
    write_json(site_kit / "local/resources.json", confining)
    assert answer(site_kit) == ""
    write_json(site_kit / "local/resources.json.default", confining)
    write_json(site_kit / "local/resources.json", resources)
    assert answer(site_kit).partition("this site")[0] == said


def test_a_job_that_is_accepted_gets_a_key_for_the_log(site_kit: Path) -> None:
    (site_kit / "startup/client.key").write_text("a private key")
    key = LogKey.of_kit(site_kit)
    assert key is not None

    assert answer(site_kit) == ""

    run = site_kit / "job-1"
    assert LogKey.of_run(run, "job-1") == key.for_job("job-1")
    assert verify_audit(site_kit / AUDIT_FILE, key).status == "intact"
    assert "writer" in logged(site_kit)[0]


def test_a_job_that_is_refused_gets_none_and_neither_does_a_job_at_the_server(
    site_kit: Path, kit: Path
) -> None:
    (site_kit / "startup/client.key").write_text("a private key")
    write_policy(site_kit, signers=["lead@hub.org"])
    assert answer(site_kit) != ""
    assert LogKey.of_run(site_kit / "job-1", "job-1") is None

    (kit / "startup/client.key").rename(kit / "startup/server.key")
    (kit / "startup/fed_client.json").unlink()
    write_policy(kit)
    assert answer(kit) == ""
    assert LogKey.of_run(kit / "job-1", "job-1") is None


def test_a_budget_whose_ledger_was_written_without_the_key_is_spent(site_kit: Path) -> None:
    config = site_kit / "job-1/app_site-1/config/config_fed_client.json"
    document = json.loads(config.read_text())
    svt = {"path": "fl_client.flare.privacy.SVTPrivacy", "args": {"epsilon_release": 0.5}}
    document["task_result_filters"] = [{"tasks": ["train"], "filters": [svt]}]
    config.write_text(json.dumps(document))
    (site_kit / "startup/client.key").write_text("a private key")
    write_policy(site_kit, privacy={"epsilon_max": 5})
    facts = {"job": "job-0", "round": 1, "filter": "SVTPrivacy", "data": "a1"}
    key = LogKey.of_kit(site_kit)
    assert key is not None
    PrivacyLedger(site_kit, key.for_job("job-0")).spend(4.5, 5, **facts)
    before = answer(site_kit)

    (site_kit / LEDGER_FILE).unlink()
    PrivacyLedger(site_kit).spend(0.1, 5, **facts)

    assert "privacy ledger" not in before
    assert "privacy: this site's privacy ledger has a fault" in answer(site_kit)


@pytest.mark.parametrize("left", [1, 0, None])
def test_a_budget_is_not_given_back_where_spendings_are_cut_off(
    site_kit: Path, left: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """The lines that are left are authentic; the audit log knows how many there were."""
    (site_kit / "startup/client.key").write_text("a private key")
    write_policy(site_kit, privacy={"epsilon_max": 5})
    key = LogKey.of_kit(site_kit)
    assert key is not None
    book = PrivacyLedger(site_kit, key.for_job("job-0"))
    for number in (1, 2):
        facts = {"job": "job-0", "round": number, "filter": "SVTPrivacy", "data": "a1"}
        book.spend(2.0, 5, **facts)
        AuditLog(site_kit / AUDIT_FILE, book.key).append(
            "privacy-spent", job="job-0", ledger=book.head()
        )
    before = answer(site_kit)
    lines = book.path.read_text().splitlines(keepends=True)
    if left is None:
        book.path.unlink()
    else:
        book.path.write_text("".join(lines[:left]))

    assert "privacy ledger" not in before
    assert "privacy: this site's privacy ledger has a fault" in answer(site_kit)
    assert main(["audit", "verify", str(book.path)]) == 3
    reason = "cannot be read" if left is None else "line 2 is known from elsewhere and gone"
    assert reason in capfd.readouterr().out


def test_only_authentic_lines_say_what_was_spent(site_kit: Path) -> None:
    (site_kit / "startup/client.key").write_text("a private key")
    write_policy(site_kit, privacy={"epsilon_max": 5})
    AuditLog(site_kit / AUDIT_FILE).append("privacy-spent", job="job-0", ledger="3:" + "0" * 64)

    assert "privacy ledger" not in answer(site_kit)


def test_other_versions_are_refused_with_both_and_what_to_do(site_kit: Path) -> None:
    wanted = other_minor("monai")
    write_versions(site_kit, monai=wanted)

    assert answer(site_kit) == (
        f"refused: versions: this site has monai {version('monai')}, the federation {wanted}: "
        f"install monai {wanted} there"
    )
    assert logged(site_kit)[-1]["problems"] == ["versions "]


def test_a_server_judges_its_versions_and_has_no_data(kit: Path) -> None:
    (kit / "startup/fed_server.json").write_text("{}")
    assert answer(kit) == ""

    write_versions(kit, torch=other_minor("torch"))
    assert answer(kit).startswith("refused: versions: this server has torch ")


def test_another_patch_is_no_reason(site_kit: Path) -> None:
    major, minor, patch = version("monai").split(".")[:3]
    write_versions(site_kit, monai=f"{major}.{minor}.{int(patch) + 1}")

    assert answer(site_kit) == ""


def test_versions_that_cannot_be_read_are_a_fault_of_the_kit(site_kit: Path) -> None:
    (site_kit / VERSIONS_FILE).write_text("[]")

    assert answer(site_kit) == (
        "refused: versions: this site's kit has a fault; its administrator knows"
    )


@pytest.mark.parametrize(
    "values", [None, {}, {"DATA_ROOT": "", "DATASET_JSON": ""}, {"DATA_ROOT": "/data"}]
)
def test_values_that_nobody_filled_in(site_kit: Path, values: object) -> None:
    file = site_kit / "local/environment.json"
    if values is None:
        file.unlink()
    else:
        file.write_text(json.dumps(values))

    assert answer(site_kit) == (
        "refused: environment: this site's environment.json is not filled in; 'mmar site setup' "
        "there does that"
    )


def test_values_that_cannot_be_read(site_kit: Path) -> None:
    (site_kit / "local/environment.json").write_text("{")

    assert "environment: this site's environment.json has a fault" in answer(site_kit)


def lose_an_image(data: Path) -> None:
    next(data.glob("*validation-image*")).unlink()


def lose_the_list(data: Path) -> None:
    (data / "dataset.json").unlink()


def lose_everything(data: Path) -> None:
    data.rename(data.with_name("elsewhere"))


def lead_out(data: Path) -> None:
    outside = data.parent / "outside.nii.gz"
    outside.write_bytes(b"")
    document = json.loads((data / "dataset.json").read_text())
    document["training"][0]["image"] = "../outside.nii.gz"
    (data / "dataset.json").write_text(json.dumps(document))


def call_it_otherwise(data: Path) -> None:
    document = json.loads((data / "dataset.json").read_text())
    document["val"] = document.pop("validation")
    (data / "dataset.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "spoil", [lose_an_image, lose_the_list, lose_everything, lead_out, call_it_otherwise]
)
def test_data_that_a_job_cannot_read_are_refused_without_a_name(
    site_kit: Path, tmp_path: Path, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(tmp_path / "data")

    assert answer(site_kit) == (
        "refused: data: this site's data list has a fault; 'mmar site setup' there says which"
    )

    shown = [one.getMessage() for one in caplog.records if one.levelno > logging.DEBUG]
    assert any("this site's data: " in one for one in shown)
    assert not any(SECRET in one for one in shown)
    assert SECRET not in (site_kit / AUDIT_FILE).read_text()


def test_data_are_not_looked_at_for_a_job_that_is_refused_anyway(
    site_kit: Path, tmp_path: Path
) -> None:
    lose_the_list(tmp_path / "data")
    (site_kit / "job-1/app_site-1/custom").mkdir()
    (site_kit / "job-1/app_site-1/custom/own.py").write_text("x = 1\n")

    assert "data:" not in answer(site_kit)


def test_a_disk_that_does_not_answer_is_not_waited_for(
    site_kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(site_data, "SECONDS_TO_ANSWER", 0.2)
    monkeypatch.setattr(site_data, "raw_items", lambda *_: released.wait(30))

    text = answer(site_kit)
    released.set()

    assert text.startswith("refused: data: ")


def test_too_many_files_to_look_for_are_left_to_the_job(
    site_kit: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    monkeypatch.setattr(site_data, "SECONDS_TO_LOOK", 0.2)

    def slow(_: object) -> list[Problem]:
        released.wait(30)
        return []

    monkeypatch.setattr(site_data, "data_check", slow)

    text = answer(site_kit)
    released.set()

    assert text == ""
    assert "too many files to look for" in caplog.text


def test_thousands_of_files_are_looked_for_in_time(
    site_kit: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    names = [f"{index}.nii.gz" for index in range(2000)]
    for name in names:
        (data / name).touch()
    cases = [{"image": name, "label": name} for name in names]
    document = {"training": cases, "validation": cases[:1]}
    (data / "dataset.json").write_text(json.dumps(document))

    assert answer(site_kit) == ""

    assert "too many files" not in caplog.text
