"""Paths that NVFlare cannot pass on: it puts them into a command line and splits that."""

from __future__ import annotations

import shlex
from pathlib import Path

SPLIT_AT = "blanks, quotes, backslashes or '#'"


def is_split(path: Path) -> bool:
    """Return whether NVFlare starts the process of a job with another path than this one.

    Its launchers write the path of a workspace into a command without quotes, and read the command
    as a shell does.

    >>> is_split(Path("/srv/our kits/site-1")), is_split(Path("/srv/kits/site-1"))
    (True, False)
    """
    try:
        return shlex.split(str(path), comments=True) != [str(path)]
    except ValueError:  # a quote without its end
        return True
