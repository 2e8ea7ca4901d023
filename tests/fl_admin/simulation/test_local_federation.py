"""Kits and processes of a federation on one machine; real ones are in ``tests/federation``."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import psutil
import pytest
import yaml

from fl_admin.kits.provision import read_project
from fl_admin.simulation import local_federation
from fl_admin.simulation.local_federation import (
    LEAD,
    PORTS,
    SERVER,
    SITES,
    LocalFederation,
    project_document,
    unused_port,
)
from mmar_runtime.errors import ConfigError, FederationError

SLEEPS = 'exec python3 -c "import time; time.sleep(100)" "$(cd .. && pwd)/"\n'
"""In place of a kit's script: a process with the kit's folder in its command line."""

WITH_CHILD = 'python3 -c "import time; time.sleep(100)" "$(cd .. && pwd)/" &\ndisown\nexit 0\n'
"""A process that outlives the one that started it."""


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> LocalFederation:
    return LocalFederation.provisioned(tmp_path_factory.mktemp("kits"))


@pytest.fixture
def federation(tmp_path: Path) -> LocalFederation:
    """Folders where kits would be, with scripts that do nothing."""
    for name in (SERVER, *SITES):
        (tmp_path / "kits" / name / "startup").mkdir(parents=True)
        (tmp_path / "kits" / name / "local").mkdir()
        script(tmp_path / "kits" / name, SLEEPS)
    return LocalFederation(tmp_path / "kits")


def script(kit: Path, text: str) -> None:
    (kit / "startup" / "sub_start.sh").write_text(text)


def registered(federation: LocalFederation, *sites: str) -> None:
    text = "".join(f"New client {site}@127.0.0.1 joined\n" for site in sites)
    (federation.server / "log.txt").write_text(text)


def test_a_port_is_below_those_of_outgoing_connections() -> None:
    assert unused_port() in PORTS


def test_its_project_is_one_that_mmar_provision_takes(tmp_path: Path) -> None:
    file = tmp_path / "project.yml"
    file.write_text(yaml.safe_dump(project_document(("site-1", "other"), port=20_001)))

    names = [one["name"] for one in read_project(file)["participants"]]

    assert names == [SERVER, "site-1", "other", "admin@example.org", LEAD]


def test_a_name_that_is_none_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a name for a site"):
        LocalFederation.provisioned(tmp_path, sites=("no name",))

    assert not (tmp_path / "kits" / "local_federation").exists()


def test_a_site_is_given_values_that_only_its_user_reads(provisioned: LocalFederation) -> None:
    provisioned.give("site-1", {"DATA_ROOT": "/data"})

    file = provisioned.values("site-1")
    assert json.loads(file.read_text()) == {"DATA_ROOT": "/data"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (provisioned.lead / "startup" / "fl_admin.sh").is_file()


def await_processes(federation: LocalFederation, count: int) -> None:
    """Until so many have a kit's folder in their command lines: they get it after the start."""
    deadline = time.monotonic() + 20
    while len(federation.processes()) < count and time.monotonic() < deadline:
        time.sleep(0.1)


def test_leaving_it_ends_every_process(federation: LocalFederation) -> None:
    registered(federation, *SITES)
    with federation:
        federation.start()
        await_processes(federation, 3)
        started = federation.processes()
        assert len(started) == 3

    assert federation.processes() == []
    assert not any(one.is_running() for one in started)


def test_a_process_whose_parent_is_gone_is_ended_as_well(
    federation: LocalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_federation, "SECONDS_TO_END", 1.0)
    script(federation.site("site-1"), WITH_CHILD)
    federation.launch("site-1")
    await_processes(federation, 1)
    (orphan,) = federation.processes()

    federation.stop()

    assert federation.processes() == []
    assert not psutil.pid_exists(orphan.pid) or orphan.status() == psutil.STATUS_ZOMBIE


def test_one_that_ends_at_its_start_is_told_with_its_last_words(
    federation: LocalFederation,
) -> None:
    script(federation.site("site-2"), "echo the last words\nexit 3\n")

    with federation, pytest.raises(FederationError) as caught:
        federation.start()

    assert str(caught.value).splitlines() == [
        "site-2 has ended:",
        "    the last words",
        f"    ({federation.printed('site-2')})",
    ]


def test_a_site_that_does_not_come_is_not_awaited_forever(
    federation: LocalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_federation, "SECONDS_TO_START", 0.5)
    registered(federation, "site-1")

    with federation, pytest.raises(FederationError, match="site-2: not at the server after"):
        federation.start()


def test_one_participant_is_ended_alone(federation: LocalFederation) -> None:
    registered(federation, *SITES)
    with federation:
        federation.start()
        await_processes(federation, 3)
        federation.end("site-1")

        names = {Path(one.cwd()).parent.name for one in federation.processes()}

        assert names == {SERVER, "site-2"}
        assert os.getpid() not in {one.pid for one in federation.processes()}
