"""A seccomp filter: the system calls that no training needs and that Landlock does not cover.

Landlock has no rule for programs in memory, sockets other than TCP, permissions of files, and
writing to a keyboard. The kernel asks this filter at each call, by number and plain arguments; the
filter cannot see memory that an argument points to.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mmar_runtime.confinement.system_calls import MACHINE, system_call

Instruction: TypeAlias = tuple[int, int, int, int]
"""Code, instructions to skip if true, and if false, and a constant: Linux's ``sock_filter``."""

LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NUMBER_AT, MACHINE_AT, ARGUMENTS_AT = 0, 4, 16
"""Offsets in the kernel's ``seccomp_data``; of an argument, the lower half comes first."""

ALLOW: Instruction = (RETURN, 0, 0, 0x7FFF0000)
SET_FILTER, ALL_THREADS = 1, 1


def _refuse(number: int) -> Instruction:
    return RETURN, 0, 0, 0x00050000 | number


REFUSE = _refuse(errno.EPERM)
UNKNOWN = _refuse(errno.ENOSYS)
"""Where the C library then makes an older call, whose arguments can be looked at."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The numbers that differ between processors.

    Attributes:
        audit: the kernel's number of the machine.
        seccomp: the number of the call ``seccomp``.
        column: which of the two numbers of ``NUMBERS`` is this machine's.
    """

    audit: int
    seccomp: int
    column: int


MACHINES = {
    "x86_64": Machine(audit=0xC000003E, seccomp=317, column=0),
    "aarch64": Machine(audit=0xC00000B7, seccomp=277, column=1),
}

NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # Programs; the second also starts a file that has no path.
    "execve": (59, 221),
    "execveat": (322, 281),
    # Other processes: their memory, their files, their limits.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "prlimit64": (302, 261),
    # Objects that other processes of the user share by a number.
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # Calls that are made without a call, and programs in the kernel.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    # Sockets.
    "socket": (41, 198),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    # Permissions, owners, times and attributes of files, and the one way to shorten a file that
    # the first two versions of Landlock do not know.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "truncate": (76, 45),
    # The terminal that the process was started from.
    "ioctl": (16, 29),
    # Keys of the user that the kernel holds.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # Namespaces, mounts, and the superuser's calls: a container's process often is the superuser.
    "clone": (56, 220),
    "clone3": (435, 435),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "iopl": (172, None),
    "ioperm": (173, None),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
}

PROGRAMS = frozenset(("execve", "execveat"))
PERMISSIONS = frozenset(
    (
        *("chmod", "fchmod", "fchmodat", "fchmodat2"),
        *("utime", "utimes", "futimesat", "utimensat"),
        *("setxattr", "lsetxattr", "fsetxattr", "setxattrat"),
    )
)
NETWORK = frozenset(("socket", "sendto", "sendmsg", "sendmmsg"))

Network = Literal["none", "tcp", "any"]

UNIX, INTERNET, INTERNET_6 = 1, 2, 10
STREAM, KIND_OF_SOCKET = 1, 0xF
TCP = 6
MSG_FASTOPEN = 0x20000000
NEW_NAMESPACES = 0x7E020080
"""Flags of ``clone`` that make a namespace."""

TERMINAL_INPUT, CONSOLE_INPUT = 0x5412, 0x541C
"""Requests that write to a terminal as if its user typed: ``TIOCSTI`` and ``TIOCLINUX``."""


def has_call_filter() -> bool:
    """Return whether this kernel takes a filter, and this module has the numbers of the machine."""
    machine = MACHINES.get(MACHINE)
    if machine is None:
        return False
    # A filter at no address: a kernel that takes filters cannot read it, any other knows no call.
    try:
        system_call(machine.seccomp, SET_FILTER, 0, None)
    except OSError as error:
        return error.errno == errno.EFAULT
    return True


