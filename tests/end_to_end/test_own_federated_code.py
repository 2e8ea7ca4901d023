"""A job's own aggregator, filter and trainer in one simulated federation, and what they computed.

The own aggregator takes the median of three sites, the own filter leaves a ten-fold trace in one
bias, and the own trainer counts the rounds in which it trained.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_admin.demo_data import write_demo_data
from mmar_runtime.weights import read_checkpoint
from tests.end_to_end.test_simulation import JOB, command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AGGREGATOR = '''"""The middle one of all changes, as a Clara user would write it."""

import json
from pathlib import Path

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable


class Median:
    def __init__(self, log):
        self.log = Path(__file__).with_name(log)  # in the folder of the run
        self.received = {}

    def accept(self, shareable: Shareable, fl_ctx: FLContext):
        site = fl_ctx.get_peer_context().get_identity_name()
        self.received[site] = from_shareable(shareable).data
        return True, len(self.received) == 3

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        sites, self.received = self.received, {}
        with self.log.open("a") as stream:
            moves = {site: float(one["FIRST"].ravel()[0]) for site, one in sites.items()}
            stream.write(json.dumps(moves) + "\\n")
        names = next(iter(sites.values()))
        middle = {name: np.median([one[name] for one in sites.values()], axis=0) for name in names}
        return DXO(DataKind.WEIGHT_DIFF, data=middle).to_shareable()
'''

FILTER = '''"""Ten thousand times the change of site-3, in one tensor."""

from nvflare.apis.dxo import DataKind
from nvflare.apis.dxo_filter import DXOFilter


class Outlier(DXOFilter):
    def __init__(self, site, tensor):
        super().__init__([DataKind.WEIGHT_DIFF], [DataKind.WEIGHT_DIFF])
        self.site, self.tensor = site, tensor

    def process_dxo(self, dxo, shareable, fl_ctx):
        if fl_ctx.get_identity_name() == self.site:
            dxo.data[self.tensor] = dxo.data[self.tensor] * 0 + 1000
        return dxo
'''

TRAINER = '''"""MONAI's trainer, with a line for each time that it is run."""

from pathlib import Path

from monai.engines import SupervisedTrainer


class CountingTrainer(SupervisedTrainer):
    def run(self):
        with Path(__file__).with_name("runs.txt").open("a") as stream:
            stream.write("run\\n")
        super().run()
'''


def change(path: Path, edit: Any) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    folder = Path(shutil.copytree(JOB, root / "spleen"))
    (folder / "app/custom").mkdir()
    first = first_tensor()
    for name, text in (
        ("own_aggregator.py", AGGREGATOR.replace("FIRST", first)),
        ("own_filter.py", FILTER),
        ("own_trainer.py", TRAINER),
    ):
        (folder / "app/custom" / name).write_text(text)

    def server(document: Any) -> None:
        [workflow] = document["workflows"]
        args = {"log": "aggregator.jsonl"}
        workflow["args"]["aggregator"] = {"path": "own_aggregator.Median", "args": args}

    def client(document: Any) -> None:
        own = {"path": "own_filter.Outlier", "args": {"site": "site-3", "tensor": first}}
        document["local_epochs"] = 1
        document["task_result_filters"] = [{"tasks": ["train"], "filters": [own]}]

    def train(document: Any) -> None:
        trainer = document["train"]["trainer"]
        trainer.pop("name", None)
        trainer["path"] = "own_trainer.CountingTrainer"

    change(folder / "app/config/config_fed_server.json", server)
    change(folder / "app/config/config_fed_client.json", client)
    change(folder / "app/config/config_train.json", train)
    return folder


def first_tensor() -> str:
    return "model.0.conv.unit0.conv.weight"


def simulate(job: Path, policy: dict[str, Any], root: Path) -> subprocess.CompletedProcess[str]:
    write_demo_data(root / "data", sites=3)
    file = root / "mmar_site_policy.json"
    file.write_text(json.dumps({"policy_version": 1, "confinement": "off", **policy}))
    file.chmod(0o600)
    words = ["--sites", 3, "--rounds", 2, "--data", root / "data", "--workspace", root / "runs"]
    return subprocess.run(
        command("simulate", job, *words, "--policy", file), capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def run(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    done = simulate(job, {"byoc": {"mode": "on"}}, root)
    assert done.returncode == 0, done.stderr
    return root / "runs" / "run-001"


def moves_of_rounds(run: Path) -> list[dict[str, float]]:
    [log] = (run / "nvflare").rglob("custom/aggregator.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_the_own_aggregator_got_what_the_own_filter_made_of_it(run: Path) -> None:
    rounds = moves_of_rounds(run)

    assert len(rounds) == 2  # it has forgotten each round by itself
    for moves in rounds:
        assert list(moves) == ["site-1", "site-2", "site-3"]  # whoever answered first
        assert moves["site-3"] == 1000


def test_the_model_moved_by_the_median_and_not_by_the_mean(run: Path) -> None:
    last = moves_of_rounds(run)[-1]
    weights = read_checkpoint(run / "results/models/FL_global_model.pt").weights

    value = weights[first_tensor()].flatten()[0].item()
    assert abs(value) < 100  # the mean would have been about 333 a round
    assert sorted(last.values())[1] == max(last["site-1"], last["site-2"])
    assert torch.isfinite(weights[first_tensor()]).all()


def test_the_own_trainer_trained_each_round_at_each_site(run: Path) -> None:
    files = list((run / "nvflare").rglob("custom/runs.txt"))

    assert sum(len(file.read_text().splitlines()) for file in files) == 3 * 2


def test_without_consent_the_job_is_refused(job: Path, tmp_path: Path, run: Path) -> None:
    done = simulate(job, {}, tmp_path)

    assert done.returncode == 2
    assert "'own_aggregator.Median' is code that this site has not allowed" in done.stderr
    assert "'own_trainer.CountingTrainer' is code that this site has not allowed" in done.stderr
