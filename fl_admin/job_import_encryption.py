"""Which tensors an old federation encrypted: a list of names, or a regular expression."""

from __future__ import annotations

import re
from typing import Any

from fl_admin.job_import_rules import Rule, refused, translated
from fl_client.encryption import ALL

LITERAL = re.compile(r"(?:[A-Za-z0-9_ -]|\\\.)+")
"""Of a regular expression what stands for itself; a bare dot would stand for any character."""

NO_PATTERN = (
    "is no list of names, nor a regular expression that names with * can say; without it all "
    "tensors are encrypted, or 'mmar job create --encrypt-layers' takes names"
)
BEST_TOO = "and a site's best model, which used to leave in plain, is encrypted likewise"


def encrypted_layers(value: Any) -> tuple[Rule, tuple[str, ...]]:
    """What becomes of ``encrypt_layers``, and the names as a job of today has them.

    Where it cannot be had, the names mean all tensors.

    >>> encrypted_layers(None)[1], encrypted_layers(["a", "b"])[1], encrypted_layers("^conv")[1]
    (('*',), ('a', 'b'), ('conv*',))
    """
    if value is None:
        names: tuple[str, ...] | None = ALL
    elif isinstance(value, str):
        names = _names_of(value)
    else:
        names = tuple(value) if _are_names(value) else None
    if names is None:
        return refused(NO_PATTERN), ALL
    return translated(f"encrypt_layers {', '.join(names)}; {BEST_TOO}"), names


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _names_of(pattern: str) -> tuple[str, ...] | None:
    """Names with ``*`` that fit just what a regular expression is found in; None if there are none.

    >>> _names_of("conv"), _names_of("^a$"), _names_of("a|b"), _names_of("a.*b")
    (('*conv*',), ('a',), ('*a*', '*b*'), ('*a*b*',))
    """
    found = []
    for one in pattern.split("|"):
        start, end = ("" if one.startswith("^") else "*"), ("" if one.endswith("$") else "*")
        pieces = one.removeprefix("^").removesuffix("$").split(".*")
        if not all(LITERAL.fullmatch(piece) for piece in pieces if piece) or not any(pieces):
            return None
        found.append(start + "*".join(pieces).replace("\\.", ".") + end)
    return tuple(re.sub(r"\*+", "*", one) for one in found)
