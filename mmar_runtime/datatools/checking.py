"""The check of a data list's images and labels for a training, with all faults at once.

Headers alone show whether files open and whether image and label share a grid, in milliseconds
a case. ``full`` reads the voxels as well: values, label classes, and copies under another name.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from mmar_runtime.config.file_keys import FILE_KEYS
from mmar_runtime.config.location import Location
from mmar_runtime.datatools.document import TRAINING, Document, Item, read_document
from mmar_runtime.datatools.report import AxisSpread, DataReport, LabelClass, ListSummary
from mmar_runtime.datatools.volumes import (
    Grid,
    Triple,
    ValueRange,
    Voxels,
    digest,
    grid_difference,
    is_volume,
    label_counts,
    open_volume,
    value_range,
)
from mmar_runtime.errors import ConfigError, DataError, Problem

LABEL = "label"
MAX_SHOWN_VALUES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """The facts about an item."""

    item: Item
    problems: tuple[Problem, ...]
    files: tuple[str, ...]
    labelled: bool
    grid: Grid | None = None
    values: ValueRange | None = None
    counts: Mapping[int, int] | None = None
    content: str | None = None
    unopened: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """The rules of the whole document for each of its items.

    ``names`` maps the label values that are allowed to their names; empty allows any integer.
    """

    base: Path
    full: bool
    file_keys: tuple[str, ...]
    names: Mapping[int, str]


def check_data_list(
    file: Path,
    *,
    base: Path | None = None,
    lists: Sequence[str] = (),
    training: str = TRAINING,
    full: bool = False,
    labels_are_files: bool = True,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> DataReport:
    """Look at every image and label of a data list.

    No file is changed. One volume at a time is in memory.

    Args:
        file: the data list.
        base: the folder of relative paths (``DATA_ROOT``); the list's own folder if not given.
        lists: the keys of the lists to check; all of them if empty.
        training: the key of the list that none of the other lists may share an image with.
        full: read the voxels too, not only the headers.
        labels_are_files: whether a ``label`` that is a string is a path, as it is for segmentation.
        told: called after each case with the number of cases done and of all.

    Raises:
        ConfigError: the document cannot be read, or there is no such list or folder.
    """
    document = read_document(file)
    if training != TRAINING:
        document.items(training)  # a name that is mistyped must not pass for "no overlap"
    base = file.parent if base is None else base
    if not base.is_dir():
        message = f"there is no data folder {str(base)!r}"
        advice = "Name the folder that the list's paths are below, the site's DATA_ROOT."
        raise ConfigError([Problem(document.location, message, advice, "data")])
    names, problems = _label_names(document)
    rules = _Rules(
        base=base,
        full=full,
        file_keys=tuple(key for key in FILE_KEYS if key != LABEL or labels_are_files),
        names=names,
    )
    items: dict[str, tuple[Item, ...]] = {}
    for key in dict.fromkeys(lists or document.list_keys):
        items[key], faults = document.items(key)
        problems += faults
    count = sum(map(len, items.values()))
    cases: dict[str, list[_Case]] = {key: [] for key in items}
    done = 0
    for key in items:
        for item in items[key]:
            cases[key].append(_ItemCheck(item, rules).case())
            done += 1
            told(done, count)
        problems += [problem for case in cases[key] for problem in case.problems]
        labelled = sum(case.labelled for case in cases[key])
        for case in cases[key]:
            if labelled and not case.labelled:
                message = f"has no 'label', which {labelled} items of the list have"
                problems.append(Problem(case.item.location, message, "", "missing-label"))
        problems += _duplicates(cases[key])
    some = any(document.content[key] for key in items)
    for key in items:
        # A list that nobody has asked for may be empty next to others.
        if not document.content[key] and (key in lists or not some):
            message = "has to be an array with at least one item"
            problems.append(Problem(document.location / key, message, "", "data-list"))
    problems += _leaks(cases, training)
    missing = [at for at, problem in enumerate(problems) if problem.rule == "missing-image"]
    for at in missing[:1]:
        advice = f"Relative paths are looked up below {str(base)!r}; is that DATA_ROOT?"
        problems[at] = replace(problems[at], advice=advice)
    return DataReport(
        file=file,
        base=base,
        full=full,
        lists=tuple(_summary(key, items, names) for key, items in cases.items()),
        problems=tuple(problems),
        notices=tuple(_notices(cases, names, training)),
    )


# --- The document --------------------------------------------------------------------------------


def _label_names(document: Document) -> tuple[dict[int, str], list[Problem]]:
    """Return label value -> name, from ``labels`` of the document.

    The Decathlon writes ``{"1": "spleen"}``, nnU-Net ``{"spleen": 1}``; both are understood.
    """
    labels = document.content.get("labels")
    if labels is None:
        return {}, []
    pairs = labels.items() if isinstance(labels, dict) else ()
    names: dict[int, str] = {}
    for key, value in pairs:
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", key):
            names[int(key)] = value
        elif type(value) is int:  # a truth value is an int to Python, but not here
            names[value] = key
    if names and len(names) == len(pairs):
        return names, []
    message = 'has to name each label value, as in {"0": "background", "1": "spleen"}'
    advice = "Until then the values of labels are only checked to be integers."
    return {}, [Problem(document.location / "labels", message, advice, "labels")]


# --- One item ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _ItemCheck:
    """The check of an item, which collects facts about its files."""

    item: Item
    rules: _Rules
    problems: list[Problem] = field(default_factory=list)
    unopened: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    grid: Grid | None = None
    values: ValueRange | None = None
    counts: dict[int, int] | None = None

    def case(self) -> _Case:
        for key in self.rules.file_keys:
            for path in self._paths(key):
                self._check_file(path, key, self.item.location / key)
        label = self.item.entries.get(LABEL)
        if not self.item.files(LABEL) and type(label) is int:
            self.counts = {label: 1}
        if self.counts is not None:
            self._check_values(self.counts)
        whole = len(self.contents) == len(self.item.files("image"))
        return _Case(
            item=self.item,
            problems=tuple(self.problems),
            files=tuple(map(os.path.realpath, self._paths("image"))),
            labelled=label is not None,
            grid=self.grid,
            values=self.values,
            counts=self.counts,
            content=" ".join(self.contents) if self.rules.full and whole else None,
            unopened=tuple(self.unopened),
        )

    def _paths(self, key: str) -> list[Path]:
        return [self.rules.base / file for file in self.item.files(key)]

    def _check_file(self, path: Path, key: str, location: Location) -> None:
        if not path.exists():
            message = f"there is no file {str(path)!r}"
            self.problems.append(Problem(location, message, "", "missing-image"))
        elif not is_volume(path):
            self.unopened.append(path.suffix or path.name)
            if self.rules.full and key == "image" and path.is_file():
                with path.open("rb") as stream:
                    self.contents.append(hashlib.file_digest(stream, "sha256").hexdigest())
        else:
            try:
                volume = open_volume(path)
                self._check_grid(volume.grid, key, location)
                if self.rules.full:
                    self._read(volume.voxels(), key, location)
            except DataError as error:
                advice = f"The file is {str(path)!r}."
                self.problems.append(Problem(location, str(error), advice, "volume"))

    def _check_grid(self, grid: Grid, key: str, location: Location) -> None:
        if self.grid is None:
            # Only an image can be the measure: a label whose image did not open has no fault here.
            self.grid = grid if key == "image" else None
        elif difference := grid_difference(grid, self.grid):
            message = f"has another grid than the item's image: {difference}"
            advice = "Resample one of the two onto the other; a label with its nearest neighbour."
            self.problems.append(Problem(location, message, advice, "grid"))

    def _check_values(self, counts: Mapping[int, int]) -> None:
        names = self.rules.names
        strangers = [value for value in counts if names and value not in names]
        if not strangers:
            return
        voxels = bool(self.item.files(LABEL))
        shown = ", ".join(
            f"{value} ({counts[value]} voxels)" if voxels else str(value)
            for value in strangers[:MAX_SHOWN_VALUES]
        )
        rest = len(strangers) - MAX_SHOWN_VALUES
        more = f" and {rest} more" if rest > 0 else ""
        allowed = ", ".join(map(str, sorted(names)))
        message = f"holds {shown}{more}; 'labels' of the document allows {allowed}"
        advice = "Correct the label, or name its values in 'labels'."
        self.problems.append(Problem(self.item.location / LABEL, message, advice, "label-value"))

    def _read(self, voxels: Voxels, key: str, location: Location) -> None:
        if key == LABEL:
            self.counts = dict(Counter(self.counts or {}) + Counter(label_counts(voxels)))
        if key != "image":
            return
        self.contents.append(digest(voxels))
        values, unfit = value_range(voxels)
        self.values = _joined_range([self.values, values])
        if unfit:
            message = f"holds {unfit} voxels that are infinite or not a number"
            advice = "One of them makes a whole training's weights not a number; replace them."
            self.problems.append(Problem(location, message, advice, "not-finite"))


# --- Items among each other ----------------------------------------------------------------------


def _duplicates(cases: Sequence[_Case]) -> Iterator[Problem]:
    first: dict[object, _Case] = {}
    for case in cases:
        facts = ((case.files, "is the same file as"), (case.content, "holds the same voxels as"))
        for fact, what in facts:
            earlier = case if fact is None else first.setdefault(fact, case)
            if earlier is not case:
                message = f"{what} that of {earlier.item.location.place}"
                advice = "Leave one of the two away."
                yield Problem(case.item.location / "image", message, advice, "duplicate")
                break


def _leaks(cases: Mapping[str, Sequence[_Case]], training: str) -> Iterator[Problem]:
    """Yield images of the training that are in another list too."""
    trained = cases.get(training, ())
    files = {case.files: case for case in trained}
    contents = {case.content: case for case in trained if case.content is not None}
    advice = (
        f"A score on an image of {training!r} says nothing about new ones. Keep it in one list, or "
        "name the lists to check if this one is not for scores."
    )
    for key, held_out in cases.items():
        for case in held_out if key != training else ():
            place = case.item.location / "image"
            if same := files.get(case.files):
                message = f"is trained on too, as {same.item.location.place}"
                yield Problem(place, message, advice, "leakage")
            elif case.content is not None and (same := contents.get(case.content)):
                message = f"holds the same voxels as {same.item.location.place}, in another file"
                yield Problem(place, message, advice, "leakage")


# --- The summary ---------------------------------------------------------------------------------


def _summary(key: str, cases: Sequence[_Case], names: Mapping[int, str]) -> ListSummary:
    grids = [case.grid for case in cases if case.grid is not None]
    return ListSummary(
        key=key,
        cases=len(cases),
        labelled=sum(case.labelled for case in cases),
        shape=_spread([grid.shape for grid in grids]),
        spacing_mm=_spread([grid.spacing_mm for grid in grids]),
        values=_joined_range([case.values for case in cases]),
        classes=_classes([case.counts for case in cases if case.counts is not None], names),
    )


def _spread(lengths: Sequence[Triple]) -> AxisSpread | None:
    if not lengths:
        return None
    axes = list(zip(*lengths, strict=True))
    return AxisSpread(
        minimum=_triple(min(axis) for axis in axes),
        median=_triple(median(axis) for axis in axes),
        maximum=_triple(max(axis) for axis in axes),
    )


def _triple(lengths: Iterable[Any]) -> Triple:
    x, y, z = lengths
    return (x, y, z)


def _joined_range(ranges: Iterable[ValueRange | None]) -> ValueRange | None:
    known = [part for part in ranges if part is not None]
    if not known:
        return None
    return ValueRange(
        minimum=min(part.minimum for part in known), maximum=max(part.maximum for part in known)
    )


def _classes(
    counts: Sequence[Mapping[int, int]], names: Mapping[int, str]
) -> tuple[LabelClass, ...] | None:
    if not counts:
        return None
    voxels: Counter[int] = Counter()
    cases: Counter[int] = Counter()
    for case in counts:
        voxels.update(case)
        cases.update(list(case))
    total = voxels.total()
    return tuple(
        LabelClass(
            value=value, name=names.get(value, ""), cases=cases[value], share=voxels[value] / total
        )
        for value in sorted(voxels)
    )


def _notices(
    cases: Mapping[str, Sequence[_Case]], names: Mapping[int, str], training: str
) -> Iterator[str]:
    if training not in cases and len(cases) > 1:
        yield f"no list {training!r} was checked, so overlaps are not known"
    unopened = Counter(
        ending for checked in cases.values() for case in checked for ending in case.unopened
    )
    for ending, count in sorted(unopened.items()):
        yield f"files that were not opened, only known to exist: {count} ({ending})"
    for key, checked in cases.items():
        counts = [case.counts for case in checked if case.counts is not None]
        present = {value for case in counts for value in case}
        for value in sorted(set(names) - present) if counts else ():
            yield f"{key}: no label holds {value} ({names[value]})"
