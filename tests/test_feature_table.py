"""The features and the promises in docs/look-up: the tests that they name are there.

No feature and no promise is left blank, and links and named files lead somewhere.
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
    """The cells of each row of the tables in a text of Markdown."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    found = [tuple(map(str.strip, row.strip("|").split(" | "))) for row in rows]
    return [row for row in found if not row[0].startswith("---")]


def rows() -> list[tuple[str, ...]]:
    """The cells of each feature's row."""
    return [row for row in cells(PAGE.read_text(encoding="utf-8")) if row != HEADER]


def promises() -> list[tuple[str, ...]]:
    """The cells of each promise's row, below the page's first heading of the second level."""
    _, section, _ = SECURITY.read_text(encoding="utf-8").split("\n## ", maxsplit=2)
    header, *found = cells(section)
    assert header == PROMISES
    return found


@cache
def functions(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@cache
def anchors(page: Path) -> frozenset[str]:
    """The headings of a Markdown page as its links name them."""
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
    sorted({"::".join(one) for page in (PAGE, SECURITY) for one in TEST.findall(page.read_text())}),
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
