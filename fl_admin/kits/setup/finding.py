"""What one check says: all is well, or what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How a check ended; ``FAULT`` alone keeps a kit from being used."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: what was looked at, such as ``certificate``.
        state: how it ended.
        message: what was found.
        advice: what to do; empty where nothing has to be done.
    """

    check: str
    state: State
    message: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json``."""
        return asdict(self)


def ok(check: str, message: str) -> Finding:
    """Return that all is well."""
    return Finding(check, State.OK, message)


def warning(check: str, message: str, advice: str) -> Finding:
    """Return that it works, and somebody should know."""
    return Finding(check, State.WARNING, message, advice)


def fault(check: str, message: str, advice: str) -> Finding:
    """Return that it does not work."""
    return Finding(check, State.FAULT, message, advice)


def skipped(check: str, message: str) -> Finding:
    """Return that nobody looked at it."""
    return Finding(check, State.SKIPPED, message)
