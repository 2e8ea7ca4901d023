"""Whether the data of a configuration fit it, asked before a run.

Whatever makes wrong numbers for certain, or ends the run, is a problem; whatever may be meant is a
notice. Headers are read anew each time; the values of labels are read once and kept by the digest
of the file, see ``file_facts``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from mmar_runtime.config.consistency import has_own_engine
from mmar_runtime.config.data_list import DataList, lists_of_cases
from mmar_runtime.config.file_keys import file_keys, loaders
from mmar_runtime.config.fit import has_classes
from mmar_runtime.config.grids import LOADER, loaded_keys, texts_of, title_of, transforms_of
from mmar_runtime.config.sections import Config, Section, WorkflowConfig
from mmar_runtime.config.upgrades import Notice
from mmar_runtime.datatools.checking import (
    Case,
    Look,
    grid_problem,
    label_is_image,
    look_at,
    shown_values,
)
from mmar_runtime.datatools.document import Item
from mmar_runtime.datatools.expected import (
    LABEL,
    PRE,
    LabelBound,
    argument,
    batch_of_whole_images,
    channel_bound,
    goes_by_position,
    label_bounds,
    needs_labels,
    resamples,
)
from mmar_runtime.datatools.file_facts import FileFacts, cache_of, sample
from mmar_runtime.datatools.volumes import by
from mmar_runtime.errors import Problem, UnfitDataError

Told = Callable[[int, int], None]

MANY_VALUES = 20
"""A label with more values than this is more likely an image."""

DICOM = (".dcm", ".dicom", ".ima")
PACKAGES: Mapping[tuple[str, ...], tuple[tuple[str, ...], str]] = {
    (".mha", ".mhd", ".gipl"): (("itk",), "mmar-fl[itk]"),
    (".nrrd", ".nhdr"): (("itk", "nrrd"), "mmar-fl[itk]"),
    DICOM: (("itk", "pydicom"), "mmar-fl[dicom]"),
}
"""How files end -> the packages of which one has to be there, and what ``pip install`` is given."""


def with_data_checked(
    config: Config, *, told: Told = lambda done, of: None, cached: bool = True
) -> Config:
    """Return the configuration with notices about its data.

    Args:
        config: a configuration whose lists and files are there.
        told: called after each case with the number of cases done and of all.
        cached: whether the values of labels are kept for the next run.

    Raises:
        UnfitDataError: with every problem of the data.
    """
    check = _DataCheck(config, told=told, cached=cached)
    problems = tuple(check.problems())
    if problems:
        raise UnfitDataError.of(problems)
    return replace(config, notices=(*config.notices, *check.notices()))


@dataclass(frozen=True, slots=True)
class _Part:
    """A section of a configuration with the cases that it reads."""

    section: Section
    cases: tuple[Case, ...]


class _DataCheck:
    """The check of a configuration's data; looks at each case once."""

    def __init__(self, config: WorkflowConfig, *, told: Told, cached: bool) -> None:
        self._config = config
        lists = list(lists_of_cases(config))
        cache = cache_of(lists[0][1].file) if lists and cached else None
        self._facts = FileFacts(cache)
        self._parts = self._looked_at(lists, told)

    def problems(self) -> Iterator[Problem]:
        for part in self._parts:
            for case in part.cases:
                yield from _unreadable(self._config, case)
                yield from case.problems
                yield from self._grid(part.section, case, certain=True)
            yield from _missing_labels(part)
            yield from _missing_entries(part)
            yield from _unnamed_labels(part)
            yield from self._label_values(part)
            yield from self._copied_labels(part, certain=True)
            yield from self._channels(part)
            yield from _different_sizes(part)

    def notices(self) -> Iterator[Notice]:
        """Yield what may be meant, each kind once with its first case."""
        found: dict[tuple[str, str], list[Problem]] = defaultdict(list)
        for problem in (*self._questions(), *self._copies()):
            found[problem.rule, problem.advice].append(problem)
        self._facts.save()
        for (_, advice), problems in found.items():
            places = tuple(problem.location for problem in problems)
            yield Notice(rule="data", message=f"{problems[0].message}. {advice}", places=places)

    def _questions(self) -> Iterator[Problem]:
        for part in self._parts:
            for case in part.cases:
                yield from self._grid(part.section, case, certain=False)
            yield from self._copied_labels(part, certain=False)
            yield from _one_class(part)
            yield from _shared_labels(part)

    def _looked_at(
        self, lists: Sequence[tuple[Section, DataList]], told: Told
    ) -> tuple[_Part, ...]:
        keys = tuple(sorted(file_keys(self._config)))
        of, done, parts = sum(len(cases.items) for _, cases in lists), 0, []
        for section, cases in lists:
            look = Look(
                base=Path(),
                labels=bool(label_bounds(self._config, section)),
                file_keys=keys,
                facts=self._facts,
            )
            looked = []
            for index, entries in enumerate(cases.items):
                looked.append(look_at(Item(cases.location / index, entries), look))
                done += 1
                told(done, of)
            parts.append(_Part(section, tuple(looked)))
        self._facts.save()  # also where the data have faults: the next try is quick
        return tuple(parts)

    # --- Image and label -------------------------------------------------------------------------

    def _grid(self, section: Section, case: Case, *, certain: bool) -> Iterator[Problem]:
        """Yield a difference of grids; it is certain to matter, or may be meant."""
        if case.difference is None or not needs_labels(section):
            return
        kinds, resampled = case.difference.kinds, resamples(section)
        if resampled and case.resampled:
            return  # two grids over the same space, brought together on the way
        aligned = not kinds & {"shape", "spacing", "axes"} and not goes_by_position(section)
        if certain != (aligned or (resampled and "shape" not in kinds)):
            problem = grid_problem(case.difference, case.item.location / LABEL)
            problem = replace(problem, message=f"{case.labels[0]!r} {problem.message}")
            if not certain:
                problem = replace(problem, advice="Voxels are taken as they lie in the two files.")
            yield problem

    def _label_values(self, part: _Part) -> Iterator[Problem]:
        bounds = label_bounds(self._config, part.section)
        for case in part.cases if bounds else ():
            yield from _value_faults(case, bounds)

    def _copied_labels(self, part: _Part, *, certain: bool) -> Iterator[Problem]:
        """Yield labels that are their images, which is meant where images are to be restored."""
        if certain != has_classes(part.section):
            return
        for case in part.cases:
            yield from label_is_image(case)
            for image, label in zip(case.files, case.labels, strict=False):
                if image != label and self._equal(image, label):
                    place = case.item.location / LABEL
                    message = f"{label!r} has the content of the item's image {image!r}"
                    yield Problem(place, message, "Name the file of the label.", "label-is-image")

    def _equal(self, one: str, other: str) -> bool:
        first, second = Path(one), Path(other)
        if first.is_dir() or second.is_dir() or sample(first) != sample(second):
            return False
        return self._facts.digest(first) == self._facts.digest(second)

    # --- Image and network -----------------------------------------------------------------------

    def _channels(self, part: _Part) -> Iterator[Problem]:
        bound = channel_bound(self._config, part.section)
        if bound is None:
            return
        wanted, place, axes = bound
        for case in part.cases:
            fits = case.channels in (None, wanted) or case.axes is None
            if fits or (axes is not None and case.axes is not None and axes > case.axes):
                continue
            if axes == 2 and case.grid is not None and case.grid.unit:
                continue  # slices of a volume, in whatever way the transforms cut them
            channels = _counted(case.channels or 0, "channel")
            message = f"has {channels} in {case.files[0]!r}; {place} says {wanted}"
            advice = f"Set in_channels to {case.channels}, or choose channels by a transform."
            yield Problem(case.item.location / "image", message, advice, "channels")

    # --- Cases among each other ------------------------------------------------------------------

    def _copies(self) -> Iterator[Problem]:
        """Yield images that are in two lists, or twice in one, by path or by content."""
        seen: dict[tuple[str, ...], tuple[int, Case]] = {}
        alike: dict[object, list[tuple[int, Case]]] = defaultdict(list)
        for number, part in enumerate(self._parts):
            for case in (case for case in part.cases if case.files):
                first = seen.setdefault(case.files, (number, case))
                if first[1] is not case:
                    yield _copy(case, first[1], "is the same image as", within=first[0] == number)
                elif len(case.files) == 1 and Path(case.files[0]).is_file():
                    alike[sample(Path(case.files[0]))].append((number, case))
        for group in alike.values():
            contents: dict[str, tuple[int, Case]] = {}
            for number, case in group if len(group) > 1 else ():
                first = contents.setdefault(self._facts.digest(Path(case.files[0])), (number, case))
                if first[1] is not case:
                    yield _copy(case, first[1], "is a copy of", within=first[0] == number)


