"""Landlock: a process gives up rights to files, TCP ports and signals, for itself and its children.

See https://docs.kernel.org/userspace-api/landlock.html. The numbers of the calls are the same on
every machine.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from enum import IntFlag
from pathlib import Path

from mmar_runtime.confinement.system_calls import system_call

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION = 1
PATH_BENEATH, NET_PORT = 1, 2
BIND_TCP, CONNECT_TCP = 1, 2
ABSTRACT_UNIX_SOCKET, SIGNAL = 1, 2

PROC = Path("/proc")

TCP_SINCE, SCOPES_SINCE = 4, 6
"""The versions of Landlock that brought rules for TCP, and for signals and abstract sockets."""


class Access(IntFlag):
    """The rights on a file, or on the files of a folder; in the kernel's order."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


FILE = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
"""The rights that a rule about a single file may have."""

READ = Access.READ_FILE | Access.READ_DIR
APPEND = Access.READ_FILE | Access.WRITE_FILE
EXECUTE = READ | Access.EXECUTE
DEVICE = Access.READ_FILE | Access.WRITE_FILE | Access.IOCTL_DEV | Access.READ_DIR
WRITE = ~(Access.EXECUTE | Access.MAKE_CHAR | Access.MAKE_BLOCK | Access.IOCTL_DEV)
"""No device can be made: the superuser's process would reach a whole disk through it."""


def landlock_version() -> int:
    """Return the version of the kernel's Landlock; 0 where there is none."""
    try:
        return system_call(CREATE_RULESET, None, 0, ASK_VERSION)
    except OSError:
        return 0


def restrict_to(
    rules: Iterable[tuple[Path, Access]], *, connect_ports: Iterable[int] | None
) -> None:
    """Keep this thread, and all that it starts, to some paths and TCP ports.

    A path that does not exist gives no right. A right that the kernel's version does not know is
    not restricted. Signals and abstract sockets reach no process outside.

    Args:
        rules: paths, and the rights there and below.
        connect_ports: TCP ports that may be connected to, of any machine, where none is listened
            to; None for no restriction of TCP.

    Raises:
        OSError: the kernel has no Landlock, or this process has no ``no_new_privs``.
    """
    version = landlock_version()
    handled = known_rights(version)
    tcp = BIND_TCP | CONNECT_TCP if version >= TCP_SINCE and connect_ports is not None else 0
    scopes = ABSTRACT_UNIX_SOCKET | SIGNAL if version >= SCOPES_SINCE else 0
    attributes = struct.pack("=QQQ", handled, tcp, scopes)
    # An older kernel takes the attributes that it does not know if they are zero.
    ruleset = system_call(CREATE_RULESET, ctypes.c_char_p(attributes), len(attributes), 0)
    try:
        for path, access in rules:
            with suppress(FileNotFoundError, NotADirectoryError):
                _allow(ruleset, path, access & handled)
        for port in connect_ports or () if tcp else ():
            _add(ruleset, NET_PORT, struct.pack("=QQ", CONNECT_TCP, port))
        system_call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def known_rights(version: int) -> Access:
    """Return the rights that a version knows of."""
    newest = {1: Access.MAKE_SYM, 2: Access.REFER, 3: Access.TRUNCATE, 4: Access.TRUNCATE}
    return Access(2 * newest.get(version, Access.IOCTL_DEV) - 1)


def _allow(ruleset: int, path: Path, access: Access) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= FILE
        _add(ruleset, PATH_BENEATH, struct.pack("=Qi", access, descriptor))
    finally:
        # A rule is about a file and not about its name. Those of /proc are made anew when the
        # kernel is short of memory, unless somebody has them open.
        if PROC not in path.parents:
            os.close(descriptor)


def _add(ruleset: int, kind: int, rule: bytes) -> None:
    system_call(ADD_RULE, ruleset, kind, ctypes.c_char_p(rule), 0)
