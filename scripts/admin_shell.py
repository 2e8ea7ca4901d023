"""NVFlare's own admin console, ``startup/fl_admin.sh`` of a kit, spoken to by a program.

For rehearsals and tests of what a person types there; this project itself talks to a server by
``fl_admin.at_server.console``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Self

from fl_admin.at_server.console import admin_kit
from mmar_runtime.errors import FederationError

PROMPT = "> "
QUESTIONS = ("User Name: ", "(y/N): ")
"""How NVFlare asks for a name, and whether one is sure."""

SECONDS_TO_ANSWER = 60.0
SECONDS_TO_END = 10.0


class AdminShell:
    """One run of the console, logged in as the admin of a kit.

    Leaving the context says ``bye``, and ends the process if it does not go.
    """

    def __init__(self, kit: Path) -> None:
        self._user = admin_kit(kit).name
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            ["bash", "./fl_admin.sh"],
            cwd=kit / "startup",
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._printed: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(_there(self._process.stdout),))
        self._reader.start()
        self.greeting = ""

    def __enter__(self) -> Self:
        try:
            self._answer(SECONDS_TO_ANSWER)
            self.greeting = self.ask(self._user)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, line: str, *, seconds: float = SECONDS_TO_ANSWER) -> str:
        """Type a line; returns what is printed until the next prompt.

        Raises:
            FederationError: no prompt comes in time, or the console has ended.
        """
        stream = _there(self._process.stdin)
        try:
            stream.write(f"{line}\n".encode())
            stream.flush()
        except BrokenPipeError as error:
            raise FederationError("the admin console has ended") from error
        return self._answer(seconds)

    def _answer(self, seconds: float) -> str:
        printed, deadline = b"", time.monotonic() + seconds
        while not _ends_with_prompt(printed):
            try:
                piece = self._printed.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise FederationError(
                    f"the admin console has not answered within {seconds:.0f} s; it said:\n"
                    + _text(printed)
                ) from None
            if not piece:
                raise FederationError(f"the admin console has ended; it said:\n{_text(printed)}")
            printed += piece
        return _text(printed).removesuffix(PROMPT)

    def _read(self, stream: IO[bytes]) -> None:
        while piece := os.read(stream.fileno(), 65536):
            self._printed.put(piece)
        self._printed.put(b"")

    def _end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            stream = _there(self._process.stdin)
            stream.write(b"bye\n")
            stream.close()
        try:
            self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join()
        _there(self._process.stdout).close()


def _ends_with_prompt(printed: bytes) -> bool:
    text = _text(printed)
    return text.endswith(QUESTIONS) or text == PROMPT or text.endswith(f"\n{PROMPT}")


def _text(printed: bytes) -> str:
    return printed.decode("utf-8", errors="replace")


def _there(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
