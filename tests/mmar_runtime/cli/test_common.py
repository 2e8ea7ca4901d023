"""What every command shares: exit codes, JSON, signals."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.cli.common import (
    EXIT_INTERNAL,
    StopRequest,
    add_mmar_arguments,
    add_output_arguments,
    print_json,
    run_command,
    set_up_logging,
    stop_on_signals,
)
from mmar_runtime.config.location import Location
from mmar_runtime.errors import (
    ComponentError,
    ConfigError,
    DataError,
    FederationError,
    Problem,
    RunAborted,
)

HERE = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
"""The environment of a process that imports this checkout from any folder."""

CONFIG_ERROR = ConfigError(
    [
        Problem(
            Location("config_train.json") / "epochs", "has to be a number", "Write one.", "type"
        ),
        Problem(Location("config_train.json") / "train", "is missing", rule="section"),
    ]
)


def options(**values: bool) -> argparse.Namespace:
    return argparse.Namespace(**{"debug": False, "json": False, **values})


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def command(_: argparse.Namespace) -> int:
        raise error

    return command


# --- Exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CONFIG_ERROR, 2),
        (DataError("no image"), 2),
        (FederationError("no site came"), 1),
        (RunAborted("stopped"), 130),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), EXIT_INTERNAL),  # of a worker: the reader of stdout is there
        (OSError(28, "No space left on device"), 2),
        (PermissionError(30, "Read-only file system", "runs"), 2),
        (ZeroDivisionError("division by zero"), EXIT_INTERNAL),
        (FileExistsError(17, "File exists", "runs"), 2),
        (OSError("nothing that a user could mend"), EXIT_INTERNAL),
    ],
)
def test_each_kind_of_end_has_its_exit_code_and_no_traceback(
    error: BaseException, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(raising(error), options()) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err


def test_a_full_disk_is_no_fault_of_the_program_whoever_met_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def command(_: argparse.Namespace) -> int:
        try:
            raise OSError(28, "No space left on device", "eval/metrics.csv")
        except OSError as error:
            raise ComponentError("the run failed in monai.handlers") from error

    assert run_command(command, options()) == 2
    assert capfd.readouterr().err == (
        "mmar: 'eval/metrics.csv': No space left on device\n"
        "    Free some space there, or name another place.\n"
    )


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_leaves_ends_no_run(stream: str) -> None:
    program = (
        "import argparse, sys\n"
        "from mmar_runtime.cli.common import run_command\n"
        "def command(_):\n"
        f"    for number in range(20_000): print('line', number, file=sys.{stream})\n"
        "    open('done', 'w').close()\n"
        "    return 0\n"
        "sys.exit(run_command(command, argparse.Namespace(debug=False, json=False)))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        pipe = {stream: subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", program], cwd=folder, **pipe, env=HERE)
        reader = getattr(process, stream)
        reader.readline()
        reader.close()
        assert process.wait(timeout=60) == 0
        # Results are the last thing; messages come while the work goes on.
        assert os.path.exists(os.path.join(folder, "done")) == (stream == "stderr")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_another_encoding_ends_no_run(encoding: str) -> None:
    program = (
        "import argparse, sys\n"
        "from mmar_runtime.cli.common import run_command\n"
        "sys.exit(run_command(lambda _: print('\u0141\u00f3d\u017a') or 0, "
        "argparse.Namespace(debug=False, json=False)))\n"
    )
    environment = {**HERE, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(b"\\u0141")


def test_an_interruption_waits_for_the_cases_that_are_read(
    capfd: pytest.CaptureFixture[str],
) -> None:
    read = []

    def slow(case: int) -> None:
        time.sleep(0.2)
        read.append(case)

    def interrupted() -> None:
        with stop_on_signals(), ThreadPool(2) as pool:
            pool.imap(slow, range(9))
            time.sleep(0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(read) == 2
    assert capfd.readouterr().err == "stopping when the cases that are read now are there\n"


def test_success_is_the_commands_own_code(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda _: 0, options()) == 0
    assert capfd.readouterr() == ("", "")


def test_every_problem_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    run_command(raising(CONFIG_ERROR), options())
    assert capfd.readouterr().err == (
        "mmar: 2 problems in the configuration:\n"
        "config_train.json: epochs: has to be a number\n"
        "    Write one.\n"
        "config_train.json: train: is missing\n"
    )


def test_debug_shows_the_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    run_command(raising(DataError("no image")), options(debug=True))
    err = capfd.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.endswith("mmar: no image\n")


def test_a_fault_of_the_program_says_how_to_report_it(capfd: pytest.CaptureFixture[str]) -> None:
    run_command(raising(ZeroDivisionError("division by zero")), options())
    err = capfd.readouterr().err
    assert "internal error: ZeroDivisionError: division by zero" in err
    assert "--debug" in err


def test_an_interruption_says_what_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    run_command(raising(KeyboardInterrupt("stopped by SIGTERM")), options())
    run_command(raising(KeyboardInterrupt()), options())
    assert capfd.readouterr().err == "mmar: stopped by SIGTERM\nmmar: interrupted\n"


# --- JSON ----------------------------------------------------------------------------------------


def test_with_json_errors_are_one_document_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    run_command(raising(CONFIG_ERROR), options(json=True))
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert document["error"] == str(CONFIG_ERROR)
    assert document["problems"][0] == {
        "rule": "type",
        "file": "config_train.json",
        "place": "epochs",
        "message": "has to be a number",
        "advice": "Write one.",
    }
    assert err.startswith("mmar: 2 problems")


def test_json_goes_to_the_real_stdout_wherever_prints_are_sent(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stderr)
    print_json({"cases": 1})
    assert json.loads(capfd.readouterr().out) == {"cases": 1}


# --- Arguments -----------------------------------------------------------------------------------


def test_arguments_in_claras_spelling() -> None:
    parser = argparse.ArgumentParser()
    add_mmar_arguments(parser, config="config/config_train.json")
    add_output_arguments(parser)
    given = "-m mmar -c config/other.json -e config/env.json --set epochs=5 --set amp=False lr=1"
    parsed = parser.parse_args(given.split())
    assert (parsed.mmar, parsed.config) == ("mmar", "config/other.json")
    assert parsed.environment == "config/env.json"
    assert parsed.overrides == ["epochs=5", "amp=False", "lr=1"]
    assert (parsed.json, parsed.debug, parsed.verbose) == (False, False, False)


def test_arguments_have_the_mmars_own_documents_as_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_mmar_arguments(parser, config="config/config_train.json")
    parsed = parser.parse_args(["--mmar", "here"])
    assert parsed.config == "config/config_train.json"
    assert parsed.environment == "config/environment.json"
    assert parsed.overrides == []


@pytest.mark.parametrize(("verbose", "level"), [(False, logging.WARNING), (True, logging.INFO)])
def test_our_own_messages_are_always_logged_and_the_libraries_when_asked_for(
    verbose: bool, level: int
) -> None:
    set_up_logging(verbose=verbose)
    assert logging.getLogger("monai").getEffectiveLevel() == level
    assert logging.getLogger("mmar_runtime.workflows").getEffectiveLevel() == logging.INFO


# --- Signals -------------------------------------------------------------------------------------


def test_before_the_run_asks_a_signal_interrupts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM"), stop_on_signals():
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_it_runs_a_signal_asks_and_a_second_one_interrupts(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with stop_on_signals() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        with pytest.raises(KeyboardInterrupt, match=number.name):
            signal.raise_signal(number)
    assert "once more to stop at once" in capfd.readouterr().err


def test_the_handlers_of_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_an_early_signal_that_python_drops_still_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is raised while an object is cleared away reaches nobody."""
    dropped: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: dropped.append(found.exc_type))

    class Interrupted:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with stop_on_signals() as stop:
        Interrupted()
        assert dropped == [KeyboardInterrupt]
        assert stop()


