"""The report of a check of a data list, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmar_runtime.datatools.volumes import MM, Triple, ValueRange
from mmar_runtime.errors import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisSpread:
    """How a length varies over the images of a list, for each axis of the file by itself."""

    minimum: Triple
    median: Triple
    maximum: Triple

    def divided(self, by: float) -> AxisSpread:
        """Return the spread in a unit that is ``by`` times as long."""
        return AxisSpread(
            minimum=_divided(self.minimum, by),
            median=_divided(self.median, by),
            maximum=_divided(self.maximum, by),
        )


def _divided(lengths: Triple, by: float) -> Triple:
    x, y, z = lengths
    return (x / by, y / by, z / by)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelClass:
    """A label value in a list.

    Attributes:
        value: as in the label files.
        name: from ``labels`` of the document; empty where that has none.
        cases: the number of labels with a voxel of it.
        share: of all the list's label voxels, from 0 to 1; of its cases where a label is a value.
    """

    value: int
    name: str
    cases: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSummary:
    """The content of a list.

    Attributes:
        key: the list's key in the document.
        cases: number of items.
        labelled: those with a ``label``.
        shape: voxels of the images; None if none could be opened.
        spacing_mm: voxel size of the images; None likewise, and where images are pictures.
        unit: of the lengths in the headers, if it is the same in all; else mm.
        values: least and greatest value of all images; None unless voxels were read.
        classes: the label values that occur; None unless label voxels were read.
    """

    key: str
    cases: int
    labelled: int
    shape: AxisSpread | None = None
    spacing_mm: AxisSpread | None = None
    unit: str = MM
    values: ValueRange | None = None
    classes: tuple[LabelClass, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """The content and the faults of a data list.

    Attributes:
        file: the data list.
        base: the folder that relative paths are below.
        full: whether voxels were read, not only headers.
        lists: one summary for each list that was checked.
        problems: everything that has to be mended, with its place.
        notices: facts that a person should know and may leave as they are.
    """

    file: Path
    base: Path
    full: bool
    lists: tuple[ListSummary, ...]
    problems: tuple[Problem, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing has to be mended."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for ``--json``."""
        return {
            "ok": self.ok,
            "file": str(self.file),
            "base": str(self.base),
            "full": self.full,
            "lists": [asdict(summary) for summary in self.lists],
            "problems": [problem.as_dict() for problem in self.problems],
            "notices": list(self.notices),
        }
