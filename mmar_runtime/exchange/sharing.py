"""Which tensors of a network a federation shares, where it does not share all of them.

A pattern is the exact name of a tensor, or a name with ``*`` for any characters. Regular
expressions are refused: an expression of a job could keep a site busy for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem, did_you_mean

WILDCARD = "*"
NOT = "!"
"""Before a pattern of ``shared_names``: the tensors that fit it are left out again."""

MAX_WILDCARDS = 4
MAX_LENGTH = 300
MAX_PATTERNS = 1000


def shared_tensors(patterns: Any, names: Iterable[str], location: Location) -> tuple[str, ...]:
    """Return the names of the shared tensors, in the order of the network.

    Args:
        patterns: of the shared tensors; with ``!`` in front, of private tensors. If each pattern
            has a ``!``, all other tensors are shared.
        names: of all tensors of the network.
        location: of the patterns.

    Raises:
        ConfigError: a pattern is none or fits no tensor, or all tensors or none are shared.
    """
    known = list(names)
    problems = [*pattern_problems(patterns, location)] or [*_unfit(patterns, known, location)]
    if problems:
        raise ConfigError(problems)
    left_out = [_bare(pattern) for pattern in patterns if pattern.startswith(NOT)]
    taken = [pattern for pattern in patterns if not pattern.startswith(NOT)] or [WILDCARD]
    excluded = set(matching(left_out, known))
    shared = tuple(name for name in matching(taken, known) if name not in excluded)
    if len(shared) in (0, len(known)):
        message = f"takes in {'all tensors' if shared else 'no tensor'} of the network"
        raise ConfigError([Problem(location, message, "Leave it out to share all.", "shared")])
    return shared


def fitting_names(patterns: Any, names: Iterable[str], location: Location) -> tuple[str, ...]:
    """Return those of the names that a pattern fits, in their order.

    Raises:
        ConfigError: a pattern is none or fits no name.
    """
    known = list(names)
    problems = [*form_problems(patterns, location)] or [*_unfit(patterns, known, location)]
    if problems:
        raise ConfigError(problems)
    return matching(patterns, known)


def matching(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that fit one of the patterns, in their own order.

    >>> matching(["norm.*", "head"], ["head", "norm.weight", "body"])
    ('head', 'norm.weight')
    """
    split = [pattern.split(WILDCARD) for pattern in patterns]
    return tuple(name for name in names if any(_fits(pieces, name) for pieces in split))


def form_problems(patterns: Any, location: Location) -> Iterator[Problem]:
    """Yield the faults of patterns that hold for any network and take no ``!``."""
    problems = [*pattern_problems(patterns, location)]
    yield from problems
    for index, pattern in enumerate(() if problems else patterns):
        if pattern.startswith(NOT):
            message = f"begins with {NOT!r}, which only shared_names takes: {pattern!r}"
            advice = "Write the names of the tensors that are meant."
            yield Problem(location / index, message, advice, "shared")


def pattern_problems(patterns: Any, location: Location) -> Iterator[Problem]:
    """Yield the faults of patterns of ``shared_names``, which may have a ``!`` in front."""
    if not isinstance(patterns, list | tuple) or not 0 < len(patterns) <= MAX_PATTERNS:
        message = f"has to be an array of 1 to {MAX_PATTERNS} names of tensors"
        yield Problem(location, message, "", "shared")
        return
    for index, pattern in enumerate(patterns):
        place = location / index
        if not isinstance(pattern, str) or not 0 < len(_bare(pattern)) <= MAX_LENGTH:
            yield Problem(place, "has to be the name of a tensor", "", "shared")
        elif pattern.count(WILDCARD) > MAX_WILDCARDS:
            message = f"has more than {MAX_WILDCARDS} '*'"
            yield Problem(place, message, "", "shared")


def _bare(pattern: str) -> str:
    return pattern.removeprefix(NOT)


def _unfit(patterns: Iterable[str], known: Sequence[str], location: Location) -> Iterator[Problem]:
    """Yield patterns that fit no tensor: most likely they belong to another network."""
    for index, pattern in enumerate(patterns):
        if not matching([_bare(pattern)], known):
            message = f"fits no tensor of the network: {pattern!r}"
            advice = did_you_mean(_bare(pattern), known)
            yield Problem(location / index, message, advice, "shared")


def _fits(pieces: Sequence[str], name: str) -> bool:
    """Return whether a name is these pieces with anything between them.

    Each piece is taken where it comes first, so nothing is ever tried twice: a regular expression
    with four ``.*`` takes seconds for a name of a few hundred characters.
    """
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return name == first
    position, end = len(first), len(name) - len(last)
    if position > end or not (name.startswith(first) and name.endswith(last)):
        return False
    for piece in pieces[1:-1]:
        position = name.find(piece, position, end)
        if position < 0:
            return False
        position += len(piece)
    return True
