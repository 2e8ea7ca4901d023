"""What a site needs to go on after its process has ended: its state after the last two rounds.

A round that the server asks for again begins from the state before it, so that a site whose process
was lost gives the same bits as a site whose process was not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from mmar_runtime.errors import CheckpointError
from mmar_runtime.files import write_atomically

STORED = "stored"
"""The folder of these files in the folder of a run."""

KEPT = 2
"""The answer to the last round may have been lost on its way: the server then asks again."""

NAME = re.compile(r"round-([1-9][0-9]*)\.pt")


class StoredRounds:
    """The states of a site in one job, each in a file.

    Args:
        folder: of these files alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, number: int, state: dict[str, Any]) -> None:
        """Store the state after a round, and remove those that no round needs any more.

        Raises:
            StorageError: the disk is full, or read-only.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The end of a process loses nothing that is written. After a power cut the newest file may
        # be damaged; flushing it would keep the server waiting in each round.
        write_atomically(
            self._path(number), lambda stream: torch.save(state, stream), private=True, flush=False
        )
        for old in sorted(self._numbers())[:-KEPT]:
            self._path(old).unlink()

    def newest(self, before: float) -> int:
        """Return the last stored round that is older than a round; 0 if there is none."""
        return max((number for number in self._numbers() if number < before), default=0)

    def read(self, number: int) -> dict[str, Any]:
        """Return the state after a round.

        Raises:
            CheckpointError: its file cannot be read.
        """
        path = self._path(number)
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error
        return state

    def _numbers(self) -> list[int]:
        files = self._folder.iterdir() if self._folder.is_dir() else ()
        return [int(match[1]) for file in files if (match := NAME.fullmatch(file.name))]

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number}.pt"
