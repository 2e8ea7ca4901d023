"""A rank without a network: it does what a task tells it, so that the launcher is tried quickly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from fl_client.ranks.connection import Inbox, send


def answer(task: dict[str, Any], rank: int, inbox: Inbox) -> dict[str, Any]:
    """Do what the task says for this rank, and what one answers then."""
    match task["does"][rank]:
        case "fails":
            return failure("no such image", rank)
        case "fails in its own way":
            return failure(f"no image for {rank}", rank)
        case "is killed":
            os.write(1, b"its last words")
            os.kill(os.getpid(), signal.SIGKILL)
        case "exits":
            os._exit(7)
        case "waits":
            time.sleep(600)
        case "works until it is stopped":
            while inbox.aborted != task["number"]:
                time.sleep(0.01)
            return {"aborted": True}
        case "starts another":
            return {"child": subprocess.Popen(["sleep", "600"]).pid}
    return {"rank": rank, "pid": os.getpid()}


def failure(text: str, rank: int) -> dict[str, Any]:
    causes = [{"kind": "DataError", "text": text}]
    return {"error": {"causes": causes, "traceback": f"the traceback of {rank}"}}


def main() -> None:
    rank = int(os.environ["RANK"])
    connection = Connection(int(sys.argv[1]))
    inbox = Inbox(connection)
    while True:
        task = inbox.tasks.get()
        found = {} if task["kind"] == "close" else answer(task, rank, inbox)
        send(connection, {**found, "number": task.get("number", 0)})


if __name__ == "__main__":
    main()
