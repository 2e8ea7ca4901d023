"""Documents of a run on the disk."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from fl_server.record.values import RoundRecord, RoundScores, RunRecord
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.plain import inside, to_plain
from mmar_runtime.files import write_text_atomically


class RecordFile:
    """A record on the disk, as JSON text with a line for each round and for each model's scores.

    It is written several times in a round, and Python writes JSON slowly: so a round that has not
    changed keeps its line.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[tuple[str, int], tuple[object, str]] = {}

    def write(self, record: RunRecord) -> None:
        """Write the record; a reader sees the former file or the whole new one.

        Raises:
            FederationError: the digest of a global model is still being computed.
            OSError: it cannot be written; the former file is there still.
            ValueError: the record holds a number that JSON does not know.
        """
        record.require_digests()
        write_text_atomically(self._path, self._text(record))

    def _text(self, record: RunRecord) -> str:
        entries = []
        for key in (field.name for field in fields(record)):
            value = getattr(record, key)
            if key in ("rounds", "scores") and value:
                lines = [f"    {self._line(key, place, part)}" for place, part in enumerate(value)]
                entries.append(f'  "{key}": [\n' + ",\n".join(lines) + "\n  ]")
            else:
                entries.append(f'  "{key}": {in_a_line(value)}')
        return "{\n" + ",\n".join(entries) + "\n}\n"

    def _line(self, key: str, place: int, value: RoundRecord | RoundScores) -> str:
        """Return a frozen value in a line, which is made once for it."""
        known, line = self._lines.get((key, place), (None, ""))
        if known is not value:
            line = in_a_line(value)
            self._lines[key, place] = (value, line)
        return line


def write_run_record(path: Path, record: RunRecord) -> None:
    """Write a record once; see ``RecordFile``."""
    RecordFile(path).write(record)


def read_run_record(path: Path) -> RunRecord:
    """Read a record; ``FederationError`` names the file and the place of a fault."""
    with inside(str(path)):
        return RunRecord.from_dict(parse_json(path))


def in_a_line(value: object) -> str:
    """Return the JSON text of a value; a number that JSON does not know raises."""
    return json.dumps(to_plain(value), allow_nan=False)


def parse_json(path: Path) -> object:
    """Read the JSON document of a file; ``FederationError`` where it is none."""
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FederationError(f"this is no JSON document: {error}") from error
    return document
