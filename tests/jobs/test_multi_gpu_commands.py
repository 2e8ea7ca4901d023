"""Clara's commands for several GPUs: the single ones, each behind torchrun and with multi_gpu."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Edited = Callable[[Path, Callable[[Any], object]], Path]

COMMANDS = (
    Path(__file__).resolve().parents[2] / "jobs" / "spleen_ct_segmentation" / "app" / "commands"
)
PAIRS = {
    "train_multi_gpu.sh": "train.sh",
    "finetune_multi_gpu.sh": "finetune.sh",
    "validate_multi_gpu.sh": "validate.sh",
    "validate_multi_gpu_ckpt.sh": "validate_ckpt.sh",
    "infer_multi_gpu.sh": "infer.sh",
}
TELL_WORDS = """#!/usr/bin/env bash
printf '%s\\n' "$@"
"""


def words_of(script: str, folder: Path, *words: str, **variables: str) -> list[str]:
    """What the script gives to ``python3``."""
    folder.mkdir(exist_ok=True)
    python = folder / "python3"
    python.write_text(TELL_WORDS)
    python.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **variables}
    command = [str(COMMANDS / script), *words]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.mark.parametrize(("several", "single"), PAIRS.items())
def test_each_is_the_single_one_behind_torchrun(several: str, single: str, tmp_path: Path) -> None:
    given = {"additional_options": "epochs=3 amp=False"}
    expected = words_of(single, tmp_path, "learning_rate=1e-4", **given)
    found = words_of(several, tmp_path, "learning_rate=1e-4", **given)
    launcher = ["-u", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]

    assert found[:5] == launcher
    found.remove("multi_gpu=True")
    assert ["-u", *found[5:]] == expected


def test_a_variable_says_how_many_processes(tmp_path: Path) -> None:
    assert "--nproc_per_node=4" in words_of("train_multi_gpu.sh", tmp_path, processes="4")


def test_there_is_one_for_each_single_command_that_runs_an_mmar() -> None:
    there = {path.name for path in COMMANDS.glob("*.sh")} - {"set_env.sh", "export.sh"}
    assert there == {*PAIRS, *PAIRS.values()}


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_they_train_and_validate_in_two_processes(tiny_mmar: Path, edited: Edited) -> None:
    shutil.copytree(COMMANDS, tiny_mmar / "commands")

    def share(lists: Any) -> None:
        lists["validation"] = lists["training"]  # one case for each process

    edited(tiny_mmar / "data/dataset.json", share)
    python = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}"}

    def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(tiny_mmar / "commands" / script), *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    trained = run("train_multi_gpu.sh", "epochs=1")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("trained 1 iterations") == 1  # two cases for two processes
    stats = json.loads((tiny_mmar / "models/train_stats.json").read_text())

    validated = run("validate_multi_gpu_ckpt.sh")
    assert validated.returncode == 0, validated.stderr
    assert validated.stdout.count("2 cases in ") == 1
    assert f"val_mean_dice: {stats['best_validation_metric']!r}\n" in validated.stdout
