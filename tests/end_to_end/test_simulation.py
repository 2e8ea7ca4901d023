"""Whole federations with the real command: ``mmar simulate`` on the example job.

Each takes about half a minute by NVFlare's simulator, and less by the inline engine, so what they
left is looked at many times: one that succeeds, one with the same seed by the other engine, one
with a spoilt image and one interrupted by each, one on a real CT.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from fl_admin.demo_data import write_demo_data
from tests.conftest import as_it_leaves, processes_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = REPOSITORY / "jobs" / "spleen_ct_segmentation"
REAL_CT = REPOSITORY.parent / "shared" / "data" / "spleen"

PYTHON = sys.executable
"""Python from scratch: whoever ends the processes of a run finds them as children of each other."""

SITES = ["site-1", "site-2", "site-3"]
GLOBAL_MODELS = ["FL_global_model", "best_FL_global_model"]
DICE = "val_mean_dice"

SECONDS_TO_STOP = 20.0
PATIENCE = 300.0


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "fl_admin.cli.main", *map(str, words)]


@dataclass(frozen=True)
class Run:
    """A command that has ended, with what it printed and the folder it worked in."""

    code: int
    stdout: str
    stderr: str
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def record(self) -> Any:
        return json.loads((self.results / "run_record.json").read_text())

    @property
    def cells(self) -> Any:
        return json.loads((self.results / "cross_site.json").read_text())["cells"]


def simulate(
    data: Path,
    workspace: Path,
    *,
    sites: int,
    rounds: int,
    job: Path = JOB,
    engine: str = "nvflare",
    policy: Path | None = None,
) -> Run:
    options = ["--sites", sites, "--rounds", rounds, "--data", data, "--workspace", workspace]
    options += ["--engine", engine, *(["--policy", policy] if policy else [])]
    done = subprocess.run(
        command("simulate", job, *options, "--json"), capture_output=True, text=True
    )
    return Run(done.returncode, done.stdout, done.stderr, workspace / "run-001")


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(folder, sites=3)
    return folder


# --- a run that succeeds


@pytest.fixture(scope="module")
def run(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three sites, three rounds."""
    workspace = tmp_path_factory.mktemp("runs")
    done = simulate(demo_data, workspace, sites=3, rounds=3)
    assert done.code == 0, done.stderr
    return done


def mean_scores(record: Any) -> dict[int, float]:
    return {scores["round"]: scores["mean"][DICE]["value"] for scores in record["scores"]}


def test_stdout_is_one_json_document_with_record_and_matrix(run: Run) -> None:
    printed = json.loads(run.stdout)

    assert printed["folder"] == str(run.folder)
    assert printed["failure"] is None
    assert printed["record"] == run.record
    assert printed["cross_site"]["cells"] == run.cells


def test_the_run_is_complete(run: Run) -> None:
    assert (run.record["status"], run.record["failure"]) == ("complete", None)
    assert [one["round"] for one in run.record["rounds"]] == [1, 2, 3]


def test_the_federation_learns(run: Run) -> None:
    scores = mean_scores(run.record)

    assert scores[3] - scores[1] >= 0.2


def test_every_global_model_is_scored_at_every_site_the_initial_one_too(run: Run) -> None:
    assert list(mean_scores(run.record)) == [0, 1, 2, 3]
    assert all(sorted(scores["sites"]) == SITES for scores in run.record["scores"])


def test_the_best_round_is_the_one_with_the_highest_mean(run: Run) -> None:
    scores = mean_scores(run.record)

    assert run.record["best_round"] == max((1, 2, 3), key=scores.__getitem__)


def test_the_record_tells_of_each_site_what_it_did_in_each_round(run: Run) -> None:
    for one in run.record["rounds"]:
        assert sorted(one["sites"]) == SITES
        for outcome in one["sites"].values():
            assert outcome["status"] == "contributed"
            # 3 epochs of 3 cases in batches of 2.
            assert outcome["steps"] == 3 * 2
            assert outcome["bytes"] > 100_000
            assert outcome["seconds"] > 0
            assert outcome["received_metrics"].keys() == {DICE, "val_acc"}
            assert outcome["local_metrics"].keys() == {DICE, "val_acc"}


