"""What every command shares: arguments in Clara's spelling, errors, signals, exit codes."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmar_runtime.config.loader import ENVIRONMENT_FILE
from mmar_runtime.errors import ConfigError, MmarError, RunAborted

EXIT_INTERNAL = 70
"""A fault of ours, as in sysexits.h; everything that the user can mend exits with 1 or 2."""


def add_mmar_arguments(parser: argparse.ArgumentParser, *, config: str) -> None:
    """``-m -c -e --set`` as Clara's commands have them."""
    parser.add_argument("-m", "--mmar", required=True, metavar="DIR", help="the MMAR's folder")
    parser.add_argument(
        "-c",
        "--config",
        default=config,
        metavar="FILE",
        help="workflow in the MMAR (%(default)s)",
    )
    parser.add_argument(
        "-e",
        "--environment",
        default=ENVIRONMENT_FILE,
        metavar="FILE",
        help="environment in the MMAR (%(default)s)",
    )
    add_set_argument(parser)


def add_set_argument(parser: argparse.ArgumentParser) -> None:
    """``--set NAME=VALUE ...``, which wins over every document."""
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        action="extend",
        metavar="NAME=VALUE",
        dest="overrides",
        help="values that win over the workflow's and the environment's",
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """``--json --debug --verbose``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the libraries log")


def run_command(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; errors written for the user are printed without a traceback.

    Returns:
        0 for success; 1 for a run that failed; 2 for something to mend in what was given; 130 for
        an interrupted run; 70 for a fault of the program itself.
    """
    try:
        return command(options)
    except MmarError as error:
        return _report(error, error.exit_code, options)
    except KeyboardInterrupt as error:
        return _report(RunAborted(str(error) or "interrupted"), RunAborted.exit_code, options)
    except BrokenPipeError:
        return 1
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error}"
        advice = "This is a fault of mmar-fl. Please report it with the output of --debug."
        return _report(MmarError(f"{text}\n    {advice}"), EXIT_INTERNAL, options)


def _report(error: MmarError, code: int, options: argparse.Namespace) -> int:
    if options.debug:
        traceback.print_exc(file=sys.stderr)
    if options.json:
        problems = error.problems if isinstance(error, ConfigError) else ()
        print_json({"error": str(error), "problems": [one.as_dict() for one in problems]})
    print(f"mmar: {error}", file=sys.stderr)
    return code


def print_json(content: Any) -> None:
    """One JSON document on stdout, and nothing else there."""
    print(json.dumps(content, indent=2), file=sys.__stdout__, flush=True)


def set_up_logging(*, verbose: bool) -> None:
    """Our own messages always, the libraries' when asked for; all on stderr."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s" if verbose else "%(message)s",
        stream=sys.stderr,
        force=True,
    )
    for name in ("mmar_runtime", "fl_admin"):
        logging.getLogger(name).setLevel(logging.INFO)


class StopRequest:
    """Whether SIGINT or SIGTERM has asked the run to stop.

    A run that calls this calls it again after each iteration, so from the first call on a signal
    only asks, and the run ends between two iterations. A second signal, or the first before the
    run has begun, interrupts at once.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._asked = False
        self._running = False

    def __call__(self) -> bool:
        """Whether to stop."""
        self._running = True
        return self._asked

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What the process does on a signal.

        Raises:
            KeyboardInterrupt: the run is to end at once. No library catches that one and goes on.
        """
        if os.getpid() != self._process:
            _in_data_worker(number)
        elif self._asked or not self._running:
            raise KeyboardInterrupt(f"stopped by {signal.Signals(number).name}")
        else:
            self._asked = True
            print("stopping after this iteration; once more to stop at once", file=sys.stderr)


def _in_data_worker(number: int) -> None:
    """A DataLoader's process: Ctrl-C reaches it too, but who ends it is the process that loads."""
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Let SIGINT and SIGTERM ask for a stop; put the handlers back at the end."""
    request = StopRequest()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request.handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
