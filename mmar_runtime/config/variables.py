"""``{NAME}`` inside strings -> values; one pass, never twice, never a new construct."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mmar_runtime.config.expressions import is_expression
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import Variable
from mmar_runtime.errors import Problem, did_you_mean

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
EXACT = re.compile(r"\{(" + NAME + r")\}")
PART = re.compile(r"\{\{|\}\}|\{(" + NAME + r")\}|[{}]")
MAX_LENGTH = 4096
CONSTRUCT_ADVICE = "Variables hold values; write references and expressions in the config itself."


class SubstitutionError(ValueError):
    """The string cannot be substituted; ``problem`` says why and where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def substitute(text: str, variables: Mapping[str, Variable], location: Location) -> Scalar:
    """Return the value of a plain string in a configuration.

    A string that is just one variable becomes that variable's typed value; any other string has
    its variables written into the text. ``{{`` and ``}}`` mean single braces. The result is
    never looked at again: a value cannot become a reference, an expression or another variable.

    Raises:
        SubstitutionError: an unknown variable, a single brace, null inside a text, or a result
            that looks like a construct.
    """
    exact = EXACT.fullmatch(text)
    if exact:
        return _plain(exact.group(1), variables, location)

    def replacement(match: re.Match[str]) -> str:
        sign, name = match.group(), match.group(1)
        if sign in ("{{", "}}"):
            return sign[0]
        if name is None:
            message = f"a single {sign!r} in {text[:40]!r}"
            advice = "A variable is written {NAME}; for a brace itself write it twice."
            raise SubstitutionError(Problem(location, message, advice, "variable"))
        value = _plain(name, variables, location)
        if value is None:
            message = f"the variable {{{name}}} is null, which has no text"
            raise SubstitutionError(Problem(location, message, "", "variable"))
        return str(value)

    result = PART.sub(replacement, text)
    if looks_like_construct(result):
        message = f"{result[:40]!r} looks like a construct, which has no meaning here"
        raise SubstitutionError(Problem(location, message, CONSTRUCT_ADVICE, "variable"))
    if len(result) > MAX_LENGTH:
        message = f"is longer than {MAX_LENGTH} characters once its variables are filled in"
        raise SubstitutionError(Problem(location, message, "", "variable"))
    return result


def _plain(name: str, variables: Mapping[str, Variable], location: Location) -> Scalar:
    if name not in variables:
        message = f"the variable {{{name}}} is not defined"
        advice = did_you_mean(name, variables) or (
            "Define it at the top of the workflow's JSON, in environment.json, or with --set."
        )
        raise SubstitutionError(Problem(location, message, advice, "unknown-variable"))
    value = variables[name].value
    if isinstance(value, str) and looks_like_construct(value):
        message = f"the variable {{{name}}} holds {value[:40]!r}, which looks like a construct"
        raise SubstitutionError(Problem(location, message, CONSTRUCT_ADVICE, "variable"))
    return value


def names_in(text: str) -> Iterator[str]:
    """Return the variables that a text asks for.

    >>> list(names_in("{DATA_ROOT}/{{epochs}}_{fold}"))
    ['DATA_ROOT', 'fold']
    """
    return (match.group(1) for match in PART.finditer(text) if match.group(1))


def looks_like_construct(text: str) -> bool:
    """Return whether the config would mean a reference or an expression by this text.

    >>> [looks_like_construct(text) for text in ("@model", " #1", "lambda: 0", "lambda_scale")]
    [True, True, True, False]
    """
    return text.strip().startswith("@") or is_expression(text.strip())
