"""The fork server of ``warm_python``: ``python -P server.py SOCKET SPACE``.

It imports what is slow to import, once, and then forks a process for each request. A request comes
from ``client.py``, which the tests start in place of Python. Our own packages are not imported
here: each process imports these itself, as a Python from scratch does.

Of a request, the process that is forked takes over: the open files, environment, working folder,
umask and arguments. It has a session of its own; its client passes signals on.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import io
import json
import logging
import multiprocessing
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import threading
from typing import Any, NamedTuple

ORIGINAL_PATH = list(sys.path)
WARM_PYTHON = "WARM_PYTHON"
"""An environment variable: with it a process starts others by the warm Python too.

A process that the kernel confines has a clean environment. It starts others from scratch, because
the kernel has to confine these as well.
"""

SLOW_TO_IMPORT = (
    "torch",
    "torch._dynamo",
    "torch.onnx",
    "torch.utils.tensorboard",
    "ignite.handlers",
    "monai",
    "nvflare.private.fed.app.client.client_train",
    "nvflare.private.fed.app.client.worker_process",
    "nvflare.private.fed.app.server.server_train",
    "nvflare.private.fed.app.server.runner_process",
)
MOST_FILES = 64
ABOVE_ALL_FILES = 512
PR_SET_PDEATHSIG = 1
ARGUMENTS_START, ARGUMENTS_END = 47, 48
"""Places of two addresses in ``/proc/self/stat``, counted from 0."""


class Request(NamedTuple):
    """What a client asks to be run, and its open files by their numbers."""

    document: dict[str, Any]
    files: dict[int, int]


def serve(path: str) -> Request:
    """Fork a process for each request; return only in such a process."""
    end_with_parent()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(MOST_FILES)
    import_slowly()
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                request = received(connection)
                if request is None:
                    continue
                pid = os.fork()
                if pid == 0:
                    for other in list(waiting.get_map()):
                        os.close(other)
                    connection.close()
                    return request
                for number in request.files.values():
                    os.close(number)
                watch(waiting, connection, pid)
            else:
                key.data()


def import_slowly() -> None:
    for name in SLOW_TO_IMPORT:
        importlib.import_module(name)
    # MONAI's handler keeps the standard output of its import. Commands import MONAI while their
    # standard output is redirected; here it is imported before that.
    for reference in logging._handlerList:  # type: ignore[attr-defined]
        handler = reference()
        if getattr(handler, "stream", None) is sys.stdout:
            handler.stream = CurrentOutput()
    gc.freeze()


class CurrentOutput:
    """The standard output of the moment."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


def received(connection: socket.socket) -> Request | None:
    """The request of a client; None if the client has gone."""
    numbers = array.array("i")
    space = socket.CMSG_SPACE(MOST_FILES * numbers.itemsize)
    text, ancillary, *_ = connection.recvmsg(1 << 20, space)
    for _, _, content in ancillary:
        numbers.frombytes(content)
    with contextlib.suppress(ValueError):
        while True:
            with contextlib.suppress(json.JSONDecodeError):
                document = json.loads(text)
                return Request(document, dict(zip(document["files"], numbers, strict=True)))
            more = connection.recv(1 << 20)
            if not more:
                raise ValueError("half a request")
            text += more
    connection.close()
    return None


def watch(waiting: selectors.BaseSelector, connection: socket.socket, pid: int) -> None:
    """Report the end of a process to its client, and end it if the client is killed."""
    ended = os.pidfd_open(pid)

    def report() -> None:
        _, status = os.waitpid(pid, 0)
        waiting.unregister(ended)
        os.close(ended)
        with contextlib.suppress(KeyError):
            waiting.unregister(connection)
        with contextlib.suppress(OSError):
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        connection.close()

    def end() -> None:
        if connection.fileno() >= 0:  # else it has just ended by itself
            waiting.unregister(connection)
            os.kill(pid, signal.SIGKILL)

    waiting.register(ended, selectors.EVENT_READ, report)
    waiting.register(connection, selectors.EVENT_READ, end)
    connection.sendall(f"{pid}\n".encode())


def end_with_parent() -> None:
    """Have the kernel kill this process when the process that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def take_over(request: Request) -> None:
    """Make this process the one that was asked for."""
    document = request.document
    os.setsid()
    end_with_parent()
    moved = {
        wanted: fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, ABOVE_ALL_FILES)
        for wanted, number in request.files.items()
    }
    for number in request.files.values():
        os.close(number)
    for wanted, number in moved.items():
        os.dup2(number, wanted)  # which is inherited
        os.close(number)
    os.environ.clear()
    os.environ.update(document["environment"])
    os.chdir(document["folder"])
    os.umask(document["umask"])
    show_arguments([document["python"], *document["words"]])
    sys.argv = [document["kind"], *document["arguments"]]
    if WARM_PYTHON in document["environment"]:
        sys.executable = document["python"]
        multiprocessing.set_executable(sys.executable)
    sys.orig_argv = [document["python"], *document["words"]]
    sys.path[:] = [*document["path"], *ORIGINAL_PATH]
    for name, number in ("stdin", 0), ("stdout", 1), ("stderr", 2):
        raw = document["unbuffered"] and number > 0
        stream = io.TextIOWrapper(
            open(number, "wb" if number else "rb", 0 if raw else -1, closefd=False),  # noqa: SIM115
            encoding="utf-8",
            errors="backslashreplace" if number == 2 else "strict",
            line_buffering=number == 2 and not raw,
            write_through=raw,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    random.seed()
    tempfile.tempdir = None  # which is remembered from the first look at the environment
    import numpy
    import torch

    numpy.random.seed()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))


def show_arguments(words: list[str]) -> None:
    """Write arguments to where ``ps`` and psutil read them."""
    with open("/proc/self/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[ARGUMENTS_START - 2]), int(fields[ARGUMENTS_END - 2])
    text = b"".join(os.fsencode(word) + b"\0" for word in words)[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def run(kind: str, what: str) -> int:
    """Run a module as ``python -m`` does, or code as ``python -c``; return the exit code."""
    try:
        if kind == "-m":
            runpy._run_module_as_main(what)  # type: ignore[attr-defined]
        else:
            exec(compile(what, "<string>", "exec"), sys.modules["__main__"].__dict__)  # noqa: S102
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        sys.stderr.write(f"{error.code}\n")
        return 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def end(code: int) -> None:
    """End the process as the interpreter does, but do not take it apart.

    To visit every object would copy most of the memory that the processes share.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    request = serve(sys.argv[1])
    take_over(request)
    end(run(request.document["kind"], request.document["what"]))
