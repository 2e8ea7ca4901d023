"""Checks of single values in the documents of a run: texts, names, numbers, times and digests.

Each returns the value in its final form, or raises ``FederationError`` with its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, TypeVar

from mmar_runtime.errors import FederationError
from mmar_runtime.metrics import Metrics, MetricValue
from mmar_runtime.names import NAME_FORM, is_name, shown

FORMAT_VERSION = 2

Value = TypeVar("Value")


def nonempty_text(value: object, name: str) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise FederationError(f"{name}: expected a text that is not empty, found {value!r}")
    return value


def name_text(value: object, name: str) -> str:
    """Return a name; other texts are not fit to be shown to a reader."""
    if not is_name(value):
        visible = shown(value) if isinstance(value, str) else value
        raise FederationError(f"{name}: expected {NAME_FORM}, found {visible!r}")
    return value


def whole_number(value: object, name: str, *, least: int) -> int:
    """Return an ``int`` of at least ``least``; a bool is not a number here."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise FederationError(f"{name}: expected a whole number from {least} on, found {value!r}")
    return int(value)


def finite_number(value: object, name: str, *, least: float = -math.inf) -> float:
    """Return a finite ``float`` of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise FederationError(f"{name}: expected a number, found {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise FederationError(f"{name}: expected a finite number, found {number!r}")
    if number < least:
        raise FederationError(f"{name}: expected a number from {least:g} on, found {number!r}")
    return number


def checked_metrics(values: object, name: str) -> Metrics:
    """Return a read-only copy of metric label -> value, in the order of the labels."""
    named = mapping(values, name)
    for label, metric in named.items():
        if not isinstance(metric, MetricValue):
            raise FederationError(f"{name}[{label!r}]: expected a metric, found {metric!r}")
    return read_only(named)


def check_format_version(version: object) -> None:
    """Raise for a document of another format than this code writes."""
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise FederationError(
            f"format_version: expected {FORMAT_VERSION}, found {version!r}; read the file with the"
            " version of mmar-fl that wrote it"
        )


def unique_names(values: object, name: str, *, ordered: bool = False) -> tuple[str, ...]:
    """Return at least one name, each once, and sorted where ``ordered``."""
    names = tuple(name_text(value, name) for value in unique_texts(values, name))
    return tuple(sorted(names)) if ordered else names


def unique_texts(values: object, name: str) -> tuple[str, ...]:
    """Return at least one text, none empty, each once."""
    if not isinstance(values, (list, tuple)) or not values:
        raise FederationError(f"{name}: expected at least one name, found {values!r}")
    texts = tuple(nonempty_text(value, name) for value in values)
    if len(set(texts)) != len(texts):
        raise FederationError(f"{name}: expected each name once, found {list(texts)}")
    return texts


def utc(value: object, name: str) -> datetime:
    """Return a time in UTC."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise FederationError(f"{name}: expected a time with its time zone, found {value!r}")
    return value.astimezone(UTC)


def check_digest(value: object, name: str) -> None:
    """Raise unless the value is a SHA-256 in hexadecimal digits."""
    if not isinstance(value, str) or re.fullmatch("[0-9a-f]{64}", value) is None:
        raise FederationError(f"{name}: expected 64 hexadecimal digits (SHA-256), found {value!r}")


def mapping(value: object, name: str) -> Mapping[str, Any]:
    """Return an object whose keys are names."""
    if not isinstance(value, Mapping):
        raise FederationError(f"{name}: expected an object, found {value!r}")
    for key in value:
        name_text(key, f"a name in {name}")
    return value


def read_only(values: Mapping[str, Value]) -> Mapping[str, Value]:
    """Return a copy that nobody can change, in the order of the names."""
    return MappingProxyType({key: values[key] for key in sorted(values)})


def set_checked(owner: object, **values: object) -> None:
    """Set checked values on a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(owner, name, value)
