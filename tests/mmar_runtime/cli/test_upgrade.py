"""``mmar upgrade``: what it shows, what it writes, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from mmar_runtime.cli import upgrade
from mmar_runtime.cli.upgrade import document_text

Edited = Callable[[Path, Callable[[Any], object]], Path]
Output = pytest.CaptureFixture[str]

ENVIRONMENT = {"DATA_ROOT": "/data", "DATASET_JSON": "dataset.json"}
OLD = {
    "epochs": 5,
    "train": {
        "model": {"name": "UNet", "args": {"dimensions": 3, "channels": [16, 32, 64]}},
        "handlers": [{"name": "CheckpointLoader", "args": {"load_dict": ["model"]}}],
        "trainer": {"name": "SupervisedTrainer", "args": {"network": "@model"}},
    },
}
NEW = {
    "CLARA_TRAIN_VERSION": "4.1.0",
    "epochs": 5,
    "train": {
        "model": {"name": "UNet", "args": {"spatial_dims": 3, "channels": [16, 32, 64]}},
        "handlers": [{"name": "CheckpointLoader", "args": {"load_dict": {"model": "@model"}}}],
        "trainer": {"name": "SupervisedTrainer", "args": {"network": "@model"}},
    },
}


@pytest.fixture
def mmar(tmp_path: Path) -> Path:
    """An old training, an inference of today, an environment and a federated document."""
    config = tmp_path / "mmar" / "config"
    config.mkdir(parents=True)
    documents = {
        "config_train.json": OLD,
        "config_inference.json": {"model": {"name": "UNet"}, "evaluator": {"name": "E"}},
        "environment.json": ENVIRONMENT,
        "config_fed_server.json": {"servers": [{"name": "s"}], "model": {"dimensions": 3}},
    }
    for name, document in documents.items():
        (config / name).write_text(json.dumps(document), encoding="utf-8")
    return tmp_path / "mmar"


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "config").iterdir()}


# --- Shown ---------------------------------------------------------------------------------------


def test_the_changes_are_shown_and_nothing_is_written(mmar: Path, capsys: Output) -> None:
    before = contents(mmar)

    assert main(["upgrade", str(mmar)]) == 0

    assert contents(mmar) == before
    assert capsys.readouterr().out == (
        "--- config/config_train.json\n"
        "+++ config/config_train.json (upgraded)\n"
        "@@ -1,10 +1,11 @@\n"
        " {\n"
        '+  "CLARA_TRAIN_VERSION": "4.1.0",\n'
        '   "epochs": 5,\n'
        '   "train": {\n'
        '     "model": {\n'
        '       "name": "UNet",\n'
        '       "args": {\n'
        '-        "dimensions": 3,\n'
        '+        "spatial_dims": 3,\n'
        '         "channels": [16, 32, 64]\n'
        "       }\n"
        "     },\n"
        "@@ -12,7 +13,9 @@\n"
        "       {\n"
        '         "name": "CheckpointLoader",\n'
        '         "args": {\n'
        '-          "load_dict": ["model"]\n'
        '+          "load_dict": {\n'
        '+            "model": "@model"\n'
        "+          }\n"
        "         }\n"
        "       }\n"
        "     ],\n"
        "\n"
        "spatial-dims: the argument 'dimensions' is now 'spatial_dims' "
        "(config_train.json: train.model)\n"
        "load-dict: 4.0's list 'load_dict' is now a mapping to objects "
        "(config_train.json: train.handlers[0].args.load_dict)\n"
        "1 document would change; write with --write\n"
    )


def test_the_same_as_json(mmar: Path, capfd: Output) -> None:
    assert main(["upgrade", str(mmar), "--json"]) == 0

    assert json.loads(capfd.readouterr().out) == [
        {
            "file": str(mmar / "config" / "config_train.json"),
            "original": None,
            "rules": ["spatial-dims", "load-dict"],
            "document": NEW,
        }
    ]


# --- Written -------------------------------------------------------------------------------------


def test_the_original_is_kept_and_a_second_run_has_nothing_to_do(
    mmar: Path, capsys: Output
) -> None:
    before = contents(mmar)

    assert main(["upgrade", str(mmar), "--write"]) == 0
    assert capsys.readouterr().out.endswith("wrote 1 document; originals: config_train.json.orig\n")
    after = contents(mmar)
    assert after.pop("config_train.json.orig") == before["config_train.json"]
    assert json.loads(after.pop("config_train.json")) == NEW
    assert after.items() <= before.items()

    assert main(["upgrade", str(mmar), "--write"]) == 0
    assert capsys.readouterr().out == "nothing to upgrade\n"
    assert "config_train.json.orig.2" not in contents(mmar)


def test_an_earlier_original_is_not_replaced(mmar: Path, capfd: Output) -> None:
    config = mmar / "config"
    originals = []
    for epochs in (1, 2, 3):
        originals.append(json.dumps({**OLD, "epochs": epochs}))
        (config / "config_train.json").write_text(originals[-1], encoding="utf-8")
        assert main(["upgrade", str(mmar), "--write", "--json"]) == 0

    kept = [f"config_train.json.orig{end}" for end in ("", ".2", ".3")]
    assert [(config / name).read_text(encoding="utf-8") for name in kept] == originals
    assert f'"original": "{config / kept[2]}"' in capfd.readouterr().out


def test_bytes_and_mode_of_the_original_are_kept(mmar: Path) -> None:
    path = mmar / "config" / "config_train.json"
    content = b"\xef\xbb\xbf" + json.dumps(OLD, indent=1).replace("\n", "\r\n").encode()
    path.write_bytes(content)
    path.chmod(0o640)

    assert main(["upgrade", str(mmar), "--write"]) == 0

    original = path.with_name("config_train.json.orig")
    assert original.read_bytes() == content
    assert [one.stat().st_mode & 0o777 for one in (path, original)] == [0o640, 0o640]


# --- Refused -------------------------------------------------------------------------------------


def test_broken_documents_are_all_told_and_nothing_is_written(mmar: Path, capsys: Output) -> None:
    (mmar / "config" / "config_validation.json").write_text("{,}", encoding="utf-8")
    (mmar / "config" / "environment.json").write_text('{"a": NaN}', encoding="utf-8")
    before = contents(mmar)

    assert main(["upgrade", str(mmar), "--write"]) == 2

    assert contents(mmar) == before
    error = capsys.readouterr().err
    assert "config_validation.json: not valid JSON at line 1, column 2" in error
    assert "environment.json: a: NaN is not JSON" in error


def test_read_only_documents_are_left_alone(mmar: Path, capsys: Output) -> None:
    path = mmar / "config" / "config_train.json"
    path.chmod(0o444)
    before = contents(mmar)

    assert main(["upgrade", str(mmar)]) == 0
    assert main(["upgrade", str(mmar), "--write"]) == 2

    assert contents(mmar) == before
    assert capsys.readouterr().err == (
        "mmar: 1 problem in the configuration:\n"
        "config_train.json: is read-only\n"
        "    Make it writable, or leave it: an MMAR runs without being upgraded on disk.\n"
    )


def test_a_folder_that_cannot_be_written_to(
    mmar: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the tests may be allowed to write everywhere."""

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(upgrade, "write_atomically", refused)

    assert main(["upgrade", str(mmar), "--write"]) == 2

    path = mmar / "config" / "config_train.json"
    assert capsys.readouterr().err == (
        f"mmar: {path} cannot be written: Permission denied\n    Written so far: nothing.\n"
    )


def test_a_folder_that_is_no_mmar(tmp_path: Path, capsys: Output) -> None:
    assert main(["upgrade", str(tmp_path)]) == 2
    assert "holds no folder 'config'" in capsys.readouterr().err


# --- Layout --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}\n"),
        ({"a": [], "b": {}}, '{\n  "a": [],\n  "b": {}\n}\n'),
        ({"a": [1, "x", None]}, '{\n  "a": [1, "x", null]\n}\n'),
        ({"a": [[1], 2]}, '{\n  "a": [\n    [1],\n    2\n  ]\n}\n'),
        ({"a": ["x" * 60] * 2}, f'{{\n  "a": [\n    "{"x" * 60}",\n    "{"x" * 60}"\n  ]\n}}\n'),
        ({"größe": "\ud800"}, '{\n  "größe": "\\ud800"\n}\n'),
    ],
)
def test_a_document_is_laid_out_for_people(value: Any, text: str) -> None:
    assert document_text(value) == text
    assert json.loads(text) == value
