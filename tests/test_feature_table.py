"""Each feature and promise in docs/look-up names an existing test, or the reason for none.

The links and files of the table of features exist too.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "look-up" / "features.md"
SECURITY = REPOSITORY / "docs" / "look-up" / "security.md"
PROMISES = ("promise", "mechanism", "test")
HEADER = ("feature", "where", "test or reason")

TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
FILE = re.compile(r"`([\w./]+\.\w+)`")
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")
WITHOUT_TEST = ("not there", "out of scope", "nothing of it")


def cells(text: str) -> list[tuple[str, ...]]:
    """Return the cells of each row of the tables in a Markdown text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [tuple(map(str.strip, line.strip("|").split(" | "))) for line in lines]
    return [row for row in rows if not row[0].startswith("---")]


def rows() -> list[tuple[str, ...]]:
    """Return the cells of each feature's row."""
    return [row for row in cells(PAGE.read_text(encoding="utf-8")) if row != HEADER]


def promises() -> list[tuple[str, ...]]:
    """Return the cells of each promise's row, below the page's first heading of level two."""
    _, section, _ = SECURITY.read_text(encoding="utf-8").split("\n## ", maxsplit=2)
    header, *promises = cells(section)
    assert header == PROMISES
    return promises


@cache
def functions(file: Path) -> frozenset[str]:
    """Return the names of a file's functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the headings of a Markdown page in the form of links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return frozenset(heading.replace(" ", "-") for heading in plain)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_feature_has_a_place_and_a_proof_or_a_reason(row: tuple[str, ...]) -> None:
    feature, place, proof = row

    assert feature
    assert place == "—" or LINK.search(place) or FILE.search(place)
    assert TEST.search(proof) or proof.startswith(WITHOUT_TEST)


@pytest.mark.parametrize(
    "name",
    sorted({"::".join(t) for page in (PAGE, SECURITY) for t in TEST.findall(page.read_text())}),
)
def test_a_named_test_exists(name: str) -> None:
    file, _, function = name.partition("::")

    assert function in functions(REPOSITORY / file)


@pytest.mark.parametrize("row", promises(), ids=lambda row: row[0][:40])
def test_a_promise_has_a_mechanism_and_a_test(row: tuple[str, ...]) -> None:
    promise, mechanism, proof = row

    assert promise
    assert mechanism
    assert TEST.search(proof)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_named_file_exists(row: tuple[str, ...]) -> None:
    _, place, _ = row

    assert all((REPOSITORY / name).is_file() for name in FILE.findall(place))


@pytest.mark.parametrize("target", sorted(set(LINK.findall(PAGE.read_text()))), ids="#".join)
def test_a_link_leads_somewhere(target: tuple[str, str]) -> None:
    name, anchor = target
    file = (PAGE.parent / name).resolve() if name else PAGE

    assert file.is_file()
    assert not anchor or anchor in anchors(file)
