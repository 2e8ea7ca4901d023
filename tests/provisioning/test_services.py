"""The units for systemd and the files for containers, as far as they are tried without either."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fl_admin.provision import Kits
from tests.provisioning.conftest import PROVISIONING, SERVER, SITE

DOCKER, SYSTEMD = PROVISIONING / "docker", PROVISIONING / "systemd"
START = DOCKER / "start-kit.sh"
UNITS = ("mmar-site", "mmar-server")


# --- systemd


def unit(name: str) -> dict[str, str]:
    lines = (SYSTEMD / f"{name}.service").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return dict(pairs)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_every_line_of_a_unit(name: str, tmp_path: Path) -> None:
    (tmp_path / "startup").mkdir()
    (tmp_path / "environment").touch()
    text = (SYSTEMD / f"{name}.service").read_text()
    text = re.sub(r"/srv/mmar/[^/\n]+", str(tmp_path), text)
    text = re.sub(r"/etc/mmar/\w+\.env$", str(tmp_path / "environment"), text, flags=re.MULTILINE)
    file = tmp_path / f"{name}.service"
    file.write_text(text)

    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_a_service_may_write_to_its_kit_alone(name: str) -> None:
    found = unit(name)

    assert found["NoNewPrivileges"] == found["PrivateTmp"] == "yes"
    assert found["ProtectSystem"] == "strict"
    assert found["CapabilityBoundingSet"] == ""
    assert found["User"] == "mmar"
    assert found["WorkingDirectory"] == f"{found['ReadWritePaths']}/startup"
    assert found["ExecStart"] == "/bin/bash ./sub_start.sh --once"
    assert found["Restart"] == "on-failure"
    assert found.get("ReadOnlyPaths") == ("/data" if name == "mmar-site" else None)


# --- containers


def test_the_image_runs_as_nobody_and_gets_nothing_but_the_wheel() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()

    assert "USER 10001" in lines
    assert 'ENTRYPOINT ["tini", "--", "start-kit"]' in lines
    copied = [line for line in lines if line.startswith(("COPY", "ADD"))]
    assert [line.split()[1:-1] for line in copied] == [
        ["constraints.txt", "dist/*.whl"],
        ["--chmod=0755", "provisioning/docker/start-kit.sh"],
    ]
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert set(ignored[1:]) == {
        *("!constraints.txt", "!dist/*.whl", "!provisioning/docker/start-kit.sh"),
    }


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint here")
def test_the_image_is_written_as_images_should_be() -> None:
    subprocess.run(["hadolint", str(DOCKER / "Dockerfile")], check=True)


def compose() -> Any:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.mark.parametrize("name", ["server", "site"])
def test_a_container_has_no_rights_and_a_file_system_that_it_cannot_write(name: str) -> None:
    service = compose()["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].startswith("${MMAR_USER:?")
    assert service["volumes"][0].endswith(":/kit")
    assert all(volume.endswith(":ro") for volume in service["volumes"][1:])


def test_the_port_is_that_of_this_machine_unless_somebody_says_otherwise() -> None:
    [port] = compose()["services"]["server"]["ports"]

    assert port.startswith("${MMAR_BIND:-127.0.0.1}:")
    assert "ports" not in compose()["services"]["site"]


def test_the_example_of_an_environment_sets_all_that_is_asked_for() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    lines = (DOCKER / "env.example").read_text().splitlines()
    given = {line.partition("=")[0] for line in lines if not line.startswith("#")}

    assert given == asked


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose here")
def test_compose_takes_the_file() -> None:
    subprocess.run(
        ["docker-compose", "--env-file", "env.example", "-f", "compose.yaml", "config", "--quiet"],
        cwd=DOCKER,
        check=True,
    )


# --- what starts a kit in a container


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``stand_in(kit, *words)``: the script with a python that tells what it was started with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python3").write_text('#!/bin/sh\necho "$$ $@"\nenv\n')
    (folder / "python3").chmod(0o700)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def run(kit: Path, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": path, "MMAR_KIT_FOLDER": str(kit)}
        return subprocess.run([START, *words], env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    ("name", "module"), [(SITE, "client.client_train"), (SERVER, "server.server_train")]
)
def test_a_mounted_kit_is_started_by_its_own_script(
    kits: Kits,
    name: str,
    module: str,
    stand_in: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = stand_in(kits.folder / name)

    assert done.returncode == 0
    assert f"-m nvflare.private.fed.app.{module} -m {kits.folder / name}" in done.stdout
    assert "NVFLARE_SECURE_LOGGING=1" in done.stdout.splitlines()


def test_with_words_they_are_run_instead(
    stand_in: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert stand_in(tmp_path, "echo", "a b").stdout == "a b\n"


@pytest.mark.parametrize("name", [".", "lead@example.org"])
def test_without_a_kit_to_start_it_says_so(
    kits: Kits,
    name: str,
    stand_in: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = stand_in(kits.folder / name)

    assert done.returncode == 2
    assert "is no kit of a site or a server; mount one there" in done.stderr
