"""``warm_python``: a Python that starts in a tenth of a second, with its libraries loaded."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SECONDS_TO_LISTEN = 60.0


@contextmanager
def warm_python() -> Iterator[Path]:
    """A stand-in for ``sys.executable``; next to it are all programs of this Python's folder.

    A new process with torch and MONAI costs five seconds of the processor before it does anything;
    a process of the stand-in is forked from one that has both. It imports our own packages itself.
    """
    real = Path(sys.executable)
    with tempfile.TemporaryDirectory(prefix="warm-") as name:  # a socket's path has to be short
        folder = Path(name)
        socket = folder / "socket"
        for program in real.parent.iterdir():
            (folder / program.name).symlink_to(program)
        text = (FOLDER / "client.py").read_text(encoding="utf-8")
        text = text.replace("@PYTHON@", str(real)).replace("@SOCKET@", str(socket))
        for program in ("python", "python3"):
            (folder / program).unlink(missing_ok=True)
            (folder / program).write_text(f"#!{real} -IS\n{text}", encoding="utf-8")
            (folder / program).chmod(0o755)
        command = [str(real), "-P", str(FOLDER / "server.py"), str(socket), " " * 8192]
        server = subprocess.Popen(command, start_new_session=True)
        try:
            started = time.monotonic()
            while not socket.exists():
                assert server.poll() is None
                assert time.monotonic() < started + SECONDS_TO_LISTEN
                time.sleep(0.01)
            yield folder / "python3"
        finally:
            server.kill()  # and the kernel ends what it has forked
            server.wait()
