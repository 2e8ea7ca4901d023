"""The wall: what a process could do without it, and what is left to it behind it."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.confinement.landlock import known_rights
from mmar_runtime.confinement.places import (
    SHARED_MEMORY,
    job_environment,
    make_scratch,
    remove_scratch,
)
from mmar_runtime.confinement.system_calls import MACHINE
from mmar_runtime.confinement.wall import Wall, kernel_wall
from tests.security.attempts import NAMES, SECRET, ends_at_once
from tests.security.case import REPOSITORY

NO_WALL = not kernel_wall().stands
pytestmark = pytest.mark.skipif(NO_WALL, reason=f"this kernel's wall is {kernel_wall()}")

REFUSED_ANYWAY = {
    "connect_by_multipath_tcp",
    "connect_with_the_first_packet",
    "make_a_device",
    "call_as_a_32_bit_program",
    "call_by_a_second_number",
    "call_without_a_call",
    "handle_faults_of_memory",
    "load_a_program_into_the_kernel",
    "make_a_namespace",
    "read_the_keyring",
    "send_a_raw_packet",
    "take_a_file_of_a_process",
    "trace_a_process",
    "type_into_the_terminal",
}
"""What many kernels and containers refuse an ordinary process already."""


def tried(folder: Path, how: str) -> dict[str, str]:
    """What came of all attempts in a process of its own."""
    (folder / "run").mkdir(parents=True)
    outside = folder / "outside"
    outside.mkdir()
    for name in ("secret", "script", "long", "doomed"):
        (outside / name).write_text(SECRET)
    terminal, line = pty.openpty()
    left_open = os.open(outside / "secret", os.O_RDONLY)
    environment = {**os.environ, "MMAR_OPEN": str(left_open), "MMAR_TERMINAL": str(line)}
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_UNIX) as one:
        one.bind(f"\0mmar-{os.getpid()}")
        one.listen()
        port = str(listening.getsockname()[1])
        command = [sys.executable, "-m", "tests.security.attempts", str(folder), port, how]
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environment,
            pass_fds=[left_open, line],
            capture_output=True,
            text=True,
            timeout=60,
        )
    for descriptor in (terminal, line, left_open):
        os.close(descriptor)
    assert done.returncode == 0, done.stderr
    came: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return came


@pytest.fixture(scope="module")
def confined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("confined")
    return folder, tried(folder, "confined")


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tried(tmp_path_factory.mktemp("free"), "free")


@pytest.mark.parametrize("attempt", NAMES)
def test_an_attempt_is_refused_behind_the_wall(
    attempt: str, confined: tuple[Path, dict[str, str]]
) -> None:
    assert confined[1][attempt].startswith("refused")


@pytest.mark.parametrize("attempt", sorted(set(NAMES) - REFUSED_ANYWAY))
def test_the_attempt_succeeds_without_the_wall(attempt: str, free: dict[str, str]) -> None:
    assert free[attempt] == "done"


def test_nothing_outside_has_changed(confined: tuple[Path, dict[str, str]]) -> None:
    outside = confined[0] / "outside"

    assert sorted(path.name for path in outside.iterdir()) == ["doomed", "long", "script", "secret"]
    assert {path.read_text() for path in outside.iterdir()} == {SECRET}


def test_the_kernel_refuses_each_call_of_the_list_by_its_number() -> None:
    code = """
import errno, json
from mmar_runtime.confinement import call_filter, wall

wall.confine(wall.Confinement())
came = {}
for name, numbers in call_filter.NUMBERS.items():
    if (number := numbers[call_filter.MACHINES[call_filter.MACHINE].column]) is not None:
        inputs = (call_filter.TERMINAL_INPUT, call_filter.CONSOLE_INPUT)
        for second in inputs if name == "ioctl" else (-1,):
            try:
                came[name, second] = call_filter.system_call(number, -1, second, *(-1,) * 4)
            except OSError as error:
                came[name, second] = errno.errorcode[error.errno]
