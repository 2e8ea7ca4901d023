"""JSON text -> plain values, and the one place that says whose value of a variable wins.

Low to high: built-in defaults < first-level primitives of the workflow's JSON < the MMAR's
``environment.json`` < the site's own values < ``--set``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
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
"""What Clara assumes when nobody says otherwise; the paths are the MMAR's own layout."""

MAX_JSON_BYTES = 4 * 1024 * 1024
SCALARS = (str, int, float, bool)


class _Refused(ValueError):
    """Valid for Python's reader, but not for ours."""


def parse_json(text: str, file: str) -> Any:
    """The value of a JSON document.

    Raises:
        ConfigError: not JSON, a key given twice, or NaN/Infinity; with line and column.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constants)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        lines = text.splitlines()
        line = lines[error.lineno - 1].strip()[:80] if error.lineno <= len(lines) else ""
        message = f"not valid JSON at {place}: {error.msg}" + (f" (near {line!r})" if line else "")
        advice = "Look for a missing or trailing comma, quote or bracket just before that place."
        raise ConfigError([Problem(Location(file), message, advice, "json")]) from None
    except _Refused as error:
        raise ConfigError([Problem(Location(file), str(error), "", "json")]) from None
    except RecursionError:
        message = "brackets are nested too deeply"
        raise ConfigError([Problem(Location(file), message, "", "json")]) from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"the key {key!r} stands twice in one object; which one counts?")
        found[key] = value
    return found


def _no_constants(name: str) -> Any:
    raise _Refused(f"{name} is not JSON; write a finite number or null")


def read_json(path: Path, *, name: str | None = None) -> Any:
    """The value of a JSON file.

    Raises:
        ConfigError: no such file, not readable as UTF-8, too large, or not JSON.
    """
    location = Location(name or path.name)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            message = f"is larger than {MAX_JSON_BYTES // 2**20} MiB"
            raise ConfigError([Problem(location, message, "", "json")])
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        advice = _what_is_there(path)
        message = f"there is no file {str(path)!r}"
        raise ConfigError([Problem(location, message, advice, "missing-file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot be read: {error}"
        raise ConfigError([Problem(location, message, "", "missing-file")]) from None
    return parse_json(text, location.file)


def _what_is_there(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {str(path.parent)!r} either; is the MMAR's path right?"
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix == ".json")
    return f"In that folder: {', '.join(names)}." if names else "That folder holds no JSON file."


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable's value and the document that set it."""

    value: Scalar
    source: Location


def first_level_primitives(document: Mapping[str, Any]) -> dict[str, Scalar]:
    """The entries of a workflow that are variables: numbers, truth values and strings.

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
    """Every variable of an MMAR with the value that wins.

    ``MMAR_*`` from the environment or ``--set``, and ``DATASET_JSON``, are paths below the MMAR:
    they are joined to ``mmar_root``; an absolute path stays as it is. ``DATA_ROOT`` is not joined.

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
        (BUILT_IN, Location("built-in default"), True),
        (first_level_primitives(workflow), Location(workflow_file), False),
        (environment, Location(environment_file), True),
        (site or {}, Location("site"), True),
        (overrides or {}, COMMAND_LINE, True),
    ]
    found = {"MMAR_ROOT": Variable(str(mmar_root), Location("command line"))}
    for values, source, joined in layers:
        for name, value in values.items():
            if name == "MMAR_ROOT":
                continue
            found[name] = Variable(_joined(name, value, mmar_root) if joined else value, source)
    return found


def _joined(name: str, value: Scalar, mmar_root: Path) -> Scalar:
    below_the_mmar = name.startswith("MMAR_") or name == "DATASET_JSON"
    if below_the_mmar and isinstance(value, str) and value:
        return str(mmar_root / value)
    return value


def read_site_values(local: Path, site_name: str) -> dict[str, Scalar]:
    """A site's own values: ``environment.json`` in the folder that the site owns.

    The document holds variables; under ``sites`` it may hold further ones for single sites, so
    that one file serves all the sites of a simulation. A missing file means no values of its own.

    Raises:
        ConfigError: the document is not a JSON object of primitive values.
    """
    path = local / "environment.json"
    if not path.is_file():
        return {}
    document = read_json(path)
    location = Location(path.name)
    if not isinstance(document, dict) or not isinstance(document.get("sites", {}), dict):
        message = "has to be a JSON object; 'sites', where given, maps site names to objects"
        raise ConfigError([Problem(location, message, "", "environment")])
    values = {key: value for key, value in document.items() if key != "sites"}
    values |= document.get("sites", {}).get(site_name, {})
    problems = [
        Problem(location / key, f"is not a primitive value: {value!r}", "", "environment")
        for key, value in values.items()
        if not isinstance(value, SCALARS)
    ]
    if problems:
        raise ConfigError(problems)
    return values
