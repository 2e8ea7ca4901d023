"""What a hostile job would do if it ran as code: each attempt succeeds, or raises ``OSError``.

    python -P -m tests.security.attempts FOLDER PORT CONFINED

tries all of them in one process, confined or not, and writes a JSON object: attempt -> outcome. The
folder holds ``run``, where the process may write, and ``outside``, which it must leave alone.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

from mmar_runtime.confinement.system_calls import LIBC, MACHINE, system_call
from mmar_runtime.confinement.wall import Confinement, confine

SECRET = "secret-of-the-site"
COLUMN = {"x86_64": 0, "aarch64": 1}
CALLS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "mount": (165, 40),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "truncate": (76, 45),
}
PTRACE_SEIZE = 0x4206
GET_DUMPABLE, GET_NO_NEW_PRIVS = 3, 39


def call(name: str, *arguments: object) -> int:
    return system_call(CALLS[name][COLUMN[MACHINE]], *arguments)


class Attempts:
    """Each method is one attempt.

    Args:
        folder: of ``run`` and ``outside``.
        port: where somebody listens on the loopback interface.
        parent: a process outside.
    """

    def __init__(self, folder: Path, port: int, parent: int) -> None:
        self.run, self.outside = folder / "run", folder / "outside"
        self.port, self.parent = port, parent

    # --- files

    def read_a_file(self) -> object:
        return (self.outside / "secret").read_text()

    def read_the_users_of_the_machine(self) -> object:
        return Path("/etc/passwd").read_text()

    def list_a_folder(self) -> object:
        return os.listdir(self.outside)

    def read_through_a_link(self) -> object:
        link = self.run / "link"
        link.symlink_to(self.outside / "secret")
        return link.read_text()

    def give_a_file_a_second_name(self) -> object:
        os.link(self.outside / "secret", self.run / "second")
        return (self.run / "second").read_text()

    def write_a_file(self) -> object:
        return (self.outside / "new").write_text("x")

    def append_to_a_file(self) -> object:
        with (self.outside / "script").open("a") as stream:
            return stream.write("x")

    def shorten_a_file(self) -> object:
        return call("truncate", ctypes.c_char_p(bytes(self.outside / "long")), 0)

    def move_a_file_out(self) -> object:
        (self.run / "mine").write_text("x")
        return os.rename(self.run / "mine", self.outside / "mine")

    def delete_a_file(self) -> object:
        return os.unlink(self.outside / "doomed")

    def make_a_folder(self) -> object:
        return os.mkdir(self.outside / "folder")

    def make_a_link(self) -> object:
        return os.symlink("secret", self.outside / "link")

    def make_a_device(self) -> object:
        return os.mknod(self.run / "disk", 0o600 | 0o060000, os.makedev(254, 0))

    def change_permissions(self) -> object:
        return os.chmod(self.outside / "secret", 0o666)

    def change_times(self) -> object:
        return os.utime(self.outside / "secret", (0, 0))

    def read_what_was_open(self) -> object:
        return os.read(int(os.environ["MMAR_OPEN"]), 10)

    def leave_a_file_that_others_read(self) -> object:
        mine = self.run / "for others"
        mine.touch()
        return _raise_unless(bool(mine.stat().st_mode & 0o044))

    def leave_an_image_of_its_memory(self) -> object:
        return _raise_unless(resource.getrlimit(resource.RLIMIT_CORE)[1] != 0)

    # --- programs

    def start_a_program(self) -> object:
        return subprocess.run(["true"], check=True)

    def start_a_shell(self) -> object:
        code = os.system("true")
        return _raise_unless(code == 0)

    def start_the_interpreter(self) -> object:
        return subprocess.run([sys.executable, "-c", ""], check=True)

    def start_a_file_in_the_run_folder(self) -> object:
        path = self.run / "program"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o700)
        os.write(descriptor, b"#!/bin/sh\n")
        os.close(descriptor)
        return subprocess.run([path], check=True)

    def start_the_loader(self) -> object:
        loader = next(Path("/lib64").glob("ld-linux*"), Path("/lib/ld-linux-aarch64.so.1"))
        return subprocess.run([loader, "/bin/true"], check=True)

    def start_a_program_in_memory(self) -> object:
        descriptor = call("memfd_create", ctypes.c_char_p(b"x"), 0)
        os.write(descriptor, ends_at_once())
        child = os.fork()
        if child == 0:
            try:
                os.execve(descriptor, ["x"], {})
            except OSError as error:
                os._exit(error.errno)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return _raise_unless(code == 0, code)

    def gain_rights_by_a_program(self) -> object:
        """Whether a program that belongs to another user would run with the rights of that user."""
        return _raise_unless(LIBC.prctl(GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0)

    # --- network

    def connect(self) -> object:
        return socket.create_connection(("127.0.0.1", self.port), 5).close()

    def connect_with_the_first_packet(self) -> object:
        with socket.socket() as one:
            return one.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", self.port))

    def connect_by_multipath_tcp(self) -> object:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as one:
            return one.connect(("127.0.0.1", self.port))

    def listen(self) -> object:
        return socket.create_server(("127.0.0.1", 0)).close()

    def send_a_datagram(self) -> object:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            return one.sendto(b"x", ("127.0.0.1", self.port))

    def send_a_raw_packet(self) -> object:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()

    def ask_the_kernel_for_addresses(self) -> object:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()

    def connect_to_an_abstract_socket(self) -> object:
        with socket.socket(socket.AF_UNIX) as one:
            return one.connect(f"\0mmar-{self.parent}")

    # --- other processes

    def signal_a_process(self) -> object:
        return os.kill(self.parent, signal.SIGCONT)

    def trace_a_process(self) -> object:
        return call("ptrace", PTRACE_SEIZE, self.parent, 0, 0)

    def read_the_memory_of_a_process(self) -> object:
        return Path(f"/proc/{self.parent}/mem").open("rb").close()

    def read_the_environment_of_a_process(self) -> object:
        return Path(f"/proc/{self.parent}/environ").read_bytes()

    def read_the_command_of_a_process(self) -> object:
        return Path(f"/proc/{self.parent}/cmdline").read_bytes()

    def take_a_file_of_a_process(self) -> object:
        return call("pidfd_getfd", call("pidfd_open", self.parent, 0), 0, 0)

    def limit_a_process(self) -> object:
        limits = resource.prlimit(self.parent, resource.RLIMIT_CORE)
        return resource.prlimit(self.parent, resource.RLIMIT_CORE, limits)

    # --- the kernel

    def call_without_a_call(self) -> object:
        return call("io_uring_setup", 1, ctypes.create_string_buffer(120))

    def handle_faults_of_memory(self) -> object:
        return call("userfaultfd", 1)

    def call_by_a_second_number(self) -> object:
        """``getpid`` by its number for x32, a second set of numbers that x86-64 alone has."""
        return system_call(0x40000000 + 39)

    def call_as_a_32_bit_program(self) -> object:
        """``getpid`` by its 32-bit number and gate, which a process of 64 bits may use as well."""
        _raise_unless(MACHINE == "x86_64", errno.ENOSYS)  # others have no such gate
        memory = mmap.mmap(
            -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        )
        memory.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret
        place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        child = os.fork()
        if child == 0:
            os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_int)(place)() > 0 else errno.EPERM)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return _raise_unless(code == 0)

    def load_a_program_into_the_kernel(self) -> object:
        return call("bpf", 0, ctypes.create_string_buffer(128), 128)

    def read_the_keyring(self) -> object:
        return call("keyctl", 0, -4, 1)

    def make_a_namespace(self) -> object:
        child = os.fork()
        if child == 0:
            try:
                call("unshare", 0x10000000)
            except OSError as error:
                os._exit(error.errno)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return _raise_unless(code == 0, code)

    def type_into_the_terminal(self) -> object:
        import fcntl

        return fcntl.ioctl(int(os.environ["MMAR_TERMINAL"]), 0x5412, b"x")

    # --- by detours

    def read_a_file_in_a_child(self) -> object:
        child = os.fork()
        if child == 0:
            os._exit(0 if _readable(self.outside / "secret") else errno.EACCES)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return _raise_unless(code == 0, code)

    def read_a_file_in_a_thread(self) -> object:
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(_readable(self.outside / "secret")))
        thread.start()
        thread.join()
        return _raise_unless(found == [True])

    def read_its_memory_as_another(self) -> object:
        """Whether another process of the user could: that needs a process that can be dumped."""
        return _raise_unless(LIBC.prctl(GET_DUMPABLE, 0, 0, 0, 0) == 1)


def ends_at_once() -> bytes:
    """A program that needs no other file: it exits with code 0."""
    machine, code = {
        "x86_64": (62, "31ff b83c000000 0f05"),  # xor edi, edi; mov eax, 60; syscall
        "aarch64": (183, "000080d2 a80b80d2 010000d4"),  # mov x0, 0; mov x8, 93; svc 0
    }[MACHINE]
    start, headers = 0x400000, 64 + 56
    elf = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, machine, 1, start + headers, 64,
                      0, 0, 64, 56, 1, 0, 0, 0)  # fmt: skip
    whole = headers + len(bytes.fromhex(code))
    return (
        elf
        + struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, whole, whole, 4096)
        + bytes.fromhex(code)
    )


def _raise_unless(done: bool, number: int = errno.EPERM) -> None:
    if not done:
        raise OSError(number, os.strerror(number))


def _readable(path: str | Path) -> bool:
    try:
        return bool(Path(path).read_bytes())
    except OSError:
        return False


NAMES = [name for name in vars(Attempts) if not name.startswith("_")]


def main() -> int:
    """Try everything; the last line is the result."""
    folder, port, confined = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "confined"
    came = {}
    os.umask(0o022)
    if confined:
        confine(Confinement(write=(folder / "run",), connect_ports=(1,)))
    attempts = Attempts(folder, port, os.getppid())
    for name in NAMES:
        try:
            getattr(attempts, name)()
        except (OSError, subprocess.SubprocessError) as error:
            came[name] = f"refused: {error}"
        else:
            came[name] = "done"
    sys.stdout.write(json.dumps(came))
    return 0


if __name__ == "__main__":
    sys.exit(main())
