"""A small dataclass of each kind of field, as JSON and back, and each fault with its place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.plain import from_plain, keyed, to_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Went:
    status: Literal["went"] = "went"
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stayed:
    status: Literal["late", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    number: int = keyed("trip")
    started: datetime
    folder: Path
    metrics: Mapping[str, float]
    values: Mapping[str, str | int | bool]
    seconds: float | None = None
    sites: Mapping[str, Went | Stayed]
    legs: tuple[Went, ...] = ()
    total: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(leg.steps for leg in self.legs))


def trip() -> Trip:
    return Trip(
        number=3,
        started=datetime(2030, 1, 1, tzinfo=UTC),
        folder=Path("/data/a"),
        metrics={"dice": 0.1 + 0.2},
        values={"name": "a", "count": 2, "cached": True},
        sites={"site-1": Went(steps=4), "site-2": Stayed(status="late")},
        legs=(Went(steps=1), Went(steps=2)),
    )


def test_the_fields_are_the_keys_in_their_order() -> None:
    assert json.dumps(to_plain(trip())) == json.dumps(
        {
            "trip": 3,
            "started": "2030-01-01T00:00:00+00:00",
            "folder": "/data/a",
            "metrics": {"dice": 0.30000000000000004},
            "values": {"name": "a", "count": 2, "cached": True},
            "seconds": None,
            "sites": {"site-1": {"status": "went", "steps": 4}, "site-2": {"status": "late"}},
            "legs": [{"status": "went", "steps": 1}, {"status": "went", "steps": 2}],
            "total": 1 + 2,
        }
    )


def test_a_value_survives_the_way_through_json() -> None:
    assert from_plain(Trip, json.loads(json.dumps(to_plain(trip())))) == trip()


def test_a_whole_number_is_a_number_too() -> None:
    found = from_plain(Trip, {**to_plain(trip()), "seconds": 2})

    assert repr(found.seconds) == "2.0"


def test_numbers_that_are_not_finite_are_left_to_the_dataclass() -> None:
    found = from_plain(Trip, {**to_plain(trip()), "seconds": math.nan})

    assert math.isnan(found.seconds or 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown: colour; known: trip, started, folder,"),
        ({"\x1b[31m": 1}, r"unknown: \x1b[31m; known:"),
        ({"trip": True}, "trip: expected a whole number, found True"),
        ({"trip": 1.0}, "trip: expected a whole number, found 1.0"),
        ({"started": "yesterday"}, "started: expected an ISO 8601 time, found 'yesterday'"),
        ({"folder": 3}, "folder: expected a path, found 3"),
        ({"metrics": {"dice": "1"}}, "metrics['dice']: expected a number, found '1'"),
        ({"metrics": {"dice": 10**400}}, "metrics['dice']: expected a number, found 1000"),
        ({"metrics": []}, "metrics: expected an object, found []"),
        ({"values": {"a": 1.5}}, "values['a']: expected a text or a whole number or true or false"),
        ({"seconds": "1"}, "seconds: expected a number, found '1'"),
        ({"sites": {"a": {"status": "late", "steps": 1}}}, "sites['a']: unknown: steps;"),
        ({"sites": {"a": {"status": "went"}}}, "sites['a']: missing: steps"),
        (
            {"sites": {"a": {"status": "ill"}}},
            "sites['a']: status: found 'ill'; allowed: 'went', 'late', 'lost'",
        ),
        ({"sites": {"a": 1}}, "sites['a']: expected an object, found 1"),
        ({"legs": {}}, "legs: expected a list, found {}"),
        (
            {"legs": [{"status": "went", "steps": 3}, {"status": "late", "steps": 1}]},
            "legs[1]: status: found 'late'; allowed: 'went'",
        ),
        ({"total": 4}, "total: the document states 4, its other values give 3; the file was"),
    ],
)
def test_a_fault_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FederationError) as caught:
        from_plain(Trip, to_plain(trip()) | change)

    assert str(caught.value).startswith(message)


def test_every_key_has_to_be_there() -> None:
    document = to_plain(trip())
    del document["seconds"], document["legs"]

    with pytest.raises(FederationError, match=r"^missing: seconds, legs$"):
        from_plain(Trip, document)


@pytest.mark.parametrize("document", [None, [], "trip"])
def test_a_document_is_an_object(document: Any) -> None:
    with pytest.raises(FederationError, match=r"^expected an object, found "):
        from_plain(Trip, document)
