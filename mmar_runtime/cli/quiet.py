"""Keeps the libraries' reports of an exception off the terminal: the command reports it itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

LIBRARIES = ("monai", "ignite", "torch")
ENGINES = "ignite.engine.engine"
"""The module after which ignite names the loggers of engines, each with its class."""


COLLATING = "dev_collate"
"""The logger that lists all entries of a batch that cannot be made."""


def hide_exceptions(engines: Iterable[str]) -> None:
    """Log no traceback of the libraries in this process, and no exception of these engines.

    Args:
        engines: names of classes.
    """
    logging.setLogRecordFactory(_without_traceback)
    logging.getLogger(COLLATING).addFilter(_drop)
    for name in engines:
        logging.getLogger(f"{ENGINES}.{name}").addFilter(_is_no_exception)


def show_exceptions(engines: Iterable[str]) -> None:
    """Log tracebacks and exceptions of these engines, whatever was asked for before."""
    logging.setLogRecordFactory(logging.LogRecord)
    logging.getLogger(COLLATING).removeFilter(_drop)
    for name in engines:
        logging.getLogger(f"{ENGINES}.{name}").removeFilter(_is_no_exception)


def _without_traceback(*values: Any, **options: Any) -> logging.LogRecord:
    record = logging.LogRecord(*values, **options)
    if str(record.name).partition(".")[0] in LIBRARIES:
        record.exc_info = None
    return record


def _drop(record: logging.LogRecord) -> bool:
    return False


def _is_no_exception(record: logging.LogRecord) -> bool:
    text = str(record.msg)
    return "is terminating due to exception" not in text and not text.startswith("Exception: ")
