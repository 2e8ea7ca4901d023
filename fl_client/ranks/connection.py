"""The connection between a site's process and a rank: JSON in bytes, and an end that is noticed.

Nothing is pickled. Numbers come out of JSON as they went in, to the last bit. Nothing is imported
here that takes long.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NoReturn

MAX_BYTES = 64 * 1024 * 1024
"""No message is nearly as long: weights travel in files."""


def send(connection: Connection, message: Mapping[str, Any]) -> None:
    """Send one message.

    Raises:
        OSError: nobody is at the other end.
    """
    connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> dict[str, Any]:
    """Wait for the next message.

    Raises:
        EOFError, OSError: nobody is at the other end any more.
    """
    message: dict[str, Any] = json.loads(connection.recv_bytes(MAX_BYTES))
    return message


class Inbox:
    """What comes to a rank, read by a thread so that it is noticed in a long iteration.

    When the connection ends, the site's process has died, and this one ends with all that it has
    started.

    Attributes:
        tasks: the messages in their order, without aborts.
        aborted: the number of the last task that was aborted.
    """

    def __init__(self, connection: Connection) -> None:
        self.tasks: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.aborted = 0
        self._connection = connection
        threading.Thread(target=self._read, daemon=True, name="inbox").start()

    def _read(self) -> None:
        while True:
            try:
                message = receive(self._connection)
            except (EOFError, OSError):
                _end_with_all()
            if message["kind"] == "abort":
                self.aborted = message["number"]
            else:
                self.tasks.put(message)


def _end_with_all() -> NoReturn:
    """End this process at once, with the processes of its data loaders."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
