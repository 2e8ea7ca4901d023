"""A package that comes with an extra and is missing: told before anything is built."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_admin.cli.main import main
from mmar_runtime.policy import extras_check
from mmar_runtime.policy.component_table import load_component_table

ROOT = Path(__file__).resolve().parents[3]
Faults = Callable[..., list[str]]
Edited = Callable[[Path, Callable[[Any], object]], Path]


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras_check, "find_spec", lambda name: None)


def faults_of(train_faults: Faults, *handlers: dict[str, Any]) -> list[str]:
    document = {"train": {"handlers": list(handlers)}}
    found = train_faults(document, checks=[extras_check.extras_check])
    return [fault for fault in found if "train.handlers" in fault]


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("ClearMLStatsHandler", "clearml"),
        ("ClearMLImageHandler", "clearml"),
        ("MLFlowHandler", "mlflow"),
    ],
)
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    train_faults: Faults, name: str, extra: str
) -> None:
    assert faults_of(train_faults, {"name": name}) == [
        f"config_train.json: train.handlers[0].name: {name} needs the package '{extra}', which is "
        f"not installed\n    Run pip install 'mmar-fl[{extra}]', or take {name} out."
    ]


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("place", "document", "fault"),
    [
        (
            "train.model.name",
            {"model": {"name": "TorchVisionFCModel", "args": {"model_name": "resnet18"}}},
            "TorchVisionFCModel needs the package 'torchvision', which is not installed\n"
            "    Run pip install 'mmar-fl[torchvision]', or take TorchVisionFCModel out.",
        ),
        (
            "train.pre_transforms[0].args.reader",
            {"pre_transforms": [{"name": "LoadImaged", "args": {"reader": "ITKReader"}}]},
            "ITKReader needs the package 'itk', which is not installed\n"
            "    Run pip install 'mmar-fl[itk]', or take ITKReader out.",
        ),
        (
            "train.pre_transforms[0].args.reader[0]",
            {"pre_transforms": [{"name": "LoadImaged", "args": {"reader": ["NrrdReader"]}}]},
            "NrrdReader needs the package 'nrrd', which is not installed\n"
            "    Run pip install 'pynrrd', or take NrrdReader out.",
        ),
        (
            "train.key_metric.name",
            {"key_metric": {"name": "ROC_AUC", "log_label": "auc"}},
            "ROC_AUC needs the package 'sklearn', which is not installed\n"
            "    Run pip install 'scikit-learn', or take ROC_AUC out.",
        ),
    ],
)
def test_a_network_a_reader_and_a_metric_are_told_with_the_line_to_type(
    train_faults: Faults, place: str, document: dict[str, Any], fault: str
) -> None:
    found = train_faults({"train": document}, checks=[extras_check.extras_check])
    assert f"config_train.json: {place}: {fault}" in found


@pytest.mark.usefixtures("nothing_installed")
def test_a_handler_named_by_its_path_is_found_too(train_faults: Faults) -> None:
    (fault,) = faults_of(train_faults, {"path": "monai.handlers.MLFlowHandler"})
    assert fault.startswith("config_train.json: train.handlers[0].path: MLFlowHandler needs")


@pytest.mark.usefixtures("nothing_installed")
def test_what_is_not_used_needs_nothing(train_faults: Faults) -> None:
    disabled = {"name": "MLFlowHandler", "disabled": True}
    assert faults_of(train_faults, disabled, {"name": "TensorBoardStatsHandler"}) == []


def test_what_is_installed_passes(train_faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras_check, "find_spec", lambda name: name == "clearml" or None)
    handlers = [{"name": "ClearMLStatsHandler"}, {"name": "MLFlowHandler"}]
    assert [fault.split()[2] for fault in faults_of(train_faults, *handlers)] == ["MLFlowHandler"]


def test_each_package_of_the_table_has_a_line_to_type() -> None:
    entries = load_component_table().components.values()
    forms = [form for entry in entries for form in entry.arguments.values()]
    named = {package for entry in entries for package in entry.packages}
    named |= {package for form in forms for package in form.packages.values()}
    assert named == extras_check.INSTALLED_BY.keys()


def test_each_extra_that_is_named_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = extras_check.INSTALLED_BY.values()
    extras = {line.partition("[")[2].rstrip("]") for line in lines if "[" in line}
    assert extras <= project["optional-dependencies"].keys()


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("command", "file"),
    [("train", "config_train.json"), ("evaluate", "config_cross_validation.json")],
)
def test_a_command_ends_before_data_are_read_and_without_a_traceback(
    command: str,
    file: str,
    tiny_mmar: Path,
    edited: Edited,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def add(document: Any) -> None:
        document.get("validate", document)["handlers"].append({"name": "ClearMLStatsHandler"})

    edited(tiny_mmar / "config" / file, add)

    assert main([command, "-m", str(tiny_mmar), "-c", f"config/{file}"]) == 2
    err = capsys.readouterr().err
    assert f"{file}: " in err
    assert "pip install 'mmar-fl[clearml]'" in err
    assert "Traceback" not in err
    assert not (tiny_mmar / "eval").exists()
