"""Splitting a data list into training, validation and test, or into folds.

The split deals out *units*: single images, or patients with all their images. Each unit gets a
place in an order that depends on the seed and on its own name alone (a SHA-256 of both). So the
result does not depend on the order of the input or on the machine. A case that is added later
takes its place and moves no other case.
"""

from __future__ import annotations

import hashlib
import math
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from mmar_runtime.datatools.document import (
    TEST,
    TRAINING,
    VALIDATION,
    Document,
    Item,
    natural_order,
    shortened,
    with_lists,
)
from mmar_runtime.errors import ConfigError, DataError, Problem

Share: TypeAlias = int | float | Fraction
"""How much a list gets: an ``int`` is a number of units, anything else a part of all, as 0.2."""

UnitOf: TypeAlias = Callable[[Item], str]
"""The name of the unit that an item belongs to; raises ``DataError`` if the item names none."""

MAX_PATTERN_CHARACTERS = 100
MAX_PATTERN_REPEATS = 4
MAX_NAME_CHARACTERS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSplit:
    """A document whose cases were dealt out anew.

    Attributes:
        content: the document; everything but its lists and their counts is as it was.
        cases: list -> number of items.
        units: list -> number of dealt-out images or patients.
    """

    content: Mapping[str, Any]
    cases: Mapping[str, int]
    units: Mapping[str, int]


# --- Units ----------------------------------------------------------------------------------------


def by_image(item: Item) -> str:
    """Return units by image: each path is a unit of its own."""
    return "\n".join(posixpath.normpath(file) for file in item.files("image"))


def by_key(key: str) -> UnitOf:
    """Return units by patient: an item names the patient; 7 and ``"7"`` are the same patient."""

    def unit_of(item: Item) -> str:
        value = item.entries.get(key)
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise DataError(f"names no patient: {key!r} has to be a text or an integer")
        return str(value)

    return unit_of


def by_pattern(pattern: str) -> UnitOf:
    r"""Return units by patient: the one group of the pattern finds the patient in the file name.

    The pattern is matched from the start of the name, without folders. It is kept so small that
    no name takes it long: Python's ``re`` can try for hours on a pattern such as ``(a+)+b``.

    >>> from mmar_runtime.config.location import Location
    >>> by_pattern(r"([^_]+)_")(Item(Location("d.json"), {"image": "imagesTr/p7_ct2.nii.gz"}))
    'p7'

    Raises:
        DataError: not a regular expression, not one group, or a pattern that may take too long.
    """
    expression = _compiled(pattern)

    def unit_of(item: Item) -> str:
        units = set()
        for name in (PurePosixPath(file).name for file in item.files("image")):
            match = expression.match(name) if len(name) <= MAX_NAME_CHARACTERS else None
            if match is None or not match[1]:
                raise DataError(f"names no patient: {name!r} does not match {pattern!r}")
            units.add(match[1])
        if len(units) > 1:
            raise DataError(f"has files of different patients: {', '.join(sorted(units))}")
        return units.pop()

    return unit_of


def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise DataError(f"the pattern is longer than {MAX_PATTERN_CHARACTERS} characters")
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(f"the pattern {pattern!r} is not a regular expression: {error}") from None
    if expression.groups != 1:
        raise DataError(
            f"the pattern {pattern!r} has {expression.groups} groups; it needs exactly one, which "
            r"matches the patient, as in '(patient\d+)_'. Write (?:...) for others."
        )
    # An escape or a class is one character, and repeats nothing.
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern)
    repeats = len(re.findall(r"(?<!\()(?:[*+{]\??|(?<![*+}])\?)", bare))
    if re.search(r"\)[*+{?]", bare) or repeats > MAX_PATTERN_REPEATS:
        raise DataError(
            f"the pattern {pattern!r} might take very long: at most {MAX_PATTERN_REPEATS} of "
            "* + ? {}, and none after a group, are allowed"
        )
    return expression


# --- How many each list gets ---------------------------------------------------------------------