def _copy(case: Case, first: Case, what: str, *, within: bool) -> Problem:
    message = f"{case.files[0]!r} {what} {first.files[0]!r}, {first.item.location.place}"
    advice = "It counts twice." if within else "A score on it says nothing about new images."
    return Problem(case.item.location, message, advice, "leakage")


def _unreadable(config: WorkflowConfig, case: Case) -> Iterator[Problem]:
    """Yield a file of a format whose package is missing, where no loader names a reader."""
    if any(argument(spec, "reader") is not None for spec in loaders(config)):
        return
    for file in (*case.files, *case.labels):
        # A folder is a series of DICOM files.
        name = f"{file}{DICOM[0]}" if Path(file).is_dir() else file.lower()
        for endings, (packages, given) in PACKAGES.items():
            if name.endswith(endings) and not any(map(find_spec, packages)):
                wanted = " or ".join(packages)
                message = f"{file!r} is read by the package {wanted}, which is not installed"
                advice = f"Run pip install '{given}', or convert the files to NIfTI."
                yield Problem(case.item.location, message, advice, "missing-package")


def _missing_labels(part: _Part) -> Iterator[Problem]:
    if not needs_labels(part.section) or has_own_engine(part.section):
        return
    for case in part.cases:
        if not case.labelled:
            message = "has no 'label', and predictions are compared with it"
            yield Problem(case.item.location, message, "", "missing-label")


