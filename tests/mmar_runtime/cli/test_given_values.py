"""What ``--set`` and ``--data`` mean, from whichever folder they are typed."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

import medl.apps.train
from fl_admin.cli.main import main
from mmar_runtime.cli.given_values import given_values, with_data
from mmar_runtime.errors import ConfigError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which is no MMAR."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(*words: str, old_scripts: bool = False) -> dict[str, object]:
    return {**given_values(argparse.Namespace(overrides=words, old_scripts=old_scripts))}


def test_a_file_of_the_working_directory_is_that_file(here: Path) -> None:
    (here / "best.pt").touch()
    words = ("MMAR_CKPT=best.pt", "MMAR_TORCHSCRIPT=models/model.ts", "DATA_ROOT=data", "fold=0")

    assert values(*words) == {
        "MMAR_CKPT": f"{here}/best.pt",
        "MMAR_TORCHSCRIPT": "models/model.ts",  # nothing lies there: it means the MMAR's
        "DATA_ROOT": f"{here}/data",
        "fold": 0,
    }
    assert values("MMAR_CKPT=best.pt", old_scripts=True) == {"MMAR_CKPT": "best.pt"}


def test_a_folder_for_results_is_the_mmars_unless_it_begins_with_a_dot(here: Path) -> None:
    assert values("MMAR_CKPT_DIR=./runs", "MMAR_EVAL_OUTPUT_PATH=eval") == {
        "MMAR_CKPT_DIR": f"{here}/runs",
        "MMAR_EVAL_OUTPUT_PATH": "eval",
    }


def test_data_is_a_folder_with_a_list(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"--data: there is no dataset\.json in '"):
        with_data({}, Path("data"))
    (here / "data").mkdir()
    (here / "data/dataset.json").touch()

    assert with_data({"DATASET_JSON": "fold_1.json"}, Path("data")) == {
        "DATA_ROOT": f"{here}/data",
        "DATASET_JSON": "fold_1.json",  # --set wins
    }
    assert with_data({"fold": 0}, None) == {"fold": 0}


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_value_that_nothing_uses_is_refused_but_from_claras_scripts(
    tiny_mmar: Path, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    words = ["-m", str(tiny_mmar), "--data", str(tiny_mmar / "data"), "--set", "MMAR_CKTP=x"]

    assert main([command, *words]) == 2
    assert (
        "--set: MMAR_CKTP: nothing here uses the variable 'MMAR_CKTP'. Did you mean 'MMAR_CKPT'"
        in capfd.readouterr().err
    )
    if command == "train":
        assert medl.apps.train.main([*words, "epochs=1", "0"]) == 0
        assert "note: nothing here uses the variable 'MMAR_CKTP'" in capfd.readouterr().err