def parse_share(text: str) -> Share:
    """Return a share as people write it: a count, or a part with a point or a per cent sign.

    >>> parse_share("12"), parse_share("0.2"), parse_share("20%")
    (12, Fraction(1, 5), Fraction(1, 5))

    Raises:
        DataError: something else.
    """
    if re.fullmatch(r"\d{1,9}", text):
        return int(text)
    if re.fullmatch(r"\d{0,3}\.\d{1,9}|\d{1,3}(\.\d{1,9})?%", text):
        return Fraction(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    raise DataError(f"{text!r} is not a share; write a number of cases (12) or a part (0.2 or 20%)")


def part_sizes(units: int, parts: Mapping[str, Share]) -> dict[str, int]:
    """Return how many units each list gets; training gets what the others leave.

    Parts are rounded so that every list is less than a unit away from the request. The largest
    remainders are rounded up, and training's first among equals.

    >>> part_sizes(9, {"validation": 0.2, "test": 0.2})
    {'training': 5, 'validation': 2, 'test': 2}

    Raises:
        DataError: a part is not between 0 and 1, or a list would be empty.
    """
    quotas = {name: _quota(name, share, units) for name, share in parts.items()}
    quotas = {TRAINING: units - sum(quotas.values(), Fraction(0)), **quotas}
    sizes = {name: math.floor(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: sizes[name] - quotas[name])
    for name in by_remainder[: units - sum(sizes.values())]:
        sizes[name] += 1
    empty = [name for name, size in sizes.items() if size < 1]
    if empty:
        asked = ", ".join(f"{name} {_shown(share)}" for name, share in parts.items())
        raise DataError(
            f"of {units} cases or patients none would be left for {empty[0]!r} ({asked}); "
            "ask for other shares"
        )
    return sizes


def _quota(name: str, share: Share, units: int) -> Fraction:
    if isinstance(share, int):
        return Fraction(share)
    # By its digits: 0.1 is meant as a tenth, not as the nearest binary fraction.
    part = Fraction(str(share))
    if not 0 < part < 1:
        raise DataError(f"the part for {name!r} has to lie between 0 and 1, not {_shown(share)}")
    return part * units


def _shown(share: Share) -> str:
    return str(share) if isinstance(share, int) else f"{float(share):g}"


# --- Splitting -----------------------------------------------------------------------------------


def split_data_list(
    document: Document,
    *,
    validation: Share,
    test: Share | None = None,
    test_key: str = TEST,
    pool: Sequence[str] = (TRAINING,),
    seed: int = 0,
    unit_of: UnitOf = by_image,
) -> DataSplit:
    """Deal the cases of a few lists out to ``training``, ``validation`` and, if asked, a test list.

    The lists are disjoint and hold every case of the pool. All images of a unit go to one list,
    and no unit of the pool is in a list that stays as it is. Test is dealt out first, so that but
    for rounding it keeps its cases when the share of validation changes.

    Args:
        document: the data list.
        validation: share of the validation list; of all units in the pool.
        test: share of the test list; None leaves the document's own test list alone.
        test_key: the test list's key; another than ``test`` where that has images without label.
        pool: keys of the lists whose cases are dealt out.
        seed: another seed, another split.
        unit_of: which cases have to stay together.

    Raises:
        ConfigError: items without patient, an image listed twice, cases with and without label,
            or a list that would be replaced or overlap.
        DataError: shares that cannot be had.
    """
    shares = {VALIDATION: validation} if test is None else {test_key: test, VALIDATION: validation}
    if test is not None and test_key in (TRAINING, VALIDATION):
        raise DataError(f"the test list cannot be {test_key!r}, which is another list")
    targets = (TRAINING, *reversed(shares))
    units = _units(document, pool, targets, unit_of)
    sizes = part_sizes(len(units), shares)
    order = _shuffled(units, seed)
    dealt: dict[str, list[str]] = {}
    for name in reversed(targets):
        dealt[name], order = order[: sizes[name]], order[sizes[name] :]
    return _data_split(document, pool, units, {name: dealt[name] for name in targets})


def fold_data_list(
    document: Document,
    *,
    folds: int,
    pool: Sequence[str] = (TRAINING,),
    seed: int = 0,
    unit_of: UnitOf = by_image,
) -> tuple[DataSplit, ...]:
    """Return K documents for cross-validation; each case is in exactly one validation list.

    Each fold has a whole document, not a ``fold`` entry in each item. An MMAR, as most readers of
    Decathlon lists, picks a list by its key and does not filter items. So ``--set
    DATASET_JSON=...`` alone trains a fold.

    Args:
        document: the data list; its other lists are in each of the folds.
        folds: their number, 2 or more.
        pool: keys of the lists whose cases are dealt out.
        seed: another seed, other folds.
        unit_of: which cases have to stay together.

    Raises:
        ConfigError: as for ``split_data_list``.
        DataError: fewer than two folds, or more folds than units.
    """
    units = _units(document, pool, (TRAINING, VALIDATION), unit_of)
    if not 2 <= folds <= len(units):
        raise DataError(
            f"{len(units)} cases or patients cannot make {folds} folds; "
            "ask for 2 or more, and no more than there are cases or patients"
        )
    order = _shuffled(units, seed)
    return tuple(
        _data_split(
            document,
            pool,
            units,
            {
                TRAINING: [unit for place, unit in enumerate(order) if place % folds != fold],
                VALIDATION: order[fold::folds],
            },
        )
        for fold in range(folds)
    )


def _data_split(
    document: Document,
    pool: Sequence[str],
    units: Mapping[str, Sequence[Item]],
    dealt: Mapping[str, Sequence[str]],
) -> DataSplit:
    lists = {
        name: sorted(
            (item for unit in dealt_out for item in units[unit]),
            key=lambda item: natural_order(by_image(item)),
        )
        for name, dealt_out in dealt.items()
    }
    entries = {name: [dict(item.entries) for item in items] for name, items in lists.items()}
    return DataSplit(
        content=with_lists(document.content, entries, without=pool),
        cases={name: len(items) for name, items in lists.items()},
        units={name: len(dealt_out) for name, dealt_out in dealt.items()},
    )


def _shuffled(units: Iterable[str], seed: int) -> list[str]:
    def place(unit: str) -> bytes:
        # A file name that is not UTF-8 comes with surrogates, which only this lets through.
        return hashlib.sha256(f"{seed}:{unit}".encode("utf-8", "surrogatepass")).digest()

    return sorted(units, key=lambda unit: (place(unit), unit))


def _units(
    document: Document, pool: Sequence[str], targets: Sequence[str], unit_of: UnitOf
) -> dict[str, list[Item]]:
    """Return unit -> its items, from all lists of the pool.

    Raises:
        ConfigError: see ``split_data_list``.
    """
    items: list[Item] = []
    problems: list[Problem] = []
    for key in dict.fromkeys(pool):
        listed, faults = document.items(key)
        items += listed
        problems += faults
    problems += _pool_faults(document, pool, targets, items)
    units: dict[str, list[Item]] = {}
    unnamed = []
    for item in items:
        try:
            units.setdefault(unit_of(item), []).append(item)
        except DataError as error:
            unnamed.append(Problem(item.location, str(error), "", "patient"))
    problems += shortened(unnamed)
    kept = [key for key in document.list_keys if key not in (*pool, *targets)]
    for key in kept:
        problems += shortened(list(_overlap(document, key, units, unit_of)))
    if problems:
        raise ConfigError(problems)
    return units


def _pool_faults(
    document: Document, pool: Sequence[str], targets: Sequence[str], items: Sequence[Item]
) -> Iterator[Problem]:
    """Yield lists that would be replaced, images listed twice, and labels of some items only."""
    for key in targets:
        if key not in pool and document.content.get(key):
            count = len(document.content[key])
            message = f"is there already, with {count} item{'' if count == 1 else 's'}"
            advice = f"Pool it as well (--from {' '.join(pool)} {key}), or remove it first."
            if key not in (TRAINING, VALIDATION):
                advice += " A test list may have another name (--test-list testing)."
            yield Problem(document.location / key, message, advice, "split")
    first: dict[str, Item] = {}
    for item in items:
        earlier = first.setdefault(by_image(item), item)
        if earlier is not item:
            message = f"is the same file as that of {earlier.location.place}"
            advice = "Leave one of the two away."
            yield Problem(item.location / "image", message, advice, "duplicate")
    without = [item for item in items if item.entries.get("label") is None]
    if without and len(without) < len(items):
        message = f"has no 'label', as {len(without)} of {len(items)} items to deal out"
        advice = "Keep images without label in a list that is not dealt out, such as 'test'."
        yield Problem(without[0].location, message, advice, "missing-label")


def _overlap(
    document: Document, key: str, units: Mapping[str, Sequence[Item]], unit_of: UnitOf
) -> Iterator[Problem]:
    """Yield items of a list that stays although the split deals out their unit."""
    for item in document.items(key)[0]:
        try:
            unit = unit_of(item)
        except DataError:
            continue  # whose patient is not known cannot be compared
        if unit in units:
            message = f"belongs to the same image or patient as {units[unit][0].location.place}"
            advice = f"Deal {key!r} out as well (--from), or take these items out of the document."
            yield Problem(item.location, message, advice, "leakage")
