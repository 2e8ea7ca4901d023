"""The rights of a process that runs a job, and how it gives up all other rights.

    wall = confine(Confinement(read=[...], write=[run], connect_ports=[port]))

has to be called before the job is read and before a library starts a thread. The kernel confines
the calling thread and all that it starts from then on. Nothing takes a wall down again.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmar_runtime.confinement.call_filter import has_call_filter, refuse_calls, refuse_programs
from mmar_runtime.confinement.landlock import (
    APPEND,
    DEVICE,
    EXECUTE,
    PROC,
    READ,
    SCOPES_SINCE,
    TCP_SINCE,
    WRITE,
    Access,
    landlock_version,
    restrict_to,
)
from mmar_runtime.confinement.places import SHARED_MEMORY, devices, interpreter, runtime_folders
from mmar_runtime.confinement.system_calls import (
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    process_control,
)
from mmar_runtime.errors import MmarError

Mode = Literal["required", "preferred", "off"]
MODES: tuple[Mode, ...] = ("required", "preferred", "off")

MOST_FILES = 65536


class ConfinementError(MmarError):
    """This kernel does not give the wall that was asked for."""


@dataclass(frozen=True, slots=True)
class Wall:
    """The features of a kernel.

    Attributes:
        landlock: the version of its Landlock; 0 for none.
        call_filter: whether it refuses system calls (seccomp).
    """

    landlock: int
    call_filter: bool

    @property
    def stands(self) -> bool:
        """Whether files, programs and the network are all covered; ``required`` asks for that."""
        return self.landlock >= TCP_SINCE and self.call_filter

    def __str__(self) -> str:
        if not self.landlock:
            return "none: this kernel has no Landlock (Linux 5.13 brings it, if it is switched on)"
        name = f"Landlock {self.landlock}"
        if not self.call_filter:
            return f"partial: {name}, but this kernel filters no system calls (seccomp)"
        if self.landlock < TCP_SINCE:
            return f"files only, no network rule ({name}; Linux 6.7 brings it)"
        if self.landlock < SCOPES_SINCE:
            return f"files and network, no rule for signals ({name}; Linux 6.12 brings it)"
        return f"full: files, programs, network, signals ({name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """The rights of a process that runs a job.

    The interpreter, its packages, and the files of the system and of a GPU that they need can be
    read besides; the shared memory of the machine can be written to.

    Attributes:
        read: files and folders to be read: the job, the data.
        names: folders whose files can be listed, though not read.
        write: folders to be written to as well: that of the run. The first becomes the working
            directory, so that files without a given place are written there.
        append: files that can be written to, but neither shortened, replaced nor removed: logs.
        connect_ports: TCP ports that may be connected to; None for a network without bounds, where
            several processes of a site find each other or handlers send to other machines.
        programs: whether the interpreter may be started anew, to start the ranks of a site. Names
            and command lines of all processes can be read then, their memory cannot.
        permissions: whether permissions and times of files may be changed, of all that the user may
            change: Landlock has no rule for them. Who copies files with their times needs that.
        memory: bytes that each process may have for itself; None for no limit.
        file_bytes: bytes of the largest file that may be written; None for no limit.
    """

    read: tuple[Path, ...] = ()
    names: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    append: tuple[Path, ...] = ()
    connect_ports: tuple[int, ...] | None = ()
    programs: bool = False
    permissions: bool = False
    memory: int | None = None
    file_bytes: int | None = None


def kernel_wall() -> Wall:
    """Return the wall that this machine's kernel gives."""
    return Wall(landlock=landlock_version(), call_filter=has_call_filter())


