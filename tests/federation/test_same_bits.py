"""One job by both engines and by a deployed federation: the same bits, whoever comes first.

In the deployed one the sites are held back and let go one after the other, so that their
contributions arrive in an order that is not that of their names. The network is large enough for
some of its tensors to leave their message: by the wire in the deployed one, in files in NVFlare's
simulator.

Other tests take each step. ``test_federation.py`` compares a deployed federation with both engines,
``tests/end_to_end/test_engines.py`` compares the engines, and
``tests/fl_server/test_federation.py`` tries each order of arrival.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fl_admin.demo_data import write_demo_data
from fl_client.flare import job_process
from mmar_runtime.exchange.arrays import IN_MESSAGE
from mmar_runtime.weights import digest, read_checkpoint
from scripts.same_runs import comparable
from tests.conftest import command_line
from tests.federation.conftest import JOB, SERVER, Federation, edit

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = ("site-1", "site-2", "site-3")
ORDERS = (("site-3", "site-1", "site-2"), ("site-2", "site-3", "site-1"))
"""Of arrival, in each round."""

CHANNELS, MORE_CHANNELS = "[8, 16, 32, 64]", "[8, 16, 32, 256]"
PATIENCE = 180.0
HANDED_OVER = "handed_over.json"
"""Beside a simulation's run: the files by which models were seen on their way."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job") / "spleen"
    shutil.copytree(JOB, folder)
    edit(folder / "meta.json", min_clients=3)
    rounds = len(ORDERS)
    config = folder / "app/config"
    edit(config / "config_fed_server.json", min_clients=3, num_rounds=rounds)
    for name in ("config_train.json", "config_cross_validation.json"):
        text = (config / name).read_text()
        assert CHANNELS in text
        (config / name).write_text(text.replace(CHANNELS, MORE_CHANNELS))
    return folder


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    root = tmp_path_factory.mktemp("federation")
    with Federation.provisioned(root, sites=NAMES) as federation:
        for site in write_demo_data(root / "data", sites=len(NAMES)):
            values = {
                "DATA_ROOT": str(site.directory),
                "DATASET_JSON": str(site.directory / "dataset.json"),
                "NUM_THREADS": 1,
            }
            federation.give(site.directory.name, values)
        federation.start()
        yield federation


@pytest.fixture(scope="module")
def deployed(federation: Federation, job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run in which each round's contributions arrive as ``ORDERS`` says."""
    out = tmp_path_factory.mktemp("out")
    words = [
        sys.executable, "-m", "fl_admin.cli.main", "submit", str(job),
        "--kit", str(federation.lead), "--wait", "--out", str(out),
    ]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for number, order in enumerate(ORDERS, start=1):
            let_in(federation, number, order)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr.decode()
    return Path(stdout.decode().strip()) / "workspace" / "results"


def let_in(federation: Federation, number: int, order: tuple[str, ...]) -> None:
    """Stop all sites in the midst of a round, and let one after the other end it."""
    first, *others = order
    await_that(lambda: all(sent(federation).count(site) >= number for site in NAMES))
    for site in others:
        for process in workers(federation, site):
            process.suspend()
    await_that(lambda: accepted(federation).count(first) >= number)
    for site in others:
        for process in workers(federation, site):
            process.resume()
        await_that(lambda awaited=site: accepted(federation).count(awaited) >= number)


def await_that(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def audited(federation: Federation) -> list[Any]:
    try:
        return federation.audit(SERVER)
    except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or in the middle of a line
        return []


def sent(federation: Federation) -> list[str]:
    """The sites to which a model was sent for training, in this order."""
    lines = audited(federation)
    return [one["site"] for one in lines if one["event"] == "task-out" and one["task"] == "train"]


def accepted(federation: Federation) -> list[str]:
    """The sites of which a contribution was accepted, in this order."""
    lines = audited(federation)
    return [one["site"] for one in lines if one["event"] == "contribution-accepted"]


def workers(federation: Federation, site: str) -> list[psutil.Process]:
    """The process of a site in which the job runs."""
    kit = str(federation.site(site))
    found = []
    for process in federation.processes():
        words = command_line(process)
        if kit in words and job_process.__name__ in words:
            found.append(process)
    assert found
    return found


def simulated(federation: Federation, job: Path, folder: Path, engine: str) -> Path:
    sites = {site: json.loads(federation.values(site).read_text()) for site in NAMES}
    environment = folder / "environment.json"
    environment.write_text(json.dumps({"sites": sites}))
    words = [
        sys.executable, "-m", "fl_admin.cli.main", "simulate", str(job), "--sites", "3",
        "-e", str(environment), "--engine", engine, "-w", str(folder),
    ]  # fmt: skip
    handed_over: set[str] = set()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            handed_over.update(path.name for path in folder.glob("run-001/handover/*"))
            time.sleep(0.005)
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read().decode()
    (folder / HANDED_OVER).write_text(json.dumps(sorted(handed_over)))
    return folder / "run-001" / "results"


@pytest.fixture(scope="module")
def all_three(
    federation: Federation, deployed: Path, job: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    federation.stop()  # the simulations have the machine to themselves
    simulations = {
        engine: simulated(federation, job, tmp_path_factory.mktemp(engine), engine)
        for engine in ("inline", "nvflare")
    }
    return {"deployed": deployed, **simulations}


def test_the_contributions_arrived_in_the_orders_that_were_meant(
    federation: Federation, deployed: Path
) -> None:
    assert accepted(federation) == [site for order in ORDERS for site in order]
    assert all(list(order) != sorted(order) for order in ORDERS)


def test_nvflares_simulator_hands_models_over_in_files_and_leaves_none(
    all_three: dict[str, Path],
) -> None:
    def seen(engine: str) -> list[str]:
        found: list[str] = json.loads((all_three[engine].parents[1] / HANDED_OVER).read_text())
        return found

    assert seen("nvflare")
    assert seen("inline") == []
    assert not (all_three["nvflare"].parent / "handover").exists()


def test_the_three_records_are_the_same(all_three: dict[str, Path]) -> None:
    """Each round's digest, the metrics of every site and epoch, steps, bytes, statuses, bests."""
    records = {
        name: comparable(json.loads((results / "run_record.json").read_text()))
        for name, results in all_three.items()
    }
    for record in records.values():
        record.pop("job")  # a deployed one has an id of its own

    assert len({one["weights_sha256"] for one in records["inline"]["rounds"]}) == len(ORDERS)
    assert records["inline"] == records["nvflare"]
    assert records["inline"] == records["deployed"]


def test_the_three_matrices_are_the_same_byte_for_byte(all_three: dict[str, Path]) -> None:
    for name in ("cross_site.json", "cross_site.csv"):
        first, *others = (results.joinpath(name).read_bytes() for results in all_three.values())
        assert others == [first, first]


def test_the_three_sets_of_models_are_the_same_to_the_last_bit(
    all_three: dict[str, Path],
) -> None:
    def digests(results: Path) -> dict[str, str]:
        files = (results / "models").glob("*.pt")
        return {file.stem: digest(read_checkpoint(file).weights) for file in files}

    first, *others = map(digests, all_three.values())

    model = read_checkpoint(all_three["inline"] / "models/FL_global_model.pt").weights
    assert sum(tensor.nbytes for tensor in model.values()) > IN_MESSAGE
    assert sorted(first) == ["FL_global_model", "best_FL_global_model", *NAMES]
    assert others == [first, first]
