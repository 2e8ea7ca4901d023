"""An exception of an engine is reported once, by the command, and not by the libraries too."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from ignite.engine import Engine

from mmar_runtime.cli.quiet import hide_exceptions, show_exceptions


def fail(engine: Engine, batch: object) -> None:
    raise ValueError("no")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    show_exceptions(["Engine"])


def run() -> None:
    with pytest.raises(ValueError, match="no"):
        Engine(fail).run([0])


def test_an_engine_that_fails_logs_its_exception_only_if_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hide_exceptions(["Engine"])
    run()
    assert caplog.text == ""

    show_exceptions(["Engine"])
    run()
    assert "terminating due to exception: no" in caplog.text


def test_libraries_log_no_traceback_and_the_program_does(caplog: pytest.LogCaptureFixture) -> None:
    hide_exceptions([])
    for name in ("monai.handlers", "mmar_runtime"):
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger(name).exception("it failed")
    library, own = caplog.records
    assert library.exc_info is None
    assert own.exc_info is not None
