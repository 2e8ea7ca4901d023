"""Decathlon-style data lists: which images and labels a data set is made of."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmar_runtime.config.file_keys import FILE_KEYS, TASKS, file_keys
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import DataListSource
from mmar_runtime.config.sections import Section, WorkflowConfig
from mmar_runtime.config.sources import read_json
from mmar_runtime.config.tables import LIST_COLUMN, WHOLE, read_table
from mmar_runtime.errors import ConfigError, Problem, did_you_mean
from mmar_runtime.names import is_name

MAX_LISTED_FILES = 5
UNICODE_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


@dataclass(frozen=True, slots=True)
class DataList:
    """The items of a list, with their files as absolute paths.

    Attributes:
        file: the document that holds the list.
        key: the list's key in it.
        items: a mapping for each case: ``image``, usually ``label``, and any other entry.
    """

    file: Path
    key: str
    items: tuple[dict[str, Any], ...]

    @property
    def location(self) -> Location:
        """The place of the list."""
        return Location(self.file.name) / self.key


def read_data_list(source: DataListSource, *, file_keys: Collection[str] = FILE_KEYS) -> DataList:
    """Return the data list that a data set asks for.

    An item may be a mapping or, as in a list of test images, just the image's path. An item without
    an ``image`` has its images under other keys that files are read from. Relative paths are below
    the source's base folder. Entries other than files pass through.

    Args:
        source: file, base folder and key of the list.
        file_keys: the entries of an item whose texts are paths.

    Raises:
        ConfigError: no such file or list, an empty list, an item without image, a missing file.
    """
    file, base = Path(source.file), Path(source.base)
    if absent := list(_absent(source)):
        raise ConfigError(absent)
    raw = raw_items(file, source)
    location = Location(file.name) / source.key
    images = ["image", *sorted({*file_keys} - {"image", "label", "mask"})]
    items, problems = [], []
    for index, item in enumerate(raw):
        case = {"image": item} if isinstance(item, str) else item
        if not isinstance(case, dict) or not any(_names_files(case.get(key)) for key in images):
            message = f"has to be an object whose {images[0]!r} is a path, or the path of an image"
            advice = f"Keys of images here: {', '.join(images)}." if len(images) > 1 else ""
            problems.append(Problem(location / index, message, advice, "data-list"))
            continue
        absolute, missing = _with_absolute_files(case, base, file_keys, location / index)
        items.append(absolute)
        problems += missing
    if (rest := len(problems) - MAX_LISTED_FILES) > 0:  # a wrong folder misses all files
        advice = f"Is DATA_ROOT right? Paths are looked up below {str(base)!r}."
        more = Problem(Location(file.name), f"... and {rest} more", advice, "data")
        problems = [*problems[:MAX_LISTED_FILES], more]
    if problems:
        raise ConfigError(problems)
    if "label" not in file_keys and any(isinstance(item.get("label"), str) for item in items):
        numbers = label_numbers(file)
        for item in items:
            item["label"] = numbers.get(str(item.get("label")), item.get("label"))
    return DataList(file=file, key=source.key, items=tuple(items))


def label_numbers(file: Path) -> dict[str, int]:
    """Return the name of each label and its number, from 'labels' of a data list.

    The Decathlon writes ``{"1": "spleen"}``, nnU-Net ``{"spleen": 1}``; both are understood.
    """
    document = {} if file.suffix.lower() == ".csv" else read_json(file)
    labels = document.get("labels")
    numbers: dict[str, int] = {}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if isinstance(value, str) and key.isdecimal():
            numbers[value] = int(key)
        elif type(value) is int:  # a truth value is an int to Python, but not here
            numbers[key] = value
    return numbers


def _absent(source: DataListSource) -> Iterator[Problem]:
    if not os.path.isfile(source.file):  # not Path's, which raises where a name is too long
        message = f"there is no data list {source.file!r}"
        advice = "Set DATASET_JSON in environment.json or with --set DATASET_JSON=..."
        yield Problem(source.location / "data_list_file_path", message, advice, "data-list")
    if not os.path.isdir(Path(source.base)):
        message = f"there is no data folder {source.base!r}"
        advice = "Set DATA_ROOT in environment.json or with --set DATA_ROOT=..."
        yield Problem(source.location / "data_file_base_dir", message, advice, "data")


def _names_files(value: Any) -> bool:
    """Return whether a value is a path, or several of them."""
    paths = value if isinstance(value, list) else [value]
    return bool(paths) and all(isinstance(path, str) and path for path in paths)


def raw_items(file: Path, source: DataListSource) -> list[Any]:
    """Return the items of a list as its file has them.

    Raises:
        ConfigError: no such file or list, or an empty one.
    """
    location = Location(file.name)
    table = file.suffix.lower() == ".csv"
    document = read_table(file) if table else read_json(file)
    if not isinstance(document, dict):
        raise ConfigError([Problem(location, "has to be a JSON object", "", "data-list")])
    if source.key not in document:
        lists = [key for key, value in document.items() if isinstance(value, list)]
        message = f"holds no list {source.key!r}, which {source.location} asks for"
        advice = did_you_mean(source.key, lists)
        if table:
            advice = (
                f"A column {LIST_COLUMN!r} says which list a row belongs to; {WHOLE!r} has all."
            )
        raise ConfigError([Problem(location, message, advice, "data-list")])
    items = document[source.key]
    if not isinstance(items, list) or not items:
        message = "has to be an array with at least one item"
        validates = str(source.location.place).startswith("validate")
        advice = "To train without validation, disable the ValidationHandler." if validates else ""
        raise ConfigError([Problem(location / source.key, message, advice, "data-list")])
    return items


def _with_absolute_files(
    item: dict[str, Any], base: Path, keys: Collection[str], location: Location
) -> tuple[dict[str, Any], list[Problem]]:
    """Return an item with absolute paths, and a problem for each file that is not there."""
    absolute, missing = dict(item), []
    for key in keys:
        value = item.get(key)
        if isinstance(value, str):
            absolute[key] = str(base / value)
        elif isinstance(value, list) and _names_files(value):
            absolute[key] = [str(base / part) for part in value]
        given = absolute.get(key)
        for file in given if isinstance(given, list) else [given]:
            # Not Path.exists, which raises where a name is too long for any file.
            if isinstance(file, str) and not os.path.exists(file):
                missing.append(missing_file(file, location / key))
    return absolute, missing


def missing_file(file: str, location: Location) -> Problem:
    """Return the problem of a file that is not there; explain a name in another Unicode form."""
    form = next((form for form in UNICODE_FORMS if _exists_as(file, form)), None)
    message = f"there is no file {file!r}"
    if form is None:
        stem, ending = os.path.splitext(file.removesuffix(".gz"))
        channel = f"{stem}_0000{ending}{'.gz' if file.endswith('.gz') else ''}"
        advice = f"Its channels are files: name them all in an array, [{channel!r}, ...]."
        return Problem(
            location, message, advice if os.path.exists(channel) else "", "missing-image"
        )
    message += f", but its name in another Unicode form ({form}) is there"
    advice = (
        "The two names look the same: a letter with an accent is one character or two. Rename the "
        "file, or write the list on the machine that has the files."
    )
    return Problem(location, message, advice, "missing-image")


def _exists_as(file: str, form: Literal["NFC", "NFD"]) -> bool:
    normal = unicodedata.normalize(form, file)
    # The folders above may have either form too.
    return normal != file and (
        os.path.exists(normal)
        or os.path.exists(os.path.join(os.path.dirname(file), os.path.basename(normal)))
    )


def data_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield the loader's check that every list and every file of a config is there."""
    task = config.variables.get("PROCESSING_TASK")
    if task is not None and task.value not in TASKS:
        tasks = [name for name in TASKS if isinstance(name, str) and name]
        message = f"decides whether labels are files or values; {task.value!r} is not a known task"
        advice = did_you_mean(str(task.value), tasks)
        yield Problem(task.source / "PROCESSING_TASK", message, advice, "task")
        return
    for source in data_sources(config):
        try:
            read_data_list(source, file_keys=file_keys(config))
        except ConfigError as error:
            yield from error.problems


