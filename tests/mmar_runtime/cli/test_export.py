"""``mmar export``: Clara's flags, the formats, and what is refused before torch is imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import medl.apps.export
from fl_admin.cli.main import main
from fl_admin.cli.parser import COMMANDS
from mmar_runtime.cli import export as command
from mmar_runtime.cli.export import chosen_format, parse_shape
from mmar_runtime.errors import ConfigError
from mmar_runtime.results import ExportFormat

SHAPE = "[1, 1, 16, 16, 16]"
COMMANDS_FOLDER = (
    Path(__file__).resolve().parents[3] / "jobs" / "spleen_ct_segmentation" / "app" / "commands"
)


@pytest.fixture
def root(tiny_mmar: Path) -> Path:
    """The tiny MMAR, trained."""
    assert main(["train", "-m", str(tiny_mmar), "--set", "epochs=1"]) == 0
    return tiny_mmar


def printed(capfd: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capfd.readouterr().out)


# --- Values from the command line -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("[1, 1, 160, 160, 160]", (1, 1, 160, 160, 160)),
        (" [2,3,224,224] ", (2, 3, 224, 224)),
        ("[1, 10]", (1, 10)),
        (None, None),
    ],
)
def test_a_shape_is_a_json_array(text: str | None, shape: tuple[int, ...] | None) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1, 1, 16, 16, 16",
        "(1, 1, 16, 16, 16)",
        "[]",
        "[16]",
        "[1, 1, 0, 16, 16]",
        "[1, 1, -16, 16, 16]",
        "[1, 1, 16.0, 16, 16]",
        "[1, true, 16, 16, 16]",
        '[1, 1, "16", 16, 16]',
        '{"batch": 1}',
        "__import__('os').getcwd()",
        "[" * 100_000,
    ],
)
def test_whatever_else_is_no_shape(text: str) -> None:
    with pytest.raises(ConfigError, match="--input_shape: has to be an array of positive whole"):
        parse_shape(text)


@pytest.mark.parametrize(
    ("given", "path", "format"),
    [
        (None, None, "torchscript"),
        (None, "models/model.ts", "torchscript"),
        (None, "models/exported.pt", "torchscript"),
        (None, "models/model.pt2", "torch_export"),
        (None, "models/model.onnx", "onnx"),
        ("onnx", None, "onnx"),
        ("onnx", "models/model.bin", "onnx"),
        ("torch_export", "models/model.pt2", "torch_export"),
    ],
)
def test_the_format_is_the_named_one_or_the_suffixs(
    given: ExportFormat | None, path: str | None, format: ExportFormat
) -> None:
    assert chosen_format(given, path) == format


def test_a_format_in_a_file_of_another_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"onnx in a file that ends in '\.ts', .* torchscript"):
        chosen_format("onnx", "models/model.ts")


# --- The command ----------------------------------------------------------------------------------


def test_the_command_is_part_of_mmar() -> None:
    assert COMMANDS["export"] is command


def test_claras_command_line_writes_a_torchscript_file(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", "config/config_train.json", "-e", "config/environment.json"]
    paths = ["--model_path", "models/final_model.pt", "--output_path", "models/final.ts"]

    code = medl.apps.export.main(["-m", str(root), *words, *paths, "--input_shape", SHAPE])

    assert code == 0
    assert (root / "models" / "final.ts").is_file()
    told = capsys.readouterr().out
    assert "final_model.pt as torchscript, for inputs of any shape" in told
    assert "the exported model was tested and looks good" in told
    assert str(root / "models" / "final.ts") in told


def test_the_paths_are_the_mmars_own_unless_given(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    moved = root / "models" / "best.pt"
    (root / "models" / "model.pt").rename(moved)
    capfd.readouterr()

    words = ["--input-shape", SHAPE, "--json", "--format", "torch_export"]
    code = main(["export", "-m", str(root), *words, "--set", "MMAR_CKPT=models/best.pt"])

    result = printed(capfd)
    assert code == 0
    assert result["path"] == str(root / "models" / "model.pt2")
    assert result["method"] == "dynamic_batch"
    assert result["max_difference"] == 0.0


def test_verification_can_be_left_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "-m", str(root), "--ignore_verify"]) == 0
    assert "the exported model was not tested" in capsys.readouterr().out


def test_evaluate_finds_the_same_metrics_with_the_exported_network(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "-m", str(root), "--input_shape", SHAPE]) == 0
    capfd.readouterr()

    def metrics(torchscript: bool) -> Any:
        values = [f"dont_load_ts_model={not torchscript}", f"dont_load_ckpt_model={torchscript}"]
        assert main(["evaluate", "-m", str(root), "--json", "--set", *values]) == 0
        return printed(capfd)

    assert metrics(torchscript=True) == metrics(torchscript=False)


def test_another_network_in_the_checkpoint_is_told(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = root / "config" / "config_train.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["train"]["model"]["args"]["act"] = "relu"
    file.write_text(json.dumps(document), encoding="utf-8")

    assert main(["export", "-m", str(root), "--input_shape", SHAPE]) == 0
    assert "They differ in: model.args.act" in capsys.readouterr().err


def test_export_needs_no_data(root: Path) -> None:
    shutil.rmtree(root / "data")

    assert main(["export", "-m", str(root), "--input_shape", SHAPE]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input_shape", "16"], "--input_shape: has to be an array"),
        (["--input_shape", "[1, 2, 16, 16, 16]"], "refuses an input of shape [1, 2, 16, 16, 16]"),
        ([], "input_shape: is needed to compare the file with the network"),
        (["--model_path", "models/nowhere.pt"], "there is no file of weights"),
        (["--model_path", "models/nowhere.pt"], "--model_path or --model"),
        (["--format", "onnx", "--output_path", "models/model.ts"], "--format: onnx in a file"),
        (["--set", "amp=perhaps"], "amp has to be true or false"),
    ],
)
def test_what_can_be_mended_exits_with_2_and_writes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code = main(["export", "-m", str(root), *words])

    assert code == 2
    assert message in capsys.readouterr().err
    assert not list((root / "models").glob("*.ts"))


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_the_mmars_script_exports_what_was_trained(root: Path, tmp_path: Path) -> None:
    shutil.copytree(COMMANDS_FOLDER, root / "commands")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    run = subprocess.run(
        [str(root / "commands" / "export.sh"), "epochs=1"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert "looks good" in run.stdout
    assert (root / "models" / "model.ts").is_file()
