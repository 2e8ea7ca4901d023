"""What ``mmar site setup`` says of the files, certificates, versions and data of a kit."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fl_admin.kits.local_files import STOCK_LAUNCHER
from fl_admin.kits.setup.checks import check_kit
from fl_admin.kits.setup.finding import Finding, State
from fl_admin.kits.setup.kit import open_kit
from fl_admin.kits.setup.kit_files import check_files
from fl_client.jobs.classes import ALLOWED_CLASSES
from fl_client.jobs.wall import LAUNCHER
from fl_client.versions import PACKAGES, VERSIONS_FILE
from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.site_policy import SITE_POLICY_FILE
from tests.conftest import Edited
from tests.fl_admin.kits.setup.conftest import LEAD, SERVER, SITE, Federation

DAY = timedelta(days=1)


def findings(kit: Path) -> dict[str, Finding]:
    return {one.check: one for one in check_kit(open_kit(kit), network=False)}


def states(kit: Path) -> dict[str, str]:
    return {name: str(one.state) for name, one in findings(kit).items()}


def test_a_new_kit_lacks_nothing_but_the_sites_own_values(ours: Federation) -> None:
    found = states(ours.kit(SITE))

    assert found.pop("environment") == "fault"
    assert found.pop("server") == "skipped"
    assert set(found) == {
        *("files", "key", "certificate", "versions", "policy", "resources", "privacy"),
        *("confinement", "disk", "memory", "gpu"),
    }
    assert "fault" not in found.values()


def test_a_servers_kit_has_a_port_and_no_data_and_an_admins_has_neither(ours: Federation) -> None:
    assert {"port", "resources"} < set(states(ours.kit(SERVER)))
    assert not {"environment", "data", "privacy"} & set(states(ours.kit(SERVER)))
    assert set(states(ours.kit(LEAD))) == {
        *("files", "key", "certificate", "versions", "server", "disk"),
    }


# --- which folder


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (".", f"it holds the kits admin@example.org, {LEAD}, {SERVER}, {SITE}, site-2"),
        (f"{SITE}/startup", "but a part of one"),
        ("none", "Name the folder of a kit"),
        (f"{SITE}/startup/json_only", "is not a kit"),
    ],
)
def test_a_folder_that_is_no_kit_is_called_what_it_is(
    ours: Federation, place: str, told: str
) -> None:
    with pytest.raises(ConfigError, match="KIT: ") as caught:
        open_kit(ours.kits / place)

    assert told in str(caught.value)


def test_a_document_that_somebody_broke_is_named(site: Path, edited: Edited) -> None:
    edited(site / "startup/fed_client.json", lambda one: one.pop("servers"))

    with pytest.raises(ConfigError, match=r"fed_client\.json: is not as it was provisioned"):
        open_kit(site)


# --- files and certificates


def test_a_missing_file_is_named(site: Path) -> None:
    (site / "startup/rootCA.pem").unlink()

    found = findings(site)

    assert found["files"].message == "missing: startup/rootCA.pem"
    assert found["certificate"].state is State.FAULT


@pytest.mark.parametrize("folder", ["our kits", "the lab's", "kits #1"])
def test_a_path_that_nvflare_splits_is_a_fault_of_the_kits_that_run_jobs(
    ours: Federation, tmp_path: Path, folder: str
) -> None:
    for name, state in ((SITE, State.FAULT), (SERVER, State.FAULT), (LEAD, State.OK)):
        moved = shutil.copytree(ours.kits / name, tmp_path / folder / name)

        found = check_files(open_kit(moved))

        assert found.state is state
        assert ("cannot start a job below" in found.message) == (state is State.FAULT)


def test_a_key_that_others_can_read(site: Path) -> None:
    (site / "startup/client.key").chmod(0o640)

    key = findings(site)["key"]

    assert (key.state, key.advice.split(";")[0]) == (
        State.FAULT,
        f"chmod 600 {site / 'startup/client.key'}",
    )


def test_a_key_of_another_kit(site: Path, ours: Federation) -> None:
    shutil.copy(ours.kit("site-2") / "startup/client.key", site / "startup")

    assert findings(site)["certificate"].message == f"client.key is not the key of {SITE}"


def test_a_certificate_of_another_site(site: Path, ours: Federation) -> None:
    for name in ("client.key", "client.crt"):
        shutil.copy(ours.kit("site-2") / "startup" / name, site / "startup")

    assert findings(site)["certificate"].message == "is that of site-2 and not of site-1"


def test_a_certificate_of_another_federation(site: Path, others: Federation) -> None:
    for name in ("client.key", "client.crt"):
        shutil.copy(others.kit(SITE) / "startup" / name, site / "startup")

    told = findings(site)["certificate"]

    assert told.message == "that of site-1 was not issued by the authority in rootCA.pem"
    assert "two kits are mixed" in told.advice


@pytest.mark.parametrize(
    ("start", "end", "state", "told"),
    [
        (-2 * DAY, -DAY, State.FAULT, "expired on "),
        (DAY, 2 * DAY, State.FAULT, "is valid only from "),
        (-DAY, 20 * DAY, State.WARNING, ", in 19 days"),
        (-DAY, 40 * DAY, State.OK, f"{SITE}, valid until "),
    ],
)
def test_the_days_of_a_certificate(
    site: Path, ours: Federation, start: timedelta, end: timedelta, state: State, told: str
) -> None:
    ours.sign(site, start=start, end=end)

    found = findings(site)["certificate"]

    assert found.state is state
    assert told in found.message
    assert ("--renew site-1" in found.advice) == (told in ("expired on ", ", in 19 days"))


def test_a_certificate_that_is_none(site: Path) -> None:
    (site / "startup/client.crt").write_text("nothing")

    assert findings(site)["certificate"].message.startswith("cannot be read: ")


# --- settings


def test_settings_that_were_weakened_are_all_named(site: Path, edited: Edited) -> None:
    def weaken(document: Any) -> None:
        del document["app_validator"]
        document["class_list_enforcement_mode"] = "warn"
        document["allow_log_streaming"] = True
        document["components"].append({"id": "site_log_streamer", "path": "x", "args": {}})

    edited(site / "local/resources.json", weaken)

    told = findings(site)["resources"]

    assert told.state is State.FAULT
    for word in ("app_validator", "enforcement_mode", "allow_log_streaming", "sends logs"):
        assert word in told.message


def test_a_class_too_many_is_a_fault_and_one_too_few_an_older_kit(
    site: Path, edited: Edited
) -> None:
    resources = site / "local/resources.json"
    edited(resources, lambda one: one["class_allow_list"].append("subprocess.Popen"))
    assert "allows classes that are not mmar-fl's: Popen" in findings(site)["resources"].message

    edited(resources, lambda one: one.update(class_allow_list=list(ALLOWED_CLASSES[1:])))
    told = findings(site)["resources"]
    assert told.state is State.WARNING
    missing = ALLOWED_CLASSES[0].rpartition(".")[2]
    assert f"made by an older mmar-fl; not allowed: {missing}" in told.message
    assert "mmar provision" in told.advice


def test_the_confinement_needs_the_launcher_that_confines(site: Path, edited: Edited) -> None:
    def put_back(document: Any) -> None:
        [one] = [one for one in document["components"] if one["path"] == LAUNCHER]
        one["path"] = STOCK_LAUNCHER

    policy = site / "local" / SITE_POLICY_FILE
    policy.write_text('{"policy_version": 1, "confinement": "required"}')
    policy.chmod(0o600)
    assert findings(site)["resources"].state is State.OK

    edited(site / "local/resources.json", put_back)
    told = findings(site)["resources"]
    assert told.state is State.FAULT
    assert "starts jobs without the confinement: ClientProcessJobLauncher" in told.message

    policy.unlink()
    assert findings(site)["resources"].state is State.WARNING


def test_a_lost_gate(site: Path, edited: Edited) -> None:
    edited(site / "local/privacy.json", lambda one: one.update(components=[]))

    assert "has lost the last gate" in findings(site)["privacy"].message


def test_a_policy_with_a_fault_is_told_with_its_place(site: Path, edited: Edited) -> None:
    edited(site / "local/mmar_site_policy.json", lambda one: one["limits"].update(rounds=10**9))

    assert "mmar_site_policy.json: limits.rounds" in findings(site)["policy"].message


@pytest.mark.parametrize(
    "name", [".", "local", "startup", "local/resources.json", "startup/sub_start.sh"]
)
def test_what_others_can_change_is_a_fault(site: Path, name: str) -> None:
    (site / name).chmod(0o777)

    found = findings(site)["files"]

    assert found.message == f"{site / name} can be written by everybody on this machine"
    assert found.advice == f"run 'chmod -R go-w {site}'"


def test_a_policy_that_others_can_replace_is_a_fault_that_says_what_to_do(site: Path) -> None:
    (site / "local").chmod(0o777)

    found = findings(site)["policy"]

    assert "who can replace mmar_site_policy.json" in found.message
    assert found.advice == "Run 'chmod 700 local'."


def test_a_document_that_is_no_json(site: Path) -> None:
    (site / "local/resources.json").write_text("{")
    (site / "local/privacy.json").write_text("[]")

    found = findings(site)

    assert "resources.json: not valid JSON" in found["resources"].message
    assert found["privacy"].message == "privacy.json has to be a JSON object"


# --- versions


def test_a_kit_holds_the_versions_it_was_made_with(ours: Federation) -> None:
    for name in (SERVER, SITE, LEAD):
        document = json.loads((ours.kit(name) / VERSIONS_FILE).read_text())
        assert document == {one: version(one).partition("+")[0] for one in PACKAGES}


def other(text: str, place: int) -> str:
    """A version with another number at a place."""
    numbers = text.split(".")
    numbers[place] = str(int(numbers[place]) + 1)
    return ".".join(numbers)


@pytest.mark.parametrize(
    ("place", "state"), [(0, State.FAULT), (1, State.FAULT), (2, State.WARNING)]
)
def test_another_minor_is_a_fault_and_another_patch_a_warning(
    site: Path, edited: Edited, place: int, state: State
) -> None:
    here = version("monai")
    wanted = other(here, place)
    edited(site / VERSIONS_FILE, lambda one: one.update(monai=wanted))

    told = findings(site)["versions"]

    assert told.state is state
    assert told.message.startswith(f"installed: monai {here}, the federation {wanted}")
    assert f"pip install 'monai=={wanted}'" in told.advice


def test_a_package_that_is_not_installed(site: Path, edited: Edited) -> None:
    edited(site / VERSIONS_FILE, lambda one: one.update({"no-such-package": "1.0"}))

    told = findings(site)["versions"]

    assert (told.state, told.message) == (
        State.FAULT,
        "installed: no no-such-package, the federation 1.0",
    )


def test_a_kit_of_an_older_mmar_fl_says_no_versions(site: Path) -> None:
    (site / VERSIONS_FILE).unlink()

    told = findings(site)["versions"]

    assert told.state is State.WARNING
    assert "an older mmar-fl made it" in told.message


# --- data


@pytest.fixture
def with_data(site: Path, data: Path) -> Path:
    values = {"DATA_ROOT": str(data), "DATASET_JSON": str(data / "dataset.json"), "NUM_THREADS": 1}
    (site / "local/environment.json").write_text(json.dumps(values))
    return site


def test_cases_are_counted_and_their_files_are_there(with_data: Path) -> None:
    found = findings(with_data)

    assert found["environment"].message == "DATA_ROOT and DATASET_JSON set; NUM_THREADS 1"
    assert found["data"].state is State.OK
    # Each of the first five has an image and a label, the last an image alone.
    counted = "cases: training 3, validation 2, test 1; all 11 files there"
    assert found["data"].message == counted


def test_a_few_missing_files_are_named_and_the_rest_counted(with_data: Path, data: Path) -> None:
    document = json.loads((data / "dataset.json").read_text())
    images = [item["image"] for key in ("training", "validation") for item in document[key]]
    for name in images:
        (data / name).unlink()

    told = findings(with_data)["data"]

    assert told.state is State.FAULT
    assert told.message == (
        f"5 of 11 files are missing: {images[0]!r}, {images[1]!r}, {images[2]!r} and 2 more"
    )


def test_a_list_that_is_gone_and_a_folder_that_is_gone(with_data: Path, data: Path) -> None:
    (data / "dataset.json").rename(data / "other.json")
    assert "there is no file" in findings(with_data)["data"].message

    data.rename(data.with_name("moved"))
    assert "DATA_ROOT leads to no folder" in findings(with_data)["data"].message


def test_data_out_of_the_policys_roots(with_data: Path, edited: Edited, tmp_path: Path) -> None:
    policy = with_data / "local/mmar_site_policy.json"
    edited(policy, lambda one: one.update(data_roots=[str(tmp_path / "elsewhere")]))

    assert "outside of the policy's data_roots" in findings(with_data)["data"].message


def test_a_case_that_leads_out_of_the_data(
    with_data: Path, data: Path, edited: Edited, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.nii.gz"
    outside.write_bytes(b"")
    edited(data / "dataset.json", lambda one: one["training"][0].update(image=str(outside)))

    assert "1 of " in (told := findings(with_data)["data"].message)
    assert "may not be read by a job" in told


def test_an_image_of_a_format_that_no_job_may_have_read(
    with_data: Path, data: Path, edited: Edited
) -> None:
    (data / "pair.hdr").write_bytes(b"")
    edited(data / "dataset.json", lambda one: one["training"][0].update(image="pair.hdr"))

    assert "may not be read by a job: 'pair.hdr'" in findings(with_data)["data"].message


def test_a_list_without_validation_is_a_warning(
    with_data: Path, data: Path, edited: Edited
) -> None:
    edited(data / "dataset.json", lambda one: one.pop("validation"))

    told = findings(with_data)["data"]

    assert (told.state, "no validation" in told.message) == (State.WARNING, True)


def test_labels_that_are_values_are_no_files(with_data: Path, data: Path, edited: Edited) -> None:
    def classes(document: Any) -> None:
        for key in ("training", "validation"):
            for item in document[key]:
                item["label"] = "benign"

    edited(data / "dataset.json", classes)
    assert "'benign'" in findings(with_data)["data"].message

    environment = with_data / "local/environment.json"
    edited(environment, lambda one: one.update(PROCESSING_TASK="classification"))
    assert findings(with_data)["data"].state is State.OK


def test_without_a_number_of_threads_somebody_should_know(with_data: Path, edited: Edited) -> None:
    edited(with_data / "local/environment.json", lambda one: one.pop("NUM_THREADS"))

    assert findings(with_data)["environment"].state is State.WARNING
