"""Kits as ``mmar provision`` makes them; a federation runs from them in tests/federation."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from nvflare.apis.fl_component import FLComponent
from nvflare.fuel.sec.authz import AuthzContext, Person
from nvflare.security.security import FLAuthorizer

from fl_admin.cli.main import main
from fl_admin.kits import dated_certificates
from fl_admin.kits.dated_certificates import AUTHORITY_DAYS
from fl_admin.kits.local_files import (
    AUTHORIZATION,
    JSON_ONLY,
    OF_THE_SERVER,
    MmarLocalFiles,
    site_resources,
    start_script,
)
from fl_admin.kits.provision import Kits, provision, read_project
from fl_admin.kits.setup.certificates import is_issued_by, load_certificate
from fl_client.flare import privacy
from fl_client.flare.app_validator import MmarAppValidator
from fl_client.flare.result_gate import ResultGate
from fl_client.jobs.classes import ALLOWED_CLASSES
from fl_client.privacy.filter_plan import FilterPlan
from mmar_runtime.errors import ConfigError, FederationError
from mmar_runtime.flare import HANDOVER
from mmar_runtime.policy.site_policy import (
    DEFAULT_POLICY,
    SITE_POLICY_FILE,
    Privacy,
    SitePolicy,
    read_site_policy,
)

TEMPLATE = Path(__file__).resolve().parents[3] / "provisioning" / "project.yml"
SERVER, SITES = "fl.example.org", ("site-1", "site-2")
ADMINS = ("admin@example.org", "lead@example.org")

Change = Callable[[Any], object]


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    return provision(TEMPLATE, tmp_path_factory.mktemp("kits"))


@pytest.fixture
def project(tmp_path: Path) -> Callable[[Change], Path]:
    """``project(change)``: a copy of the template that ``change`` has altered in place."""

    def write(change: Change) -> Path:
        document = yaml.safe_load(TEMPLATE.read_text())
        change(document)
        path = tmp_path / "project.yml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def document(kits: Kits, name: str, file: str) -> Any:
    return json.loads((kits.folder / name / file).read_text())


# --- what is in a kit


def test_everyone_in_the_project_gets_a_kit_the_server_first(kits: Kits) -> None:
    assert kits.participants == (SERVER, *SITES, *ADMINS)
    assert sorted(path.name for path in kits.folder.iterdir()) == sorted(kits.participants)


def test_a_key_can_be_read_by_nobody_else(kits: Kits) -> None:
    everything = [kits.folder.parent, *kits.folder.parent.rglob("*")]

    keys = [path for path in everything if path.suffix == ".key"]
    assert len(keys) == len(kits.participants)
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    # Nor the authority's, nor anything else: no folder lets anybody else in.
    assert stat.S_IMODE((kits.folder.parent / "state" / "cert.json").stat().st_mode) == 0o600
    folders = [path for path in everything if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


@pytest.mark.parametrize("name", [SERVER, *SITES])
def test_a_job_may_name_our_classes_and_no_other(kits: Kits, name: str) -> None:
    resources = document(kits, name, "local/resources.json")

    assert resources["class_allow_list"] == list(ALLOWED_CLASSES)
    assert resources["class_list_enforcement_mode"] == "enforce"
    validator = f"{MmarAppValidator.__module__}.{MmarAppValidator.__qualname__}"
    assert resources["app_validator"] == {"path": validator, "args": {}}


@pytest.mark.parametrize("name", SITES)
def test_the_example_of_privacy_filters_is_one_that_works(
    kits: Kits, name: str, tmp_path: Path
) -> None:
    """Put in the place of privacy.json, with the policy that demands them; the gate stays."""
    example = document(kits, name, "local/privacy.json.example")
    (tmp_path / "privacy.json").write_text(json.dumps(example))
    demanding = SitePolicy(
        required_filters=("ExcludeVars", "PercentilePrivacy", "SVTPrivacy"),
        privacy=Privacy(epsilon_max=10.0),
    )

    plan = FilterPlan.read(tmp_path, tmp_path)
    assert list(plan.faults(demanding)) == []
    assert len(plan.filters) == 3
    assert example["components"] == document(kits, name, "local/privacy.json")["components"]
    for one in example["scopes"][0]["task_result_filters"]:
        getattr(privacy, one["path"].rpartition(".")[2])(**one["args"])


def test_the_servers_own_process_ends_lost_jobs_and_takes_sites_back(kits: Kits) -> None:
    components = document(kits, SERVER, "local/resources.json")["components"]

    ours = {one["id"]: one["path"] for one in components if one["path"].startswith("fl_")}
    assert ours == OF_THE_SERVER
    for path in ours.values():
        module, _, name = path.rpartition(".")
        assert issubclass(getattr(import_module(module), name), FLComponent)


@pytest.mark.parametrize("name", SITES)
def test_no_log_leaves_a_site(kits: Kits, name: str) -> None:
    resources = document(kits, name, "local/resources.json")

    assert resources["allow_log_streaming"] is False
    assert "Log" not in json.dumps(resources["components"])
    assert resources["client"]["site_config"] == {"allow_log_streaming": False}
    assert resources["client"]["communication_timeout"] == 60.0  # NVFlare's own is 5 minutes


@pytest.mark.parametrize("name", SITES)
def test_a_site_has_the_last_gate_and_one_scope_for_all_jobs(kits: Kits, name: str) -> None:
    privacy = document(kits, name, "local/privacy.json")

    gate = f"{ResultGate.__module__}.{ResultGate.__qualname__}"
    assert [one["path"] for one in privacy["components"]] == [gate]
    assert [one["name"] for one in privacy["scopes"]] == [privacy["default_scope"]]


@pytest.mark.parametrize("name", SITES)
def test_a_site_gets_the_default_policy_written_out(kits: Kits, name: str) -> None:
    path = kits.folder / name / "local" / SITE_POLICY_FILE

    assert read_site_policy(path) == DEFAULT_POLICY
    assert json.loads(path.read_text())["limits"]["workers"] == DEFAULT_POLICY.limits.workers


@pytest.mark.parametrize("name", [SERVER, *SITES])
def test_without_its_settings_a_kit_is_no_weaker(kits: Kits, name: str) -> None:
    """NVFlare falls back to the files with ``.default`` behind their names."""
    local = kits.folder / name / "local"

    for file in ("resources.json", "authorization.json"):
        assert (local / file).read_bytes() == (local / f"{file}.default").read_bytes()


def test_the_server_keeps_its_jobs_in_its_kit(kits: Kits) -> None:
    text = (kits.folder / SERVER / "local" / "resources.json").read_text()

    assert "/tmp" not in text
    assert '"{$MMAR_KIT}/jobs-storage"' in text


@pytest.mark.parametrize("name", [SERVER, *SITES])
def test_only_signed_jobs_are_taken_and_only_over_mutual_tls(kits: Kits, name: str) -> None:
    kind = "server" if name == SERVER else "client"
    config = document(kits, name, f"startup/fed_{kind}.json")

    assert config["require_signed_jobs"] is True
    assert config["servers"][0]["service"]["scheme"] == "grpc"
    place = config["servers"][0] if name == SERVER else config["client"]
    assert place["connection_security"] == "mtls"


@pytest.mark.parametrize("name", [SERVER, *SITES])
def test_the_start_script_sets_what_the_settings_need(kits: Kits, name: str) -> None:
    """Run as it stands, with a stand-in for python that shows what it was started with."""
    startup = kits.folder / name / "startup"
    stand_in = kits.folder.parent / "bin"
    stand_in.mkdir(exist_ok=True)
    (stand_in / "python3").write_text("#!/bin/sh\numask\nenv\n")
    (stand_in / "python3").chmod(0o700)

    done = subprocess.run(
        ["bash", "./sub_start.sh", "--once"],
        cwd=startup,
        env={"PATH": f"{stand_in}{os.pathsep}{os.environ['PATH']}", HANDOVER: "/somewhere"},
        capture_output=True,
        text=True,
    )

    lines = done.stdout.splitlines()
    assert "0077" in lines
    assert not [line for line in lines if line.startswith(HANDOVER)]
    assert "NVFLARE_SECURE_LOGGING=1" in lines
    assert "NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT=20" in lines  # NVFlare's own is 15 minutes
    assert f"MMAR_KIT={kits.folder / name}" in lines
    (path,) = [line for line in lines if line.startswith("PYTHONPATH=")]
    assert str(startup / JSON_ONLY) in path.split("=")[1].split(":")


@pytest.mark.parametrize(
    ("extension", "text"),
    [(".conf", 'a {{ include file("{secret}") }}'), (".yml", "a: ${{oc.env:HOME}}")],
)
def test_nvflare_reads_nothing_from_a_config_that_is_no_json(
    kits: Kits, tmp_path: Path, extension: str, text: str
) -> None:
    """As the server does when a job is submitted, and a site when one arrives."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "CANARY"}')
    config = tmp_path / f"meta{extension}"
    config.write_text(text.format(secret=secret))
    code = (
        "import sys; from nvflare.fuel.utils.config_factory import ConfigFactory as F;"
        "found = F.load_config(sys.argv[1]);"
        "again = F.get_config_loader(found.get_format()).load_config_from_str("
        "open(sys.argv[1]).read());"
        "print([found.to_dict(), again.to_dict()])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, config],
        env={**os.environ, "PYTHONPATH": str(kits.folder / SERVER / "startup" / JSON_ONLY)},
        capture_output=True,
        text=True,
    )

    assert done.stdout == "[{}, {}]\n", done.stderr