print(json.dumps([[name, how] for (name, _), how in came.items()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    came = json.loads(done.stdout)
    assert len(came) > 70
    assert ["clone3", "ENOSYS"] in came  # the C library then calls clone
    assert {how for name, how in came if name != "clone3"} == {"EPERM"}


@pytest.mark.parametrize("how", ["free", "confined"])
def test_permissions_times_and_attributes_stay_whatever_function_is_asked(
    how: str, tmp_path: Path
) -> None:
    code = """
import os, sys
from pathlib import Path
from mmar_runtime.confinement.wall import Confinement, confine

folder = Path(sys.argv[1])
if sys.argv[2] == "confined":
    confine(Confinement(write=(folder,)))
here, user = os.open(folder, os.O_RDONLY), (os.getuid(), os.getgid())
file = os.open(folder / "file", os.O_CREAT | os.O_RDWR)
for change in (
    lambda: os.chmod(folder / "file", 0o666),
    lambda: os.chmod("file", 0o666, dir_fd=here),
    lambda: os.fchmod(file, 0o666),
    lambda: os.chown(folder / "file", *user),
    lambda: os.chown("file", *user, dir_fd=here),
    lambda: os.lchown(folder / "file", *user),
    lambda: os.fchown(file, *user),
    lambda: os.utime(folder / "file"),
    lambda: os.utime("file", dir_fd=here),
    lambda: os.utime(file),
    lambda: os.setxattr(folder / "file", "user.x", b"1"),
    lambda: os.setxattr(folder / "file", "user.x", b"1", follow_symlinks=False),
    lambda: os.setxattr(file, "user.x", b"1"),
    lambda: os.removexattr(folder / "file", "user.x"),
    lambda: os.removexattr(folder / "file", "user.x", follow_symlinks=False),
    lambda: os.removexattr(file, "user.x"),
    lambda: os.truncate(folder / "file", 0),
):
    try:
        change()
        print("done")
    except PermissionError:
        print("refused")
    except OSError:  # this file system has no attributes, or the file none of that name
        print("done")
"""
    command = [sys.executable, "-c", code, str(tmp_path), how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.split() == [{"free": "done", "confined": "refused"}[how]] * 17


def test_a_process_forbids_programs_to_the_threads_that_it_has_already() -> None:
    code = """
import subprocess, sys, threading
from mmar_runtime.confinement.wall import forbid_programs

def start():
    print(subprocess.run([sys.executable, "-c", ""]).returncode)
    ready.set()
    forbidden.wait()
    try:
        subprocess.run([sys.executable, "-c", ""])
    except PermissionError:
        print("refused")

forbidden, ready = threading.Event(), threading.Event()
thread = threading.Thread(target=start)
thread.start()
ready.wait()
forbid_programs()
forbidden.set()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["0", "refused"]


@pytest.mark.skipif(MACHINE != "x86_64", reason="other machines have one set of numbers")
def test_numbers_of_another_kind_are_refused_and_not_unknown(
    confined: tuple[Path, dict[str, str]],
) -> None:
    assert confined[1]["call_by_a_second_number"] == "refused: [Errno 1] Operation not permitted"


def test_who_has_to_start_the_interpreter_starts_no_shell_and_no_program_of_a_job(
    tmp_path: Path,
) -> None:
    code = """
import subprocess, sys
from pathlib import Path
from mmar_runtime.confinement.wall import Confinement, confine

data, run = map(Path, sys.argv[1:])
confine(Confinement(read=(data,), write=(run,), programs=True))
for program in (sys.executable, data / "program", run / "program", "/usr/bin/true", "/bin/sh"):
    try:
        print(subprocess.run([program, "-c", ""]).returncode)
    except OSError as error:
        print(type(error).__name__)
"""
    folders = [tmp_path / "data", tmp_path / "run"]
    for folder in folders:
        folder.mkdir()
        (folder / "program").write_bytes(ends_at_once())
        (folder / "program").chmod(0o700)
        assert subprocess.run([folder / "program"]).returncode == 0

    command = [sys.executable, "-c", code, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["0", *["PermissionError"] * 4]


@pytest.mark.parametrize(("ports", "tcp"), [("", "PermissionError"), ("1,", "made")])
def test_who_reports_to_nobody_gets_no_socket_of_a_network(ports: str, tcp: str) -> None:
    code = f"""
import socket
from mmar_runtime.confinement.wall import Confinement, confine

confine(Confinement(connect_ports=({ports})))
for family in (socket.AF_UNIX, socket.AF_INET):
    try:
        socket.socket(family).close()
        print("made")
    except OSError as error:
        print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["made", tcp]


# --- What a process is given ---------------------------------------------------------------------


def test_a_job_gets_the_variables_of_a_list_and_folders_of_its_own(tmp_path: Path) -> None:
    given = {
        "PATH": "/usr/bin",
        "OMP_NUM_THREADS": "2",
        "PYTHONPATH": ":own:/opt/packages:",
        "HOME": "/home/doctor",
        "AWS_SECRET_ACCESS_KEY": "x",
        "MLFLOW_TRACKING_URI": "https://tracker",
    }

    clean = job_environment(given, tmp_path)

    assert Path(clean.pop("TMPDIR")).parent == SHARED_MEMORY
    assert clean == {
        "PATH": "/usr/bin",
        "OMP_NUM_THREADS": "2",
        "PYTHONPATH": "/opt/packages",
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "home/.cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "home/.config"),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    to_a_tracker = job_environment(given, tmp_path, egress=True)
    assert to_a_tracker["MLFLOW_TRACKING_URI"] == "https://tracker"
    assert "AWS_SECRET_ACCESS_KEY" not in to_a_tracker


def test_a_name_that_another_user_has_taken_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_scratch(tmp_path)
    make_scratch(tmp_path)  # its own name it takes once more
    monkeypatch.setattr(os, "geteuid", lambda: -1)

    with pytest.raises(FileExistsError):
        make_scratch(tmp_path)
    remove_scratch(tmp_path)


# --- The corpus, with nobody's judgement ---------------------------------------------------------

EACH = 60
"""One in so many cases is run here; ``python -m tests.security.walled`` runs all."""

THAT_EXECUTE = ("path-popen", "path-os-system", "path-run-cmd", "path-builtins-open")


def outcomes(cases: str, *arguments: str) -> list[dict[str, Any]]:
    """What came of cases, named by an expression, in a process that forks for each."""
    code = (
        "import json, sys; from tests.security.walled import CASES, run_all\n"
        f"for one in run_all({cases}{''.join(arguments)}): print(json.dumps(one), flush=True)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_hostile_mmar_that_nobody_has_judged_does_nothing_behind_the_wall() -> None:
    found = outcomes(f"CASES[::{EACH}]")

    assert len(found) > 10
    assert [one for one in found if one["through"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("wall", [True, False])
def test_the_wall_is_what_stops_it(wall: bool) -> None:
    names = [f"component/{name}" for name in THAT_EXECUTE]

    found = outcomes(f"[one for one in CASES if one.name in {names}]", f", walled={wall}")

    assert len(found) == len(names)
    assert {one["through"] for one in found} == {not wall}


# --- The wall as a value -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "bits"), [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (6, 16), (7, 16)]
)
def test_a_kernel_is_asked_for_all_the_rights_that_it_knows(version: int, bits: int) -> None:
    """The second version brought links between folders, the third shortening, the fifth ioctl."""
    assert known_rights(version) == 2**bits - 1


def test_a_process_with_several_threads_is_not_confined() -> None:
    code = (
        "import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True)"
        ".start(); from mmar_runtime.confinement.wall import *; confine(Confinement())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "has 2 threads, and the kernel confines a single one" in done.stderr


def test_a_process_gets_no_more_than_its_confinement_says() -> None:
    code = (
        "from resource import *; from mmar_runtime.confinement import wall; wall.MOST_FILES = 100; "
        "wall.confine(wall.Confinement(memory=2**33, file_bytes=2**20)); "
        "print(*(getrlimit(one)[1] for one in (RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_NOFILE)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert list(map(int, done.stdout.split())) == [2**33, 2**20, 100]


def test_a_process_that_was_started_anew_closes_itself_again() -> None:
    code = (
        "from mmar_runtime.confinement.system_calls import LIBC; "
        "from mmar_runtime.confinement.wall import forbid_programs; "
        "state = lambda: [LIBC.prctl(one, 0, 0, 0, 0) for one in (3, 39)]; "  # dumpable, no rights
        "print(state()); forbid_programs(); print(state())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["[1, 0]", "[0, 1]"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("required", "ConfinementError: the process of a job cannot be confined here as asked for"),
        ("preferred", "files only, no network rule (Landlock 3; Linux 6.7 brings it)"),
        ("off", "off: nothing but the user's own rights bounds this process"),
    ],
)
def test_a_process_that_requires_the_wall_ends_where_it_has_none(mode: str, said: str) -> None:
    code = (
        "from mmar_runtime.confinement import wall; "
        "wall.kernel_wall = lambda: wall.Wall(landlock=3, call_filter=True); "
        f"print(wall.confine_as('{mode}', wall.Confinement()))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert said in (done.stderr if mode == "required" else done.stdout)
    assert done.returncode == (1 if mode == "required" else 0)


def test_what_a_wall_leaves_open_is_said_too() -> None:
    code = (
        "from mmar_runtime.confinement.wall import *; "
        "print(confine_as('required', Confinement(connect_ports=None, programs=True, "
        "permissions=True)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip().split("; ")[-3:] == [
        "the network is left open",
        "the interpreter can be started",
        "permissions of files can be changed",
    ]


@pytest.mark.parametrize(
    ("wall", "words", "stands"),
    [
        (Wall(7, True), "full: files, programs, network, signals (Landlock 7)", True),
        (Wall(4, True), "files and network, no rule for signals (Landlock 4; Linux 6.12", True),
        (Wall(3, True), "files only, no network rule (Landlock 3; Linux 6.7 brings it)", False),
        (Wall(7, False), "partial: Landlock 7, but this kernel filters no system calls", False),
        (Wall(0, True), "none: this kernel has no Landlock", False),
    ],
)
def test_what_a_kernel_gives_is_said_in_words(wall: Wall, words: str, stands: bool) -> None:
    assert str(wall).startswith(words)
    assert wall.stands == stands
