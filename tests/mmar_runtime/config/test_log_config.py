"""``log.config``: what such a file may ask for, and what it may not.

``canary`` is a module that would leave a file behind if anything imported it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mmar_runtime.config.log_config import (
    HandlerSettings,
    LogConfig,
    LoggerSettings,
    read_log_config,
)
from mmar_runtime.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = ("mmar_runtime", "fl_client", "fl_server", "fl_admin", "medl")

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


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_log_config(written(folder, text))
    return [str(problem) for problem in caught.value.problems]


# --- What is read --------------------------------------------------------------------------------


def test_a_file_as_clara_had_it(tmp_path: Path) -> None:
    assert read_log_config(written(tmp_path, CLARA_LIKE)) == LogConfig(
        handlers={
            "consoleHandler": HandlerSettings(
                stream="stdout", level="DEBUG", format=FULL, dates=None
            )
        },
        loggers=(
            LoggerSettings(name="", level="INFO", handlers=("consoleHandler",), propagate=True),
            LoggerSettings(
                name="medl.model", level="DEBUG", handlers=("consoleHandler",), propagate=False
            ),
        ),
    )


def test_the_spleen_jobs_own_file() -> None:
    resources = REPOSITORY / "jobs" / "spleen_ct_segmentation" / "app" / "resources"

    config = read_log_config(resources / "log.config")

    assert config.handlers["console"].stream == "stderr"
    assert config.handlers["console"].format == FULL
    assert [(one.name, one.level) for one in config.loggers] == [("", "INFO")]


def test_the_smallest_file_that_says_something(tmp_path: Path) -> None:
    text = "[loggers]\nkeys=root\n[handlers]\nkeys=h\n[logger_root]\nhandlers=h\n[handler_h]\n"

    config = read_log_config(written(tmp_path, f"{text}class=logging.StreamHandler\n"))

    assert config.handlers == {
        "h": HandlerSettings(stream="stderr", level="", format="%(message)s", dates=None)
    }
    assert config.loggers == (LoggerSettings(name="", level="", handlers=("h",), propagate=True),)


@pytest.mark.parametrize(
    ("args", "stream"),
    [
        ("(sys.stdout,)", "stdout"),
        ("( sys.stdout , )", "stdout"),
        ("(sys.stdout)", "stdout"),
        ("(sys.stderr,)", "stderr"),
        ("()", "stderr"),
    ],
)
def test_the_two_streams(tmp_path: Path, args: str, stream: str) -> None:
    config = read_log_config(written(tmp_path, changed(("(sys.stdout,)", args))))

    assert config.handlers["consoleHandler"].stream == stream


def test_dates_levels_and_old_spellings(tmp_path: Path) -> None:
    text = changed(
        ("class=StreamHandler\nlevel=DEBUG", "class=StreamHandler\nkwargs={}\nlevel=warn"),
        ("[formatter_fullFormatter]\n", "[formatter_fullFormatter]\nclass=logging.Formatter\n"),
        ("%(message)s\n", "%(message)s\ndatefmt=%Y-%m-%d\nstyle=%\n"),
    )

    [handler] = read_log_config(written(tmp_path, text)).handlers.values()

    assert (handler.level, handler.dates) == ("WARN", "%Y-%m-%d")


# --- What is refused -----------------------------------------------------------------------------

ARGS_ADVICE = "log.config: handler_consoleHandler.args: has to be (sys.stdout,) or (sys.stderr,), "


@pytest.mark.parametrize(
    "args",
    [
        "(__import__('os').system('touch {canary}'),)",
        "(open('{canary}', 'w'),)",
        "[open('{canary}', 'w')]",
        "(sys.stdout, open('{canary}', 'w'))",
        "sys.stdout",
        "(sys.stdin,)",
    ],
)
def test_arguments_that_would_be_evaluated(tmp_path: Path, canary: Path, args: str) -> None:
    args = args.replace("{canary}", str(canary))

    found = faults(tmp_path, changed(("(sys.stdout,)", args)))

    assert found == [f"{ARGS_ADVICE}not {args[:80]!r}"]
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    [
        "FileHandler",
        "logging.FileHandler",
        "logging.handlers.RotatingFileHandler",
        "handlers.SocketHandler",
        "os.system",
        "canary_module.sing",
        "__import__('canary_module')",
        "",
    ],
)
def test_other_classes_of_handlers(tmp_path: Path, canary: Path, name: str) -> None:
    text = changed(("class=StreamHandler", f"class={name}"), ("(sys.stdout,)", f"('{canary}',)"))

    assert faults(tmp_path, text) == [
        f"log.config: handler_consoleHandler.class: {name!r} is not allowed; a log goes to the "
        "terminal\n    Write class=StreamHandler.",
        f"{ARGS_ADVICE}not {f'({str(canary)!r},)'[:80]!r}",
    ]
    assert not canary.exists()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "level=DEBUG\nformatter",
            "kwargs={'stream': __import__('canary_module')}\nformatter",
            "handler_consoleHandler.kwargs: has to be {}\n    Leave it out.",
        ),
        (
            "[formatter_fullFormatter]\n",
            "[formatter_fullFormatter]\nclass=canary_module.sing\n",
            "formatter_fullFormatter.class: 'canary_module.sing' is not allowed\n    Leave it out.",
        ),
        (
            "[formatter_fullFormatter]\n",
            "[formatter_fullFormatter]\nstyle={\n",
            "formatter_fullFormatter.style: '{' is not allowed\n    Leave it out.",
        ),
        (
            "[formatter_fullFormatter]\n",
            "[formatter_fullFormatter]\ndefaults={'a': __import__('canary_module')}\n",
            "formatter_fullFormatter.defaults: unknown option 'defaults'\n"
            "    Allowed: 'class', 'datefmt', 'format', 'style'.",
        ),
        (
            "level=INFO\nhandlers",
            "level=__import__('canary_module')\nhandlers",
            "logger_root.level: unknown level \"__IMPORT__('CANARY_MODULE')\"\n"
            "    Allowed: 'CRITICAL', 'DEBUG', 'ERROR', 'FATAL', 'INFO', 'NOTSET', 'WARN', "
            "'WARNING'.",
        ),
        (
            "propagate=0",
            "propagate=__import__('canary_module')",
            "logger_modelLogger.propagate: has to be 0 or 1, not \"__import__('canary_module')\"",
        ),
        (
            "formatter=fullFormatter",
            "formatter=ext://canary_module.sing",
            "handler_consoleHandler.formatter: no formatter is called 'ext://canary_module.sing'\n"
            "    Allowed: 'fullFormatter'.",
        ),
        (
            "handlers=consoleHandler\nqualname",
            "handlers=consoleHandlr\nqualname",
            "logger_modelLogger.handlers: no handler is called 'consoleHandlr'\n"
            "    Did you mean 'consoleHandler'?",
        ),
        (
            "%(message)s",
            "%(__class__)s",
            "formatter_fullFormatter.format: '%(asctime)s - %(name)s - %(levelname)s - "
            "%(__class__)s' is not a format: Formatting field not found in record: '__class__'",
        ),
        (
            "%(message)s",
            "%(message)99999999999s",
            "formatter_fullFormatter.format: '%(asctime)s - %(name)s - %(levelname)s - "
            "%(message)99999999999s' is not a format: a field is too wide",
        ),
        (
            FULL,
            "message",
            "formatter_fullFormatter.format: 'message' is not a format: Invalid format 'message' "
            "for '%' style",
        ),
        (
            FULL,
            "%(message)d",
            "formatter_fullFormatter.format: '%(message)d' is not a format: %d format: a real "
            "number is required, not str",
        ),
        (
            FULL,
            "%(thread)c",
            "formatter_fullFormatter.format: '%(thread)c' is not a format: %c arg not in "
            "range(0x110000)",
        ),
        (
            FULL,
            "%(message)s" * 50,
            f"formatter_fullFormatter.format: {('%(message)s' * 50)[:80]!r} is not a format: it "
            "has more than 500 characters",
        ),
    ],
)
def test_other_values_that_mean_nothing_here(
    tmp_path: Path, canary: Path, old: str, new: str, fault: str
) -> None:
    assert faults(tmp_path, changed((old, new))) == [f"log.config: {fault}"]
    assert not canary.exists()


def test_sections_that_are_missing(tmp_path: Path) -> None:
    keys = "[loggers]\nkeys=root,a\n[handlers]\nkeys=b\n[formatters]\nkeys=c\n"

    found = faults(tmp_path, keys)

    assert [fault.split("\n")[0] for fault in found] == [
        "log.config: formatter_c: the section is missing",
        "log.config: handler_b: the section is missing",
        "log.config: handler_b.class: '' is not allowed; a log goes to the terminal",
        "log.config: logger_root: the section is missing",
        "log.config: logger_a: the section is missing",
    ]


def test_keys_are_names_and_nothing_else(tmp_path: Path, canary: Path) -> None:
    """``logging.config`` would import what stands behind ``ext://``."""
    name = "ext://canary_module.sing"
    text = changed(
        ("keys=fullFormatter", f"keys={name}"),
        ("formatter=fullFormatter", f"formatter={name}"),
        ("[formatter_fullFormatter]", f"[formatter_{name}]"),
        (FULL, f"{name} %(message)s"),
    )

    config = read_log_config(written(tmp_path, text))

    assert config.handlers["consoleHandler"].format == f"{name} %(message)s"
    assert not canary.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no section", "File contains no section headers"),
        ("[a]\n[a]\n", "section 'a' already exists"),
        ("[a]\nb=1\nb=2\n", "option 'b' in section 'a' already exists"),
        ("[a]\n" + "#" * 65536, "it is larger than 64 KiB"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, text: str, words: str) -> None:
    [fault] = faults(tmp_path, text)

    assert fault.startswith("log.config: cannot be read: ")
    assert words in fault
    assert "\n" not in fault


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "log.config"
    binary.write_bytes(b"[loggers]\nkeys=\xff\n")
    for path in (binary, tmp_path / "nowhere.config", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_log_config(path)


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_of_ours_uses_the_standard_librarys_reader(package: str) -> None:
    """It evaluates what it reads, and imports what dictionaries name."""
    for path in (REPOSITORY / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            if isinstance(node, ast.Attribute):
                names = [node.attr]
            found = {name.rpartition(".")[2] for name in names}
            assert "logging.config" not in names, path
            assert not found & {"fileConfig", "dictConfig"}, path
