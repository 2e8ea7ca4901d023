"""Clara's import names: each one that is supported resolves to what this project has there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import medl

NAMES = {
    "medl.apps.train": "main",
    "medl.apps.evaluate": "main",
    "medl.apps.export": "main",
    "medl.engines.iterations": "Iteration",
}


@pytest.mark.parametrize(("module", "name"), NAMES.items(), ids=NAMES)
def test_a_name_of_claras_resolves(module: str, name: str) -> None:
    assert callable(getattr(importlib.import_module(module), name))


def modules() -> list[Path]:
    return sorted(Path(str(medl.__file__)).parent.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.parent.name + "." + path.stem)
def test_nothing_is_defined_under_claras_names(path: Path) -> None:
    """Classes belong into the packages that the names stand for; functions start a command."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)] == []
