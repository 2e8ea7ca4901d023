"""Print figures of the project's structure, for several checkouts next to each other.

    python scripts/structure.py                  # this checkout
    python scripts/structure.py ../old .         # two checkouts, as a table
    python scripts/structure.py --list helpers   # the places behind a figure

Only files are read and nothing is imported, so that any commit can be measured.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = ("mmar_runtime", "fl_client", "fl_server", "fl_admin", "medl")
REPOSITORY = Path(__file__).resolve().parent.parent

JOB_DOCUMENTS = {"SERVER_CONFIG", "CLIENT_CONFIG", "config_fed_server", "config_fed_client"}
REPORT_KEYS = {"received_metrics", "local_metrics", "epochs", "seconds", "built", "process"}
"""What a site reports of a round; a place that has most of these keys defines them."""

SHORT = 3
"""Lines of a body that a reader takes in without a name for them."""

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the product.

    Attributes:
        path: relative to the checkout.
        text: the source.
        tree: the syntax tree of the source.
    """

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Return the dotted name."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Checkout:
    """The files of a checkout, and the figures of their structure."""

    def __init__(self, root: Path) -> None:
        self.root = root
        files = sorted(file for package in PACKAGES for file in (root / package).rglob("*.py"))
        texts = {file: file.read_text(encoding="utf-8") for file in files}
        self.modules = [
            Module(file.relative_to(root), text, ast.parse(text)) for file, text in texts.items()
        ]

    @property
    def lines(self) -> int:
        """Return the number of lines of the product."""
        return sum(len(module.text.splitlines()) for module in self.modules)

    def folders(self) -> list[tuple[int, str]]:
        """Return the number of modules of each folder, the fullest first; its docstring is none."""
        modules = (module.path for module in self.modules)
        counts = Counter(str(path.parent) for path in modules if path.name != "__init__.py")
        return sorted(((count, folder) for folder, count in counts.items()), reverse=True)

    def functions(self) -> list[tuple[int, str]]:
        """Return the lines of code in each function's body, the longest body first."""
        return sorted(
            (
                (_body_lines(node), f"{module.path}:{node.lineno} {node.name}")
                for module in self.modules
                for node in ast.walk(module.tree)
                if isinstance(node, FUNCTION)
            ),
            reverse=True,
        )

    def helpers(self) -> list[tuple[int, str]]:
        """Return the size of each private function that its module uses exactly once."""
        return [
            (_body_lines(node), f"{module.path}:{node.lineno} {node.name}")
            for module in self.modules
            for node in module.tree.body
            if isinstance(node, FUNCTION) and node.name.startswith("_")
            if _uses(module.tree)[node.name] == 1
        ]

    def circles(self) -> list[str]:
        """Return each group of modules that import each other, imports in functions included."""
        names = {module.name for module in self.modules}
        graph = {module.name: set(_imports(module, names)) for module in self.modules}
        return [" <-> ".join(sorted(group)) for group in _components(graph) if len(group) > 1]

    def readers(self) -> list[str]:
        """Return each module with a call that reads a job's ``config_fed_*``."""
        return [
            str(module.path)
            for module in self.modules
            if any(_reads_job_document(node) for node in ast.walk(module.tree))
        ]

    def definitions(self) -> list[str]:
        """Return each place that lists the keys of a site's report on a round."""
        return [
            f"{module.path}:{node.lineno}"
            for module in self.modules
            for node in ast.walk(module.tree)
            if isinstance(node, ast.stmt) and _lists_report_keys(node)
        ]

    @cached_property
    def words(self) -> int:
        """Return the number of words in the README and the documents, tables included."""
        pages = [self.root / "README.md", *sorted((self.root / "docs").rglob("*.md"))]
        return sum(len(page.read_text(encoding="utf-8").split()) for page in pages)


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _uses(tree: ast.Module) -> Counter[str]:
    return Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    )


def _imports(module: Module, names: set[str]) -> Iterator[str]:
    """Yield the modules of the product that a module imports, for its types as well."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if name in names]
            yield from modules
            if len(modules) < len(inner) and node.module in names:
                yield node.module


def _components(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components, by reach in both directions."""
    reach = {name: _reached(graph, name) for name in graph}
    groups: list[set[str]] = []
    for name in graph:
        if not any(name in group for group in groups):
            groups.append({name} | {other for other in reach[name] if name in reach[other]})
    return groups


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - reached
        reached |= new
        waiting.extend(new)
    return reached


def _reads_job_document(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    function = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
    if not re.match(r"_?(read|load|parse)", function):
        return False
    return any(
        getattr(inner, "id", None) in JOB_DOCUMENTS
        or any(name in str(getattr(inner, "value", "")) for name in JOB_DOCUMENTS)
        for argument in node.args
        for inner in ast.walk(argument)
    )


def _lists_report_keys(node: ast.stmt) -> bool:
    """Return whether a class has most of the keys as fields, or a constant lists them."""
    if isinstance(node, ast.ClassDef):
        keys = {
            field.target.id
            for field in node.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        }
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        listed = [inner for inner in ast.walk(node) if isinstance(inner, ast.Set | ast.Tuple)]
        items = [item for inner in listed for item in inner.elts]
        keys = {str(item.value) for item in items if isinstance(item, ast.Constant)}
    else:
        return False
    return len(keys & REPORT_KEYS) >= len(REPORT_KEYS) - 2


def figures(checkout: Checkout) -> dict[str, str]:
    """Return the figures of a checkout, as texts by name."""
    sizes = sorted(size for size, _ in checkout.functions())
    helpers = checkout.helpers()
    short = [place for size, place in helpers if size <= SHORT]
    return {
        "lines of the product": f"{checkout.lines}",
        "most modules in a folder": f"{checkout.folders()[0][0]}",
        "folders of more than 20 modules": f"{sum(n > 20 for n, _ in checkout.folders())}",
        "circles of imports": f"{len(checkout.circles())}",
        "functions": f"{len(sizes)}",
        "lines of a function's body, p90": f"{statistics.quantiles(sizes, n=10)[-1]:.0f}",
        "lines of a function's body, longest": f"{sizes[-1]}",
        "private helpers used once, per 1000 lines": f"{1000 * len(helpers) / checkout.lines:.1f}",
        "  of these of three lines or fewer": f"{1000 * len(short) / checkout.lines:.1f}",
        "modules that read a config_fed_*": f"{len(checkout.readers())}",
        "definitions of a report's keys": f"{len(checkout.definitions())}",
        "words in README and docs": f"{checkout.words}",
    }


LISTS: dict[str, Callable[[Checkout], Sequence[object]]] = {
    "folders": Checkout.folders,
    "functions": lambda checkout: checkout.functions()[:40],
    "helpers": Checkout.helpers,
    "circles": Checkout.circles,
    "readers": Checkout.readers,
    "definitions": Checkout.definitions,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or the list behind a figure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", nargs="*", type=Path, default=[REPOSITORY])
    parser.add_argument("--list", choices=LISTS, help="print the places behind a figure")
    asked = parser.parse_args(arguments)
    for root in asked.checkout:
        if not (root / PACKAGES[0]).is_dir():
            print(f"{root}: not a checkout of this project, no {PACKAGES[0]}/", file=sys.stderr)
            return 2
    checkouts = [Checkout(root) for root in asked.checkout]
    if asked.list is not None:
        for place in (place for checkout in checkouts for place in LISTS[asked.list](checkout)):
            print(*place if isinstance(place, tuple) else (place,))
        return 0
    columns = [figures(checkout) for checkout in checkouts]
    for name in columns[0]:
        print(f"{name:45}", *(f"{column[name]:>10}" for column in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
