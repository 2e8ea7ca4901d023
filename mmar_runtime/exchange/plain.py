"""Frozen dataclasses as plain JSON values, and back, by their type hints.

``to_plain`` writes a dataclass as an object with a key for each field, in the order of the fields.
``from_plain`` takes just these keys and names the place of a fault: ``rounds[1]: steps: ...``.

A field with ``init=False`` follows from the others. A document states its value too, and
``from_plain`` compares both. The dataclasses of a union begin with a field whose ``Literal`` values
decide which of them an object is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, field, fields, is_dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mmar_runtime.errors import FederationError
from mmar_runtime.names import shown

T = TypeVar("T")

KEY = "key"
KINDS: Mapping[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
    Path: "a path",
    datetime: "an ISO 8601 time",
}


def keyed(key: str) -> Any:
    """Return a field that has another name in JSON."""
    return field(metadata={KEY: key})


def to_plain(value: Any) -> Any:
    """Return a value as objects, lists, texts, numbers, booleans and None."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: to_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    return {_key(part): to_plain(getattr(value, part.name)) for part in fields(value)}


def from_plain(kind: type[T], value: object) -> T:
    """Return the dataclass of a JSON object.

    Raises:
        FederationError: with the place, where anything is missing, unknown or of another type.
    """
    made: T = _read(kind, value, "")
    return made


@contextmanager
def inside(place: str) -> Iterator[None]:
    """Put the place in front of the message of a fault found there."""
    try:
        yield
    except FederationError as error:
        raise FederationError(f"{place}: {error}" if place else str(error)) from error


def _key(part: Field[Any]) -> str:
    return str(part.metadata.get(KEY, part.name))


@cache
def _shape(kind: type) -> Mapping[str, tuple[Field[Any], Any]]:
    """Return the field and the type of each key."""
    hints = get_type_hints(kind)
    return {_key(part): (part, hints[part.name]) for part in fields(kind)}


def _read(hint: Any, value: Any, place: str) -> Any:
    if is_dataclass(hint):
        with inside(place):
            return _dataclass(hint, value)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _one_of(arguments, value, place)
    if origin is tuple:
        _require(isinstance(value, list), place, "a list", value)
        return tuple(
            _read(arguments[0], part, f"{place}[{index}]") for index, part in enumerate(value)
        )
    if origin is Mapping:
        _require(isinstance(value, Mapping), place, "an object", value)
        return {key: _read(arguments[1], part, f"{place}[{key!r}]") for key, part in value.items()}
    if origin is Literal:
        if value not in arguments:
            raise FederationError(_not_among(place, value, arguments))
        return value
    return _scalar(hint, value, place)


def _dataclass(kind: Any, value: Any) -> Any:
    _require(isinstance(value, Mapping), "", "an object", value)
    shape = _shape(kind)
    missing = [key for key in shape if key not in value]
    unknown = sorted(shown(str(key)) for key in value if key not in shape)
    if missing:
        raise FederationError(f"missing: {', '.join(missing)}")
    if unknown:
        raise FederationError(f"unknown: {', '.join(unknown)}; known: {', '.join(shape)}")
    parts = {key: _read(hint, value[key], key) for key, (_, hint) in shape.items()}
    try:
        made = kind(**{part.name: parts[key] for key, (part, _) in shape.items() if part.init})
    except ValueError as error:  # a value that checks itself
        raise FederationError(str(error)) from error
    for key, (part, _) in shape.items():
        stated, computed = to_plain(parts[key]), to_plain(getattr(made, part.name))
        if not part.init and not _agree(stated, computed):
            raise FederationError(
                f"{key}: the document states {stated}, its other values give {computed}; the file"
                " was changed after it was written"
            )
    return made


def _one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not NoneType]
    if len(others) == 1:
        return _read(others[0], value, place)
    if not is_dataclass(others[0]):
        expected = " or ".join(KINDS[kind] for kind in others)
        _require(type(value) in others, place, expected, value)
        return value
    _require(isinstance(value, Mapping), place, "an object", value)
    tags = {kind: next(iter(_shape(kind).items())) for kind in others}
    allowed: list[Any] = []
    for kind, (key, (_, hint)) in tags.items():
        if value.get(key) in get_args(hint):
            return _read(kind, value, place)
        allowed += get_args(hint)
    with inside(place):
        raise FederationError(_not_among(key, value.get(key), allowed))


def _scalar(kind: Any, value: Any, place: str) -> Any:
    if kind in (str, int, bool, NoneType):
        _require(type(value) is kind, place, KINDS[kind], value)
        return value
    if kind is float:
        _require(type(value) in (int, float), place, KINDS[kind], value)
    else:
        _require(type(value) is str, place, KINDS[kind], value)
    try:
        return datetime.fromisoformat(value) if kind is datetime else kind(value)
    except (ValueError, OverflowError) as error:
        raise FederationError(f"{place}: expected {KINDS[kind]}, found {value!r}") from error


def _require(fits: bool, place: str, expected: str, value: object) -> None:
    if not fits:
        with inside(place):
            raise FederationError(f"expected {expected}, found {value!r}")


def _not_among(place: str, value: object, allowed: Any) -> str:
    return f"{place}: found {value!r}; allowed: {', '.join(map(repr, allowed))}"


def _agree(stated: Any, computed: Any) -> bool:
    """Compare numbers up to the last digits, in which another way of summing may differ."""
    if isinstance(computed, dict):
        return stated.keys() == computed.keys() and all(
            _agree(stated[key], computed[key]) for key in computed
        )
    if isinstance(computed, float) and isinstance(stated, float):
        return math.isclose(stated, computed, rel_tol=1e-9, abs_tol=1e-12)
    return bool(stated == computed)
