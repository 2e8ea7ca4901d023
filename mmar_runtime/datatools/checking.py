"""The check of a data list's images and labels for a training, with all faults at once.

Headers alone show whether files open and whether image and label share a grid, in milliseconds
a case. ``full`` reads the voxels as well: values, label classes, and copies under another name.
A run looks at its cases with ``look_at`` too, and judges the facts by its configuration.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from mmar_runtime.config.data_list import missing_file
from mmar_runtime.config.file_keys import FILE_KEYS
from mmar_runtime.config.location import Location
from mmar_runtime.datatools.document import TRAINING, Document, Item, read_document
from mmar_runtime.datatools.file_facts import FileFacts, cache_of
from mmar_runtime.datatools.report import AxisSpread, DataReport, LabelClass, ListSummary
from mmar_runtime.datatools.text_headers import TextHeader, read_text_header
from mmar_runtime.datatools.volumes import (
    MM,
    Grid,
    GridDifference,
    Picture,
    Triple,
    ValueRange,
    Volume,
    content_advice,
    covers_the_same,
    digest,
    grid_difference,
    open_image,
    value_range,
)
from mmar_runtime.errors import ConfigError, DataError, Problem, did_you_mean

LABEL, MASK = "label", "mask"
MAX_SHOWN_VALUES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The facts about an item.

    Attributes:
        item: the item.
        problems: its faults, whatever is trained on it.
        files: the image's files, links followed.
        labels: the label's files likewise; none where the label is a value.
        labelled: whether it has a label.
        grid: of the image; None if no file of it could be opened.
        difference: between the grids of label and image; None if they agree.
        resampled: whether these two grids fill the same space.
        axes: of the image's file.
        channels: of the image, over all its files; None if not all could be opened.
        label_channels: of the label likewise.
        values: the range of the image's values, where they were read.
        counts: voxels of the label with each value, where they were read; 1 for a label that is
            a number.
        content: digest of the image's voxels, where they were read.
        label_content: of the label's likewise.
        unopened: how the names of files end that only are known to exist.
    """

    item: Item
    problems: tuple[Problem, ...]
    files: tuple[str, ...]
    labels: tuple[str, ...]
    labelled: bool
    grid: Grid | None = None
    difference: GridDifference | None = None
    resampled: bool = False
    axes: int | None = None
    channels: int | None = None
    label_channels: int | None = None
    values: ValueRange | None = None
    counts: Mapping[float, int] | None = None
    content: str | None = None
    label_content: str | None = None
    unopened: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How closely to look at an item.

    Attributes:
        base: the folder of relative paths.
        images: whether to read the voxels of images.
        labels: whether to read the voxels of labels.
        file_keys: the entries of an item that are paths.
        facts: what is known about files.
    """

    base: Path
    images: bool = False
    labels: bool = False
    file_keys: tuple[str, ...]
    facts: FileFacts

    @property
    def image_keys(self) -> tuple[str, ...]:
        """The entries that are images: ``image``, and any other key that a loader opens."""
        return tuple(key for key in self.file_keys if key not in (LABEL, MASK))


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
    facts = FileFacts(cache_of(file))
    items: dict[str, tuple[Item, ...]] = {}
    for key in dict.fromkeys(lists or document.list_keys):
        items[key], faults = document.items(key)
        problems += faults
    modalities = {key for listed in items.values() for item in listed for key in item.modalities()}
    files = [key for key in FILE_KEYS if key != LABEL or labels_are_files]
    file_keys = (*files, *sorted(modalities))
    look = Look(base=base, images=full, labels=full, file_keys=file_keys, facts=facts)
    count = sum(map(len, items.values()))
    cases: dict[str, list[Case]] = {key: [] for key in items}
    done = 0
    for key in items:
        for item in items[key]:
            cases[key].append(look_at(item, look))
            done += 1
            told(done, count)
        for case in cases[key]:
            problems += case.problems
            problems += (*label_is_image(case), *_grid_fault(case), *_strangers(case, names))
        labelled = sum(case.labelled for case in cases[key])
        for case in cases[key]:
            if labelled and not case.labelled:
                message = f"has no 'label', which {labelled} items of the list have"
                problems.append(Problem(case.item.location, message, "", "missing-label"))
        problems += _duplicates(cases[key])
    facts.save()
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


def look_at(item: Item, look: Look) -> Case:
    """Return the facts about an item, and its faults."""
    return _ItemLook(item, look).case()


@dataclass(slots=True)
class _ItemLook:
    """A look at an item, which collects facts about its files."""

    item: Item
    look: Look
    problems: list[Problem] = field(default_factory=list)
    unopened: list[str] = field(default_factory=list)
    contents: dict[str, list[str]] = field(default_factory=dict)
    channels: dict[str, list[int]] = field(default_factory=dict)
    grid: Grid | None = None
    difference: GridDifference | None = None
    resampled: bool = False
    axes: int | None = None
    values: ValueRange | None = None
    counts: Counter[float] | None = None

    def case(self) -> Case:
        images = tuple(
            os.path.realpath(path) for key in self.look.image_keys for path in self._paths(key)
        )
        others = (key for key in (LABEL, MASK) if key in self.look.file_keys)
        for key in (*self.look.image_keys, *others):
            for path in self._paths(key):
                if key != LABEL or os.path.realpath(path) not in images:
                    self._file(path, key, self.item.location / key)
        label = self.item.entries.get(LABEL)
        files = self._paths(LABEL) if LABEL in self.look.file_keys else []
        if not files and isinstance(label, int | float):
            self.counts = Counter({float(label): 1})
        return Case(
            item=self.item,
            problems=tuple(self.problems),
            files=images,
            labels=tuple(map(os.path.realpath, files)),
            labelled=label is not None,
            grid=self.grid,
            difference=self.difference,
            resampled=self.resampled,
            axes=self.axes,
            channels=self._sum_of_channels("image"),
            label_channels=self._sum_of_channels(LABEL),
            values=self.values,
            counts=self.counts,
            content=self._content("image"),
            label_content=self._content(LABEL),
            unopened=tuple(self.unopened),
        )

    def _paths(self, key: str) -> list[Path]:
        return [self.look.base / file for file in self.item.files(key)]

    def _sum_of_channels(self, key: str) -> int | None:
        found = self.channels.get(key, [])
        return sum(found) if found and len(found) == len(self.item.files(key)) else None

    def _content(self, key: str) -> str | None:
        found = self.contents.get(key, [])
        return " ".join(found) if found and len(found) == len(self.item.files(key)) else None

    def _file(self, path: Path, key: str, location: Location) -> None:
        if not path.exists():
            self.problems.append(missing_file(str(path), location))
            return
        try:
            image = open_image(path)
            if image is None:
                if (header := read_text_header(path)) is not None:
                    self.channels.setdefault(key, []).append(header.channels)
                    self._compare(header, key, location)
                self.unopened.append(path.suffix or path.name)
                if self.look.images and path.is_file():
                    self.contents.setdefault(key, []).append(self.look.facts.digest(path))
                return
            self.channels.setdefault(key, []).append(image.channels)
            self._compare(image, key, location)
            self._read(path, image, key, location)
        except DataError as error:
            advice = f"The file is {str(path)!r}."
            if "cannot be" in str(error) and path.is_file():
                advice += f" {content_advice(path)}"
            self.problems.append(Problem(location, str(error), advice, "volume"))

    def _compare(self, image: Volume | Picture | TextHeader, key: str, location: Location) -> None:
        """Keep the grid of the first image, or compare another file's grid with it."""
        if self.grid is None:
            # Only an image can be the measure: a label whose image did not open has no fault here.
            if key in self.look.image_keys:
                self.grid, self.axes = image.grid, image.axes
            return
        difference = grid_difference(image.grid, self.grid)
        if difference is None:
            return
        if key == LABEL:
            self.difference = difference
            self.resampled = covers_the_same(image.grid, self.grid)
        else:
            self.problems.append(grid_problem(difference, location))

    def _read(self, path: Path, image: Volume | Picture, key: str, location: Location) -> None:
        if key == LABEL and self.look.labels:
            counts = Counter(self.look.facts.counts(path, image))
            self.counts = counts + (self.counts or Counter())
        if not self.look.images or key not in ("image", LABEL):
            return
        voxels = image.voxels()
        self.contents.setdefault(key, []).append(digest(voxels))
        if key == LABEL:
            return
        values, unfit = value_range(voxels)
        self.values = _joined_range([self.values, values])
        if unfit:
            message = f"holds {unfit} voxels that are infinite or not a number"
            advice = "One of them makes a whole training's weights not a number; replace them."
            self.problems.append(Problem(location, message, advice, "not-finite"))


