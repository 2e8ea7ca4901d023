"""Data lists in CSV: a row for each case, the columns named after its entries."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_text
from mmar_runtime.errors import ConfigError, Problem

LIST_COLUMN = "list"
"""The column that says which list a case belongs to, such as ``training``."""

WHOLE = "all"
"""The key of all rows together."""

DELIMITERS = ",;\t"


def read_table(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the lists of a CSV file by their keys.

    An empty cell is no entry, and a cell that is a number becomes one.

    Raises:
        ConfigError: no such file, no header, or a row that does not fit the header.
    """
    location = Location(path.name)
    text = read_text(path)
    header = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text), delimiter=max(DELIMITERS, key=header.count), strict=True)
    lists: dict[str, list[dict[str, Any]]] = {WHOLE: []}
    for item in _items(rows, location):
        key = item.pop(LIST_COLUMN, WHOLE)
        lists[WHOLE].append(item)
        if key != WHOLE:
            lists.setdefault(str(key), []).append(item)
    return lists


def _items(rows: Any, location: Location) -> Iterator[dict[str, Any]]:
    try:
        names = [name.strip() for name in next(rows, [])]
        if not all(names) or len(set(names)) != len(names) or not names:
            message = "its first line has to name the columns, such as image,label, each once"
            raise ConfigError([Problem(location, message, "", "data-list")])
        for row in rows:
            if row and len(row) != len(names):
                message = f"line {rows.line_num} has {len(row)} cells and not {len(names)}"
                raise ConfigError([Problem(location, message, "", "data-list")])
            cells = zip(names, map(str.strip, row), strict=False)
            item = {name: _value(cell) for name, cell in cells if cell}
            if item:
                yield item
    except csv.Error as error:
        message = f"line {rows.line_num} cannot be read: {error}"
        raise ConfigError([Problem(location, message, "", "data-list")]) from None


def _value(cell: str) -> str | int | float:
    """Return a cell's number, or its text.

    >>> [_value(cell) for cell in ("1", "-0.5", "1e3", "a.nii", "nan", "1_0")]
    [1, -0.5, 1000.0, 'a.nii', 'nan', '1_0']
    """
    if "_" in cell or not cell.isascii() or cell.lower().strip("+-")[:1] not in "0123456789.":
        return cell
    for number in (int, float):
        try:
            return number(cell)
        except ValueError:
            continue
    return cell
