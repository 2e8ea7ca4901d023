"""A real federation on this machine: provisioned kits, a server, two sites, mutual TLS over gRPC.

Each is a process tree of its own, started by the kit's own script; all listen on 127.0.0.1 only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fl_admin.at_server import console
from fl_admin.at_server.console import Console, JobState
from fl_admin.demo_data import write_demo_data
from fl_admin.simulation.local_federation import LEAD, SERVER, SITES, LocalFederation
from mmar_runtime.audit import AUDIT_FILE, verify_audit
from mmar_runtime.audit_keys import LogKey

__all__ = [
    "LEAD",
    "SERVER",
    "SITES",
    "Federation",
    "MakeFederation",
    "assert_refused",
    "edit",
    "without_guard",
]

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = REPOSITORY / "jobs" / "spleen_ct_segmentation"

MakeFederation = Callable[..., "Federation"]


class Federation(LocalFederation):
    """A local federation, and what tests ask of it."""

    def start_in_container(self, name: str) -> subprocess.Popen[bytes]:
        """Run what an image runs for a kit, with the clean environment of a container."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        folder = str(self.kits / name)
        return self.launched(
            name,
            [str(REPOSITORY / "provisioning" / "docker" / "start-kit.sh")],
            environment={"PATH": path, "HOME": "/tmp", "MMAR_KIT_FOLDER": folder},
        )

    def run(self, job: Path) -> JobState:
        """Submit a job as the lead and wait for its end; nothing is judged beforehand."""
        with Console.connect(self.lead) as connected:
            job_id = str(connected._session.submit_job(str(job)))
            return connected.follow(job_id, lambda *_: None)

    def download(self, job_id: str, folder: Path) -> Path:
        with Console.connect(self.lead) as connected:
            return connected.download(job_id, folder)

    def told(self, state: JobState) -> str:
        """What the server keeps of the end of a job, for the message of a failed assertion."""
        with tempfile.TemporaryDirectory() as folder:
            record = self.download(state.job_id, Path(folder)) / "workspace/results/run_record.json"
            failure = json.loads(record.read_text())["failure"] if record.is_file() else "no record"
        return f"{state}\n{failure}\n{self.last_lines(SERVER)}"

    def log_status(self, name: str, log: Path = AUDIT_FILE) -> str:
        """Whether a log of a kit is as it was written, by the kit's own key."""
        kit = self.kits / name
        return verify_audit(kit / log, LogKey.of_kit(kit)).status

    def audit(self, name: str) -> list[Any]:
        """The lines of a kit's audit log."""
        path = self.kits / name / "audit" / "mmar_audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module", autouse=True)
def kits_start_warm(warm: None) -> None:
    """Have the kits' processes and those of jobs forked from a warm Python."""


@pytest.fixture(scope="module", autouse=True)
def nobody_waits_long_between_looks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "SECONDS_BETWEEN_LOOKS", 0.2)
        yield


@pytest.fixture(scope="module")
def make_federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeFederation]:
    """``make_federation(prepare, environment)``: provisioned, with data, started, and ended.

    ``options`` are added to the project file.
    """
    started: list[Federation] = []

    def make(
        prepare: Callable[[Federation], object] = lambda _: None,
        environment: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Federation:
        root = tmp_path_factory.mktemp("federation")
        federation = Federation.provisioned(root, environment=environment, options=options)
        federation.programs = Path(sys.executable).parent
        for site in write_demo_data(root / "data", sites=len(SITES)):
            values = {
                "DATA_ROOT": str(site.directory),
                "DATASET_JSON": str(site.directory / "dataset.json"),
                "NUM_THREADS": 1,
            }
            federation.give(site.directory.name, values)
        prepare(federation)
        started.append(federation)
        federation.start()
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


def without_guard(federation: Federation) -> None:
    """A server as NVFlare provisions it, but for our classes on its list."""
    local = federation.server / "local"
    resources = json.loads((local / "resources.json").read_text())
    del resources["app_validator"]
    (local / "resources.json").write_text(json.dumps(resources))
    everything = {"format_version": "1.0", "permissions": {"lead": "any"}}
    (local / "authorization.json").write_text(json.dumps(everything))


def assert_refused(federation: Federation, state: JobState, *rules: str) -> None:
    """Both sites said no, each in one line with the rule and the place."""
    assert state.status == "FINISHED:FAILED_TO_RUN"
    for site in SITES:
        answer = state.deployment[site]
        assert answer.startswith("refused: ")
        assert all(rule in answer for rule in rules), answer
        assert "\n" not in answer
        assert str(federation.kits) not in answer
        last = [one for one in federation.audit(site) if one["job"] == state.job_id]
        assert [one["verdict"] for one in last] == ["reject"]
