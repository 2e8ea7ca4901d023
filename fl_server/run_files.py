"""The files of a run: models and record, written in order while the run goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from fl_server.record.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL
from fl_server.record.files import RecordFile
from fl_server.record.values import RunRecord
from mmar_runtime.exchange.encrypted_files import (
    SUFFIX,
    read_encrypted_model,
    write_encrypted_model,
)
from mmar_runtime.exchange.encryption import is_encrypted
from mmar_runtime.files import flush_below, link
from mmar_runtime.weights import Weights, read_checkpoint, write_checkpoint

logger = logging.getLogger(__name__)

RESULTS = "results"
"""The folder of these files in the folder of a run at a server."""

RECORD_FILE = "run_record.json"
MODELS = "models"
BYTES_WAITING = 2**28
MOST_WAITING = 16
"""What may wait to be written: bytes of models, though one model of any size, and files."""

SECONDS_BETWEEN_MODELS = 30
"""Writing a large global model takes longer than a round of small sites."""

SECONDS_BETWEEN_RECORDS = 0.5
"""Contributions of small sites come faster than anybody reads the record."""


class RunFiles:
    """Writes on a thread of its own, in the order of the calls.

    What the thread could not write is raised by a later call.

    Args:
        folder: of the results.
        train_conf: the configuration of the network, which goes with each model.
        durable: whether each record, and each round's model, is written, and models are flushed to
            the disk. Otherwise those that follow each other soon are left out, and all models are
            flushed in the end: a simulation that a power cut has ended starts anew.

    Attributes:
        written: the round whose global model was given to be written last.
    """

    def __init__(self, folder: Path, train_conf: Mapping[str, Any], *, durable: bool) -> None:
        self.folder = folder
        self._record_file = RecordFile(folder / RECORD_FILE)
        self._train_conf = train_conf
        self._durable = durable
        self._models = folder / MODELS
        self._models.mkdir(parents=True, exist_ok=True)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")
        self._writing: deque[tuple[Future[None], int]] = deque()
        self._lock = threading.RLock()  # a carrier's threads have lines of the log written
        self._record: Future[None] | None = None
        self._recorded = 0.0
        self._tolerates = False
        self.written = 0
        self._written_at = 0.0

    def record(self, current: Callable[[], RunRecord], *, soon: bool = True) -> None:
        """Write the record; unless ``soon`` or durable, only a while after the last one.

        Args:
            current: gives the record as it stands when its turn comes, on the thread.
            soon: whether a reader waits for what has changed.
        """
        now = time.monotonic()
        if soon or self._durable or now - self._recorded > SECONDS_BETWEEN_RECORDS:
            self._recorded = now
            if self._record is None or self._record.running() or self._record.done():
                self._record = self._do(
                    "the run record", lambda: self._record_file.write(current())
                )

    def global_model(self, weights: Weights, number: int, *, soon: bool) -> None:
        """Write the global model of a round: the first, and others ``soon`` or after a while."""
        now = time.monotonic()
        late = not self.written or now - self._written_at > SECONDS_BETWEEN_MODELS
        if soon or late or self._durable:
            self.written, self._written_at = number, now
            self.model(GLOBAL_MODEL, weights)

    def best_model(self, weights: Weights, number: int) -> None:
        """Write the global model of a round as the best; a second name where it is written."""
        if number == self.written:
            last, best = self._path(GLOBAL_MODEL, weights), self._path(BEST_GLOBAL_MODEL, weights)
            what = f"the model {BEST_GLOBAL_MODEL!r}"
            self._do(what, lambda: link(last, best, flush=self._durable))
        else:
            self.model(BEST_GLOBAL_MODEL, weights)

    def model(self, name: str, weights: Weights) -> None:
        """Write a model; the weights must not be changed any more."""
        path, conf, what = self._path(name, weights), self._train_conf, f"the model {name!r}"
        size = sum(tensor.nbytes for tensor in weights.values())
        with self._lock:
            while (held := sum(part for _, part in self._writing)) and held + size > BYTES_WAITING:
                self._writing.popleft()[0].result()
        if is_encrypted(weights):
            self._do(what, lambda: write_encrypted_model(path, weights, conf), size)
        else:
            self._do(what, lambda: write_checkpoint(path, weights, conf, flush=self._durable), size)

    def _path(self, name: str, weights: Weights) -> Path:
        return self._models / f"{name}{SUFFIX if is_encrypted(weights) else '.pt'}"

    def read(self, name: str) -> Weights:
        """Return the weights of a model that was written before."""
        self.wait()
        encrypted = self._models / f"{name}{SUFFIX}"
        if encrypted.is_file():
            return read_encrypted_model(encrypted).weights
        return read_checkpoint(self._models / f"{name}.pt").weights

    def _do(self, what: str, write: Callable[[], None], size: int = 0) -> Future[None]:
        def named() -> None:
            try:
                write()
            except Exception as error:
                error.add_note(f"{what} cannot be written")
                raise

        return self.do(named, size)

    def do(self, write: Callable[[], None], size: int = 0) -> Future[None]:
        """Have something written in its turn.

        Args:
            write: writes it.
            size: bytes of memory that the writing holds.
        """
        with self._lock:
            while self._writing and (
                self._writing[0][0].done() or len(self._writing) >= MOST_WAITING
            ):
                self._writing.popleft()[0].result()
            written = self._thread.submit(write)
            if self._tolerates:
                written.add_done_callback(_log_failure)
            else:
                self._writing.append((written, size))
            return written

    def tolerate(self) -> None:
        """From now on log a file that cannot be written, in place of an error."""
        with self._lock:
            self._tolerates = True
            for writing, _ in self._writing:
                writing.add_done_callback(_log_failure)
            self._writing.clear()

    def wait(self) -> None:
        """Return when all is written; raise the first failure since the last call."""
        with self._lock:
            writing = [future for future, _ in self._writing]
            self._writing.clear()
            wait(writing)
            for future in writing:
                future.result()

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._thread.shutdown(wait=True)
        flush_below(self._models)


def _log_failure(writing: Future[None]) -> None:
    if (error := writing.exception()) is not None:
        logger.error("a file of the run cannot be written", exc_info=error)
