"""Whether each output image has a file of its own: of two with one name, the first is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmar_runtime.config.data_list import DataList, lists_of_cases
from mmar_runtime.config.grids import loaded_keys, texts_of, title_of, transforms_of
from mmar_runtime.config.nodes import ComponentSpec, plain
from mmar_runtime.config.sections import Section, WorkflowConfig
from mmar_runtime.errors import Problem

SAVER = "SaveImaged"
MAX_SHOWN = 3
"""Collisions that are told; the others are counted."""


@dataclass(frozen=True, slots=True)
class _Output:
    """An image that will be written.

    Attributes:
        saver: the transform that writes it.
        key: the entry of the case.
        index: of the case in its list.
        source: the file that it is named after.
    """

    saver: ComponentSpec
    key: str
    index: int
    source: str


def output_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield the loader's check that no two output images have one name."""
    for section, cases in lists_of_cases(config):
        taken: dict[tuple[Any, ...], _Output] = {}
        collisions = []
        for output in _outputs(section, cases):
            first = taken.setdefault(_name(output), output)
            if first is not output and not _is_listed_twice(first, output):
                collisions.append((first, output))
        for first, second in collisions[:MAX_SHOWN]:
            rest = len(collisions) - MAX_SHOWN
            yield _collision(cases, first, second, f" and {rest} more" if rest > 0 else "")


def _outputs(section: Section, cases: DataList) -> Iterator[_Output]:
    loaded = loaded_keys(section)
    for saver in transforms_of(section, "post_transforms"):
        for key in texts_of(saver, "keys") if title_of(saver) == SAVER else ():
            for index, item in enumerate(cases.items):
                # A prediction brings the name of its image along.
                source = _first_file(item.get(key if key in loaded else "image"))
                if source:
                    yield _Output(saver, key, index, source)


def _is_listed_twice(one: _Output, other: _Output) -> bool:
    """Return whether a list has a case twice, which makes the same image twice."""
    return (one.saver, one.key, one.source) == (other.saver, other.key, other.source)


def _collision(cases: DataList, one: _Output, other: _Output, more: str) -> Problem:
    name = os.path.join(*map(str, _name(other)[-2:]))
    both = " and ".join(f"{each.source!r} ({cases.location / each.index})" for each in (one, other))
    advice = 'Write "data_root_dir": "{DATA_ROOT}" in its args, so that the folders are kept.'
    if one.index == other.index:
        what = f"{one.key!r} and {other.key!r}" if one.key != other.key else f"{one.key!r} twice"
        both = f"{what} of each case, such as {other.source!r}"
        advice = "Give each of them a SaveImaged with an output_postfix of its own."
    elif os.path.dirname(one.source) == os.path.dirname(other.source) or _kept(other.saver):
        advice = "Give the files other names."
    message = f"would write {both} to one file, {name!r}{more}: the first would be lost"
    return Problem(other.saver.location, message, advice, "output")


def _name(output: _Output) -> tuple[Any, ...]:
    """Return what tells the file of an output from others: folder, ending, folders kept, stem."""
    folder, name = os.path.split(output.source)
    name, ending = os.path.splitext(name)
    if ending == ".gz":
        name, _ = os.path.splitext(name)
    root = _kept(output.saver)
    parts = [_argument(output.saver, part, "") for part in ("output_dir", "output_ext")]
    postfix = _argument(output.saver, "output_postfix", "trans")
    named = f"{name}_{postfix}" if postfix else name
    return (*parts, os.path.relpath(folder, root) if root else "", named)


def _kept(saver: ComponentSpec) -> str:
    return str(_argument(saver, "data_root_dir", ""))


def _argument(spec: ComponentSpec, name: str, default: str) -> Any:
    node = spec.args.items.get(name)
    return default if node is None else plain(node)


def _first_file(files: Any) -> str:
    file = files[0] if isinstance(files, Sequence) and not isinstance(files, str) else files
    return file if isinstance(file, str) else ""
