"""The result of a check of a path: accepted, or refused with every reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem
from mmar_runtime.names import visible_line

MAX_PROBLEMS = 100
MAX_TEXT = 500
"""Characters of a name, a place or a message; a hostile document may hold very long texts."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on an MMAR, job or workflow.

    Attributes:
        path: the judged path, as it was given.
        problems: why it is refused; none means that it is accepted.
        notices: ignored and translated entries, for a person to read.
    """

    path: str
    problems: tuple[Problem, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether nothing was found against it."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict for ``--json``, the audit log and the researcher."""
        return {
            "path": self.path,
            "verdict": "accept" if self.accepted else "reject",
            "problems": [
                {
                    "rule": problem.rule,
                    "file": problem.location.file,
                    "place": problem.location.place,
                    "message": problem.message,
                }
                for problem in self.problems
            ],
            "notices": list(self.notices),
        }


def verdict(path: object, problems: Iterable[Problem], notices: Iterable[str] = ()) -> Verdict:
    """Return a verdict that is safe to print and to store.

    Each problem is listed once, at most ``MAX_PROBLEMS`` of them. What the judged documents
    wrote into names and messages cannot move a terminal's cursor or forge a line of a log.
    """
    shown = list(dict.fromkeys(printable_problem(problem) for problem in problems))
    if len(shown) > MAX_PROBLEMS:
        message = f"... and {len(shown) - MAX_PROBLEMS} more problems"
        more = Problem(Location(shown[0].location.file), message, "", "limit")
        shown = [*shown[:MAX_PROBLEMS], more]
    texts = dict.fromkeys(printable(notice) for notice in notices)
    return Verdict(printable(str(path)), tuple(shown), tuple(texts)[:MAX_PROBLEMS])


def printable_problem(problem: Problem) -> Problem:
    """Return the problem with nothing in it but short printable text."""
    location = problem.location
    steps = tuple(printable(step) if isinstance(step, str) else step for step in location.path)
    return replace(
        problem,
        location=Location(printable(location.file), steps),
        message=printable(problem.message),
        advice=printable(problem.advice),
    )


def printable(text: str) -> str:
    r"""Return the text with escapes for unprintable signs, cut if it is long.

    >>> printable("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    head = visible_line(text[:MAX_TEXT])
    return head if len(text) <= MAX_TEXT else f"{head}..."
