"""Whether homomorphic encryption is installed here; importing this brings nothing in."""

from __future__ import annotations

from importlib.util import find_spec

EXTRA = "tenseal"
"""The package, as pip and Python know it."""

MISSING_EXTRA = (
    f"homomorphic encryption needs the package {EXTRA!r}, which is not installed; "
    "run pip install 'mmar-fl[he]'"
)


def extra_is_installed() -> bool:
    """Return whether anything can be encrypted here."""
    return find_spec(EXTRA) is not None
