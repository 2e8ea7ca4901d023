"""Names become classes of the table, paths become the MMAR's own code where that is allowed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai.networks.nets
import monai.transforms
import pytest

from mmar_runtime.components.catalog import check_own_arguments, find_class, own_class
from mmar_runtime.components.handlers.checkpoint_loader import WholeCheckpointLoader
from mmar_runtime.components.handlers.checkpoint_saver import AtomicCheckpointSaver
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec
from mmar_runtime.config.parser import NodeParser
from mmar_runtime.errors import ComponentError, ConfigError

NETWORKS = """
import torch

class Own(torch.nn.Module):
    def __init__(self, channels, depth=2):
        super().__init__()

class TakesAny(torch.nn.Module):
    def __init__(self, channels, **rest):
        super().__init__()
"""


@pytest.fixture(autouse=True)
def imports_put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    folder = tmp_path / "custom"
    folder.mkdir()
    (folder / "own_networks.py").write_text(NETWORKS)
    return folder


def spec(raw: dict[str, Any]) -> ComponentSpec:
    node = NodeParser({}).entry(raw, Location("config_train.json") / "train" / "model")
    assert isinstance(node, ComponentSpec)
    return node


def found(
    raw: dict[str, Any], kind: str, *, custom: Path = Path("none"), code: bool = False
) -> Any:
    return find_class(spec(raw), kind, custom=custom, allow_code=code)[0]


# --- The table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "kind", "expected"),
    [
        ({"name": "UNet"}, "network", monai.networks.nets.UNet),
        ({"path": "monai.networks.nets.UNet"}, "network", monai.networks.nets.UNet),
        ({"name": "RandFlipD"}, "transform", monai.transforms.RandFlipd),
    ],
    ids=["name", "path", "alias"],
)
def test_a_class_of_the_table_needs_no_consent(
    raw: dict[str, Any], kind: str, expected: type
) -> None:
    assert found(raw, kind) is expected


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("CheckpointSaver", AtomicCheckpointSaver),
        ("CheckpointLoader", WholeCheckpointLoader),
    ],
)
def test_our_own_classes_run_in_place_of_the_librarys(name: str, ours: type) -> None:
    assert found({"name": name}, "handler") is ours
    assert found({"path": f"monai.handlers.{name}"}, "handler") is ours


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.model\.name: unknown component 'UNte'"):
        found({"name": "UNte"}, "network")


# --- The MMAR's own code -------------------------------------------------------------------------


def test_own_code_is_found_in_custom_where_it_is_allowed(custom: Path) -> None:
    raw = {"path": "own_networks.Own", "args": {"channels": 4}}
    own = found(raw, "network", custom=custom, code=True)
    assert (own.__module__, own.__name__) == ("own_networks", "Own")


def test_own_code_is_refused_and_not_imported_where_it_is_not_allowed(custom: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.model\.path: .* has not allowed"):
        found({"path": "own_networks.Own"}, "network", custom=custom)
    assert "own_networks" not in sys.modules


def test_a_misspelled_class_gets_advice(custom: Path) -> None:
    with pytest.raises(ComponentError, match=r"has no 'TakeAny'. Did you mean 'TakesAny'\?"):
        own_class(spec({"path": "own_networks.TakeAny"}), custom)


def test_a_module_that_is_not_there_says_where_it_was_looked_up(custom: Path) -> None:
    with pytest.raises(ComponentError, match=r"ModuleNotFoundError(.|\n)*own code(.|\n)*custom"):
        own_class(spec({"path": "own_network.Own"}), custom)


def test_a_module_that_fails_on_import_keeps_its_error(custom: Path) -> None:
    (custom / "own_broken.py").write_text("1 / 0")
    with pytest.raises(ComponentError, match="ZeroDivisionError") as raised:
        own_class(spec({"path": "own_broken.Own"}), custom)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_file_in_custom_does_not_take_the_place_of_an_installed_package(
    custom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (custom / "sched.py").write_text("class Own: pass")
    monkeypatch.delitem(sys.modules, "sched", raising=False)
    with pytest.raises(ComponentError, match="the module 'sched' has no 'Own'"):
        own_class(spec({"path": "sched.Own"}), custom)


# --- Its arguments -------------------------------------------------------------------------------


def problems_of(raw: dict[str, Any], custom: Path) -> list[str]:
    component = spec(raw)
    try:
        check_own_arguments(component, own_class(component, custom), raw["args"])
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_arguments_that_fit_are_no_problem(custom: Path) -> None:
    assert problems_of({"path": "own_networks.Own", "args": {"channels": 4}}, custom) == []


def test_unknown_and_missing_arguments_are_reported_together(custom: Path) -> None:
    assert problems_of({"path": "own_networks.Own", "args": {"dept": 3}}, custom) == [
        "config_train.json: train.model.args.dept: Own: unknown argument 'dept'\n"
        "    Did you mean 'depth'?",
        "config_train.json: train.model.args: Own: the argument 'channels' is missing",
    ]


def test_a_class_that_takes_any_argument_is_believed(custom: Path) -> None:
    raw = {"path": "own_networks.TakesAny", "args": {"channels": 4, "whatever": 1}}
    assert problems_of(raw, custom) == []


def test_modules_of_the_same_name_in_two_mmars_stay_apart(tmp_path: Path) -> None:
    classes = []
    for name in ("one", "other"):
        folder = tmp_path / name / "custom"
        folder.mkdir(parents=True)
        (folder / "own_networks.py").write_text(f"class Own:\n    mmar = {name!r}\n")
        classes.append(own_class(spec({"path": "own_networks.Own", "args": {}}), folder))

    assert [found.mmar for found in classes] == ["one", "other"]
    assert str(tmp_path / "one/custom") not in sys.path
