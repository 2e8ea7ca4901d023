"""All rules, in order, over one document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.config.parser import MAX_DEPTH
from mmar_runtime.config.upgrades import argument_changes, dialect, monai_drift
from mmar_runtime.config.upgrades.clara_3 import require_4
from mmar_runtime.config.upgrades.draft import Draft, Rule

# Values first, moves last, so that places are those of the document as it is.
RULES = (*dialect.FIRST_RULES, *monai_drift.RULES, *dialect.RULES)
DIALECT = frozenset(rule.name for rule in (*dialect.FIRST_RULES, *dialect.RULES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An old construct that was translated; announced once per rule.

    Attributes:
        places: where, in the document as it was when the rule came to it.
    """

    rule: str
    message: str
    places: tuple[Location, ...]

    def __str__(self) -> str:
        count = len(self.places)
        more = f" and {count - 1} more" if count > 1 else ""
        return f"{self.message} ({self.places[0]}{more})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """A document as it runs today, and the notices of its translation."""

    document: Mapping[str, Any]
    notices: tuple[Notice, ...]


def upgrade_document(document: Mapping[str, Any], file: str) -> Upgrade:
    """Return the document with every rule applied; the given document stays as it is.

    Applied to its own result it changes nothing and notices nothing. A document that is nested
    deeper than the parser reads is left for the parser to refuse.

    Args:
        document: a workflow document as read.
        file: its name, for the notices.

    Raises:
        ConfigError: the document is one of Clara Train 3.x.
    """
    require_4(document, file)
    if _is_deep(document):
        return Upgrade(document=document, notices=())
    draft = Draft(document)
    notices = list(_applied(RULES, draft, file))
    translated = any(notice.rule in DIALECT for notice in notices)
    if translated or dialect.VERSION in draft.document:
        notices += _applied(argument_changes.CLARA_RULES, draft, file)
    document, given = draft.document, draft.document.get(dialect.VERSION)
    is_old = given is None or str(given).startswith("4.0")
    if is_old and any(notice.rule == "wiring" for notice in notices):
        notices += _applied(argument_changes.CLARA_4_0_RULES, draft, file)
    if translated and is_old:
        # A document without a version gets it as its first entry.
        document = {dialect.VERSION: "", **document, dialect.VERSION: dialect.VERSION_VALUE}
    return Upgrade(document=document, notices=tuple(notices))


def _applied(rules: Iterable[Rule], draft: Draft, file: str) -> Iterator[Notice]:
    for rule in rules:
        places = tuple(Location(file, place) for place in rule.apply(draft))
        if places:
            yield Notice(rule=rule.name, message=rule.message, places=places)


def _is_deep(document: Mapping[str, Any]) -> bool:
    """Return whether Python's own stack could run out on the way down."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH + 1):
        containers = [value for value in level if isinstance(value, Mapping | list)]
        level = [
            item
            for value in containers
            for item in (value.values() if isinstance(value, Mapping) else value)
        ]
    return bool(level)
