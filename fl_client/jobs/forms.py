"""What a value of a job's documents may be: a test, and the words that an error has for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem, did_you_mean
from mmar_runtime.exchange.sharing import pattern_problems


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a value.

    Attributes:
        text: what the value has to be, as in "has to be ...".
        fits: whether a value has the form.
    """

    text: str
    fits: Callable[[Any], bool]


def whole(least: int, most: int) -> Form:
    """Return the form of whole numbers within bounds; ``true`` is not a number."""
    return Form(
        f"a whole number from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
    )


def number(least: float, most: float) -> Form:
    """Return the form of finite numbers within bounds."""
    return Form(
        f"a number from {least:g} to {most:g}",
        lambda value: type(value) in (int, float) and least <= value <= most,
    )


def word(*words: Any) -> Form:
    """Return the form of a few values, of their very types."""
    return Form(
        "one of " + ", ".join(map(repr, words)),
        lambda value: any(type(value) is type(known) and value == known for known in words),
    )


def text(pattern: re.Pattern[str], what: str) -> Form:
    """Return the form of texts that a pattern fits as a whole."""
    return Form(what, lambda value: type(value) is str and pattern.fullmatch(value) is not None)


def optional(form: Form) -> Form:
    """Return a form that allows ``null`` as well."""
    return Form(f"{form.text}, or null", lambda value: value is None or form.fits(value))


def several(form: Form, most: int) -> Form:
    """Return the form of arrays of different values."""
    return Form(
        f"an array of at most {most}, each {form.text}, none twice",
        lambda value: (
            type(value) is list
            and len(value) <= most
            and all(map(form.fits, value))
            and len(set(value)) == len(value)
        ),
    )


def mapping(keys: Form, values: Form, most: int) -> Form:
    """Return the form of objects whose keys and values have a form each."""
    return Form(
        f"an object of at most {most}, each key {keys.text}, each value {values.text}",
        lambda value: (
            type(value) is dict
            and len(value) <= most
            and all(map(keys.fits, value))
            and all(map(values.fits, value.values()))
        ),
    )


def record(forms: Mapping[str, Form]) -> Form:
    """Return the form of objects of known keys; each key may be missing."""
    listed = "; ".join(f"{key}: {form.text}" for key, form in forms.items())
    return Form(
        f"an object of these keys: {listed}",
        lambda value: (
            type(value) is dict
            and all(key in forms and forms[key].fits(item) for key, item in value.items())
        ),
    )


TENSOR_NAMES = Form(
    "an array of names of tensors, with at most four * each",
    lambda value: type(value) is list and not any(pattern_problems(value, Location(""))),
)
FLAG = word(False, True)


def unknown_keys(
    values: Mapping[str, Any], known: Collection[str], place: Location
) -> Iterator[Problem]:
    """Yield the keys of an object that have no meaning there."""
    for key in values.keys() - set(known):
        yield unknown_key(place / key, key, known)


def unknown_key(
    place: Location, key: str, known: Collection[str], rule: str = "job-file"
) -> Problem:
    """Return the problem of a key that has no meaning, with the known one that looks like it."""
    return Problem(place, f"unknown key {key!r}", did_you_mean(key, known), rule)
