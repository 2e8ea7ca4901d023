"""All rules, in order, over one document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.config.upgrades import dialect, monai_drift
from mmar_runtime.config.upgrades.draft import Draft

RULES = (*dialect.RULES, *monai_drift.RULES)
DIALECT = frozenset(rule.name for rule in dialect.RULES)


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
    """A document as it runs today, and what was translated on the way."""

    document: Mapping[str, Any]
    notices: tuple[Notice, ...]


def upgrade_document(document: Mapping[str, Any], file: str) -> Upgrade:
    """The document with every rule applied; the one given stays as it is.

    Applied to its own result it changes nothing and notices nothing.

    Args:
        document: a workflow document as read.
        file: its name, for the notices.
    """
    draft = Draft(document)
    notices = []
    for rule in RULES:
        places = tuple(Location(file, place) for place in rule.apply(draft))
        if places:
            notices.append(Notice(rule=rule.name, message=rule.message, places=places))
    if any(notice.rule in DIALECT for notice in notices):
        draft.document.setdefault(dialect.VERSION, dialect.VERSION_VALUE)
    return Upgrade(document=draft.document, notices=tuple(notices))
