"""Clara Train's privacy filters and ``exclude_vars`` -> those of today.

Old exclusions are regular expressions, which are searched for anywhere in a tensor's name. The
simple ones, names with anchors, dots, ``.*`` and ``|``, become patterns with ``*``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fl_admin.jobs.clara.rules import Rule, ignored, refused, translated
from fl_client.privacy.settings import MODULE, filter_settings
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError
from mmar_runtime.exchange.sharing import MAX_WILDCARDS

EXCLUDE = "ExcludeVars"
EXCLUDE_PATH = f"{MODULE}.{EXCLUDE}"
FILTERS = (EXCLUDE, "PercentilePrivacy", "SVTPrivacy")
SVT_DEFAULTS = {"noise_var": 0.1}
"""What the old filter did unsaid, and the new one wants to be told."""

LEFT_OUT = "data_kinds"
SPLIT = ("epsilon_threshold", "epsilon_query")
PIECE = re.compile(r"\\\.|\.\*|\.|[A-Za-z0-9_\-:/]")
"""What an alternative of a simple expression is made of."""

NOT_SIMPLE = (
    "is not a simple expression; write the names of the tensors as a list, with * for any "
    "characters"
)
MODELS_STAY = "the sites' own models are not sent any more, which the old job did unfiltered"
FILTER_TEXTS: Mapping[str, str] = {
    EXCLUDE: (
        f"{MODULE}.{EXCLUDE}, before the privacy filters; a name that fits no tensor is an error "
        f"at the sites now; {MODELS_STAY}"
    ),
    "PercentilePrivacy": (
        f"{MODULE}.PercentilePrivacy; it sees parameters alone, and buffers are sent as they are; "
        f"{MODELS_STAY}"
    ),
    "SVTPrivacy": (
        f"{MODULE}.SVTPrivacy; it sees parameters alone, buffers are sent as they are, and each "
        f"site keeps account of what it costs; {MODELS_STAY}"
    ),
}


def patterns_of(exclude_vars: Any) -> tuple[str, ...] | None:
    r"""Return the patterns with the meaning of an old exclusion; None if it is not simple.

    >>> patterns_of(r"^head\.|running_")
    ('head.*', '*running_*')
    >>> patterns_of(["head.bias"])
    ('head.bias',)
    >>> patterns_of("(a|b)+") is None
    True
    """
    if isinstance(exclude_vars, list) and all(isinstance(name, str) for name in exclude_vars):
        return tuple(exclude_vars) if all("*" not in name for name in exclude_vars) else None
    if not isinstance(exclude_vars, str):
        return None
    patterns = tuple(map(_pattern, exclude_vars.split("|")))
    return tuple(filter(None, patterns)) if all(patterns) else None


def _pattern(expression: str) -> str | None:
    """Return the pattern of an alternative; a dot without a backslash counts as a plain dot."""
    body = expression.removeprefix("^").removesuffix("$")
    pieces = PIECE.findall(body)
    if not body or "".join(pieces) != body:
        return None
    before = "" if expression.startswith("^") else "*"
    behind = "" if expression.endswith("$") else "*"
    middle = "".join({".*": "*", r"\.": "."}.get(piece, piece) for piece in pieces)
    pattern = re.sub(r"\*+", "*", f"{before}{middle}{behind}")
    return pattern if pattern.count("*") <= MAX_WILDCARDS else None


def exclusion(exclude_vars: Any, text: str) -> tuple[Rule, tuple[str, ...]]:
    """Return what becomes of an ``exclude_vars`` of the server, and its patterns."""
    if exclude_vars in (None, "", []):
        return ignored("asks for nothing"), ()
    patterns = patterns_of(exclude_vars)
    if patterns is None:
        return refused(NOT_SIMPLE), ()
    return translated(f"{text}: {', '.join(patterns)}"), patterns


def filter_of(name: str, arguments: Mapping[str, Any]) -> tuple[Rule, dict[str, Any] | None]:
    """Return what becomes of a filter of a site, and the entry of the new job; None for no entry.

    Args:
        name: of the class, one of ``FILTERS``.
        arguments: of the old filter.
    """
    given = {key: value for key, value in arguments.items() if key != LEFT_OUT}
    if any(given.pop(key, None) is not None for key in SPLIT):
        return refused("the split of epsilon is the default one; leave it out"), None
    if name == EXCLUDE:
        if given.get("exclude_vars") in (None, "", []):
            return ignored("asks for nothing"), None
        patterns = patterns_of(given["exclude_vars"])
        if patterns is None:
            return refused(f"exclude_vars {NOT_SIMPLE}"), None
        new: dict[str, Any] = {"exclude_vars": list(patterns)}
    else:
        if name == "PercentilePrivacy" and _does_nothing(given):
            return ignored("did nothing: percentile or gamma is out of its range"), None
        known = {key: value for key, value in given.items() if value is not None}
        if "epsilon_release" in known:
            known.pop("noise_var", None)  # it did not count then
        unsaid = name == "SVTPrivacy" and "epsilon_release" not in known
        new = {**(SVT_DEFAULTS if unsaid else {}), **known, "buffers": "send"}
    entry = {"path": f"{MODULE}.{name}", "args": new}
    try:
        filter_settings(f"{MODULE}.{name}", new, Location(name) / "args")
    except ConfigError as error:
        told = "; ".join(
            f"{problem.location.place}: {problem.message}" for problem in error.problems
        )
        return refused(told), None
    return translated(FILTER_TEXTS[name]), entry


def argument_rules(name: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Rule]]:
    """Yield a word on each argument of a translated filter."""
    for key in arguments:
        if key == LEFT_OUT:
            yield key, ignored("filters see differences of weights")
        elif key in SPLIT:
            yield key, ignored("the default split")
        elif key == "noise_var":
            text = "noise_var; it costs as much epsilon for each value that is sent"
            yield key, translated(text)
        elif key == "exclude_vars":
            patterns = patterns_of(arguments[key]) or ()
            yield key, translated(f"exclude_vars {', '.join(patterns)}")
        else:
            yield key, translated(key)


def in_order(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Exclusions before the filters that count values; the rest stays in its order."""
    return sorted(map(dict, entries), key=lambda entry: entry["path"] != EXCLUDE_PATH)


def _does_nothing(given: Mapping[str, Any]) -> bool:
    percentile, gamma = given.get("percentile", 10), given.get("gamma", 0.01)
    numbers = all(type(number) in (int, float) for number in (percentile, gamma))
    return numbers and (gamma <= 0 or not 0 <= percentile <= 100)
