"""Hostile jobs at sites that guard themselves, sent by a server that judges nothing.

The server here has no validator and allows every lead to bring code, as NVFlare does by default; so
whatever is refused is refused by the sites. Each job is signed and sent over mutual TLS.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from fl_admin.at_server.console import JobState
from fl_admin.at_server.job_end import explained_end
from fl_admin.kits.provision import provision
from fl_admin.kits.setup.checks import check_kit, is_ready
from fl_admin.kits.setup.connection import check_connection
from fl_admin.kits.setup.finding import State
from fl_admin.kits.setup.kit import open_kit
from fl_admin.simulation.local_federation import project_document
from fl_client.versions import VERSIONS_FILE
from tests.federation.conftest import (
    LEAD,
    SITES,
    Federation,
    MakeFederation,
    assert_refused,
    edit,
    without_guard,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE = 120.0
SECRET = "CANARY-OF-THE-DATABASE"
CLIENT = "app/config/config_fed_client.json"


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation) -> Federation:
    return make_federation(without_guard, {"SITE_DB_PASSWORD": SECRET})


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Appears if anything of a job is executed."""
    return tmp_path / "marker"


@pytest.fixture
def hostile(job: Path, tmp_path: Path) -> Callable[[str], Path]:
    """``hostile(name)``: a copy of a good job, to be spoilt."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(job, tmp_path / name))

    return copy


def add_component(job: Path, component: Any) -> None:
    document = json.loads((job / CLIENT).read_text())
    edit(job / CLIENT, components=[*document["components"], component])


def touch(marker: Path) -> dict[str, Any]:
    """A class that runs a program, as NVFlare would build it."""
    return {"id": "x", "path": "subprocess.Popen", "args": {"args": ["touch", str(marker)]}}


def files_with(folder: Path, text: str) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes()
    ]


def test_hole_b_a_custom_folder_with_a_text_in_it_allows_no_class(
    federation: Federation, hostile: Callable[[str], Path], marker: Path
) -> None:
    """NVFlare leaves out its list of classes for every job that has such a folder."""
    job = hostile("b")
    (job / "app/custom").mkdir()
    (job / "app/custom/readme.txt").write_text("nothing")
    add_component(job, touch(marker))

    state = federation.run(job)

    assert_refused(federation, state, "code: custom/readme.txt", "allow-list: ", "subprocess.Popen")
    assert not marker.exists()


def test_hole_d_code_in_other_folders_does_not_travel_along(
    federation: Federation, hostile: Callable[[str], Path]
) -> None:
    job = hostile("d")
    (job / "app/mmar/custom").mkdir(parents=True)
    for place in ("app/mmar/custom/evil.py", "app/config/evil.py"):
        (job / place).write_text("x = 1\n")

    state = federation.run(job)

    assert_refused(federation, state, "code: config/evil.py", "code: mmar/custom/evil.py")


def test_hole_h_a_job_asks_for_nothing_of_a_sites_environment(
    federation: Federation, hostile: Callable[[str], Path], tmp_path: Path
) -> None:
    """NVFlare would put the value in, and send it back in the text of an error."""
    job = hostile("h")
    listener = {"id": "x", "path": "fl_client.flare.wake.WakeListener"}
    add_component(job, {**listener, "args": {"no_such_argument": "{$SITE_DB_PASSWORD}"}})

    state = federation.run(job)

    assert_refused(federation, state, "job-file: config_fed_client.json: components[1]")
    federation.download(state.job_id, tmp_path / "out")
    assert not files_with(federation.server, SECRET)
    assert not files_with(tmp_path / "out", SECRET)


def test_hole_j_a_configuration_includes_no_file_of_a_site(
    federation: Federation, hostile: Callable[[str], Path], tmp_path: Path
) -> None:
    """NVFlare reads HOCON too, and that can include files."""
    job = hostile("j")
    secret = tmp_path / "secret_site.json"
    secret.write_text(json.dumps({"canary": SECRET}))
    body = (job / CLIENT).read_text().strip()[1:-1]
    (job / CLIENT).unlink()
    (job / CLIENT).with_suffix(".conf").write_text(f'include file("{secret}")\n{body}')

    state = federation.run(job)

    assert_refused(federation, state, "config/config_fed_client.conf")
    federation.download(state.job_id, tmp_path / "out")
    assert not files_with(federation.server, SECRET)
    assert not files_with(tmp_path / "out", SECRET)


def test_hole_l_a_job_names_no_filter(
    federation: Federation, hostile: Callable[[str], Path]
) -> None:
    """It would run after those of the site, and could put back what they took out."""
    job = hostile("l")
    filters = [{"path": "nvflare.app_common.filters.exclude_vars.ExcludeVars", "args": {}}]
    edit(job / CLIENT, task_result_filters=[{"tasks": ["*"], "filters": filters}])

    state = federation.run(job)

    assert_refused(federation, state, "allow-list: config_fed_client.json: task_result_filters[0]")


def test_a_class_that_is_on_no_list(
    federation: Federation, hostile: Callable[[str], Path], marker: Path
) -> None:
    job = hostile("a")
    add_component(job, touch(marker))

    state = federation.run(job)

    assert_refused(federation, state, "allow-list: config_fed_client.json: components[1].path")
    assert not marker.exists()


def test_a_hostile_workflow_is_refused_as_well(
    federation: Federation, hostile: Callable[[str], Path], marker: Path
) -> None:
    """NVFlare never looks into the MMAR; the sites do, before anything of it is imported."""
    job = hostile("workflow")
    config = job / "app/config/config_train.json"
    document = json.loads(config.read_text())
    call = f"#__import__('os').system('touch {marker}')"
    document["train"]["optimizer"]["args"]["lr"] = call
    config.write_text(json.dumps(document))

    state = federation.run(job)

    assert_refused(federation, state, "config_train.json: train.optimizer.args.lr")
    assert not marker.exists()


# --- what a site lacks by itself


def one_line_of(state: JobState, site: str) -> str:
    """What the person at the console reads of a site that takes no part."""
    assert state.status == "FINISHED:FAILED_TO_RUN"
    [line] = [
        one for one in explained_end(state, None).splitlines() if one.strip().startswith(site)
    ]
    return line.strip()


def test_a_site_without_one_of_its_files_says_so_and_names_none(
    federation: Federation, job: Path, tmp_path: Path
) -> None:
    values = json.loads((federation.site("site-1") / "local/environment.json").read_text())
    document = json.loads(Path(values["DATASET_JSON"]).read_text())
    image = Path(values["DATA_ROOT"], document["validation"][0]["image"])
    image.rename(tmp_path / "taken")

    state = federation.run(job)

    (tmp_path / "taken").rename(image)
    assert one_line_of(state, "site-1") == (
        "site-1: refused: data: this site's data list has a fault; 'mmar site setup' there says "
        "which"
    )
    assert state.deployment["site-2"] == "OK"
    federation.download(state.job_id, tmp_path / "out")
    assert not files_with(tmp_path / "out", image.name)
    assert not files_with(federation.server, image.name)
    # What exactly it lacks stands in the site's own log, by its place in the list.
    assert (
        "this site's data: dataset.json: validation[0].image"
        in (federation.site("site-1") / "log.txt").read_text()
    )


def test_a_site_with_other_versions_says_which(federation: Federation, job: Path) -> None:
    file = federation.site("site-2") / VERSIONS_FILE
    before = file.read_text()
    edit(file, monai="99.1.0")

    state = federation.run(job)

    file.write_text(before)
    assert one_line_of(state, "site-2") == (
        f"site-2: refused: versions: this site has monai {version('monai')}, the federation "
        "99.1.0: install monai 99.1.0 there"
    )


def test_a_site_whose_values_nobody_filled_in_says_so(federation: Federation, job: Path) -> None:
    file = federation.site("site-1") / "local/environment.json"
    before = file.read_text()
    edit(file, DATA_ROOT="")

    state = federation.run(job)

    file.write_text(before)
    assert "refused: environment: this site's environment.json is not filled in" in one_line_of(
        state, "site-1"
    )


@pytest.mark.parametrize("name", ["site-1", LEAD])
def test_a_kit_of_a_federation_that_runs_is_ready(federation: Federation, name: str) -> None:
    found = list(check_kit(open_kit(federation.kits / name)))

    assert is_ready(found), found
    [server] = [one for one in found if one.check == "server"]
    assert server.message.endswith("takes this kit's connection")


def test_a_server_that_runs_without_a_judgement_on_jobs_is_not_ready(
    federation: Federation,
) -> None:
    found = {one.check: one for one in check_kit(open_kit(federation.server))}

    assert "this server listens at" in found["port"].message
    assert [name for name, one in found.items() if one.state is State.FAULT] == ["resources"]
    assert "app_validator" in found["resources"].message


def test_a_kit_of_another_federation_is_told_apart(federation: Federation, tmp_path: Path) -> None:
    file = tmp_path / "project.yml"
    port = open_kit(federation.server).port
    file.write_text(yaml.safe_dump(project_document(SITES, port=port)))
    foreign = provision(file, tmp_path / "kits").folder / "site-1"
    mixed = Path(shutil.copytree(federation.site("site-1"), tmp_path / "mixed"))
    for name in ("client.crt", "client.key"):
        shutil.copy(foreign / "startup" / name, mixed / "startup")

    told = check_connection(open_kit(foreign), 5.0).message
    assert "not this federation's authority" in told
    told = check_connection(open_kit(mixed), 5.0).message
    assert "does not take this kit's certificate" in told


def test_every_verdict_is_in_a_log_whose_chain_holds(federation: Federation) -> None:
    for site in SITES:
        assert federation.log_status(site) == "intact"
        assert len(federation.audit(site)) >= 7
        signers = {tuple(one["signers"]) for one in federation.audit(site)}
        assert signers == {("lead@example.org",)}


def test_one_good_job_after_all_of_them_runs(federation: Federation, job: Path) -> None:
    state = federation.run(job)

    assert state.completed, federation.told(state)


# --- a kit in a container: its script, stopped as an engine stops it


def test_a_container_ends_within_seconds_of_a_signal_and_its_site_comes_back(
    federation: Federation,
) -> None:
    federation.end("site-1")
    log = federation.server / "log.txt"

    for _ in range(2):
        registered = log.read_text().count("New client site-1@")
        site = federation.start_in_container("site-1")
        deadline = time.monotonic() + PATIENCE
        while log.read_text().count("New client site-1@") == registered:
            assert time.monotonic() < deadline, federation.last_lines("site-1")
            assert site.poll() is None, federation.last_lines("site-1")
            time.sleep(0.2)
        begun = psutil.Process(site.pid).children(recursive=True)

        site.terminate()

        assert site.wait(timeout=20) == -signal.SIGTERM  # an engine tells it as 143
        assert not psutil.wait_procs(begun, timeout=20)[1]