# --- who may do what


def may(role: str, right: str, *, own_job: bool = True, own_site: bool = False) -> bool:
    user = Person("me@example.org", "example", role)
    submitter = user if own_job else Person("other@example.org", "other", "lead")
    authorizer = FLAuthorizer("example" if own_site else "hospital", AUTHORIZATION)
    allowed, _ = authorizer.authorize(AuthzContext(right, user, submitter))
    return bool(allowed)


@pytest.mark.parametrize("role", ["project_admin", "org_admin", "lead", "member"])
@pytest.mark.parametrize(
    "right",
    ["byoc", "cat", "ls", "grep", "configure_job_log", "configure_site_log", "show_errors"],
)
def test_nobody_brings_code_or_reaches_into_a_site(role: str, right: str) -> None:
    assert not may(role, right, own_site=True)


def test_a_lead_submits_jobs_and_handles_the_own_ones() -> None:
    assert may("lead", "submit_job")
    for right in ("abort_job", "delete_job", "download_job", "clone_job"):
        assert may("lead", right)
        assert not may("lead", right, own_job=False)
    assert may("lead", "app_command")
    assert not may("lead", "shutdown")
    assert may("lead", "shutdown", own_site=True)


def test_a_member_looks_and_does_nothing() -> None:
    assert may("member", "list_jobs")
    for right in ("submit_job", "abort_job", "download_job", "shutdown", "app_command"):
        assert not may("member", right, own_site=True)


