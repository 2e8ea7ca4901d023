"""A real federation on this machine: provisioned kits, a server, two sites, mutual TLS over gRPC.

Each is a process tree of its own, started by the kit's own script; all listen on 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from fl_admin.console import Console, JobState
from fl_admin.demo_data import write_demo_data
from fl_admin.provision import provision

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = REPOSITORY / "jobs" / "spleen_ct_segmentation"
SITES = ("site-1", "site-2")
SERVER = "localhost"
LEAD = "lead@example.org"
PATIENCE = 120.0
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1

MakeFederation = Callable[..., "Federation"]


@dataclass
class Federation:
    """Kits and the processes that run from them."""

    kits: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def server(self) -> Path:
        return self.kits / SERVER

    @property
    def lead(self) -> Path:
        return self.kits / LEAD

    def site(self, name: str) -> Path:
        return self.kits / name

    def start(self, name: str) -> None:
        """Run a kit's script as a service would: in the foreground, without a watchdog."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (self.kits.parent / f"{name}.out").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                ["bash", "./sub_start.sh", "--once"],
                cwd=self.kits / name / "startup",
                env={**os.environ, **self.environment, "PATH": path},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_us,
            )

    def start_in_container(self, name: str) -> subprocess.Popen[bytes]:
        """Run what an image runs for a kit, with the clean environment of a container."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (self.kits.parent / f"{name}.out").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [REPOSITORY / "provisioning" / "docker" / "start-kit.sh"],
                env={"PATH": path, "HOME": "/tmp", "MMAR_KIT_FOLDER": str(self.kits / name)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_us,
            )
        return self._processes[name]

    def stop_one(self, name: str) -> None:
        """End a kit's process; the others go on."""
        os.killpg(self._processes[name].pid, signal.SIGTERM)
        self._processes[name].wait(timeout=20)

    def await_sites(self) -> None:
        """Until the server has registered both sites."""
        deadline = time.monotonic() + PATIENCE
        log = self.server / "log.txt"
        while time.monotonic() < deadline:
            text = log.read_text() if log.is_file() else ""
            if all(f"New client {name}@" in text for name in SITES):
                return
            time.sleep(0.2)
        raise TimeoutError(self.printed())

    def printed(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in self.kits.parent.glob("*.out"))

    def processes(self) -> list[psutil.Process]:
        """Every process of the federation: the kits' folder stands in their command lines."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.kits) in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def stop(self) -> None:
        """End everything that was started."""
        for one in self._processes.values():
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGTERM)
        psutil.wait_procs(self.processes(), timeout=10)
        for process in self.processes():
            process.kill()
        psutil.wait_procs(self.processes(), timeout=10)
        for one in self._processes.values():
            one.wait(timeout=10)

    def run(self, job: Path) -> JobState:
        """Submit a job as the lead and wait for its end; nothing is judged beforehand."""
        with Console.connect(self.lead) as console:
            job_id = str(console._session.submit_job(str(job)))
            return console.follow(job_id, lambda *_: None)

    def download(self, job_id: str, folder: Path) -> Path:
        with Console.connect(self.lead) as console:
            return console.download(job_id, folder)

    def told(self, state: JobState) -> str:
        """What the server keeps of the end of a job, for the message of a failed assertion."""
        with tempfile.TemporaryDirectory() as folder:
            record = self.download(state.job_id, Path(folder)) / "workspace/results/run_record.json"
            failure = json.loads(record.read_text())["failure"] if record.is_file() else "no record"
        return f"{state}\n{failure}\n{self.printed()}"

    def audit(self, name: str) -> list[Any]:
        """The lines of a kit's audit log."""
        path = self.kits / name / "audit" / "mmar_audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


def _end_with_us() -> None:
    """Have the kernel end a kit's process if the tests are killed; its jobs end without it."""
    assert LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0


def unused_port() -> int:
    """A port below those that outgoing connections take, as the fixture ``free_port`` gives."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


def project(port: int) -> str:
    """The template with a server on this machine alone."""
    text = (REPOSITORY / "provisioning" / "project.yml").read_text()
    return text.replace("fl.example.org", SERVER).replace("8002", str(port))


@pytest.fixture(scope="module")
def make_federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeFederation]:
    """``make_federation(prepare, environment)``: provisioned, with data, started, and ended."""
    started: list[Federation] = []

    def make(
        prepare: Callable[[Federation], object] = lambda _: None,
        environment: Mapping[str, str] | None = None,
    ) -> Federation:
        root = tmp_path_factory.mktemp("federation")
        file = root / "project.yml"
        file.write_text(project(unused_port()))
        federation = Federation(provision(file, root / "kits").folder, environment or {})
        data = write_demo_data(root / "data", sites=len(SITES))
        for site in data:
            values = {
                "DATA_ROOT": str(site.directory),
                "DATASET_JSON": str(site.directory / "dataset.json"),
                "NUM_THREADS": 1,
            }
            local = federation.site(site.directory.name) / "local"
            (local / "environment.json").write_text(json.dumps(values))
        prepare(federation)
        started.append(federation)
        for name in (SERVER, *SITES):
            federation.start(name)
        federation.await_sites()
        return federation

    yield make
    for federation in started:
        federation.stop()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example job for two sites and two rounds of one epoch."""
    folder = tmp_path_factory.mktemp("job") / "spleen"
    shutil.copytree(JOB, folder)
    edit(folder / "meta.json", min_clients=2)
    edit(folder / "app/config/config_fed_server.json", min_clients=2, num_rounds=2)
    edit(folder / "app/config/config_fed_client.json", local_epochs=1)
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
