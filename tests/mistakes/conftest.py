"""Fixtures of the mistakes: ``workspace``, a copy of a good one for each test, and ``run``."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_admin.cli.main import main
from tests.mistakes.planting import Ended, Run, Workspace, write_workspace


@pytest.fixture(scope="session")
def good_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace that every test gets a copy of."""
    return write_workspace(tmp_path_factory.mktemp("good"))


@pytest.fixture
def workspace(good_workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace to plant a mistake in."""
    return good_workspace.copy_to(tmp_path / "workspace")


@pytest.fixture
def run() -> Iterator[Run]:
    """Run ``mmar`` in this process; logging is put back at the end."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    logger.handlers.clear()  # a command that sets up logging anew would close them
    # Loggers of libraries that earlier tests have set up write to streams that are closed now.
    logging.raiseExceptions = False
    yield _run
    logging.raiseExceptions = True
    logger.handlers[:] = handlers
    logger.setLevel(level)


def _run(*arguments: str) -> Ended:
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # a user's process does not take them for errors
        try:
            code = main(arguments)
        except SystemExit as ended:  # argparse ends a command line that is none
            code = int(ended.code or 0)
    return Ended(code, out.getvalue())