# --- again


def test_a_site_that_joins_later_gets_a_kit_from_the_same_authority(
    tmp_path: Path, project: Callable[[Change], Path]
) -> None:
    first = provision(TEMPLATE, tmp_path / "out")
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    joins = {"name": "site-3", "type": "client", "org": "hospital_c"}

    second = provision(project(lambda one: one["participants"].append(joins)), tmp_path / "out")

    assert second.folder != first.folder
    assert {path: path.read_bytes() for path in before} == before
    for name, kind in ((SERVER, "server"), ("site-1", "client"), ("lead@example.org", "client")):
        for file in (f"{kind}.crt", f"{kind}.key", "rootCA.pem"):
            old, new = (one.folder / name / "startup" / file for one in (first, second))
            assert old.read_bytes() == new.read_bytes()
    authorities = {
        (one.folder / SITES[0] / "startup/rootCA.pem").read_bytes() for one in (first, second)
    }
    assert authorities == {(second.folder / "site-3/startup/rootCA.pem").read_bytes()}


def test_another_role_under_the_same_name_is_refused_and_nothing_is_lost(
    tmp_path: Path, project: Callable[[Change], Path]
) -> None:
    first = provision(TEMPLATE, tmp_path / "out")
    kept = sorted(first.folder.parent.rglob("*"))

    def demote(one: Any) -> None:
        one["participants"][-1]["role"] = "member"

    with pytest.raises(FederationError, match=r"lead@example\.org's previous role is lead"):
        provision(project(demote), tmp_path / "out")

    assert sorted(first.folder.parent.rglob("*")) == kept


def test_an_interrupted_run_leaves_the_authority_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(TEMPLATE, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MmarLocalFiles, "build", interrupt)
    with pytest.raises(KeyboardInterrupt):
        provision(TEMPLATE, tmp_path)

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_two_runs_at_once_share_one_authority(tmp_path: Path) -> None:
    words = ["provision", TEMPLATE, "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "fl_admin.cli.main", *map(str, words)]
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]

    kits = sorted((tmp_path / "out" / "mmar_federation").glob("prod_*"))
    assert [path.name for path in kits] == ["prod_00", "prod_01", "prod_02"]
    assert len({(path / SITES[0] / "startup/client.key").read_bytes() for path in kits}) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mmar_federation"]


