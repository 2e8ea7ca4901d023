"""A ``log.config`` that was read, put into force in this process."""

from __future__ import annotations

import logging
import sys

from mmar_runtime.config.log_config import LogConfig

OWN_LOGGERS = ("mmar_runtime", "fl_admin")


def apply_log_config(config: LogConfig, *, stdout: bool) -> None:
    """Set up this process's logging.

    Args:
        config: the settings.
        stdout: whether messages may go to stdout, which else belongs to the result.
    """
    streams = {"stdout": sys.stdout if stdout else sys.stderr, "stderr": sys.stderr}
    handlers: dict[str, logging.Handler] = {}
    for name, settings in config.handlers.items():
        handler = logging.StreamHandler(streams[settings.stream])
        handler.setFormatter(logging.Formatter(settings.format, settings.dates))
        if settings.level:
            handler.setLevel(settings.level)
        handlers[name] = handler
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)  # the file's root decides
    for section in config.loggers:
        logger = logging.getLogger(section.name)
        logger.handlers[:] = [handlers[name] for name in section.handlers]
        logger.propagate = section.propagate
        if section.level:
            logger.setLevel(section.level)
