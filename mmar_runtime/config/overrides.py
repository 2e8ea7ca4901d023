"""``--set epochs=5 amp=False`` -> typed values, as Clara's commands write them."""

from __future__ import annotations

import math
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
    """Return the value that Clara's command line gives to a word.

    Integers first, then floats, then the truth words in any case, else the text itself. Python's
    further spellings of a number stay text: ``2024_01`` is a folder's name, not 202401.

    >>> [typed_value(word) for word in ("5", "2e-4", "False", "models/model.pt")]
    [5, 0.0002, False, 'models/model.pt']
    """
    if text.isascii() and "_" not in text:
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return TRUTH.get(text.strip().lower(), text)


def parse_overrides(tokens: Iterable[str], *, bare_words: bool = False) -> dict[str, Scalar]:
    """Parse ``["epochs=5", "amp=False"]`` to ``{"epochs": 5, "amp": False}``; the last word wins.

    Args:
        tokens: the words after ``--set``.
        bare_words: whether a token without ``=`` is passed over: several of Clara's own
            ``commands/*.sh`` hand the number of GPUs on as a bare word after ``--set``.

    Raises:
        ConfigError: a token is not NAME=VALUE, the text before a ``=`` cannot be a variable's
            name, or a number is not finite.
    """
    values: dict[str, Scalar] = {}
    problems = []
    for token in tokens:
        name, equals, text = token.partition("=")
        name = name.strip()
        if not equals and not bare_words:
            message, advice = f"{token!r} is not NAME=VALUE", f"Write {token}=..., without blanks."
            problems.append(Problem(COMMAND_LINE, message, advice, "override"))
        if not equals:
            continue
        if not (name.isidentifier() and name.isascii()):
            message = f"{token!r} names no variable"
            advice = "Write NAME=VALUE; the name has letters, digits and underscores only."
            problems.append(Problem(COMMAND_LINE, message, advice, "override"))
            continue
        value = typed_value(text)
        if isinstance(value, float) and not math.isfinite(value):
            message = f"{text!r} is not a finite number"
            problems.append(Problem(COMMAND_LINE / name, message, "", "override"))
            continue
        values[name] = value
    if problems:
        raise ConfigError(problems)
    return values
