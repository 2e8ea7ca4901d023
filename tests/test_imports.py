"""The product has no circle of imports, and each folder is small enough to look through."""

from __future__ import annotations

from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("mmar_runtime", "fl_client", "fl_server", "fl_admin", "medl")


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of a circle, the first of them once more at the end; empty without a circle."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_is_found_wherever_its_imports_are() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "c", "b", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports inside of functions and those for the type checker count as well."""
    graph = grimp.build_graph(*PRODUCT, cache_dir=None)

    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}

    assert circle(imports) == []


def test_no_folder_has_more_than_20_modules() -> None:
    modules = (path for package in PRODUCT for path in (ROOT / package).rglob("*.py"))

    counts = Counter(path.parent for path in modules if path.name != "__init__.py")

    assert {str(folder): count for folder, count in counts.items() if count > 20} == {}
