"""The common part of all commands: arguments in Clara's spelling, errors, signals, exit codes."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.dummy import DummyProcess
from pathlib import Path
from types import FrameType
from typing import Any

from mmar_runtime.cli.log_config import apply_log_config
from mmar_runtime.cli.streams import patient_streams, reader_has_left
from mmar_runtime.components.launch import ALONE, Processes, launched_processes
from mmar_runtime.config.loader import ENVIRONMENT_FILE
from mmar_runtime.config.log_config import read_log_config
from mmar_runtime.errors import (
    CheckpointError,
    ComponentError,
    ConfigError,
    LaunchError,
    MmarError,
    RunAborted,
    UnfitDataError,
)
from mmar_runtime.files import finite, storage_fault, storage_text
from mmar_runtime.names import visible_line

EXIT_INTERNAL = 70
"""A fault of ours, as in sysexits.h; faults that the user can correct exit with 1 or 2."""

SECONDS_TO_END = 30.0
"""For the threads that read data, after an interruption."""

MET_BY_ALL = (CheckpointError, ConfigError, LaunchError, RunAborted, UnfitDataError)
"""Errors that each process of a run meets by itself; one process on each machine reports them."""


def add_mmar_arguments(parser: argparse.ArgumentParser, *, config: str) -> None:
    """Add ``-m -c -e --set`` as Clara's commands have them."""
    parser.add_argument("-m", "--mmar", required=True, metavar="DIR", help="the MMAR's folder")
    parser.add_argument(
        "-c", "--config", default=config, metavar="FILE", help="workflow in the MMAR (%(default)s)"
    )
    parser.add_argument(
        "-e",
        "--environment",
        default=ENVIRONMENT_FILE,
        metavar="FILE",
        help="environment in the MMAR (%(default)s)",
    )
    add_set_argument(parser)
    parser.add_argument(
        "--log-config",
        metavar="FILE",
        help="logging as this log.config in the MMAR says; -v has no effect then",
    )


def add_set_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--set NAME=VALUE ...``, which wins over every document."""
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        action="extend",
        metavar="NAME=VALUE",
        dest="overrides",
        help="values that win over the workflow's and the environment's",
    )
    parser.set_defaults(old_scripts=False)


def examples_of(command: str, examples: str) -> str:
    """Return the examples of one command from the examples of a help."""
    lines = [line for line in examples.splitlines() if line.strip().startswith(f"{command} ")]
    return "\n".join(["examples:", *lines])


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--json --debug --verbose``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show the log lines of the libraries"
    )


def run_command(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; errors written for the user are printed without a traceback.

    Returns:
        0 for success; 1 for a run that failed; 2 for a fault in the input; 130 for
        an interrupted run; 70 for a fault of the program itself.
    """
    with patient_streams(sys.stdout, sys.stderr):
        code = _ended(command, options)
    if _processes().several:
        # The threads of a process group end with it, and have to before the interpreter does. A
        # network in a circle of engines and handlers keeps the group alive until it is collected.
        gc.collect()
    return code


