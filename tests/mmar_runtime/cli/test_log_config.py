"""``log.config`` put into force: where messages go, and which commands ask for it.

``canary`` is a file that appears if a module of the MMAR's is imported.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import medl.apps.train
from fl_admin.cli.main import main
from mmar_runtime.cli.log_config import apply_log_config
from mmar_runtime.config.log_config import read_log_config

CLARA_LIKE = """
[loggers]
keys=root,modelLogger

[handlers]
keys=consoleHandler

[formatters]
keys=fullFormatter

[logger_root]
level=INFO
handlers=consoleHandler

[logger_modelLogger]
level=DEBUG
handlers=consoleHandler
qualname=medl.model
propagate=0

[handler_consoleHandler]
class=StreamHandler
level=DEBUG
formatter=fullFormatter
args=(sys.stdout,)

[formatter_fullFormatter]
format=%(asctime)s - %(name)s - %(levelname)s - %(message)s
"""

FULL = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"


@pytest.fixture(autouse=True)
def loggers_put_back() -> Iterator[None]:
    names = ("medl.model", "own", "fl_admin", "mmar_runtime")
    before = [
        (logger, list(logger.handlers), logger.level, logger.propagate)
        for logger in map(logging.getLogger, names)
    ]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a file appears if a module of the MMAR's is imported."""
    file = tmp_path / "canary.txt"
    module = f"from pathlib import Path\nPath({str(file)!r}).touch()\nsing = str\n"
    (tmp_path / "canary_module.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return file


def written(folder: Path, text: str) -> Path:
    path = folder / "log.config"
    path.write_text(text, encoding="utf-8")
    return path


def changed(*changes: tuple[str, str]) -> str:
    text = CLARA_LIKE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


# --- Where messages go ---------------------------------------------------------------------------


def test_messages_go_where_the_file_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = changed((FULL, "%(name)s|%(levelname)s|%(message)s"))
    apply_log_config(read_log_config(written(tmp_path, text)), stdout=True)

    logging.getLogger("own").debug("too low")
    logging.getLogger("own").info("hello")
    logging.getLogger("medl.model").debug("once")
    logging.getLogger("mmar_runtime.x").debug("too low")
    logging.getLogger("mmar_runtime.x").info("ours")

    out, err = capsys.readouterr()
    assert out == "own|INFO|hello\nmedl.model|DEBUG|once\nmmar_runtime.x|INFO|ours\n"
    assert err == ""


def test_where_stdout_belongs_to_the_result_they_go_to_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apply_log_config(read_log_config(written(tmp_path, CLARA_LIKE)), stdout=False)

    logging.getLogger("own").info("hello")

    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(" - own - INFO - hello\n")


def test_a_handlers_own_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = changed(("class=StreamHandler\nlevel=DEBUG", "class=StreamHandler\nlevel=ERROR"))
    apply_log_config(read_log_config(written(tmp_path, text)), stdout=True)

    logging.getLogger("own").warning("no")
    logging.getLogger("own").error("yes")

    assert capsys.readouterr().out.endswith(" - own - ERROR - yes\n")


# --- Commands ------------------------------------------------------------------------------------


@pytest.fixture
def mmar(tiny_mmar: Path) -> Path:
    resources = tiny_mmar / "resources"
    resources.mkdir()
    written(resources, changed((FULL, "LOG %(name)s %(message)s")))
    return tiny_mmar


def test_claras_names_log_as_the_mmar_says(mmar: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-m", str(mmar), "--set", "epochs=1", "print_conf=True"]

    assert medl.apps.train.main(options) == 0

    out = capsys.readouterr().out
    assert "LOG mmar_runtime.workflows.training Num Epochs: 1\n" in out
    assert "\nbest val_mean_dice" in out


def test_with_json_stdout_is_the_results_alone(
    mmar: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["-m", str(mmar), "--json", "--set", "epochs=1", "print_conf=True"]

    assert medl.apps.train.main(options) == 0

    out, err = capfd.readouterr()
    assert out.startswith("{")
    assert "LOG" not in out
    assert "LOG mmar_runtime.workflows.training Num Epochs: 1\n" in err


@pytest.mark.parametrize("command", ["train", "evaluate", "export"])
def test_mmar_does_so_when_asked(
    mmar: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written(mmar / "resources", "[loggers]\nkeys=root\n[logger_root]\nlevel=LOUD\n")
    options = [command, "-m", str(mmar), "--set", "epochs=x"]

    assert main([*options, "--log-config", "resources/log.config"]) == 2
    assert "log.config: logger_root.level: unknown level 'LOUD'" in capsys.readouterr().err
    main(options)
    assert "log.config" not in capsys.readouterr().err


def test_a_hostile_file_stops_claras_names_before_anything_runs(
    mmar: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = f"(open({str(canary)!r}, 'w'),)"
    written(mmar / "resources", changed(("(sys.stdout,)", call)))

    assert medl.apps.train.main(["-m", str(mmar)]) == 2

    assert "log.config: handler_consoleHandler.args: has to be" in capsys.readouterr().err
    assert not canary.exists()
    assert "canary_module" not in sys.modules
    assert not list((mmar / "models").iterdir())


def test_a_file_that_was_asked_for_has_to_be_there(
    mmar: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-m", str(mmar), "--log-config", "nowhere"]) == 2
    assert "nowhere: cannot be read: " in capsys.readouterr().err
