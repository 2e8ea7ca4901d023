"""JSON text -> plain values, and the order in which values of a variable win.

Low to high: built-in defaults < first-level primitives of the workflow's JSON < the MMAR's
``environment.json`` < the site's own values < ``--set``.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import COMMAND_LINE, Scalar
from mmar_runtime.errors import ConfigError, Problem

BUILT_IN: Mapping[str, Scalar] = {
    "multi_gpu": False,
    "amp": False,
    "use_gpu": True,
    "print_conf": False,
    "MMAR_CKPT_DIR": "models",
    "MMAR_CKPT": "models/model.pt",
    "MMAR_TORCHSCRIPT": "models/model.ts",
    "MMAR_EVAL_OUTPUT_PATH": "eval",
}
"""Clara's defaults; the paths are the MMAR's own layout."""

OUTPUT_VARIABLES = ("MMAR_CKPT_DIR", "MMAR_EVAL_OUTPUT_PATH")
"""The folders that a run writes to."""

MAX_JSON_BYTES = 4 * 1024 * 1024
MAX_DIGITS = 100
MAX_REFUSALS = 100
"""The most reported faults of a document's text."""

HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""How half a character may be spelled; two of them can make a whole one."""

SCALARS = (str, int, float, bool)
SITE = "site"
"""Where a site's own values come from, in place of a document's name."""

BUILT_IN_SOURCE = Location("built-in default")


@dataclass(frozen=True, slots=True)
class _Refused:
    """A value that Python's reader takes and ours refuses, until its place is known."""

    message: str
    advice: str


def parse_json(text: str, file: str) -> Any:
    """Return the value of a JSON document.

    Raises:
        ConfigError: not JSON, with line and column; or keys given twice and numbers that are not
            finite, each with its place.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_int=partial(_number, kind=int, advice="Write a smaller number."),
            parse_float=partial(_number, kind=float, advice="Write fewer of them."),
            parse_constant=lambda name: _Refused(f"{name} is not JSON", _FINITE),
        )
        problems = list(islice(_refusals(value, Location(file)), MAX_REFUSALS))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        line = text.split("\n")[error.lineno - 1].strip()[:80]
        message = f"not valid JSON at {place}: {error.msg}" + (f" (near {line!r})" if line else "")
        advice = "Look for a missing or trailing comma, quote or bracket just before that place."
        raise ConfigError([Problem(Location(file), message, advice, "json")]) from None
    except RecursionError:
        message = "brackets are nested too deeply"
        raise ConfigError([Problem(Location(file), message, "", "json")]) from None
    if problems:
        raise ConfigError(problems)
    try:
        if HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "holds half a character, \\ud800 to \\udfff alone"
        advice = "Write the whole one."
        raise ConfigError([Problem(Location(file), message, advice, "json")]) from None
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        twice = _Refused(f"an object has the key {key!r} twice", "Keep a single value.")
        content[key] = twice if key in content else value
    return content


def _number(text: str, kind: type[int] | type[float], advice: str) -> float | _Refused:
    if len(text) > MAX_DIGITS:
        return _Refused(f"{text[:20]}... has {len(text)} digits", advice)
    value = kind(text)
    return value if math.isfinite(value) else _Refused(f"{text[:20]} is too large", _FINITE)


_FINITE = "Write a finite number or null."


def _refusals(value: Any, location: Location) -> Iterator[Problem]:
    if isinstance(value, _Refused):
        yield Problem(location, value.message, value.advice, "json")
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _refusals(item, location / key)


def read_json(path: Path, *, name: str | None = None) -> Any:
    """Return the value of a JSON file.

    Raises:
        ConfigError: no such file, not readable as UTF-8, too large, or not JSON.
    """
    return parse_json(read_text(path, name=name), name or path.name)


def read_text(path: Path, *, name: str | None = None) -> str:
    """Return the text of a file of a configuration.

    Raises:
        ConfigError: no such file, not readable as UTF-8, or too large.
    """
    location = Location(name or path.name)
    try:
        return _text_of(path, location)
    except FileNotFoundError:
        advice = _what_is_there(path)
        message = f"there is no file {str(path)!r}"
        raise ConfigError([Problem(location, message, advice, "missing-file")]) from None
    except UnicodeDecodeError as error:
        message = f"is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        raise ConfigError([Problem(location, message, "Save it as UTF-8.", "json")]) from None
    except (OSError, ValueError) as error:  # or a NUL in the path
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ConfigError([Problem(location, message, "", "missing-file")]) from None


def _text_of(path: Path, location: Location) -> str:
    """Return the text of a plain file: a device may never end, and a pipe may never begin."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError([Problem(location, "cannot be read: no plain file", "", "missing-file")])
    with path.open("rb") as stream:
        content = stream.read(MAX_JSON_BYTES + 1)  # files of /proc have no size beforehand
    if len(content) > MAX_JSON_BYTES:
        message = f"is larger than {MAX_JSON_BYTES // 2**20} MiB"
        raise ConfigError([Problem(location, message, "", "json")])
    return content.decode("utf-8-sig")