def data_sources(config: WorkflowConfig) -> tuple[DataListSource, ...]:
    """Return the lists that a config reads, each once."""
    specs = (
        spec
        for section in config.scopes.values()
        for name in section.entries
        for spec in section.specs(name)
    )
    sources = {
        (source.file, source.base, source.key): source
        for source in (spec.data_list for spec in specs)
        if source
    }
    return tuple(sources.values())


def lists_of_cases(config: WorkflowConfig) -> Iterator[tuple[Section, DataList]]:
    """Yield the readable data lists with their sections; ``data_check`` reports all others."""
    keys = file_keys(config)
    for section in config.scopes.values():
        for source in (spec.data_list for spec in section.specs("dataset")):
            try:
                cases = None if source is None else read_data_list(source, file_keys=keys)
            except ConfigError:
                continue
            if cases is not None:
                yield section, cases


def label_names(config: WorkflowConfig) -> Mapping[int, str]:
    """Return the names of the labels' values, as a config's first data list has them.

    Decathlon lists write ``{"1": "spleen"}``, nnU-Net's ``{"spleen": 1}``, others a list of names.
    A value without a plain name of its own has none here.
    """
    for source in data_sources(config):
        try:
            document = read_json(Path(source.file))
        except ConfigError:
            continue
        labels = document.get("labels") if isinstance(document, dict) else None
        names = dict(_named_values(labels))
        return {value: name for value, name in names.items() if _is_unique(name, names.values())}
    return {}


def _named_values(labels: Any) -> Iterator[tuple[int, str]]:
    pairs = labels.items() if isinstance(labels, dict) else ()
    for key, value in enumerate(labels) if isinstance(labels, list) else pairs:
        number, name = (value, key) if isinstance(value, int) else (key, value)
        if is_name(name) and (isinstance(number, int) or str(number).isdecimal()):
            yield int(number), name


def _is_unique(name: str, names: Collection[str]) -> bool:
    return list(names).count(name) == 1


def listed_keys(source: DataListSource) -> frozenset[str] | None:
    """Return the entries that the items of a list have; None if the list cannot be read here."""
    try:
        raw = raw_items(Path(source.file), source)
    except ConfigError:
        return None
    return frozenset(
        key for item in raw for key in (item if isinstance(item, dict) else ("image",))
    )