def test_epochs_count_on_over_the_rounds(run: Run) -> None:
    epochs = [
        [epoch["epoch"] for epoch in one["sites"]["site-1"]["epochs"]]
        for one in run.record["rounds"]
    ]

    assert epochs == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_each_site_is_one_process_that_builds_everything_once(run: Run) -> None:
    names = set()
    for site in SITES:
        outcomes = [one["sites"][site] for one in run.record["rounds"]]
        (process,) = {outcome["process"] for outcome in outcomes}
        names.add(process)
        assert all(outcome["built"] == outcomes[0]["built"] for outcome in outcomes)
        built = outcomes[0]["built"]
        assert {count for name, count in built.items() if name.startswith("train.")} == {1}
        assert built["validate.dataset"] == built["validate.dataloader"] == 1
    assert len(names) == len(SITES)


def test_the_matrix_has_every_model_at_every_site(run: Run) -> None:
    matrix = json.loads((run.results / "cross_site.json").read_text())

    assert matrix["complete"]
    assert matrix["models"] == [*GLOBAL_MODELS, *SITES]
    for model in matrix["models"]:
        assert sorted(matrix["cells"][model]) == SITES
        assert all(0 <= cell[DICE]["value"] <= 1 for cell in matrix["cells"][model].values())


def test_the_csv_holds_the_same_numbers(run: Run) -> None:
    lines = (run.results / "cross_site.csv").read_text().splitlines()

    assert len(lines) == 1 + 5 * 3 * 3  # Dice, its one class, accuracy
    dice = run.cells["site-1"]["site-3"][DICE]
    [(name, spleen)] = dice["classes"].items()
    cases = f"{dice['counted']},{dice['undefined']}"
    place = f"site-1,site-3,{DICE}"
    assert f"{place},,{dice['value']!r},,,{cases},{spleen['missed']},," in lines
    counts = f"{spleen['counted']},,{spleen['missed']},0,0"
    assert f"{place},{name},{spleen['value']!r},,,{counts}" in lines


def test_the_report_is_one_file_that_loads_nothing(run: Run) -> None:
    text = (run.results / "report.html").read_text()

    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:|//|\.|/)", text)
    assert "<script" not in text
    assert "spleen_ct_segmentation" in text
    assert all(site in text for site in SITES)


def test_all_models_are_there_to_take_away(run: Run) -> None:
    names = sorted(path.name for path in (run.results / "models").iterdir())

    assert names == sorted(f"{name}.pt" for name in [*GLOBAL_MODELS, *SITES])


def test_the_folder_holds_the_job_as_it_ran(run: Run) -> None:
    for name in ("config_train.json", "config_cross_validation.json"):
        ran = (run.folder / "job/app/config" / name).read_bytes()
        assert ran == (JOB / "app/config" / name).read_bytes()


def test_no_process_is_left(run: Run) -> None:
    assert processes_of(run.folder) == []


def test_no_file_is_left_half_written(run: Run) -> None:
    assert list(run.folder.rglob("*.tmp")) == []


def test_what_sites_tell_of_their_progress_names_no_file(run: Run) -> None:
    files = list(run.folder.rglob("progress.jsonl"))

    assert len(files) == len(SITES)
    assert not [path for path in files if "case-" in path.read_text() or ".nii" in path.read_text()]


