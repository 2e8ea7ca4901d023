"""``mmar simulate`` with bad input: one clear message, at once, and nothing has started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli import simulate as command
from fl_admin.cli.parser import build_parser
from fl_admin.jobs.job import Job
from fl_admin.simulation.engine import EngineName
from fl_admin.simulation.plan import SimulationRequest, plan_simulation
from fl_admin.simulation.run import SimulationResult
from fl_server.record.cross_site import CrossSiteMatrix
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG
from tests.conftest import metric

Edited = Callable[[Path, Callable[[Any], object]], Path]

HEAVY = ("torch", "monai", "nvflare")
"""What takes seconds to import, and no refusal needs."""


class Refusal:
    """One call of ``mmar simulate`` that has to be refused."""

    def __init__(self, job: Job, data: Path, workspace: Path) -> None:
        self.job, self.data, self.workspace = job, data, workspace

    def __call__(self, *more: str, **changes: object) -> str:
        """Run it with these changes; returns what it says."""
        given = {"data": self.data, "workspace": self.workspace, "sites": 3, **changes}
        options = [f"--{name}={value}" for name, value in given.items()]
        job = str(changes.pop("job", self.job.folder))
        options = [option for option in options if not option.startswith("--job=")]
        python = [sys.executable, "-X", "importtime", "-m", "fl_admin.cli.main"]
        words = [*python, "simulate", job, *options, *more]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        lines = done.stderr.splitlines(keepends=True)
        imports = [line for line in lines if line.startswith("import time:")]
        told = "".join(line for line in lines if line not in imports)
        assert done.returncode == 2, told
        assert "Traceback" not in told
        assert not list(Path(str(given["workspace"])).glob("run-*"))
        assert imports, "Python tells of no import"
        assert not {line.rpartition("|")[2].strip() for line in imports} & set(HEAVY)
        return told if "--json" not in more else done.stdout


@pytest.fixture
def refusal(job: Job, demo_data: Path, tmp_path: Path) -> Refusal:
    return Refusal(job, demo_data, tmp_path / "runs")


def test_a_job_that_is_not_there(refusal: Refusal, tmp_path: Path) -> None:
    assert "/nothing' does not exist" in refusal(job=tmp_path / "nothing")


def test_data_that_are_not_there(refusal: Refusal, tmp_path: Path) -> None:
    text = refusal(data=tmp_path / "nothing")

    assert "there is no" in text
    assert "--data names a folder with site-1/dataset.json" in text


def test_no_site(refusal: Refusal) -> None:
    assert "--sites: has to be a positive whole number, found 0" in refusal(sites=0)


def test_no_round(refusal: Refusal) -> None:
    assert "--rounds: has to be a positive whole number, found 0" in refusal("--rounds=0")


def test_a_workspace_with_a_space(refusal: Refusal, tmp_path: Path) -> None:
    said = refusal("--engine=nvflare", workspace=tmp_path / "my runs")

    assert "blanks, quotes, backslashes or '#'" in said


def test_a_class_that_no_site_allows(refusal: Refusal, edited: Edited) -> None:
    edited(
        refusal.job.mmar.document(CLIENT_CONFIG),
        lambda document: document["executors"][0]["executor"].update(path="os.system"),
    )

    assert "'os.system' is not among the classes" in refusal()


def misspell(document: Any) -> None:
    arguments = document["train"]["model"]["args"]
    arguments["num_res_unit"] = arguments.pop("num_res_units")


def test_an_unknown_argument(refusal: Refusal, edited: Edited) -> None:
    edited(refusal.job.mmar.document("config_train.json"), misspell)

    text = refusal()
    assert "config_train.json: train.model.args.num_res_unit: UNet: unknown argument" in text
    assert "Did you mean 'num_res_units'?" in text


def test_with_json_the_problems_are_a_document_on_stdout(refusal: Refusal, edited: Edited) -> None:
    edited(refusal.job.mmar.document("config_train.json"), misspell)

    (problem,) = json.loads(refusal("--json"))["problems"]
    assert problem["place"] == "train.model.args.num_res_unit"
    assert problem["file"] == "config_train.json"


def test_a_config_that_is_no_json(refusal: Refusal) -> None:
    refusal.job.mmar.document("config_train.json").write_text('{"train": ')

    assert "config_train.json" in refusal()


def test_a_value_that_a_site_could_not_run_with(refusal: Refusal) -> None:
    assert "NUM_THREADS" in refusal("--set", "NUM_THREADS=many")


def test_a_job_that_is_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], demo_data: Path
) -> None:
    from fl_admin.cli.main import main

    assert main(["simulate", "--data", str(demo_data), "-w", str(tmp_path)]) == 2
    assert "the job's folder is not named" in capsys.readouterr().err


# --- what is shown at the end


@pytest.mark.parametrize(
    ("engine", "kit"),
    [("inline", "sites/site-1"), ("nvflare", "nvflare/spleen_ct_segmentation/site-1")],
)
def test_the_command_for_a_sites_own_number_is_one_that_mmar_takes(
    job: Job, demo_data: Path, tmp_path: Path, engine: EngineName, kit: str
) -> None:
    """Copied from the terminal it has to work; the end-to-end test runs it."""
    import shlex

    request = SimulationRequest(job=job, sites=2, data=demo_data, engine=engine)
    plan = plan_simulation(request)
    folder = plan.engine.new_folder(tmp_path)
    matrix = CrossSiteMatrix(
        cells={"FL_global_model": {"site-1": {"dice": metric(0.5)}}},
        key_metric="dice",
        models=("FL_global_model",),
        sites=("site-1",),
        weights_sha256={},
        evaluation_sha256="e" * 64,
    )
    result = SimulationResult(folder=folder, record=None, matrix=matrix, failure=None, seconds=1.0)

    last = command._where(plan, result).splitlines()[-1]

    words = shlex.split(last)
    assert words[:3] == ["mmar", "site", "validate"]
    options = build_parser().parse_args(words[1:])
    assert options.kit == folder.root / kit
    assert options.model == folder.results / "models/FL_global_model.pt"


def test_a_run_that_failed_lists_no_empty_folder(job: Job, demo_data: Path, tmp_path: Path) -> None:
    plan = plan_simulation(SimulationRequest(job=job, sites=2, data=demo_data))
    folder = plan.engine.new_folder(tmp_path)
    (folder.results / "models").mkdir(parents=True)
    result = SimulationResult(folder=folder, record=None, matrix=None, failure="x", seconds=1.0)

    assert command._where(plan, result) == "took 1 s"
    (folder.results / "models/FL_global_model.pt").touch()
    assert command._where(plan, result).endswith(f"weights: {folder.results}/models")


def test_an_interrupted_run_names_its_folder(
    job: Job, demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from fl_admin.cli.main import main
    from fl_admin.simulation import run

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("stopped by SIGINT")

    monkeypatch.setattr(run, "simulate", interrupted)
    words = ["--data", str(demo_data), "--sites", "2", "-w", str(tmp_path)]
    assert main(["simulate", str(job.folder), *words]) == 130
    assert (
        f"mmar: stopped by SIGINT; what there is so far lies in {tmp_path}/run-001"
        in capsys.readouterr().err
    )
