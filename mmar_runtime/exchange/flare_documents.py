"""A job's two NVFlare documents: their names, and the values that they take from their own top."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmar_runtime.config.sources import read_json

SERVER_CONFIG = "config_fed_server.json"
CLIENT_CONFIG = "config_fed_client.json"

OWN_VALUE = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
"""All that a job's document may have filled in: the value of an entry at its own top level."""


def read_flare_document(app: Path, name: str) -> Any:
    """One of the two documents of a job's app; empty if there is none.

    Raises:
        ConfigError: the document cannot be read.
    """
    file = app / "config" / name
    return read_json(file) if file.is_file() else {}


def own_value(value: Any, document: Mapping[str, Any]) -> Any:
    """A value as NVFlare reads it: the document's own one where just its name stands in braces."""
    named = OWN_VALUE.fullmatch(value) if isinstance(value, str) else None
    return document.get(named[1], value) if named else value