def confine_as(mode: Mode, confinement: Confinement, *, keep: Iterable[int] = ()) -> str:
    """Confine this process by the mode of a site's policy; see ``confine``.

    Returns:
        The taken steps, in words.

    Raises:
        ConfinementError: ``required``, and this kernel does not cover files, programs and network.
    """
    if mode == "off":
        return "off: nothing but the user's own rights bounds this process"
    if mode == "required":
        require_wall(kernel_wall())
    left_open = {
        "the network is left open": confinement.connect_ports is None,
        "the interpreter can be started": confinement.programs,
        "permissions of files can be changed": confinement.permissions,
    }
    wall = str(confine(confinement, keep=keep))
    return "; ".join([wall, *(words for words, is_open in left_open.items() if is_open)])


def require_wall(wall: Wall) -> None:
    """Raise unless a kernel covers files, programs and the network.

    Raises:
        ConfinementError: with the features of the kernel.
    """
    if not wall.stands:
        raise ConfinementError(
            f"the process of a job cannot be confined here as asked for; {wall}. Use a newer "
            "kernel, or a container"
        )


def confine(confinement: Confinement, *, keep: Iterable[int] = ()) -> Wall:
    """Confine this process and all that it will start, for good, as far as the kernel can.

    Args:
        confinement: its remaining rights.
        keep: descriptors that stay open; all others but the standard ones are closed, because what
            is open stays usable.

    Returns:
        The features that the kernel gave.

    Raises:
        ConfinementError: this process has several threads; the kernel would confine one of them.
        OSError: the kernel refuses a part that it claims to have.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise ConfinementError(
            f"this process has {threads} threads, and the kernel confines a single one; the wall "
            "has to be up before NumPy and torch are imported"
        )
    wall = kernel_wall()
    _close_all_but(keep)
    os.umask(0o077)
    if confinement.write:
        os.chdir(confinement.write[0])
    _limit(confinement)
    process_control(PR_SET_NO_NEW_PRIVS, 1)
    process_control(PR_SET_DUMPABLE, 0)
    if wall.landlock:
        restrict_to(_rules(confinement), connect_ports=confinement.connect_ports)
    if wall.call_filter:
        ports = confinement.connect_ports
        refuse_calls(
            programs=not confinement.programs,
            permissions=not confinement.permissions,
            network="any" if ports is None else "tcp" if ports else "none",
        )
    return wall


def forbid_programs() -> None:
    """Let this process start no program any more, whichever thread asks for it.

    For a process that had to start others first, and for those: whoever starts as a program can be
    read by others of its user until it forbids that. A kernel without seccomp forbids no programs.
    """
    process_control(PR_SET_DUMPABLE, 0)
    if has_call_filter():
        process_control(PR_SET_NO_NEW_PRIVS, 1)
        refuse_programs()


def _rules(confinement: Confinement) -> Iterator[tuple[Path, Access]]:
    yield from ((path, READ) for path in (*runtime_folders(), *confinement.read))
    yield from ((path, Access.READ_DIR) for path in confinement.names)
    yield from ((path, APPEND) for path in confinement.append)
    yield from ((path, DEVICE) for path in devices())
    yield from ((path, WRITE) for path in (SHARED_MEMORY, *confinement.write))
    if confinement.programs:
        yield from ((path, EXECUTE) for path in interpreter())
        yield PROC, READ  # each process that is started looks for itself there


def _close_all_but(keep: Iterable[int]) -> None:
    first = 3
    for descriptor in sorted(keep):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _limit(confinement: Confinement) -> None:
    """Set the kernel's own limits, which no process can raise again.

    Memory means the process's own memory: address space that a GPU's driver only reserves does
    not count. Processes are not counted here, since the kernel counts those of a user altogether.
    """
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, confinement.memory),
        (resource.RLIMIT_FSIZE, confinement.file_bytes),
        (resource.RLIMIT_NOFILE, MOST_FILES),
    ):
        if most is not None:
            soft, hard = resource.getrlimit(limit)
            resource.setrlimit(limit, (_lower(soft, most), _lower(hard, most)))


def _lower(limit: int, most: int) -> int:
    return most if limit == resource.RLIM_INFINITY else min(limit, most)
