"""A site's own values in its kit: ``local/environment.json``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fl_admin.kits.setup.kit import OWNERS, PLACE, Kit
from fl_client.site import PROCESSES_VARIABLE
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import THREADS_VARIABLE
from mmar_runtime.config.sources import read_json, read_site_values
from mmar_runtime.datatools.document import read_document
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.files import write_json
from mmar_runtime.policy.files.paths import text_fault

ENVIRONMENT = "environment.json"
ROOT, LIST = "DATA_ROOT", "DATASET_JSON"
OWN_ARGUMENTS = {ROOT: "--data-root", LIST: "--datalist"}
COUNTS = (THREADS_VARIABLE, PROCESSES_VARIABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What to write into a site's environment; what is not named stays as it is.

    Attributes:
        data_root: the folder of the data.
        data_list: the data list.
        values: further variables, None to take one out.
    """

    data_root: Path | None = None
    data_list: Path | None = None
    values: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether there is something to write."""
        return bool(self.values) or self.data_root is not None or self.data_list is not None


def fill_in(kit: Kit, wishes: Wishes) -> dict[str, Any]:
    """Write a site's values; returns what stood there before, for each that has changed.

    Raises:
        ConfigError: with every fault of what was asked; nothing is written then.
    """
    if kit.kind != "site":
        message = f"is the kit of {OWNERS[kit.kind]}, {kit.name}; only a site's kit has data"
        raise ConfigError([Problem(PLACE, message, "Name the folder of a site's kit.", "kit")])
    path = kit.local / ENVIRONMENT
    before: Any = read_json(path) if os.path.lexists(path) else {}
    read_site_values(kit.local, kit.name)  # a broken file is reported, and not overwritten
    problems = [*_variable_faults(wishes.values)]
    values = dict(wishes.values)
    for name, place in ((ROOT, wishes.data_root), (LIST, wishes.data_list)):
        if place is not None:
            values[name] = os.path.abspath(place.expanduser())
    for name in (ROOT, LIST):
        if isinstance(values.get(name), str) and (wrong := _place_fault(name, str(values[name]))):
            problems.append(Problem(Location(OWN_ARGUMENTS[name]), wrong, "", "data"))
    if problems:
        raise ConfigError(problems)
    changed = {name: before.get(name) for name in values if before.get(name) != values[name]}
    if changed:
        write_json(path, {**before, **values}, private=True)
    return changed


def _variable_faults(values: Mapping[str, Scalar]) -> Iterator[Problem]:
    place = Location("--set")
    for name, argument in OWN_ARGUMENTS.items():
        if name in values:
            message = f"{name} is set by {argument}, which looks whether it is there"
            yield Problem(place / name, message, "", "override")
    if "MMAR_ROOT" in values:
        message = "MMAR_ROOT is where a job lies, which no site chooses"
        yield Problem(place / "MMAR_ROOT", message, "", "override")
    for name in COUNTS:
        count = values.get(name, 1)
        if type(count) is not int or count < 1:
            message = f"has to be a whole number from 1, found {count!r}"
            yield Problem(place / name, message, "", "override")


def _place_fault(name: str, text: str) -> str:
    if unfit := text_fault(text):
        return f"{text!r} {unfit}"
    if name == ROOT:
        return "" if os.path.isdir(text) else f"there is no folder {text!r}"
    try:
        document = read_document(Path(text))
        cases = any(document.items(key)[0] for key in document.list_keys)
    except ConfigError as error:
        return "; ".join(problem.message for problem in error.problems)
    return "" if cases else f"{text!r} holds no case: an object with 'image'"
