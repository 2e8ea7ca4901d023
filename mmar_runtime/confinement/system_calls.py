"""System calls for which Python has no function."""

from __future__ import annotations

import ctypes
import os

MACHINE = os.uname().machine

LIBC = ctypes.CDLL(None, use_errno=True)

PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38


def system_call(number: int, *arguments: object) -> int:
    """Do a system call; integers are passed as the kernel's ``long``.

    Raises:
        OSError: the kernel refuses it.
    """
    given = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(LIBC.syscall(ctypes.c_long(number), *given))
    if result < 0:
        raise _last_error()
    return result


def process_control(option: int, value: int) -> None:
    """Set a property of this process with ``prctl``.

    Raises:
        OSError: the kernel refuses it.
    """
    zero = ctypes.c_ulong(0)
    if LIBC.prctl(option, ctypes.c_ulong(value), zero, zero, zero) != 0:
        raise _last_error()


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