def refuse_calls(*, programs: bool, permissions: bool, network: Network) -> None:
    """Refuse the calls, in all threads of this process and in all that it starts.

    Args:
        programs: whether no program may be started either.
        permissions: whether permissions, times and attributes of files may not be changed.
        network: which sockets may be made besides those of this machine: ``none``, ``tcp`` or
            ``any``.

    Raises:
        OSError: the kernel takes no filter, or this process has no ``no_new_privs``.
    """
    refused = NUMBERS.keys() - (() if programs else PROGRAMS)
    if not permissions:
        refused -= PERMISSIONS
    if network == "any":
        refused -= NETWORK
    _install(_program(refused, tcp=network == "tcp"))


def refuse_programs() -> None:
    """Refuse to start programs in all threads of this process, and change no other right.

    Raises:
        OSError: see ``refuse_calls``.
    """
    _install(_program(PROGRAMS, tcp=True))


def _install(program: Sequence[Instruction]) -> None:
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    instructions = ctypes.create_string_buffer(packed, len(packed))
    # The kernel's ``sock_fprog``: how many, and where.
    given = struct.pack("@HP", len(program), ctypes.addressof(instructions))
    system_call(MACHINES[MACHINE].seccomp, SET_FILTER, ALL_THREADS, ctypes.c_char_p(given))


def _program(refused: Iterable[str], *, tcp: bool) -> list[Instruction]:
    machine = MACHINES[MACHINE]
    program: list[Instruction] = [
        (LOAD, 0, 0, MACHINE_AT),
        (EQUAL, 1, 0, machine.audit),  # 32-bit programs have other numbers
        REFUSE,
        (LOAD, 0, 0, NUMBER_AT),
    ]
    if MACHINE == "x86_64":
        program += [(AT_LEAST, 0, 1, 0x40000000), REFUSE]  # a second set of numbers, for x32
    for name in sorted(refused):
        number = NUMBERS[name][machine.column]
        if number is not None:
            judgement = _JUDGED[name](tcp) if name in _JUDGED else [REFUSE]
            program += [(EQUAL, 0, len(judgement), number), *judgement]
    return [*program, ALLOW]


def _argument(index: int) -> Instruction:
    return LOAD, 0, 0, ARGUMENTS_AT + 8 * index


def _socket(tcp: bool) -> list[Instruction]:
    """Allow sockets of this machine always, TCP if the caller allows it, and no other protocols."""
    local = [_argument(0), (EQUAL, 0, 1, UNIX), ALLOW]
    if not tcp:
        return [*local, REFUSE]
    return [
        *local,
        (EQUAL, 2, 0, INTERNET),
        (EQUAL, 1, 0, INTERNET_6),
        REFUSE,
        _argument(1),
        (AND, 0, 0, KIND_OF_SOCKET),
        (EQUAL, 1, 0, STREAM),
        REFUSE,
        _argument(2),
        (EQUAL, 2, 0, 0),
        (EQUAL, 1, 0, TCP),
        REFUSE,
        ALLOW,
    ]


def _unless(index: int, *refused: int, test: int = EQUAL) -> Callable[[bool], list[Instruction]]:
    """Allow a call unless one of its arguments is, or has a bit of, one of these."""
    tests: list[Instruction] = [step for value in refused for step in ((test, 0, 1, value), REFUSE)]
    return lambda _: [_argument(index), *tests, ALLOW]


_JUDGED: dict[str, Callable[[bool], list[Instruction]]] = {
    "socket": _socket,
    # Data in the first packet make a connection that Landlock does not see.
    "sendto": _unless(3, MSG_FASTOPEN, test=ANY_BIT),
    "sendmsg": _unless(2, MSG_FASTOPEN, test=ANY_BIT),
    "sendmmsg": _unless(3, MSG_FASTOPEN, test=ANY_BIT),
    "ioctl": _unless(1, TERMINAL_INPUT, CONSOLE_INPUT),
    "clone": _unless(0, NEW_NAMESPACES, test=ANY_BIT),
    "clone3": lambda _: [UNKNOWN],
    "prlimit64": lambda _: [_argument(0), (EQUAL, 0, 1, 0), ALLOW, REFUSE],
}