def _missing_entries(part: _Part) -> Iterator[Problem]:
    """Yield cases without a further entry that a loader opens in each case."""
    for spec in transforms_of(part.section, PRE):
        optional = title_of(spec) != LOADER or argument(spec, "allow_missing_keys") is True
        for key in () if optional else texts_of(spec, "keys"):
            for case in part.cases:
                if key != LABEL and key not in case.item.entries:
                    message = f"has no {key!r}, and {spec.title} opens it ({spec.location})"
                    advice = "Name the file in the list, or leave the case out."
                    yield Problem(case.item.location, message, advice, "missing-image")


def _unnamed_labels(part: _Part) -> Iterator[Problem]:
    """Yield labels that are no files, where a transform opens them."""
    for case in part.cases if LABEL in loaded_keys(part.section) else ():
        if case.labelled and not case.labels:
            message = f"is {case.item.entries[LABEL]!r}, and LoadImaged opens it as a file"
            advice = "Name the file of the label, or take 'label' out of the keys of LoadImaged."
            yield Problem(case.item.location / LABEL, message, advice, "label-file")


def _shared_labels(part: _Part) -> Iterator[Problem]:
    """Yield a label that stands beside several images."""
    seen: dict[tuple[str, ...], Case] = {}
    for case in (case for case in part.cases if case.labels):
        first = seen.setdefault(case.labels, case)
        if first.files != case.files:
            message = f"{case.labels[0]!r} is the label of {first.item.location.place} too"
            advice = "Name a label for each image, unless they show the same."
            yield Problem(case.item.location / LABEL, message, advice, "shared-label")


