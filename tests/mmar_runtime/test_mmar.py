"""The folder of an MMAR: which one is one, and where its documents are."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmar_runtime.errors import ConfigError
from mmar_runtime.mmar import Mmar


@pytest.fixture
def mmar(tmp_path: Path) -> Mmar:
    (tmp_path / "config").mkdir()
    return Mmar.open(tmp_path)


def fault(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        Mmar.open(folder)
    [problem] = caught.value.problems
    return str(problem)


def test_an_mmar_is_a_folder_with_a_config_folder(mmar: Mmar, tmp_path: Path) -> None:
    assert mmar == Mmar(tmp_path)
    assert (mmar.custom, mmar.models) == (tmp_path / "custom", tmp_path / "models")


def test_the_root_is_absolute(mmar: Mmar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mmar.root / "config")
    monkeypatch.setenv("HOME", str(mmar.root))

    assert Mmar.open("..") == mmar
    assert Mmar.open("~") == mmar


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    folder = tmp_path / "mmra"

    assert fault(folder) == (
        f"MMAR: the MMAR folder {str(folder)!r} does not exist\n"
        "    Point -m/--mmar at the folder above 'config'."
    )


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "job.zip").touch()

    assert fault(tmp_path / "job.zip").startswith(
        f"MMAR: the MMAR folder {str(tmp_path / 'job.zip')!r} is a file\n"
    )


def test_a_folder_without_a_config_folder(tmp_path: Path) -> None:
    assert fault(tmp_path) == (
        f"MMAR: the MMAR folder {str(tmp_path)!r} holds no folder 'config'\n"
        "    Point -m/--mmar at the folder above 'config'."
    )


def test_a_folder_above_the_mmar_is_told_which_one_was_meant(tmp_path: Path) -> None:
    (tmp_path / "app" / "config").mkdir(parents=True)

    assert fault(tmp_path).endswith(f"\n    Did you mean {str(tmp_path / 'app')!r}?")


def test_a_document_is_relative_to_the_root(mmar: Mmar) -> None:
    path = mmar.root / "config" / "config_train.json"

    assert mmar.document("config/config_train.json") == path
    assert mmar.document(Path("config/config_train.json")) == path
    assert mmar.document(path) == path


def test_a_bare_name_is_looked_up_in_config_too(mmar: Mmar) -> None:
    assert mmar.document("a.json") == mmar.root / "config" / "a.json"

    (mmar.root / "a.json").touch()

    assert mmar.document("a.json") == mmar.root / "a.json"