def grid_problem(difference: GridDifference, location: Location) -> Problem:
    """Return the problem of a file that has another grid than the item's image."""
    message = f"has another grid than the item's image: {difference.text}"
    advice = "Resample one of the two onto the other; a label with its nearest neighbour."
    if "no-position" in difference.kinds:
        advice = "Write the header of the image into the label, if their voxels belong together."
    return Problem(location, message, advice, "grid")


def label_is_image(case: Case) -> Iterator[Problem]:
    """Yield a label that is the very file of an image; equal contents are another question."""
    for file in case.labels:
        if file in case.files:
            message = f"is the item's image itself, {file!r}"
            advice = "Name the file of the label."
            yield Problem(case.item.location / LABEL, message, advice, "label-is-image")


def _grid_fault(case: Case) -> Iterator[Problem]:
    if case.difference is not None:
        yield grid_problem(case.difference, case.item.location / LABEL)


def _strangers(case: Case, names: Mapping[int, str]) -> Iterator[Problem]:
    """Yield the values of a label that are not integers, or that the document does not name."""
    place, counts = case.item.location / LABEL, case.counts or {}
    label = case.item.entries.get(LABEL)
    if names and not case.labels and isinstance(label, str) and label not in names.values():
        message = f"is {label!r}; 'labels' of the document has {', '.join(names.values())}"
        yield Problem(place, message, did_you_mean(label, names.values()), "label-value")
    fractions = [value for value in counts if not float(value).is_integer()]
    if fractions and case.labels:
        shown = ", ".join(f"{value:g}" for value in fractions[:3])
        message = f"holds values that are not integers, such as {shown}"
        yield Problem(place, message, f"The file is {case.labels[0]!r}.", "volume")
        return
    strangers = [value for value in counts if names and value not in names]
    if strangers:
        allowed = ", ".join(map(str, sorted(names)))
        shown = shown_values(strangers, counts if case.labels else {})
        message = f"holds {shown}; 'labels' of the document allows {allowed}"
        advice = "Correct the label, or name its values in 'labels'."
        yield Problem(place, message, advice, "label-value")


