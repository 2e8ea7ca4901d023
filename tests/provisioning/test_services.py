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

from fl_admin.kits.provision import Kits
from tests.provisioning.conftest import PROVISIONING, SERVER, SITE

DOCKER, SYSTEMD = PROVISIONING / "docker", PROVISIONING / "systemd"
START = DOCKER / "start-kit.sh"
UNITS = ("mmar-site", "mmar-server")


# --- systemd


def unit(name: str) -> dict[str, str]:
    """Key -> its values, one after another where it stands in several lines."""
    found: dict[str, str] = {}
    for line in (SYSTEMD / f"{name}@.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key] = f"{found[key]} {value}" if key in found else value
    return found


@pytest.fixture
def instance(tmp_path: Path, kits: Kits, request: pytest.FixtureRequest) -> Path:
    """A unit as it is installed for a kit that is there."""
    name, folder = {"mmar-site": SITE, "mmar-server": SERVER}[request.param], str(kits.folder)
    text = (SYSTEMD / f"{request.param}@.service").read_text().replace("/srv/mmar/", f"{folder}/")
    file = tmp_path / f"{request.param}@{name}.service"
    file.write_text(re.sub(r"/etc/mmar/\w+\.env", "/dev/null", text))
    return file


systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")


@systemd
@pytest.mark.parametrize("instance", UNITS, indirect=True)
def test_systemd_takes_every_line_of_a_unit(instance: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(instance)], capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


@systemd
@pytest.mark.parametrize("instance", UNITS, indirect=True)
def test_systemd_counts_little_that_a_service_is_exposed_to(instance: Path) -> None:
    """Of 10, where 10 is a service without any of its lines."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(instance)]

    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("name", UNITS)
def test_a_service_may_write_to_its_kit_but_not_to_what_decides(name: str) -> None:
    found = unit(name)

    assert found["ProtectSystem"] == "strict"
    assert found["ReadWritePaths"] == found["WorkingDirectory"] == "/srv/mmar/%i"
    assert found["ReadOnlyPaths"].split() == ["/srv/mmar/%i/startup", "/srv/mmar/%i/local"]
    assert found["ExecStart"] == "/bin/bash /srv/mmar/%i/startup/sub_start.sh --once"
    assert set(found["NoExecPaths"].split()) == {"/srv/mmar/%i", "/tmp", "/var/tmp", "/dev/shm"}


@pytest.mark.parametrize("name", UNITS)
def test_a_service_has_no_rights_and_leaves_nothing_behind(name: str) -> None:
    found = unit(name)

    assert found["User"] == "mmar"
    assert found["NoNewPrivileges"] == found["PrivateTmp"] == found["ProtectHome"] == "yes"
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == ""
    assert (found["UMask"], found["LimitCORE"]) == ("0077", "0")
    assert found["Restart"] == "on-failure"
    assert found["OOMPolicy"] == "continue"


@pytest.mark.parametrize("name", UNITS)
def test_a_service_leaves_the_machine_and_other_processes_alone(name: str) -> None:
    found = unit(name)

    for what in ("KernelTunables", "KernelModules", "KernelLogs", "ControlGroups", "Clock"):
        assert found[f"Protect{what}"] == "yes"
    for what in ("RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality"):
        assert found[what] == "yes"
    assert (found["ProtectHostname"], found["ProtectProc"]) == ("yes", "invisible")
    assert found["SystemCallArchitectures"] == "native"
    assert (found["MemoryMax"], found["TasksMax"]) == ("90%", "4096")
    assert found["KillMode"] == "control-group"


@pytest.mark.parametrize("name", UNITS)
def test_a_service_can_shut_in_its_jobs(name: str) -> None:
    calls = unit(name)["SystemCallFilter"].split()

    wall = ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"]
    taken_away = ["~io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd"]
    assert calls == ["@system-service", *wall, *taken_away]


def test_a_server_needs_no_device_and_a_site_the_addresses_of_its_machine() -> None:
    """gloo and NCCL ask the kernel for the machine's addresses by a netlink socket."""
    server, site = unit("mmar-server"), unit("mmar-site")

    assert server["PrivateDevices"] == server["MemoryDenyWriteExecute"] == "yes"
    assert server["RestrictAddressFamilies"] == "AF_INET AF_INET6 AF_UNIX"
    assert site["RestrictAddressFamilies"] == "AF_INET AF_INET6 AF_UNIX AF_NETLINK"


# --- containers


def test_the_image_runs_as_nobody_and_gets_nothing_but_the_wheel() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()

    assert "USER 10001" in lines
    assert 'ENTRYPOINT ["tini", "--", "start-kit"]' in lines
    copied = [line for line in lines if line.startswith(("COPY", "ADD"))]
    assert [line.split()[1:-1] for line in copied] == [
        ["constraints.txt", "dist/*.whl"],
        ["provisioning/requirements/*.txt"],
        ["--chmod=0755", "provisioning/docker/start-kit.sh"],
    ]
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert set(ignored[1:]) == {
        *("!constraints.txt", "!dist/*.whl", "!provisioning/requirements/*.txt"),
        "!provisioning/docker/start-kit.sh",
    }


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint here")
def test_the_image_is_written_as_images_should_be() -> None:
    subprocess.run(["hadolint", str(DOCKER / "Dockerfile")], check=True)


def test_the_image_installs_nothing_without_its_hash_but_torch_of_another_index() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    installs = re.findall(r"pip install .*", text)

    assert [one.split("pip install --no-cache-dir ")[1] for one in installs] == [
        '--no-deps -c ../constraints.txt --index-url "${TORCH_INDEX}" torch; \\',
        "--require-hashes -r build.txt \\",
        '--require-hashes --no-build-isolation "$@" \\',
        "--no-deps ../*.whl",
    ]


def compose() -> Any:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.mark.parametrize("name", ["server", "site", "site-admin"])
def test_a_container_has_no_rights_and_a_file_system_that_it_cannot_write(name: str) -> None:
    service = compose()["services"][name]

    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp:mode=1777,size=1g,noexec,nosuid,nodev"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].startswith("${MMAR_USER:?")
    assert service["pids_limit"] == 4096
    assert service["mem_limit"].startswith("${MMAR_MEMORY:-")
    assert service["ulimits"] == {"core": 0}


@pytest.mark.parametrize(
    ("name", "read_only"),
    [
        ("server", {"/kit/startup", "/kit/local"}),
        ("site", {"/kit/startup", "/kit/local", "${MMAR_DATA}"}),
        ("site-admin", {"/kit/startup", "${MMAR_DATA}"}),
    ],
)
def test_a_container_writes_to_its_kit_but_not_to_what_decides(
    name: str, read_only: set[str]
) -> None:
    """What changes ``local/`` has a container of its own, which does not start a site."""
    service = compose()["services"][name]
    volumes = [re.sub(r"^\$\{(\w+)[^}]*\}", r"\1", one) for one in service["volumes"]]
    split = [one.split(":", 1)[1].removesuffix(":ro") for one in volumes if one.endswith(":ro")]

    assert set(split) == read_only
    assert [one.split(":", 1)[1] for one in volumes if not one.endswith(":ro")] == ["/kit"]
    assert (name == "site-admin") == ("profiles" in service)


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


def test_a_kit_that_its_jobs_could_change_is_started_with_a_warning(
    kits: Kits, stand_in: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = stand_in(kits.folder / SITE)

    for part in ("startup", "local"):
        assert f"jobs could change {kits.folder / SITE / part}; mount it read-only" in done.stderr


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
