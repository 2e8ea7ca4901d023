"""The form of all names that are shown, logged, written into tables and sent.

Strangers write the names of metrics, sites, models, tensors' owners, components and processes. A
terminal, a spreadsheet, a browser and the reader of a log read them. To none of these readers can a
name of this form be a line break, an escape, markup, a formula or a path.
"""

from __future__ import annotations

import re
from typing import TypeGuard

LONGEST_TEXT = 400
MAX_QUOTED = 80
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
"""Of a site or a model; without blanks, as names of files and addresses hold it."""

ENCRYPTED_PREFIX = "@encrypted/"
"""Of the arrays that hold encrypted tensors; see ``mmar_runtime.exchange.encryption``."""


def is_name(value: object) -> TypeGuard[str]:
    r"""Return whether a value is a name; texts that are something else to a reader are not.

    >>> [is_name(name) for name in ("val_mean_dice", "site-1", "=1+1", "a\nb", "[red]", "\u202ea")]
    [True, True, False, False, False, False]
    """
    return type(value) is str and NAME.fullmatch(value) is not None


def shown(text: str, limit: int = LONGEST_TEXT) -> str:
    r"""Return a stranger's text as safe to show: one line, bounded, no control characters.

    A site chooses its reasons, and a server the names of its jobs. Escape sequences could repaint a
    terminal, and marks of writing direction could reorder a line of a page.

    >>> shown("out of memory\n  on cuda:0"), shown("\x1b[31mred")
    ('out of memory on cuda:0', '\\x1b[31mred')
    """
    visible = visible_line(" ".join(text.split()))
    return visible if len(visible) <= limit else f"{visible[:limit]}…"


def quoted(text: str) -> str:
    """Return the text, or the beginning of a long text, in quotation marks, as errors show it."""
    return repr(text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}...")


def visible_line(text: str) -> str:
    """Return the text with escapes for unprintable characters, line breaks among them."""
    if text.isprintable():
        return text
    return "".join(
        sign
        if sign.isprintable()
        else sign.encode("unicode_escape", "backslashreplace").decode("ascii")
        for sign in text
    )