def shown_values(values: Sequence[float], voxels: Mapping[float, int]) -> str:
    """Return values for a person, with their voxels where these are known.

    >>> shown_values([3, 255], {3: 12, 255: 1})
    '3 (12 voxels), 255 (1 voxel)'
    """
    shown = ", ".join(
        f"{value:g} ({voxels[value]} voxel{'s' * (voxels[value] != 1)})" if voxels else f"{value:g}"
        for value in values[:MAX_SHOWN_VALUES]
    )
    rest = len(values) - MAX_SHOWN_VALUES
    return shown + (f" and {rest} more" if rest > 0 else "")


# --- Items among each other ----------------------------------------------------------------------


def _duplicates(cases: Sequence[Case]) -> Iterator[Problem]:
    first: dict[object, Case] = {}
    for case in cases:
        copied = case.content is not None and case.content == case.label_content
        if copied and case.files != case.labels:
            message = "holds the same voxels as the item's image"
            advice = "Name the file of the label."
            yield Problem(case.item.location / LABEL, message, advice, "label-is-image")
        facts = ((case.files, "is the same file as"), (case.content, "holds the same voxels as"))
        for fact, what in facts:
            earlier = case if fact is None else first.setdefault(fact, case)
            if earlier is not case:
                message = f"{what} that of {earlier.item.location.place}"
                advice = "Leave one of the two away."
                yield Problem(case.item.location / "image", message, advice, "duplicate")
                break


def _leaks(cases: Mapping[str, Sequence[Case]], training: str) -> Iterator[Problem]:
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


def _summary(key: str, cases: Sequence[Case], names: Mapping[int, str]) -> ListSummary:
    grids = [case.grid for case in cases if case.grid is not None]
    units = {grid.unit for grid in grids if grid.unit}
    return ListSummary(
        key=key,
        cases=len(cases),
        labelled=sum(case.labelled for case in cases),
        shape=_spread([grid.shape for grid in grids]),
        spacing_mm=_spread([grid.spacing_mm for grid in grids if grid.unit]),
        unit=next(iter(units)) if len(units) == 1 else MM,
        values=_joined_range([case.values for case in cases]),
        classes=_classes([_whole(case.counts) for case in cases if case.counts], names),
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


def _whole(counts: Mapping[float, int]) -> dict[int, int]:
    """Return the counts of the values that are integers; others are reported as problems."""
    return {int(value): count for value, count in counts.items() if float(value).is_integer()}


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
    cases: Mapping[str, Sequence[Case]], names: Mapping[int, str], training: str
) -> Iterator[str]:
    if training not in cases and len(cases) > 1:
        yield f"no list {training!r} was checked, so overlaps are not known"
    unopened = Counter(
        ending for checked in cases.values() for case in checked for ending in case.unopened
    )
    for ending, count in sorted(unopened.items()):
        yield f"files that were not opened, only known to exist: {count} ({ending})"
    for key, checked in cases.items():
        for unit in sorted({case.grid.unit for case in checked if case.grid} - {MM, ""}):
            yield (
                f"{key}: lengths in the headers are {unit}; MONAI reads them as mm, so a 'pixdim' "
                f"of the configuration is in {unit} as well"
            )
        labels = (case.item.entries.get(LABEL) for case in checked)
        texts = {label for label in labels if isinstance(label, str)}
        if texts and not names and not any(case.labels for case in checked):
            shown = ", ".join(map(repr, sorted(texts)[:MAX_SHOWN_VALUES]))
            yield (
                f"{key}: labels are texts, such as {shown}; a training needs numbers from 0, or "
                "'labels' of the document with the number of each"
            )
        counts = [case.counts for case in checked if case.counts is not None]
        present = {value for case in counts for value in case}
        for value in sorted(set(names) - present) if counts else ():
            yield f"{key}: no label holds {value} ({names[value]})"