def _value_faults(case: Case, bounds: Sequence[LabelBound]) -> Iterator[Problem]:
    """Yield the values of a label for which a place in the configuration has no room."""
    place, label = case.item.location / LABEL, case.item.entries.get(LABEL)
    if isinstance(label, str) and not case.labels:
        message = f"is the text {label!r}; a class is a number from 0"
        advice = f"Write {label} without quotes."
        if not label.isdigit():
            advice = f"Write its number, or number it in 'labels' of the list: {{{label!r}: 1}}."
        yield Problem(place, message, advice, "label-value")
        return
    if isinstance(label, list | float) and any(bound.index for bound in bounds):
        message = f"is {label!r}; cross entropy takes the number of the class, such as 1"
        yield Problem(place, message, "Write a whole number, from 0.", "label-value")
        return
    named = f" in {case.labels[0]!r}" if case.labels else ""
    for bound in bounds:
        if bound.one_channel and (case.label_channels or 1) > 1:
            message = f"has {case.label_channels} channels{named}; {bound.place} expects one"
            advice = "Write a label with one number per voxel; RGB masks have three."
            yield Problem(place, message, advice, "label-value")
            return
        refused = [value for value in case.counts or () if bound.refused(value)]
        if refused:
            values = shown_values(refused, (case.counts or {}) if case.labels else {})
            message = f"holds {values}{named}; {bound.place} has room for 0 to {bound.classes - 1}"
            yield Problem(place, message, _value_advice(case.counts or {}, bound), "label-value")
            return


def _value_advice(counts: Mapping[float, int], bound: LabelBound) -> str:
    """Return what to do about values that are out of bounds."""
    values = sorted(counts)
    if set(values) <= {0, 255}:
        return "A mask of 0 and 255: put AsDiscreted with threshold 0.5 on 'label' first."
    if len(values) > MANY_VALUES:
        return "So many values: is it an image, or a mask that was saved as JPEG?"
    if any(not float(value).is_integer() for value in values):
        return "Classes are whole numbers: was the label resampled without nearest neighbour?"
    if values[0] >= 1 and values[-1] == bound.classes:
        return "Classes count from 0, these seem to count from 1."
    if values[0] < 0:
        return "Classes count from 0; map the values with MapLabelValued."
    most = int(values[-1]) + 1
    return f"Set it to {most}, or map the values with MapLabelValued."


def _different_sizes(part: _Part) -> Iterator[Problem]:
    """Yield a batch whose images have several sizes, if nothing brings them to one."""
    batch = batch_of_whole_images(part.section)
    if batch is None:
        return
    size, place = batch
    shuffled = any(argument(spec, "shuffle") is True for spec in part.section.specs("dataloader"))
    cases = [case for case in part.cases if case.grid is not None]
    step = len(cases) if shuffled else size
    for group in (cases[start : start + step] for start in range(0, len(cases), step or 1)):
        shapes = {case.grid.shape: case for case in group if case.grid is not None}
        if len(shapes) > 1:
            first, second = list(shapes.items())[:2]
            message = (
                f"is {size}, and images of a batch differ in size: {by(first[0])} in "
                f"{first[1].files[0]!r}, {by(second[0])} in {second[1].files[0]!r}"
            )
            advice = "Set it to 1, or crop, pad or resize to one size."
            yield Problem(place, message, advice, "batch-size")
            return


def _one_class(part: _Part) -> Iterator[Problem]:
    """Yield a list whose labels all hold the same single value."""
    counts = [case.counts for case in part.cases if case.counts]
    values = {value for one in counts for value in one}
    if len(values) == 1 and len(counts) > 1:
        message = f"all {len(counts)} labels of {part.section.location} hold {values.pop():g} alone"
        place = part.cases[0].item.location
        advice = "Metrics that compare two classes are undefined."
        yield Problem(replace(place, path=place.path[:-1]), message, advice, "class")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
