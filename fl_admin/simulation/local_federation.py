"""A real federation on this machine: provisioned kits, and a process of its own for each of them.

Server and sites are started by their kits' own scripts and speak mutual TLS over gRPC, as at
hospitals; but the server is called ``localhost``, so nothing of it can be reached from outside.

    federation = LocalFederation.provisioned(folder, sites=("site-1", "site-2"))
    federation.give("site-1", {"DATA_ROOT": ..., "DATASET_JSON": ...})
    with federation:
        federation.start()
        ...                     # 'mmar submit JOB --kit <federation.lead>'
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from fl_admin.kits.provision import provision
from fl_admin.simulation.processes import MEMORY_OF_NVFLARE
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.confinement.system_calls import process_control
from mmar_runtime.errors import FederationError
from mmar_runtime.files import write_json, write_text_atomically

SERVER = "localhost"
ADMIN = "admin@example.org"
LEAD = "lead@example.org"
SITES = ("site-1", "site-2")

PORTS = range(20_000, 32_768)
"""Below those that the system gives to outgoing connections."""

SECONDS_TO_START = 120.0
SECONDS_TO_END = 10.0
SECONDS_BETWEEN_LOOKS = 0.2
LINES_TOLD = 15
PR_SET_PDEATHSIG = 1


@dataclass
class LocalFederation:
    """Kits and the processes that run from them.

    As a context it ends every process when it is left, whatever the reason.

    Attributes:
        kits: holds a folder for each participant.
        sites: names of the sites.
        environment: further environment variables of the kits' processes.
        programs: the folder of the Python that the kits' processes run.
    """

    kits: Path
    sites: tuple[str, ...] = SITES
    environment: Mapping[str, str] = field(default_factory=dict)
    programs: Path = Path(sys.executable).parent
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def provisioned(
        cls,
        folder: Path,
        *,
        sites: Sequence[str] = SITES,
        environment: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return a federation with new kits in a folder; nothing runs yet.

        Args:
            folder: where the project file and the kits are written.
            sites: their names.
            environment: further variables of the processes.
            options: further entries of the project file, such as ``he``.

        Raises:
            ConfigError: a site's name is none.
            FederationError: NVFlare's provisioning failed.
        """
        file = folder / "project.yml"
        document = {**project_document(sites, port=unused_port()), **(options or {})}
        write_text_atomically(file, yaml.safe_dump(document, sort_keys=False))
        kits = provision(file, folder / "kits").folder
        return cls(kits, tuple(sites), environment or {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def server(self) -> Path:
        """The server's kit."""
        return self.kits / SERVER

    @property
    def lead(self) -> Path:
        """The kit of the researcher, who may submit jobs."""
        return self.kits / LEAD

    def site(self, name: str) -> Path:
        """Return a site's kit."""
        return self.kits / name

    def values(self, site: str) -> Path:
        """Return the file of a site's own values."""
        return self.site(site) / "local" / "environment.json"

    def give(self, site: str, values: Mapping[str, Scalar]) -> None:
        """Write a site's own values, such as where its data lie."""
        write_json(self.values(site), dict(values), private=True)

    def printed(self, name: str) -> Path:
        """Return the file with what a participant's process has printed."""
        return self.kits.parent / f"{name}.out"

    def start(self, *names: str) -> None:
        """Start participants, all of them if none is named, and wait until the sites are there.

        Raises:
            FederationError: a process has ended, or a site did not reach the server in time.
        """
        started = names or (SERVER, *self.sites)
        for name in started:
            self.launch(name)
        self.await_sites([name for name in started if name != SERVER])

    def launch(self, name: str) -> None:
        """Run a kit's script as a service would: in the foreground, without a watchdog."""
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        environment = {**MEMORY_OF_NVFLARE, **os.environ, **self.environment, "PATH": path}
        self.launched(name, ["bash", "./sub_start.sh", "--once"], environment=environment)

    def launched(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Return the process of a participant, started in its ``startup/`` by a command."""
        with self.printed(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.kits / name / "startup",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever started all this
                # The kernel ends a kit's process if ours is killed; the kit's jobs end without it.
                preexec_fn=lambda: process_control(PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        self._processes[name] = process
        return process

    def await_sites(self, names: Iterable[str]) -> None:
        """Wait until the server has registered sites.

        Raises:
            FederationError: a process has ended meanwhile, or it takes too long.
        """
        awaited = set(names)
        log = self.server / "log.txt"
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            text = log.read_text(encoding="utf-8") if log.is_file() else ""
            awaited -= {name for name in awaited if f"New client {name}@" in text}
            if not awaited:
                return
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise FederationError(f"{name} has ended:\n{self.last_lines(name)}")
            if time.monotonic() > deadline:
                raise FederationError(
                    f"{', '.join(sorted(awaited))}: not at the server after "
                    f"{SECONDS_TO_START:.0f} s:\n{self.last_lines(min(awaited))}"
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def last_lines(self, name: str) -> str:
        """Return the end of what a participant's process has printed, and where all of it is."""
        text = self.printed(name).read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()[-LINES_TOLD:]
        return "\n".join([*(f"    {line}" for line in lines), f"    ({self.printed(name)})"])

    def processes(self) -> list[psutil.Process]:
        """Return every process of the federation: the kits' folder stands in their command lines.

        That holds for the processes of jobs as well, which outlive the process that started them.
        """
        processes = []
        for process in psutil.process_iter():
            try:
                if f"{self.kits}{os.sep}" in " ".join(process.cmdline()):
                    processes.append(process)
            except psutil.Error:
                continue
        return processes

    def end(self, name: str) -> None:
        """End a participant's own process; one that does not go in time is forced."""
        process = self._processes[name]
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop(self) -> None:
        """End every process: asked first, then forced. Returns when none is left."""
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        psutil.wait_procs(self.processes(), timeout=SECONDS_TO_END)
        for process in self.processes():
            process.kill()
        psutil.wait_procs(self.processes(), timeout=SECONDS_TO_END)
        for process in self._processes.values():
            process.wait(timeout=SECONDS_TO_END)


def project_document(sites: Sequence[str], *, port: int) -> dict[str, Any]:
    """Return a project for ``mmar provision``: a server on this machine, sites, two admins."""
    clients = [
        {"name": site, "type": "client", "org": f"org_{site}".replace("-", "_")} for site in sites
    ]
    return {
        "api_version": 3,
        "name": "local_federation",
        "description": "A federation on one machine",
        "participants": [
            {
                "name": SERVER,
                "type": "server",
                "org": "example",
                "fed_learn_port": port,
                "admin_port": port,
            },
            *clients,
            {"name": ADMIN, "type": "admin", "org": "example", "role": "project_admin"},
            {"name": LEAD, "type": "admin", "org": "example", "role": "lead"},
        ],
    }


def unused_port() -> int:
    """Return a port of this machine that nobody listens on."""
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise FederationError("no port of this machine is free")
