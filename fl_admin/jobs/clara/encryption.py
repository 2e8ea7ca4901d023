"""Which tensors an old federation encrypted: a list of names, or a regular expression."""

from __future__ import annotations

import re
from typing import Any

from fl_admin.jobs.clara.privacy import patterns_of
from fl_admin.jobs.clara.rules import Rule, refused, translated
from fl_client.jobs.encryption import ALL

BARE_DOT = re.compile(r"(?<!\\)\.(?!\*)")
"""It stands for any character: taken for a dot, a tensor that was encrypted could go in plain."""

NO_PATTERN = (
    "is not a list of names, nor a regular expression that names with * can say; without it all "
    "tensors are encrypted, or 'mmar job create --encrypt-layers' takes names"
)
BEST_TOO = "and a site's best model, which used to leave in plain, is encrypted likewise"


def encrypted_layers(value: Any) -> tuple[Rule, tuple[str, ...]]:
    """Return what becomes of ``encrypt_layers``, and the names as a job of today has them.

    Where it cannot be had, the names mean all tensors.

    >>> encrypted_layers(None)[1], encrypted_layers(["a", "b"])[1], encrypted_layers("^conv")[1]
    (('*',), ('a', 'b'), ('conv*',))
    >>> encrypted_layers("a.b")[0].outcome
    'refused'
    """
    if value is None:
        names: tuple[str, ...] | None = ALL
    elif isinstance(value, str) and BARE_DOT.search(value):
        names = None
    else:
        names = patterns_of(value)
    if not names:
        return refused(NO_PATTERN), ALL
    return translated(f"encrypt_layers {', '.join(names)}; {BEST_TOO}"), names
