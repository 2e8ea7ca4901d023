"""``resources/log.config``: Python's INI format for logging, read without evaluating any of it.

``logging.config.fileConfig`` passes parts of such a file to ``eval``, and an MMAR may come from
anywhere. Here the file is read as data: known handler classes, streams and levels, nothing else.
"""

from __future__ import annotations

import configparser
import logging.config
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem, did_you_mean

STREAM_HANDLERS = ("StreamHandler", "logging.StreamHandler")
STREAMS = {
    "": "ext://sys.stderr",
    "sys.stdout": "ext://sys.stdout",
    "sys.stderr": "ext://sys.stderr",
}
LEVELS = ("NOTSET", "DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL")


def read_log_config(path: Path) -> dict[str, Any]:
    """The settings of a ``log.config`` as ``logging.config.dictConfig`` takes them.

    Raises:
        ConfigError: the file cannot be read, or asks for anything but handlers to the terminal.
    """
    location = Location(path.name)
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=path.name)
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        message = f"cannot be read: {error}".replace("\n", " ")
        raise ConfigError([Problem(location, message, "", "log-config")]) from None
    reading = _Reading(parser, location)
    content = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": dict(reading.formatters()),
        "handlers": dict(reading.handlers()),
        "loggers": dict(reading.loggers()),
        "root": reading.logger("logger_root"),
    }
    if reading.problems:
        raise ConfigError(reading.problems)
    return content


def apply_log_config(path: Path) -> None:
    """Set up logging as a ``log.config`` says.

    Raises:
        ConfigError: as ``read_log_config``, or the parts of the file do not fit each other.
    """
    content = read_log_config(path)
    try:
        logging.config.dictConfig(content)
    except (ValueError, KeyError) as error:
        message = f"the parts do not fit each other: {error}"
        raise ConfigError([Problem(Location(path.name), message, "", "log-config")]) from error


class _Reading:
    """One file, section by section; what is wrong is collected."""

    def __init__(self, parser: configparser.RawConfigParser, location: Location) -> None:
        self.parser = parser
        self.location = location
        self.problems: list[Problem] = []

    def _keys(self, section: str) -> list[str]:
        text = self._option(section, "keys")
        return [key.strip() for key in text.split(",") if key.strip()]

    def _option(self, section: str, name: str, default: str = "") -> str:
        if not self.parser.has_section(section):
            self._problem(section, "the section is missing")
            return default
        return self.parser.get(section, name, fallback=default)

    def formatters(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in self._keys("formatters"):
            section = f"formatter_{key}"
            if self._option(section, "class") not in ("", "logging.Formatter"):
                self._problem(f"{section}.class", "a formatter has no class of its own here")
            found: dict[str, Any] = {"format": self._option(section, "format", "%(message)s")}
            dates = self._option(section, "datefmt")
            yield key, {**found, "datefmt": dates} if dates else found

    def handlers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in self._keys("handlers"):
            section = f"handler_{key}"
            kind = self._option(section, "class")
            if kind not in STREAM_HANDLERS:
                self._problem(
                    f"{section}.class",
                    f"{kind!r} is not allowed; an MMAR's log goes to the terminal",
                    did_you_mean(kind, STREAM_HANDLERS),
                )
            found: dict[str, Any] = {
                "class": "logging.StreamHandler",
                "stream": self._stream(section),
            }
            level = self._level(section)
            formatter = self._option(section, "formatter")
            yield (
                key,
                found
                | ({"level": level} if level else {})
                | ({"formatter": formatter} if formatter else {}),
            )

    def _stream(self, section: str) -> str:
        text = self._option(section, "args", "()")
        match = re.fullmatch(r"\(\s*([a-z.]*)\s*,?\s*\)", text)
        name = match.group(1) if match else text
        if name not in STREAMS:
            self._problem(
                f"{section}.args", f"has to be (sys.stdout,) or (sys.stderr,), not {text!r}"
            )
        return STREAMS.get(name, STREAMS[""])

    def _level(self, section: str) -> str:
        level = self._option(section, "level").strip().upper()
        if level and level not in LEVELS:
            self._problem(
                f"{section}.level", f"unknown level {level!r}", did_you_mean(level, LEVELS)
            )
            return ""
        return level

    def loggers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in self._keys("loggers"):
            if key != "root":
                section = f"logger_{key}"
                propagate = self._option(section, "propagate", "1") != "0"
                yield (
                    self._option(section, "qualname", key),
                    {**self.logger(section), "propagate": propagate},
                )

    def logger(self, section: str) -> dict[str, Any]:
        names = self._option(section, "handlers").split(",")
        found: dict[str, Any] = {"handlers": [name.strip() for name in names if name.strip()]}
        level = self._level(section)
        return {**found, "level": level} if level else found

    def _problem(self, place: str, message: str, advice: str = "") -> None:
        self.problems.append(Problem(self.location / place, message, advice, "log-config"))
