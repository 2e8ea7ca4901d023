"""Other users who could change a file or a folder that decides what runs at a site."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

ROOT = 0


def other_writers(path: Path) -> str:
    """Say who besides the owner can write to a file or a folder, by its permissions.

    A group counts unless it is the private group of the owner or of this process's user.

    Returns:
        Words such as ``everybody on this machine``; empty where nobody else can.
    """
    status = path.stat()
    if status.st_mode & stat.S_IWOTH:
        return "everybody on this machine"
    users = (status.st_uid, os.geteuid())
    if not status.st_mode & stat.S_IWGRP or any(_is_private(status.st_gid, user) for user in users):
        return ""
    return f"the group {_name(grp.getgrgid, 'gr_name', status.st_gid)}"


def other_owner(path: Path) -> str:
    """Say whose a file or a folder is, if neither root's nor that of this process's user.

    Returns:
        Words such as ``the user alice``; empty for the two.
    """
    owner = path.stat().st_uid
    return (
        "" if owner in (ROOT, os.geteuid()) else f"the user {_name(pwd.getpwuid, 'pw_name', owner)}"
    )


def _name(entry_of: Callable[[int], object], field: str, number: int) -> str:
    try:
        return str(getattr(entry_of(number), field))
    except KeyError:
        return str(number)


def _is_private(group: int, user: int) -> bool:
    """Return whether a group belongs to one user alone; most distributions make such groups."""
    try:
        owner, entry = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        return False
    # Root's is none: container platforms put users of all kinds into it.
    named_alike = group != ROOT and owner.pw_gid == group and owner.pw_name == entry.gr_name
    return named_alike and set(entry.gr_mem) <= {owner.pw_name}
