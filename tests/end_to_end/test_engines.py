"""One job by both engines: the same bits, the same record, the same statuses.

The job has everything at once that changes what is summed and when: sites of different sizes,
rounds of a few steps within an epoch, weights of sites, tensors that stay at home, and a site whose
policy keeps it out, which the federation does without.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fl_admin.jobs.create import JobRequest, create_job
from fl_admin.jobs.settings import JobSettings
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import digest, read_checkpoint
from scripts.same_runs import comparable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SITES = ["site-1", "site-2", "site-3"]

PYTHON = sys.executable
"""Python from scratch: the warm one has imported NVFlare."""


@dataclass(frozen=True)
class Run:
    """What an engine has left."""

    code: int
    stderr: str
    folder: Path

    @property
    def record(self) -> Any:
        return json.loads((self.folder / "results" / "run_record.json").read_text())

    def text(self, name: str) -> str:
        return (self.folder / "results" / name).read_text()

    @property
    def models(self) -> dict[str, str]:
        files = (self.folder / "results" / "models").glob("*.pt")
        return {path.stem: digest(read_checkpoint(path).weights) for path in files}


@dataclass(frozen=True)
class Asked:
    """A job with its sites' data and the policy of all of them."""

    job: Path
    data: Path
    policy: Path

    def run(self, workspace: Path, *options: object) -> Run:
        words = [
            "simulate", self.job, "--sites", 3, "--min-sites", 2, "--data", self.data,
            "--policy", self.policy, "--set", "NUM_THREADS=1", "-w", workspace, *options,
        ]  # fmt: skip
        command = [sys.executable, "-m", "fl_admin.cli.main", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        return Run(done.returncode, done.stderr, workspace / "run-001")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    from tests.conftest import edit_json, write_json, write_mmar

    root = tmp_path_factory.mktemp("engines")
    for seed, (site, training) in enumerate(zip(SITES, (2, 4, 1), strict=True)):
        mmar = write_mmar(root / "mmars" / site, seed=seed)
        (root / "data").mkdir(exist_ok=True)
        data = (mmar / "data").rename(root / "data" / site)

        def resize(document: Any, count: int = training) -> None:
            document["training"] = (2 * document["training"])[:count]

        edit_json(data / "dataset.json", resize)
    policy = write_json(
        root / "policy.json", {"policy_version": 1, "min_dataset_size": 2, "confinement": "off"}
    )
    job = create_job(
        JobRequest(
            mmar=Mmar.open(write_mmar(root / "mmar")),
            settings=JobSettings(
                rounds=3, min_sites=2, steps_aggregation=3, aggregation_weights={"site-2": 3}
            ),
        ),
        root / "job",
    ).job
    shared = ["model.0.*", "model.2.*"]

    edit_json(
        job.mmar.document("config_fed_server.json"),
        lambda document: document["workflows"][0]["args"].update(shared_names=shared),
    )
    edit_json(
        job.mmar.document("config_fed_client.json"),
        lambda document: document["executors"][0]["executor"]["args"].update(shared_names=shared),
    )
    return Asked(job.folder, root / "data", policy)


@pytest.fixture(scope="module")
def by_nvflare(asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return asked.run(tmp_path_factory.mktemp("runs"), "--engine", "nvflare")


@pytest.fixture(scope="module")
def inline(asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return asked.run(tmp_path_factory.mktemp("runs"), "--engine", "inline")


def test_both_end_well_without_the_site_that_declines(by_nvflare: Run, inline: Run) -> None:
    assert (by_nvflare.code, inline.code) == (0, 0), by_nvflare.stderr + inline.stderr
    for one in inline.record["rounds"]:
        assert [one["sites"][site]["status"] for site in SITES] == [
            "contributed", "contributed", "failed",
        ]  # fmt: skip
        assert one["sites"]["site-3"]["reason"].startswith("policy-declined (reference ")


def test_the_records_are_the_same_but_for_times_and_names_of_processes(
    by_nvflare: Run, inline: Run
) -> None:
    assert comparable(inline.record) == comparable(by_nvflare.record)
    assert len({one["weights_sha256"] for one in inline.record["rounds"]}) == 3
    assert (by_nvflare.record["engine"], inline.record["engine"]) == ("nvflare", "inline")


def test_the_matrices_are_the_same_byte_for_byte(by_nvflare: Run, inline: Run) -> None:
    for name in ("cross_site.json", "cross_site.csv"):
        assert inline.text(name) == by_nvflare.text(name)


def test_the_models_are_the_same_to_the_last_bit(by_nvflare: Run, inline: Run) -> None:
    assert sorted(inline.models) == [
        "FL_global_model", "best_FL_global_model", "site-1", "site-2",
    ]  # fmt: skip
    assert inline.models == by_nvflare.models


def test_several_processes_change_no_bit(
    asked: Asked, inline: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workers = asked.run(tmp_path_factory.mktemp("runs"), "--workers", 2)

    assert workers.code == 0, workers.stderr
    assert comparable(workers.record) == comparable(inline.record)
    assert workers.text("cross_site.json") == inline.text("cross_site.json")
    assert workers.models == inline.models


def test_sites_that_are_not_woken_ask_by_themselves(
    asked: Asked, by_nvflare: Run, tmp_path: Path
) -> None:
    """A job may leave the listener out; it has the same models, only a little later."""
    job = Path(shutil.copytree(asked.job, tmp_path / "job"))
    client = job / "app" / "config" / "config_fed_client.json"
    client.write_text(json.dumps({**json.loads(client.read_text()), "components": []}))

    run = replace(asked, job=job).run(tmp_path / "run", "--engine", "nvflare", "--rounds", 1)

    assert run.code == 0, run.stderr
    [first] = run.record["rounds"]
    assert first["weights_sha256"] == by_nvflare.record["rounds"][0]["weights_sha256"]


def test_what_the_handlers_write_lies_at_each_site(inline: Run) -> None:
    for site in SITES[:2]:
        assert (
            inline.folder / "sites" / site / "simulate_job" / f"app_{site}" / "models" / "model.pt"
        ).is_file()
    assert list(inline.folder.glob("sites/site-3/error-*.txt"))


def test_the_inline_engine_imports_no_nvflare(inline: Run, tmp_path: Path) -> None:
    plan = inline.folder / "inline.json"
    code = (
        "import sys; from fl_admin.simulation.inline.process import main; main(sys.argv[1:]); "
        "sys.exit('nvflare' in sys.modules)"
    )

    done = subprocess.run([PYTHON, "-c", code, str(plan)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
