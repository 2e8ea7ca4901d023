"""``--set epochs=5 amp=False`` -> typed values, as Clara's commands write them."""

from __future__ import annotations

from collections.abc import Iterable

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem

Scalar = str | int | float | bool | None

TRUTH = {
    **dict.fromkeys(("true", "yes", "on", "y", "t"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f"), False),
}

COMMAND_LINE = Location("--set")


def typed_value(text: str) -> Scalar:
    """The value that Clara's command line gives to a word.

    Integers first, then floats, then the truth words in any case, else the text itself.

    >>> [typed_value(word) for word in ("5", "2e-4", "False", "models/model.pt")]
    [5, 0.0002, False, 'models/model.pt']
    """
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return TRUTH.get(text.strip().lower(), text)


def parse_overrides(tokens: Iterable[str]) -> dict[str, Scalar]:
    """``["epochs=5", "amp=False"]`` -> ``{"epochs": 5, "amp": False}``; the last word wins.

    A token without ``=`` is passed over: several of Clara's own ``commands/*.sh`` hand the number
    of GPUs on as a bare word behind ``--set``.

    Raises:
        ConfigError: a token starts with ``=``.
    """
    values: dict[str, Scalar] = {}
    problems = []
    for token in tokens:
        name, equals, text = token.partition("=")
        if not equals:
            continue
        if not name.strip():
            message = f"{token!r} names no variable"
            problems.append(Problem(COMMAND_LINE, message, "Write NAME=VALUE.", "override"))
            continue
        values[name.strip()] = typed_value(text)
    if problems:
        raise ConfigError(problems)
    return values
