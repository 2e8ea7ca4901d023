"""``resources/log.config``: Python's INI format for logging, read without evaluating any of it.

The standard library passes parts of such a file to ``eval`` and imports the names of others, and an
MMAR may come from anywhere. Here the file is read as data: handlers to the terminal, formats and
levels, nothing else.
"""

from __future__ import annotations

import configparser
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem, did_you_mean

Stream = Literal["stdout", "stderr"]

STREAM_HANDLERS = ("StreamHandler", "logging.StreamHandler")
FORMATTERS = ("", "Formatter", "logging.Formatter")
LEVELS = ("NOTSET", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL")
OPTIONS = {
    "formatter": ("format", "datefmt", "class", "style"),
    "handler": ("class", "level", "formatter", "args", "kwargs"),
    "logger": ("level", "handlers", "qualname", "propagate"),
}
"""Section -> the options that it may have."""

MAX_BYTES = 64 * 1024
MAX_FORMAT = 500
"""Characters of a format, and of its dates."""

WIDE = re.compile(r"[0-9]{3}")
"""In a format: a field of a hundred characters or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSettings:
    """A handler to the terminal."""

    stream: Stream
    level: str
    format: str
    dates: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggerSettings:
    """A logger; ``name`` is empty for the root, an empty ``level`` leaves it to the loggers above.

    Attributes:
        handlers: their names.
    """

    name: str
    level: str
    handlers: tuple[str, ...]
    propagate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """The settings of a ``log.config``: its handlers by name, and its loggers, the root first."""

    handlers: Mapping[str, HandlerSettings]
    loggers: tuple[LoggerSettings, ...]


def read_log_config(path: Path) -> LogConfig:
    """Return the settings of a ``log.config``.

    Raises:
        ConfigError: the file cannot be read, or asks for anything but handlers to the terminal.
    """
    location = Location(path.name)
    parser = configparser.RawConfigParser()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise configparser.Error(f"it is larger than {MAX_BYTES // 1024} KiB")
        parser.read_string(path.read_text(encoding="utf-8"), source=path.name)
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        message = f"cannot be read: {error}".replace("\n", " ")
        raise ConfigError([Problem(location, message, "", "log-config")]) from None
    reading = _Reading(parser, location)
    config = reading.config()
    if reading.problems:
        raise ConfigError(reading.problems)
    return config


class _Reading:
    """A reader of a file, section by section, that collects all faults."""

    def __init__(self, parser: configparser.RawConfigParser, location: Location) -> None:
        self.parser = parser
        self.location = location
        self.problems: list[Problem] = []

    def config(self) -> LogConfig:
        formatters = dict(self._formatters())
        handlers = dict(self._handlers(formatters))
        loggers = [self._logger("logger_root", "", handlers)]
        for key in self._keys("loggers"):
            if key != "root":
                section = f"logger_{key}"
                name = self._option(section, "qualname", key)
                loggers.append(self._logger(section, name, handlers))
        return LogConfig(handlers=handlers, loggers=tuple(loggers))

    def _keys(self, section: str) -> list[str]:
        return _names(self._option(section, "keys"))

    def _option(self, section: str, name: str, default: str = "") -> str:
        return self.parser.get(section, name, fallback=default).strip()

    def _known(self, section: str) -> None:
        """Report a section that is not there, and options that would be passed over."""
        if not self.parser.has_section(section):
            self._problem(section, "", "the section is missing")
            return
        known = OPTIONS[section.partition("_")[0]]
        for name in self.parser.options(section):
            if name not in known:
                self._problem(section, name, f"unknown option {name!r}", did_you_mean(name, known))

    def _formatters(self) -> Iterator[tuple[str, tuple[str, str | None]]]:
        for key in self._keys("formatters"):
            section = f"formatter_{key}"
            self._known(section)
            for name, allowed in (("class", FORMATTERS), ("style", ("", "%"))):
                value = self._option(section, name)
                if value not in allowed:
                    self._problem(section, name, f"{value!r} is not allowed", "Leave it out.")
            text = self._option(section, "format") or "%(message)s"
            dates = self._option(section, "datefmt") or None
            fault = _format_fault(text, dates)
            if fault:
                self._problem(section, "format", f"{text[:80]!r} is not a format: {fault}")
            yield key, (text, dates)

    def _handlers(
        self, formatters: Mapping[str, tuple[str, str | None]]
    ) -> Iterator[tuple[str, HandlerSettings]]:
        for key in self._keys("handlers"):
            section = f"handler_{key}"
            self._known(section)
            kind = self._option(section, "class")
            if kind not in STREAM_HANDLERS:
                self._problem(
                    section,
                    "class",
                    f"{kind!r} is not allowed; a log goes to the terminal",
                    "Write class=StreamHandler.",
                )
            if self._option(section, "kwargs", "{}") != "{}":
                self._problem(section, "kwargs", "has to be {}", "Leave it out.")
            formatter = self._option(section, "formatter")
            if formatter and formatter not in formatters:
                message = f"no formatter is called {formatter!r}"
                self._problem(section, "formatter", message, did_you_mean(formatter, formatters))
            text, dates = formatters.get(formatter, ("%(message)s", None))
            yield (
                key,
                HandlerSettings(
                    stream=self._stream(section),
                    level=self._level(section),
                    format=text,
                    dates=dates,
                ),
            )

    def _stream(self, section: str) -> Stream:
        text = self._option(section, "args", "()")
        match = re.fullmatch(r"\(\s*(?:sys\.(stdout|stderr)\s*,?\s*)?\)", text)
        if match is None:
            message = f"has to be (sys.stdout,) or (sys.stderr,), not {text[:80]!r}"
            self._problem(section, "args", message)
        return "stdout" if match is not None and match.group(1) == "stdout" else "stderr"

    def _level(self, section: str) -> str:
        level = self._option(section, "level").upper()
        if level and level not in LEVELS:
            self._problem(section, "level", f"unknown level {level!r}", did_you_mean(level, LEVELS))
        return level

    def _logger(
        self, section: str, name: str, handlers: Mapping[str, HandlerSettings]
    ) -> LoggerSettings:
        self._known(section)
        names = _names(self._option(section, "handlers"))
        for unknown in (name for name in names if name not in handlers):
            message = f"no handler is called {unknown!r}"
            self._problem(section, "handlers", message, did_you_mean(unknown, handlers))
        propagate = self._option(section, "propagate", "1")
        if propagate not in ("0", "1"):
            self._problem(section, "propagate", f"has to be 0 or 1, not {propagate!r}")
        return LoggerSettings(
            name=name, level=self._level(section), handlers=tuple(names), propagate=propagate != "0"
        )

    def _problem(self, section: str, option: str, message: str, advice: str = "") -> None:
        place = self.location / section
        location = place / option if option else place
        self.problems.append(Problem(location, message, advice, "log-config"))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _format_fault(text: str, dates: str | None) -> str:
    """Return why a message cannot be written in this format; empty if it can."""
    if max(len(text), len(dates or "")) > MAX_FORMAT:
        return f"it has more than {MAX_FORMAT} characters"
    if WIDE.search(text) or WIDE.search(dates or ""):
        return "a field is too wide"
    try:
        logging.Formatter(text, dates).format(logging.makeLogRecord({}))
    except (TypeError, ValueError, OverflowError) as error:
        return str(error)
    return ""