def signalled_child(request: StopRequest, number: int) -> None:
    """A process that has the handler of the one that forked it, as a DataLoader's has."""
    signal.signal(number, request.handle)
    signal.raise_signal(number)
    os._exit(7)


# Newer Pythons warn of a fork beside threads; DataLoader forks all the same.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 7), (signal.SIGTERM, -signal.SIGTERM)],
    ids=["survives Ctrl-C, which reached the main process too", "can be ended by it"],
)
def test_a_data_worker_leaves_the_decision_to_the_process_that_loads(
    number: int, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    request = StopRequest()
    assert not request()
    child = get_context("fork").Process(target=signalled_child, args=(request, number))
    child.start()
    child.join(timeout=20)
    assert child.exitcode == code
    assert not request()
    assert "stopping" not in capfd.readouterr().err


class Interrupted(io.RawIOBase):
    """A stream at each of whose writes a signal comes."""

    def __init__(self, request: StopRequest) -> None:
        self._request = request

    def writable(self) -> bool:
        return True

    def write(self, text: Any) -> int:
        self._request.handle(signal.SIGINT, None)
        return len(text)


def test_a_signal_in_the_midst_of_a_message_asks_to_stop_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    request = StopRequest()
    assert not request()
    stream = io.TextIOWrapper(io.BufferedWriter(Interrupted(request)), line_buffering=True)
    monkeypatch.setattr(sys, "stderr", stream)

    print("epoch 1", file=sys.stderr)

    assert request()
    assert capfd.readouterr().err.startswith("stopping after this iteration")


def test_a_number_that_is_not_finite_is_null_in_json(capfd: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": float("nan"), "best": [1.5, float("inf")]})

    assert json.loads(capfd.readouterr().out) == {"loss": None, "best": [1.5, None]}
