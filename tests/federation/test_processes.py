"""A site with two processes in a provisioned federation, beside one that has a single one.

What ends a job ends the site's processes too: an abort, the death of the job's process, its end.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from fl_admin.at_server.console import Console
from tests.conftest import command_line
from tests.federation.conftest import SITES, Federation, MakeFederation, edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TWO, ONE = SITES
RANK = "fl_client.ranks.main"
PATIENCE = 120.0
SECONDS = 20.0
"""Within this time an abort has come through the federation, and all processes are gone."""


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation) -> Federation:
    def two_processes(federation: Federation) -> None:
        edit(federation.site(TWO) / "local/environment.json", NUM_PROCESSES=2)

    return make_federation(two_processes)


@pytest.fixture(scope="module")
def long_job(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job with more epochs in a round than anybody waits for."""
    folder = Path(shutil.copytree(job, tmp_path_factory.mktemp("long") / "spleen"))
    edit(folder / "app/config/config_fed_client.json", local_epochs=100)
    return folder


def training(federation: Federation, job_id: str) -> list[psutil.Process]:
    """The processes of the first site that train, once they have done an iteration."""
    progress = federation.site(TWO) / job_id / "progress.jsonl"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if progress.is_file() and '"iteration"' in progress.read_text():
            return ranks(federation)
        time.sleep(0.2)
    raise TimeoutError(federation.last_lines(TWO))


def ranks(federation: Federation) -> list[psutil.Process]:
    kit = str(federation.site(TWO))
    found = set()
    for process in federation.processes():
        if kit in command_line(process):
            children = process.children(recursive=True)
            found |= {one for one in children if RANK in command_line(one)}
    return list(found)


def all_gone(processes: list[psutil.Process], seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


def test_an_abort_leaves_no_process_at_the_site(federation: Federation, long_job: Path) -> None:
    with Console.connect(federation.lead) as console:
        job_id = str(console._session.submit_job(str(long_job)))
        processes = training(federation, job_id)
        assert len(processes) == 2

        console.abort(job_id)

        assert all_gone(processes, SECONDS)
        assert console.follow(job_id, lambda *_: None).status == "FINISHED:ABORTED"
    assert list((federation.site(TWO) / job_id).glob("error-*")) == []


@pytest.mark.rehearsal  # ``tests/fl_client/ranks`` kills the process that has started them
def test_the_death_of_the_jobs_process_leaves_none_either(
    federation: Federation, long_job: Path
) -> None:
    with Console.connect(federation.lead) as console:
        job_id = str(console._session.submit_job(str(long_job)))
        processes = training(federation, job_id)
        [owner] = {one.parent() for one in processes}

        owner.kill()

        assert all_gone(processes, SECONDS)
        assert not console.follow(job_id, lambda *_: None).completed


def test_after_a_restart_of_the_site_the_job_is_complete(
    federation: Federation, job: Path, tmp_path: Path
) -> None:
    restart(federation, TWO)

    state = federation.run(job)

    assert state.completed, federation.told(state)
    results = federation.download(state.job_id, tmp_path) / "workspace" / "results"
    record = json.loads((results / "run_record.json").read_text())
    rounds = [one["sites"] for one in record["rounds"]]
    assert [sorted(one) for one in rounds] == [list(SITES)] * 2
    first, second = (one[TWO] for one in rounds)
    assert first["process"] == second["process"]
    assert first["built"] == second["built"]
    cells = json.loads((results / "cross_site.json").read_text())["cells"]
    assert all(sorted(row) == list(SITES) for row in cells.values())
    assert ranks(federation) == []
    run = federation.site(TWO) / state.job_id
    assert sorted(path.name for path in run.glob("rank-*.log")) == ["rank-0.log", "rank-1.log"]
    assert list(tmp_path.rglob("rank-*")) == []
    assert list(federation.server.rglob("rank-*")) == []
    assert steps(rounds, TWO) < steps(rounds, ONE)
    assert record["weigh_by"] == "samples"
    assert all(one[TWO]["weight"] == one[ONE]["weight"] for one in rounds)


def restart(federation: Federation, site: str) -> None:
    """Kill a site's process, start it anew, and wait until the server has registered it."""
    log = federation.server / "log.txt"
    told = f"New client {site}@"
    before = log.read_text().count(told)
    kit = str(federation.site(site))
    processes = [one for one in federation.processes() if kit in command_line(one)]
    for process in processes:
        process.kill()
    federation._processes[site].wait(SECONDS)
    psutil.wait_procs(processes, timeout=SECONDS)
    federation.launch(site)
    deadline = time.monotonic() + PATIENCE
    while log.read_text().count(told) == before:
        if time.monotonic() > deadline:
            raise TimeoutError(federation.last_lines(site))
        time.sleep(0.2)


def steps(rounds: list[Any], site: str) -> int:
    return sum(one[site]["steps"] for one in rounds)