@pytest.mark.parametrize(("model", "site"), [("FL_global_model", "site-1"), ("site-2", "site-3")])
def test_mmar_evaluate_gives_the_number_of_the_matrix_before_it_is_rounded(
    run: Run, tmp_path: Path, model: str, site: str
) -> None:
    """A model that was taken away, evaluated at a site without any federation."""
    taken = shutil.copy(run.results / "models" / f"{model}.pt", tmp_path)
    words = [
        "-m", run.folder / "job/app",
        "-c", "config/config_cross_validation.json",
        "-e", run.folder / "sites" / site / "environment.json",
        "--json",
        "--set", "dont_load_ckpt_model=False", f"MMAR_CKPT={taken}",
        f"MMAR_EVAL_OUTPUT_PATH={tmp_path / 'eval'}",
    ]  # fmt: skip

    done = subprocess.run(command("evaluate", *words), capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["metrics"]
    assert as_it_leaves(found) == run.cells[model][site]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("model", GLOBAL_MODELS)
def test_each_site_gets_exactly_its_number_of_the_matrix_by_itself(
    run: Run, model: str, site: str, capfd: pytest.CaptureFixture[str]
) -> None:
    kit = run.folder / "nvflare/spleen_ct_segmentation" / site
    model_file = run.results / "models" / f"{model}.pt"

    assert main(["site", "validate", "--kit", str(kit), "--model", str(model_file), "--json"]) == 0

    assert json.loads(capfd.readouterr().out)["metrics"] == run.cells[model][site]


# --- a run with the same seed, by the other engine


@pytest.fixture(scope="module")
def again(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    done = simulate(demo_data, tmp_path_factory.mktemp("again"), sites=3, rounds=3, engine="inline")
    assert done.code == 0, done.stderr
    return done


def test_a_site_gets_its_number_of_the_matrix_by_itself_after_the_other_engine_too(
    again: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    kit, model = again.folder / "sites" / SITES[0], GLOBAL_MODELS[0]
    model_file = again.results / "models" / f"{model}.pt"

    assert main(["site", "validate", "--kit", str(kit), "--model", str(model_file), "--json"]) == 0

    assert json.loads(capfd.readouterr().out)["metrics"] == again.cells[model][SITES[0]]


def test_the_same_seed_gives_the_same_weights_to_the_last_bit_in_every_round(
    run: Run, again: Run
) -> None:
    digests = [one["weights_sha256"] for one in again.record["rounds"]]
    assert digests == [one["weights_sha256"] for one in run.record["rounds"]]
    assert again.record["initial_weights_sha256"] == run.record["initial_weights_sha256"]
    assert len({*digests, again.record["initial_weights_sha256"]}) == 4
    # Nor does anything else that was computed differ.
    assert again.record["scores"] == run.record["scores"]
    assert again.cells == run.cells
    for one, other in zip(again.record["rounds"], run.record["rounds"], strict=True):
        for site in SITES:
            for part in ("received_metrics", "local_metrics", "epochs", "steps", "bytes", "built"):
                assert one["sites"][site][part] == other["sites"][site][part]


def test_one_process_does_the_work_of_all_sites(again: Run) -> None:
    outcomes = [one["sites"][site] for one in again.record["rounds"] for site in SITES]

    assert len({outcome["process"] for outcome in outcomes}) == 1
    assert not (again.folder / "nvflare").exists()


# --- a run with a spoilt image


@pytest.fixture(scope="module", params=["nvflare", "inline"])
def spoilt(
    request: pytest.FixtureRequest,
    demo_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    open_policy: Path,
) -> Run:
    """One image of the second site lacks a part, which shows when it is read."""
    data = shutil.copytree(demo_data, tmp_path_factory.mktemp("spoilt") / "data")
    image = next((data / "site-2" / "imagesTr").glob("*case-1.nii.gz"))
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2] + content[-4:])  # the length is said at the end
    workspace = tmp_path_factory.mktemp("runs")
    return simulate(data, workspace, sites=2, rounds=1, engine=request.param, policy=open_policy)


def test_a_spoilt_image_fails_the_run(spoilt: Run) -> None:
    assert spoilt.code == 1


def test_one_line_says_which_site_failed_and_why(spoilt: Run) -> None:
    (line,) = [one for one in spoilt.stderr.splitlines() if one.startswith("mmar: ")]

    assert "site-2: train: config_train.json: an image cannot be read" in line
    assert "site-1:" not in line
    assert "Traceback" not in spoilt.stderr


def test_the_record_of_the_failed_run_says_so_and_names_no_file(spoilt: Run) -> None:
    record = spoilt.record

    assert record["status"] == "failed"
    outcome = record["rounds"][0]["sites"]["site-2"]
    assert outcome["status"] == "failed"
    assert re.fullmatch(r"data-error \(reference [0-9a-f]{8}\)", outcome["reason"])
    assert "case-1" not in json.dumps(record)


def test_a_failed_run_still_has_its_report(spoilt: Run) -> None:
    assert "failed" in (spoilt.results / "report.html").read_text()


def test_after_a_failure_no_process_is_left(spoilt: Run) -> None:
    assert processes_of(spoilt.folder) == []


# --- a run that is interrupted


@dataclass(frozen=True)
class Interrupted:
    """A run after Ctrl-C in its second round."""

    run: Run
    seconds: float
    processes_before: int
    processes_needed: int


def record_so_far(folder: Path) -> Any:
    path = folder / "nvflare/spleen_ct_segmentation/server/simulate_job/results/run_record.json"
    if not path.parent.exists():
        path = folder / "results/run_record.json"
    return json.loads(path.read_text()) if path.exists() else {"rounds": []}


@pytest.fixture(scope="module", params=["nvflare", "inline"])
def interrupted(
    request: pytest.FixtureRequest, demo_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Interrupted:
    workspace = tmp_path_factory.mktemp("runs")
    folder = workspace / "run-001"
    options = ["--sites", 2, "--rounds", 30, "--data", demo_data, "--workspace", workspace]
    options += ["--engine", request.param]
    started = subprocess.Popen(
        [PYTHON, *command("simulate", JOB, *options)[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while len(record_so_far(folder)["rounds"]) < 2:
            assert started.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        before = len(processes_of(folder))
        asked = time.monotonic()
        started.send_signal(signal.SIGINT)
        stdout, stderr = started.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - asked
    finally:
        if started.poll() is None:
            started.kill()
            started.wait()
    needed = 3 if request.param == "nvflare" else 1  # a server and two sites, or all in one
    done = Run(started.returncode, stdout, stderr, folder)
    return Interrupted(done, seconds, before, needed)


def test_an_interrupted_run_ends_soon_with_the_exit_code_of_an_interrupt(
    interrupted: Interrupted,
) -> None:
    assert interrupted.run.code == 130
    assert interrupted.seconds < SECONDS_TO_STOP
    assert "Traceback" not in interrupted.run.stderr


def test_of_its_processes_none_is_left(interrupted: Interrupted) -> None:
    assert interrupted.processes_before >= interrupted.processes_needed
    assert processes_of(interrupted.run.folder) == []


def test_its_record_says_that_it_was_interrupted(interrupted: Interrupted) -> None:
    record = interrupted.run.record

    assert (record["status"], record["failure"]) == ("failed", "interrupted")
    assert len(record["rounds"]) >= 2
    assert record["rounds"][0]["weights_sha256"] is not None
    assert (interrupted.run.results / "report.html").is_file()


def test_it_leaves_no_file_half_written_and_no_model_on_its_way(interrupted: Interrupted) -> None:
    assert list(interrupted.run.folder.rglob("*.tmp")) == []
    assert not interrupted.run.folder.joinpath("handover").exists()


def test_the_model_of_its_last_whole_round_can_be_read(interrupted: Interrupted) -> None:
    import torch

    model = torch.load(interrupted.run.results / "models" / "FL_global_model.pt", weights_only=True)
    assert model["model"]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model["model"].values())


# --- a run on a real CT


def write_real_data(folder: Path) -> None:
    """Two sites from the one volume at 2 mm: boxes around the spleen, 24 mm apart.

    Each site lists its box four times, so that an epoch has two steps.
    """
    import nibabel
    import numpy as np
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Spacingd

    keys = ["image", "label"]
    name = "spleen_8.nii.gz"
    resample = Compose(
        [
            LoadImaged(keys=keys),
            EnsureChannelFirstd(keys=keys),
            Spacingd(keys=keys, pixdim=(2.0, 2.0, 2.0), mode=("bilinear", "nearest")),
        ]
    )
    case = resample({"image": REAL_CT / "imagesTr" / name, "label": REAL_CT / "labelsTr" / name})
    label = np.asarray(case["label"][0])
    centre = np.argwhere(label > 0).mean(axis=0).astype(int)
    for number, shift in ((1, -6), (2, 6)):
        site = folder / f"site-{number}"
        site.mkdir(parents=True)
        start = [
            int(np.clip(middle + shift - 40, 0, length - 80))
            for middle, length in zip(centre, label.shape, strict=True)
        ]
        box = tuple(slice(begin, begin + 80) for begin in start)
        for key, dtype in (("image", np.int16), ("label", np.uint8)):
            volume = np.asarray(case[key][0])[box].astype(dtype)
            nibabel.save(nibabel.Nifti1Image(volume, np.diag([2, 2, 2, 1])), site / f"{key}.nii.gz")
        entry = {"image": "image.nii.gz", "label": "label.nii.gz"}
        lists = {"training": [entry] * 4, "validation": [entry], "test": ["image.nii.gz"]}
        (site / "dataset.json").write_text(json.dumps(lists))


@pytest.mark.shared
def test_training_on_a_real_ct_lowers_the_loss_at_both_sites(
    tmp_path: Path, open_policy: Path
) -> None:
    write_real_data(tmp_path / "data")

    run = simulate(tmp_path / "data", tmp_path / "runs", sites=2, rounds=2, policy=open_policy)

    assert run.code == 0, run.stderr
    for site in ("site-1", "site-2"):
        epochs = [epoch for one in run.record["rounds"] for epoch in one["sites"][site]["epochs"]]
        losses = [epoch["loss"] for epoch in epochs]
        assert len(losses) == 2 * 3
        assert losses[-1] < losses[0] - 0.1
    assert len(run.cells) == 4