def _what_is_there(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {str(path.parent)!r} either; is the MMAR's path right?"
    if not os.access(path.parent, os.R_OK):
        return "That folder cannot be listed."
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix == ".json")
    return f"In that folder: {', '.join(names)}." if names else "That folder holds no JSON file."


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable's value and the document that set it."""

    value: Scalar
    source: Location


def first_level_primitives(document: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the entries of a workflow that are variables: numbers, truth values and strings.

    >>> first_level_primitives({"epochs": 5, "train": {}, "channels": [1, 2]})
    {'epochs': 5}
    """
    return {key: value for key, value in document.items() if isinstance(value, SCALARS)}


def resolve_variables(
    *,
    mmar_root: Path,
    workflow: Mapping[str, Any],
    workflow_file: str,
    environment: Mapping[str, Any],
    environment_file: str,
    site: Mapping[str, Scalar] | None = None,
    overrides: Mapping[str, Scalar] | None = None,
) -> dict[str, Variable]:
    """Return every variable of an MMAR with the value that wins.

    ``MMAR_*`` from the environment or ``--set``, and ``DATASET_JSON``, are paths below the MMAR:
    they are joined to ``mmar_root``; an absolute path stays as it is. ``DATA_ROOT`` is not joined.
    ``MMAR_ROOT`` is always the folder that the MMAR was opened in, not a document's value.

    Raises:
        ConfigError: an entry of the environment is not a primitive value.
    """
    problems = [
        Problem(
            Location(environment_file) / key,
            f"a variable is a number, a truth value or a string, found {type(value).__name__}",
            rule="environment",
        )
        for key, value in environment.items()
        if not isinstance(value, SCALARS) and value is not None
    ]
    if problems:
        raise ConfigError(problems)
    layers: list[tuple[Mapping[str, Scalar], Location, bool]] = [
        (BUILT_IN, BUILT_IN_SOURCE, True),
        (first_level_primitives(workflow), Location(workflow_file), False),
        (environment, Location(environment_file), True),
        (site or {}, Location(SITE), True),
        (overrides or {}, COMMAND_LINE, True),
    ]
    variables = {"MMAR_ROOT": Variable(str(mmar_root), Location("command line"))}
    for values, source, joined in layers:
        for name, value in values.items():
            if name == "MMAR_ROOT":
                continue
            below_the_mmar = name.startswith("MMAR_") or name == "DATASET_JSON"
            if joined and below_the_mmar and isinstance(value, str) and value:
                value = str(mmar_root / value)
            variables[name] = Variable(value, source)
    return variables


def read_site_values(local: Path, site_name: str) -> dict[str, Scalar]:
    """Return a site's own values: ``environment.json`` in the folder that the site owns.

    The document holds variables; under ``sites`` it may hold further variables for single sites, so
    that one file serves all the sites of a simulation. A missing file means no values of its own.

    Raises:
        ConfigError: the document is not a JSON object of primitive values.
    """
    path = local / "environment.json"
    if not path.is_file():
        return {}
    document = read_json(path)
    location = Location(path.name)
    sites = document.get("sites", {}) if isinstance(document, dict) else None
    if not isinstance(sites, dict) or not all(isinstance(own, dict) for own in sites.values()):
        message = "has to be a JSON object; 'sites', where given, maps site names to objects"
        raise ConfigError([Problem(location, message, "", "environment")])
    common = {key: value for key, value in document.items() if key != "sites"}
    own = sites.get(site_name, {})
    problems = [
        Problem(place / key, f"is not a primitive value: {value!r}", "", "environment")
        for place, values in ((location, common), (location / "sites" / site_name, own))
        for key, value in values.items()
        if not isinstance(value, SCALARS)
    ]
    if problems:
        raise ConfigError(problems)
    return {**common, **own}
