"""MMARs with code of their own: from the documentation's examples, or written by a test.

Python keeps modules by name, so every test's modules have names of their own and are forgotten
afterwards; the same goes for the folders that a run has added to the import path.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "docs/look-up/custom-code"
"""``NAME.json`` is what an example adds to a document, ``NAME.py`` its module, if it has one."""

Bring = Callable[..., Path]


def added(document: Any, more: Any) -> Any:
    """A document with another one laid over it: objects are merged, lists are joined.

    A component in place of another one replaces it, and so do post transforms; ``args`` alone, or a
    trainer's ``path``, are added to it, which is what the page means by them.
    """
    if isinstance(document, list) and isinstance(more, list):
        return document + more
    if not isinstance(document, dict) or not isinstance(more, dict):
        return more
    whole = ("name" in more or "path" in more) and "max_epochs" not in document.get("args", {})
    if whole:
        return more
    replaced = {"post_transforms"} & more.keys() | ({"name"} if "path" in more else set())
    kept = {key: value for key, value in document.items() if key not in replaced}
    return {**kept, **{key: added(kept.get(key), value) for key, value in more.items()}}


@pytest.fixture(autouse=True)
def _forget_own_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def bring(tiny_mmar: Path) -> Bring:
    """``bring("module.py", code)``: the tiny MMAR with that module in ``custom``."""

    def write(name: str, code: str) -> Path:
        (tiny_mmar / "custom").mkdir(exist_ok=True)
        (tiny_mmar / "custom" / name).write_text(code, encoding="utf-8")
        return tiny_mmar

    return write


@pytest.fixture
def example(bring: Bring, tiny_mmar: Path) -> Callable[..., Path]:
    """``example("own_stop", alone=False, file="config_train.json")``: the MMAR that it makes.

    ``alone`` means that the example is the whole document.
    """

    def make(name: str, *, alone: bool = False, file: str = "config_train.json") -> Path:
        module = EXAMPLES / f"{name}.py"
        if module.is_file():
            bring(module.name, module.read_text(encoding="utf-8"))
        shown = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
        path = tiny_mmar / "config" / file
        before = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(shown if alone else added(before, shown)), encoding="utf-8")
        return tiny_mmar

    return make
