"""``{NAME}`` inside strings -> values; one pass, never twice, never a new construct."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import Variable
from mmar_runtime.errors import Problem, did_you_mean

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
EXACT = re.compile(r"\{(" + NAME + r")\}")
PART = re.compile(r"\{\{|\}\}|\{(" + NAME + r")\}")
CONSTRUCTS = ("#", "@", "lambda ")
MAX_LENGTH = 4096


class SubstitutionError(ValueError):
    """The string cannot be substituted; ``problem`` says why and where."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def substitute(text: str, variables: Mapping[str, Variable], location: Location) -> Scalar:
    """The value of a plain string in a configuration.

    A string that is just one variable becomes that variable's typed value; any other string has
    its variables written into the text. ``{{`` and ``}}`` stand for single braces. The result is
    never looked at again: a value cannot become a reference, an expression or another variable.

    Raises:
        SubstitutionError: an unknown variable, or a value that looks like a construct.
    """
    exact = EXACT.fullmatch(text)
    if exact:
        return _plain(exact.group(1), variables, location)

    def replacement(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group()[0]
        return str(_plain(match.group(1), variables, location))

    result = PART.sub(replacement, text)
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
    if isinstance(value, str) and value.lstrip().startswith(CONSTRUCTS):
        message = f"the variable {{{name}}} holds {value[:40]!r}, which looks like a construct"
        advice = "Variables hold values; write references and expressions in the config itself."
        raise SubstitutionError(Problem(location, message, advice, "variable"))
    return value
