"""Clara's names for the commands: they resolve, run, and are what an MMAR's scripts call."""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import medl.apps.evaluate
import medl.apps.train

COMMANDS = (
    Path(__file__).resolve().parents[2] / "jobs" / "spleen_ct_segmentation" / "app" / "commands"
)
TRAIN = ["-c", "config/config_train.json", "-e", "config/environment.json"]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def mmar(tiny_mmar: Path) -> Path:
    """The tiny MMAR with the commands of the spleen job, in a folder whose name has a space."""
    root = tiny_mmar.rename(tiny_mmar.with_name("an mmar"))
    shutil.copytree(COMMANDS, root / "commands")
    environment = root / "config" / "environment.json"
    values = json.loads(environment.read_text(encoding="utf-8"))
    values["DATA_ROOT"] = str(root / "data")
    environment.write_text(json.dumps(values), encoding="utf-8")
    return root


@pytest.fixture
def run_script(mmar: Path, tmp_path: Path) -> Run:
    """``run_script("train.sh", "epochs=1", additional_options="a=b")`` from another folder."""

    def run(name: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        python = Path(sys.executable).parent
        environment = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}", **variables}
        return subprocess.run(
            [str(mmar / "commands" / name), *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def stats_of(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "models" / "train_stats.json").read_text())
    return content


@pytest.mark.parametrize("name", ["medl", "medl.apps", "medl.apps.train", "medl.apps.evaluate"])
def test_claras_import_names_resolve(name: str) -> None:
    assert importlib.import_module(name).__doc__


def test_train_writes_its_statistics_where_the_checkpoints_are(mmar: Path) -> None:
    words = ["--write_train_stats", "--local_rank=0", "--set", "epochs=1"]

    code = medl.apps.train.main(["-m", str(mmar), *TRAIN, *words])

    stats = stats_of(mmar)
    best = stats.pop("best_validation_metric")
    assert code == 0
    assert 0 <= best <= 1
    # Two cases in batches of one.
    assert stats == {
        "rank": 0,
        "current_epoch": 1,
        "current_iteration": 1 * 2,
        "total_epochs": 1,
        "total_iterations": 1 * 2,
        "best_validation_epoch": 1,
    }


def test_train_writes_no_statistics_unless_asked(mmar: Path) -> None:
    assert medl.apps.train.main(["-m", str(mmar), "--set", "epochs=1"]) == 0
    assert not (mmar / "models" / "train_stats.json").exists()


def test_a_fault_of_the_config_is_reported_and_writes_nothing(
    mmar: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--write_train_stats", "--set", "DATASET_JSON=nowhere.json"]

    code = medl.apps.train.main(["-m", str(mmar), *TRAIN, *words])

    assert code == 2
    assert "there is no data list" in capsys.readouterr().err
    assert not (mmar / "models" / "train_stats.json").exists()


def test_evaluate_needs_an_mmar(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        medl.apps.evaluate.main([])

    assert stopped.value.code == 2
    assert "python3 -m medl.apps.evaluate" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_the_commands_train_validate_and_fine_tune(mmar: Path, run_script: Run) -> None:
    trained = run_script("train.sh", additional_options="epochs=1 num_interval_per_valid=1")
    assert trained.returncode == 0, trained.stderr
    assert stats_of(mmar)["total_epochs"] == 1

    validated = run_script("validate_ckpt.sh")
    assert validated.returncode == 0, validated.stderr
    dice = next(line for line in validated.stdout.splitlines() if line.startswith("val_mean_dice"))
    expected = stats_of(mmar)["best_validation_metric"]
    assert math.isclose(float(dice.partition(": ")[2]), expected, rel_tol=1e-6)

    tuned = run_script("finetune.sh", "epochs=2", additional_options="0")
    assert tuned.returncode == 0, tuned.stderr
    assert stats_of(mmar)["total_epochs"] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_a_later_value_wins_over_the_scripts_own(run_script: Run) -> None:
    """``dont_load_ckpt_model=False`` without a checkpoint there is refused."""
    run = run_script("train.sh", "dont_load_ckpt_model=False", additional_options="epochs=1")

    assert run.returncode != 0
    assert "model.pt" in run.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_validate_asks_for_the_torchscript_file(run_script: Run) -> None:
    run = run_script("validate.sh")

    assert run.returncode == 2
    assert "there is no TorchScript file" in run.stderr


def test_set_env_names_the_mmar_and_keeps_the_python_path(mmar: Path) -> None:
    script = f'set -eu; . "{mmar}/commands/set_env.sh"; printf "%s\n" "$MMAR_ROOT" "$PYTHONPATH"'

    run = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": "/elsewhere", "CDPATH": "/tmp"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert run.stdout.splitlines() == [str(mmar), f"/elsewhere:{mmar}/custom"]