def test_other_folders_beside_the_kits_are_left_alone(tmp_path: Path) -> None:
    for name in ("prod_99", "prod_old", "notes"):
        (tmp_path / "mmar_federation" / name).mkdir(parents=True)

    assert provision(TEMPLATE, tmp_path).folder.name == "prod_100"


# --- how long a kit is good


def days_of(kits: Kits, name: str) -> int:
    certificate = load_certificate(kits.kit(name).certificate)
    return (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days


def test_a_kit_is_good_for_as_long_as_the_project_says_and_its_authority_longer(
    tmp_path: Path, project: Callable[[Change], Path]
) -> None:
    kits = provision(project(lambda one: one.update(valid_days=90)), tmp_path / "out")

    assert {days_of(kits, name) for name in kits.participants} == {90}
    assert (kits.authority_until - kits.valid_until(SERVER)).days >= AUTHORITY_DAYS - 91


def test_without_a_word_of_the_project_a_kit_is_good_for_360_days(
    tmp_path: Path, project: Callable[[Change], Path]
) -> None:
    kits = provision(project(lambda one: one.pop("valid_days")), tmp_path / "out")

    assert days_of(kits, SITES[0]) == 360


def test_renewing_makes_new_keys_for_the_named_and_for_nobody_else(tmp_path: Path) -> None:
    first = provision(TEMPLATE, tmp_path)
    second = provision(TEMPLATE, tmp_path, renew=["site-1"])
    third = provision(TEMPLATE, tmp_path, renew=["all"])

    def keys(kits: Kits) -> dict[str, bytes]:
        return {name: kits.kit(name).key.read_bytes() for name in kits.participants}

    changed = {name for name in keys(first) if keys(first)[name] != keys(second)[name]}
    assert changed == {"site-1"}
    assert not set(keys(second).values()) & set(keys(third).values())
    authority = first.kit(SERVER).authority.read_bytes()
    for kits in (second, third):
        for name in kits.participants:
            assert kits.kit(name).authority.read_bytes() == authority
            own = load_certificate(kits.kit(name).certificate)
            assert is_issued_by(own, load_certificate(kits.kit(name).authority))


def test_who_is_not_in_the_project_cannot_be_renewed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--renew: 'site-11' is not in the project"):
        provision(TEMPLATE, tmp_path / "out", renew=["site-11"])
    assert not (tmp_path / "out").exists()


def test_an_authority_of_fewer_days_goes_on_and_ends_what_it_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those that NVFlare makes by itself, which last 360 days."""
    with monkeypatch.context() as patch:
        patch.setattr(dated_certificates, "AUTHORITY_DAYS", 100)
        first = provision(TEMPLATE, tmp_path)
    second = provision(TEMPLATE, tmp_path, renew=["all"])

    assert second.authority_until == first.authority_until
    ends = {load_certificate(second.kit(name).certificate).not_valid_after_utc for name in SITES}
    assert ends == {first.authority_until}


def test_an_authority_that_has_ended_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(TEMPLATE, tmp_path)

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(time.time() + 86400 * (AUTHORITY_DAYS + 1), tz)

    monkeypatch.setattr(dated_certificates, "datetime", Later)
    with pytest.raises(FederationError, match=r"expired on .*; provision into another folder"):
        provision(TEMPLATE, tmp_path, renew=["site-1"])


# --- a project with faults


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_project(path)
    return [f"{one.location}: {one.message}" for one in caught.value.problems]


def set_at(*place: Any, value: object) -> Change:
    def change(one: Any) -> None:
        for key in place[:-1]:
            one = one[key]
        one[place[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (set_at("participant", value=[]), "project.yml: participant: unknown key 'participant'"),
        (set_at("builders", value=[]), "project.yml: builders: unknown key 'builders'"),
        (set_at("api_version", value=1), "api_version: has to be 3 or 4, found 1"),
        (set_at("name", value="../up"), "name: has to be a name of letters"),
        (set_at("name", value="two\n"), "name: has to be a name of letters"),
        (set_at("participants", value=None), "participants: has to be a list: one server"),
        (set_at("participants", 0, "type", value="client"), "has to hold one server, found 0"),
        (set_at("participants", 1, "type", value="server"), "has to hold one server, found 2"),
        (set_at("participants", 1, "type", value="site"), "[1].type: 'site' is not a type"),
        (set_at("participants", 1, "name", value="site-2"), "'site-2' stands there twice"),
        (set_at("participants", 1, "name", value="SITE-2"), "'site-2' stands there twice"),
        (set_at("participants", 1, "name", value="server"), "'server' is not a name for a site"),
        (set_at("participants", 1, "name", value="SRV_a"), "'SRV_a' is not a name for a site"),
        (set_at("participants", 1, "name", value="a/b"), "'a/b' is not a name for a site"),
        (set_at("participants", 1, "name", value=7), "7 is not a name for a site"),
        (set_at("participants", 0, "name", value="a..b"), "'a..b' is not a host name"),
        (set_at("participants", 4, "name", value="x@a_b.org"), "is not an e-mail address"),
        # NVFlare allows everything to whoever has a role of this name.
        (set_at("participants", 4, "role", value="super"), "[4].role: 'super' is not a role"),
        (set_at("participants", 1, "org", value="a b"), "[1].org: has to be a name of letters"),
        (set_at("participants", 1, "rights", value="all"), "[1].rights: unknown key 'rights'"),
        (set_at("participants", 0, "fed_learn_port", value=0), "has to be a port from 1 to 65535"),
        (set_at("valid_days", value=0), "valid_days: has to be a whole number of days from 1"),
        (set_at("valid_days", value=True), "valid_days: has to be a whole number of days"),
        (set_at("valid_days", value=3651), "from 1 to 3650, found 3651"),
        (set_at("participants", 0, "admin_port", value="80"), "has to be a port from 1 to 65535"),
    ],
)
def test_a_fault_is_told_with_its_place(
    project: Callable[[Change], Path], change: Change, told: str
) -> None:
    assert any(told in one for one in problems(project(change)))


def test_all_faults_are_told_at_once(project: Callable[[Change], Path]) -> None:
    def spoil(one: Any) -> None:
        one["name"] = ""
        del one["participants"][0]["fed_learn_port"]
        one["participants"][1]["org"] = ""

    assert len(problems(project(spoil))) == 3


def test_a_project_needs_a_site_and_somebody_who_may_submit(
    project: Callable[[Change], Path],
) -> None:
    told = problems(project(lambda one: one.update(participants=one["participants"][:1])))

    assert any("has to hold a site" in one for one in told)
    assert any("nobody may submit a job" in one for one in told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "project.yml: is not YAML: "),
        ("- 1", "project.yml: has to be a mapping"),
        ("", "project.yml: has to be a mapping"),
        ("!!python/object/apply:os.getcwd []", "project.yml: is not YAML: "),
    ],
)
def test_what_is_no_project_at_all(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "project.yml").write_text(text)

    (one,) = problems(tmp_path / "project.yml")
    assert one.startswith(told)


def test_what_only_nvflare_objects_to_is_told_in_the_same_way(
    tmp_path: Path, project: Callable[[Change], Path]
) -> None:
    path = project(set_at("participants", 0, "default_host", value="a b"))

    with pytest.raises(ConfigError, match="default_host"):
        provision(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_template_that_nvflare_has_changed_is_noticed() -> None:
    with pytest.raises(ValueError, match="is not as it was"):
        start_script("#!/bin/sh\n")
    assert site_resources({"components": []})["class_allow_list"] == list(ALLOWED_CLASSES)


# --- the command


def test_the_command_says_where_the_kits_are(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["provision", str(TEMPLATE), "--out", str(tmp_path), "--json"]) == 0

    printed = json.loads(capfd.readouterr().out)
    assert printed["participants"] == [SERVER, *SITES, *ADMINS]
    assert all((Path(printed["folder"]) / name).is_dir() for name in printed["participants"])
    ends = {datetime.fromisoformat(one) for one in printed["valid_until"].values()}
    assert all(end < datetime.fromisoformat(printed["authority_valid_until"]) for end in ends)


def test_the_command_tells_how_long_kits_are_good_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["provision", str(TEMPLATE), "--out", str(tmp_path), "--renew", "all"]) == 0

    printed = capsys.readouterr().out
    until = (datetime.now(UTC) + timedelta(days=360)).date()
    assert f"  site-1             site    valid until {until}\n" in printed
    assert "have fl.example.org:8002 reachable" in printed
    assert f"{tmp_path / 'mmar_federation' / 'state'} stays here" in printed


def test_a_wrong_project_ends_with_2_and_no_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["provision", str(tmp_path / "none.yml"), "--out", str(tmp_path)]) == 2

    error = capfd.readouterr().err
    assert "none.yml: cannot be read" in error
    assert "Traceback" not in error
