"""One rank: ``python -P -m fl_client.ranks.main DESCRIPTOR``, started by ``launcher.Ranks`` alone.

It does the tasks that come over the connection until it is told to end, or until nobody is at the
other end any more: then the site's process has died, and this one ends with all that it started.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fl_client.local_work import LocalWork
from fl_client.memory.stored_rounds import StoredRounds
from fl_client.progress import ProgressFile
from fl_client.ranks.connection import Inbox, send
from fl_client.ranks.messages import error_message, read_weights, update_message, write_weights
from fl_client.site import Site
from fl_client.site_tasks import LocalTasks
from mmar_runtime.components.launch import Processes, launched_processes
from mmar_runtime.components.processes import process_group
from mmar_runtime.config.loader import ENVIRONMENT_FILE, load_train_config
from mmar_runtime.confinement.wall import forbid_programs
from mmar_runtime.errors import ConfigError, RunAborted
from mmar_runtime.exchange.messages import BestModel
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import read_site_policy
from mmar_runtime.weights import Weights
from mmar_runtime.workflows.observing import SilentObserver
from mmar_runtime.workflows.session import choose_device

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Rank:
    """Does the tasks of one rank.

    Args:
        connection: to the site's process.
        inbox: what comes over it.
        setup: the first message.
    """

    def __init__(self, connection: Connection, inbox: Inbox, setup: Mapping[str, Any]) -> None:
        self._connection = connection
        self._inbox = inbox
        self._processes = launched_processes()
        self._folder = Path(setup["folder"])
        self._number = 0
        self._best: BestModel | None = None
        self._progress = ProgressFile(Path(setup["progress"]))
        policy = read_site_policy(self._folder / setup["policy"])
        if policy.confinement != "off":
            forbid_programs()  # the rest of the wall came with the process that started this one
        self.site = Site(
            name=setup["site"],
            mmar=Mmar.open(setup["mmar"]),
            values=setup["values"],
            policy=policy,
        )
        self._tasks = LocalTasks(
            self.site,
            work=LocalWork(**setup["work"]),
            process=setup["process"],
            observer=self._progress if self._processes.first else SilentObserver(),
            should_stop=lambda: self._inbox.aborted == self._number,
            stored=StoredRounds(Path(setup["stored"]) / f"rank-{self._processes.rank}"),
        )

    def serve(self) -> int:
        """Do task after task until the end is asked for; returns the number of that message."""
        while (task := self._inbox.tasks.get())["kind"] != "close":
            self._number = task["number"]
            send(self._connection, {"number": self._number, **self._answer(task)})
        self._tasks.close()
        return int(task["number"])

    def _answer(self, task: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._done(task)
        except RunAborted:
            return {"aborted": True}
        except Exception as error:
            logger.exception("task %s failed", task["kind"])
            return {"error": error_message(error)}

    def _done(self, task: Mapping[str, Any]) -> dict[str, Any]:
        match task["kind"]:
            case "train":
                return self._train(self._weights(task), task["round_number"])
            case "score":
                return {"result": self._tasks.score(self._weights(task)).as_dict()}
            case "evaluate":
                result = self._tasks.evaluate(self._weights(task), owner=task["owner"])
                return {"result": result.as_dict()}
            case "best":
                self._tasks.trainer()  # all build it together
                return self._new_best() if self._processes.first else {}
            case "shared_tensors":
                tensors = self._tasks.shared_tensors()
                return {"sizes": dict(tensors.sizes), "buffers": sorted(tensors.buffers)}
            case other:
                raise ValueError(f"there is no task {other!r}")

    def _weights(self, task: Mapping[str, Any]) -> Weights:
        return read_weights(task["weights"], self._folder)

    def _train(self, weights: Weights, round_number: int) -> dict[str, Any]:
        self._progress.round_number = round_number
        update = self._tasks.train(weights, round_number)
        if not self._processes.first:
            return {}  # the others have the same
        path = self._folder / f"update-{self._number}.safetensors"
        return {
            "update": update_message(update),
            "difference": write_weights(update.difference, path),
            **self._new_best(),
        }

    def _new_best(self) -> dict[str, Any]:
        """Return the site's best model, if it is another one than was told before."""
        if (best := self._tasks.trainer().best) is None or best is self._best:
            return {}
        self._best = best
        path = self._folder / f"best-{self._number}.safetensors"
        told = {
            "weights": write_weights(self._tasks.best().weights, path),
            "result": best.result.as_dict(),
            "round_number": best.round_number,
        }
        return {"best": told}


def connected(site: Site, processes: Processes, stack: ExitStack) -> None:
    """Connect the ranks before the first task, so that it is known whether they can be.

    A fault of the configuration is not told here: each task tells it as it does in one process.
    """
    try:
        config = load_train_config(
            site.mmar, environment=ENVIRONMENT_FILE, site=site.workflow_values
        )
    except ConfigError:
        return
    stack.enter_context(process_group(processes, choose_device(config.settings, processes)))


def main() -> int:
    """Be one rank; returns when the end was asked for."""
    faulthandler.enable()
    processes = launched_processes()
    level = logging.INFO if processes.first else logging.WARNING
    logging.basicConfig(level=level, format=LOG_FORMAT, stream=sys.stderr)
    logging.captureWarnings(True)
    connection = Connection(int(sys.argv[1]))
    inbox = Inbox(connection)
    with ExitStack() as stack:
        try:
            rank = Rank(connection, inbox, inbox.tasks.get())
            connected(rank.site, processes, stack)
        except Exception as error:
            logger.exception("this rank could not be set up")
            send(connection, {"number": 0, "error": error_message(error)})
            return 1
        send(connection, {"number": 0})
        last = rank.serve()
    send(connection, {"number": last})
    return 0


if __name__ == "__main__":
    sys.exit(main())
