"""Commands set up the process's logging; here it is put back after each test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    names = ("mmar_runtime", "fl_admin")
    levels = {name: logging.getLogger(name).level for name in names}
    # Taken off for now, so that a command that sets up logging anew does not close them.
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