def _ended(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    try:
        code = command(options)
        sys.stdout.flush()
    except ComponentError as error:
        # The disk's fault is not the component's that met it.
        told = error if storage_fault(error) is None else _told(error)[0]
        return _report(told, error.exit_code, options)
    except MmarError as error:
        return _report(error, error.exit_code, options)
    except KeyboardInterrupt as error:
        return _report(RunAborted(str(error) or "interrupted"), RunAborted.exit_code, options)
    except Exception as error:
        return 0 if reader_has_left(sys.__stdout__) else _report(*_told(error), options)
    return code


def _told(error: Exception) -> tuple[MmarError, int]:
    """Return an error that is none of ours as one of ours, with its exit code."""
    if (fault := storage_fault(error)) is not None:
        return MmarError(storage_text(fault, fault.filename)), MmarError.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{str(error.filename)!r}: {error.strerror}"
        return MmarError(
            f"{text}\n    Correct that there, or name another place."
        ), MmarError.exit_code
    text = f"internal error: {type(error).__name__}: {error}"
    advice = "This is a fault of mmar-fl. Please report it with the output of --debug."
    return MmarError(f"{text}\n    {advice}"), EXIT_INTERNAL


def _report(error: MmarError, code: int, options: argparse.Namespace) -> int:
    if options.debug:
        traceback.print_exc(file=sys.stderr)
    processes = _processes()
    if options.json and processes.first:
        problems = error.problems if isinstance(error, ConfigError | UnfitDataError) else ()
        print_json({"error": str(error), "problems": [problem.as_dict() for problem in problems]})
    if processes.local_rank == 0 or not isinstance(error, MET_BY_ALL):
        name = "mmar" if processes.first else f"mmar, process {processes.rank}"
        text = "\n".join(map(visible_line, str(error).split("\n")))
        print(f"{name}: {text}", file=sys.stderr)
    return code


def _processes() -> Processes:
    try:
        return launched_processes()
    except LaunchError:  # the run itself says so
        return ALONE


def is_first_process() -> bool:
    """Return whether this process prints the results; true if there is one process alone."""
    return _processes().first


def print_note(text: object) -> None:
    """Print a line on stderr; no text of a stranger's documents can move the cursor."""
    print(f"note: {visible_line(str(text))}", file=sys.stderr)


def print_json(content: Any) -> None:
    """Print one JSON document, and nothing else, on stdout."""
    print(json_text(content), file=sys.__stdout__, flush=True)


def json_text(content: Any) -> str:
    """Return a document that every JSON parser reads: a number that is not finite becomes null.

    >>> json_text([0.5, float("nan")]).split()
    ['[', '0.5,', 'null', ']']
    """
    return json.dumps(finite(content), indent=2, allow_nan=False)


def set_up_logging(*, verbose: bool) -> None:
    """Log our own messages always, the libraries' messages when asked for; all on stderr.

    Of several processes, all but the first only warn.
    """
    first = is_first_process()
    logging.basicConfig(
        level=logging.INFO if verbose and first else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s" if verbose else "%(message)s",
        stream=sys.stderr,
        force=True,
    )
    for name in ("mmar_runtime", "fl_admin"):
        logging.getLogger(name).setLevel(logging.INFO if first else logging.WARNING)


def set_up_run_logging(options: argparse.Namespace) -> None:
    """Set up the logging of a command that runs an MMAR, as its ``--log-config`` says, if given.

    Raises:
        ConfigError: the file cannot be read, or asks for more than messages on the terminal.
    """
    set_up_logging(verbose=options.verbose)
    if options.log_config is not None:
        # With --json, stdout holds one JSON document and nothing else.
        config = read_log_config(Path(options.mmar) / options.log_config)
        if is_first_process():
            apply_log_config(config, stdout=not options.json)


class StopRequest:
    """Whether SIGINT or SIGTERM has asked the run to stop.

    A run calls this object after each iteration. From the first call on, a signal only asks, and
    the run ends between two iterations. A second signal, or a signal before the first call,
    interrupts at once.

    Of several processes the first reports the stop.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._tells = is_first_process()
        self._asked = False
        self._running = False

    def __call__(self) -> bool:
        """Return whether to stop."""
        self._running = True
        return self._asked

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Ask the run to stop when a signal comes; the second signal ends the process.

        Raises:
            KeyboardInterrupt: the run is to end at once. No library catches it and goes on;
                but Python drops an exception while an object is being cleared away, and then the
                run ends after its first iteration.
        """
        if os.getpid() != self._process:
            # In a DataLoader's process: the process that loads ends it, also after Ctrl-C.
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif self._asked or not self._running:
            self._asked = True
            raise KeyboardInterrupt(f"stopped by {signal.Signals(number).name}")
        else:
            self._asked = True
            if self._tells:
                # A stream refuses a message in the midst of another one; the descriptor takes it.
                os.write(2, b"stopping after this iteration; once more to stop at once\n")


def let_readers_end(seconds: float) -> None:
    """Wait until each thread of a pool is done with the case that it reads, but no longer."""
    readers = [each for each in threading.enumerate() if isinstance(each, DummyProcess)]
    if readers:
        print("stopping when the cases that are read now are there", file=sys.stderr)
    deadline = time.monotonic() + seconds
    for reader in readers:
        reader.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Let SIGINT and SIGTERM ask for a stop; put the handlers back at the end.

    An interruption waits for the threads that read data: one in the midst of torch's code aborts
    the process, when the interpreter ends. A second signal does not wait.
    """
    request = StopRequest()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request.handle) for number in numbers}
    try:
        yield request
    except KeyboardInterrupt:
        let_readers_end(SECONDS_TO_END)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
