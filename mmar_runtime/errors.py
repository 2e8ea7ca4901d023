"""Every exception that this project raises on purpose.

    MmarError                 a fault that the person at the keyboard can correct; exit code 2
    ├── ConfigError           the faults in the JSON documents of an MMAR, all at once
    ├── DataError             a data list, an image or a label is missing, unreadable or unfit
    │   ├── UnfitDataError    the faults in the data of a configuration, all at once
    │   └── NotFiniteError    a loss or a weight has become infinite or not a number
    ├── CheckpointError       a file of weights is missing, unreadable or does not fit the network
    ├── WeightsError          weights received from elsewhere do not match the network
    ├── ComponentError        a component raised while it was built or while it ran
    ├── LaunchError           so many processes do not fit the configuration or the data
    ├── StorageError          a disk is full, or a folder cannot be written to
    ├── ProcessLostError      a process of several ended in the middle of its work
    ├── PolicyError           the site's policy does not allow the request
    ├── FederationError       a federated run ended without the result that was asked for
    └── RunAborted            the run was stopped from outside; exit code 130

A ``Problem`` is a fault with its place. Errors carry problems, so that a program can list them
(``--json``) and a person reads them all at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from heapq import nlargest
from itertools import zip_longest

from mmar_runtime.config.location import Location

MAX_LISTED_CHOICES = 12
MAX_LINES = 20
"""Of a text that lists many problems."""

MAX_COMPARED = 50, 500
"""Characters of a word, and choices, beyond which comparing them takes longer than it helps."""

MAX_CANDIDATES = 8
"""Choices that are compared letter by letter; before that, all are by the letters they have."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault: its place, a message, and advice.

    Attributes:
        location: the document and the place in it.
        message: the fault, and the allowed values.
        advice: the next step; empty if the message says it all.
        rule: a short stable identifier for programs, such as ``unknown-variable``.
    """

    location: Location
    message: str
    advice: str = ""
    rule: str = "invalid"

    def __str__(self) -> str:
        place = str(self.location)
        text = f"{place}: {self.message}" if place else self.message
        return f"{text}\n    {self.advice}" if self.advice else text

    def as_dict(self) -> dict[str, str]:
        """Return the problem as plain values, for ``--json``."""
        return {
            "rule": self.rule,
            "file": self.location.file,
            "place": self.location.place,
            "message": self.message,
            "advice": self.advice,
        }


class MmarError(Exception):
    """Base of all errors whose text is written for the user."""

    exit_code = 2


class ConfigError(MmarError):
    """The JSON documents of an MMAR hold faults; ``problems`` lists all of them, each once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        # A transform that a ``ref`` repeats has its faults twice, at the same place.
        self.problems = tuple(dict.fromkeys(problems))
        if not self.problems:
            raise ValueError("a ConfigError needs at least one problem")
        count = len(self.problems)
        head = "1 problem" if count == 1 else f"{count} problems"
        super().__init__("\n".join([f"{head} in the configuration:", *map(str, self.problems)]))


class DataError(MmarError):
    """A data list, an image or a label is missing, unreadable or unfit for the configuration."""


class UnfitDataError(DataError):
    """The images and labels of a configuration hold faults; ``problems`` lists all of them.

    The text has a line for the first problems of each kind, and counts the others. An error that
    another process has sent has the text alone.
    """

    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> UnfitDataError:
        """Return the error of at least one problem."""
        found = tuple(dict.fromkeys(problems))
        head = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        error = cls("\n".join([f"{head} in the data:", *_grouped(found)]))
        error.problems = found
        return error


def _grouped(problems: Iterable[Problem]) -> Iterator[str]:
    """Yield the first problems of each rule, in about ``MAX_LINES`` lines, and count the others."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.rule, []).append(problem)
    room = max(1, MAX_LINES // (2 * len(kinds)))
    for group in kinds.values():
        shown = group[:room]
        for problem, following in zip_longest(shown, shown[1:]):
            yield f"{problem.location}: {problem.message}"
            if problem.advice and (following is None or following.advice != problem.advice):
                yield f"    {problem.advice}"
        if len(group) > room:
            yield f"... and {len(group) - room} more of this kind; --json lists all"


class NotFiniteError(DataError):
    """A loss or a weight has become infinite or not a number, so the training has no result."""


class CheckpointError(MmarError):
    """A file of weights is missing, unreadable, or does not fit the network."""


class WeightsError(MmarError):
    """Weights received from elsewhere do not match the network they are meant for."""


class ComponentError(MmarError):
    """A component named by the configuration raised an error of its own."""


class LaunchError(MmarError):
    """As many processes as were started do not fit the configuration or the data."""


class StorageError(MmarError):
    """A disk is full, or a folder cannot be written to."""


class ProcessLostError(MmarError):
    """A process of several ended in the middle of its work; the others cannot go on."""


class PolicyError(MmarError):
    """The site's policy does not allow the request."""


class FederationError(MmarError):
    """A federated run ended without the result that was asked for."""

    exit_code = 1


class RunAborted(MmarError):
    """The run was stopped from outside before it was complete."""

    exit_code = 130


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return advice for an unknown word: the nearest choices, else a short list of all choices.

    >>> did_you_mean("UNte", ["UNet", "VNet"])
    "Did you mean 'UNet'?"
    >>> did_you_mean("xyz", ["UNet", "VNet"])
    "Allowed: 'UNet', 'VNet'."
    """
    known = sorted(set(choices))
    longest, most = MAX_COMPARED
    if len(word) > longest or len(known) > most:
        return ""
    # Names are compared without regard to case; of those that differ in nothing else, as MONAI's
    # aliases do, the advice shows the name that is most like the word.
    by_lower: dict[str, list[str]] = {}
    for choice in known:
        by_lower.setdefault(choice.lower(), []).append(choice)
    near = get_close_matches(word.lower(), _candidates(word.lower(), by_lower), n=2, cutoff=0.7)
    if near:
        nearest = [
            sorted(by_lower[match], key=lambda name: SequenceMatcher(None, word, name).ratio())[-1]
            for match in near
        ]
        return "Did you mean " + " or ".join(map(repr, nearest)) + "?"
    if not known or len(known) > MAX_LISTED_CHOICES:
        return ""
    return "Allowed: " + ", ".join(map(repr, known)) + "."


def _candidates(word: str, choices: Iterable[str]) -> list[str]:
    """Return the few choices whose letters, in any order, are most like the word's."""
    matcher = SequenceMatcher(b=word)

    def likeness(choice: str) -> float:
        matcher.set_seq1(choice[: MAX_COMPARED[0]])
        return matcher.quick_ratio()

    return nlargest(MAX_CANDIDATES, choices, key=likeness)
