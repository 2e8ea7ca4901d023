"""What the rehearsal asks of processes, on this process."""

from __future__ import annotations

import runpy
import socket
from pathlib import Path

import psutil
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


class ThisProcess:
    def processes(self) -> list[psutil.Process]:
        return [psutil.Process()]


def test_a_socket_on_which_a_process_listens_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)  # as for ``python scripts/federation.py``
    listening_sockets = runpy.run_path(str(SCRIPTS / "federation.py"))["listening_sockets"]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert listener.getsockname() in listening_sockets(ThisProcess())
