"""The names that are shown, logged, written into tables and sent: one form for all of them.

A name of metrics, sites, models, tensors' owners, components or processes is written by a stranger
and read by a terminal, a spreadsheet, a browser and the reader of a log. In this form it cannot be
a line break, an escape, markup, a formula or a path to any of them.
"""

from __future__ import annotations

import re
from typing import TypeGuard

MAX_NAME = 100
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.\- ]{0,98}[A-Za-z0-9_.\-])?")
"""ASCII letters, digits, ``_.-`` and blanks inside; a letter, a digit or ``_`` comes first."""

NAME_FORM = (
    f"a name of letters, digits, blanks and _.- with at most {MAX_NAME} characters, the first one "
    "a letter, a digit or _"
)
"""``NAME`` in words, for errors."""

JOB_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,98}[A-Za-z0-9._-])?")
"""Of a job, which is a folder's name too."""

SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Of a site or a model; without blanks, as it stands in files' names and in addresses."""


def is_name(value: object) -> TypeGuard[str]:
    r"""Whether a value is a name; texts that are something else to a reader are not.

    >>> [is_name(one) for one in ("val_mean_dice", "site-1", "=1+1", "a\nb", "[red]", "\u202ea")]
    [True, True, False, False, False, False]
    """
    return type(value) is str and NAME.fullmatch(value) is not None
