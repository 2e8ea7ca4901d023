"""A terminal as it is: of any encoding, and with a reader that may leave before the end."""

from __future__ import annotations

import io
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import IO, Any, cast


@contextmanager
def patient_streams(stdout: IO[str], stderr: IO[str]) -> Iterator[None]:
    """Let no message end a run, whatever becomes of the terminal.

    A sign that the encoding lacks is written as an escape. A message for a reader who has left is
    dropped; results are not, as ``reader_has_left`` tells.
    """
    for stream in (stdout, stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with redirect_stderr(cast("IO[str]", _Messages(stderr))):
        yield


def reader_has_left(stream: IO[str] | None) -> bool:
    """Return whether the reader of a pipe, such as ``head -1``, has read enough and left.

    What cannot be written any more goes nowhere then, also at the end of the interpreter.
    """
    if stream is None:
        return False
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return False  # in memory, or closed
    pipe = select.poll()
    pipe.register(descriptor, 0)
    left = any(event & select.POLLERR for _, event in pipe.poll(0))
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    return left


class _Messages:
    """A stream that drops what nobody reads any more."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            reader_has_left(self._stream)
            return len(text)

    def flush(self) -> None:
        reader_has_left(self._stream)
