"""Which tensors of a network a federation shares, where it does not share all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem, did_you_mean

WILDCARD = "*"
MAX_WILDCARDS = 4
MAX_LENGTH = 300
MAX_PATTERNS = 1000


def shared_names(patterns: Any, names: Iterable[str], location: Location) -> tuple[str, ...]:
    """The names of the shared tensors, in the order of the network.

    Args:
        patterns: exact names, or names with ``*`` for any characters.
        names: of all tensors of the network.
        location: where the patterns stand.

    Raises:
        ConfigError: a pattern is none or fits no tensor, or all tensors together are shared.
    """
    known = list(names)
    found = fitting_names(patterns, known, location)
    if len(found) == len(known):
        message = "takes in all tensors of the network"
        raise ConfigError([Problem(location, message, "Leave it out to share all.", "shared")])
    return found


def fitting_names(patterns: Any, names: Iterable[str], location: Location) -> tuple[str, ...]:
    """Those of the names that a pattern fits, in their order.

    Raises:
        ConfigError: a pattern is none or fits no name.
    """
    known = list(names)
    problems = [*_problems(patterns, known, location)]
    if problems:
        raise ConfigError(problems)
    fitting = [_regex(pattern) for pattern in patterns]
    return tuple(name for name in known if any(one.fullmatch(name) for one in fitting))


def _problems(patterns: Any, known: Sequence[str], location: Location) -> Iterator[Problem]:
    if not isinstance(patterns, list) or not 0 < len(patterns) <= MAX_PATTERNS:
        message = f"has to be an array of 1 to {MAX_PATTERNS} names of tensors"
        yield Problem(location, message, "", "shared")
        return
    for index, pattern in enumerate(patterns):
        place = location / index
        if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_LENGTH:
            yield Problem(place, "has to be the name of a tensor", "", "shared")
        elif pattern.count(WILDCARD) > MAX_WILDCARDS:
            message = f"has more than {MAX_WILDCARDS} '*'"
            yield Problem(place, message, "", "shared")
        elif not any(map(_regex(pattern).fullmatch, known)):
            message = f"fits no tensor of the network: {pattern!r}"
            yield Problem(place, message, did_you_mean(pattern, known), "shared")


def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split(WILDCARD))))
