"""A site's data: are its values filled in, and are all files of its list there?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fl_admin.setup.environment import COUNT, ENVIRONMENT, LIST, ROOT
from fl_admin.setup.finding import Finding, fault, ok, warning
from fl_admin.setup.kit import Kit
from fl_client.site_data import unset_variables
from mmar_runtime.config.data_list import FILE_KEYS, TASKS
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import read_site_values
from mmar_runtime.datatools.document import TRAINING, VALIDATION, Item, read_document
from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.site_policy import SitePolicy

MAX_NAMED = 3
FILL_IN = "mmar site setup {kit} --data-root DIR --datalist FILE"


def check_data(kit: Kit, policy: SitePolicy | None) -> Iterator[Finding]:
    """The findings ``environment`` and ``data`` of a site's kit."""
    fill_in = FILL_IN.format(kit=kit.folder)
    try:
        values = read_site_values(kit.local, kit.name)
    except ConfigError as error:
        message = "; ".join(f"{one.location}: {one.message}" for one in error.problems)
        yield fault("environment", message, f"mend local/{ENVIRONMENT}")
        return
    unset = unset_variables(values)
    if unset:
        message = f"{' and '.join(unset)} not filled in; every job is refused until then"
        yield fault("environment", message, fill_in)
        return
    yield _environment(values)
    yield _data(values, policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What was found of the files of one data list."""

    files: int
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]
    outside: tuple[str, ...]


def _environment(values: dict[str, Scalar]) -> Finding:
    count = values.get(COUNT)
    if count is None:
        cores = os.cpu_count()
        message = f"{ROOT} and {LIST} set; {COUNT} is not, so torch takes up to {cores} threads"
        advice = f"--set {COUNT}=N: the same number gives the same bits in every run"
        return warning("environment", message, advice)
    return ok("environment", f"{ROOT} and {LIST} set; {COUNT} {count}")


def _data(values: dict[str, Scalar], policy: SitePolicy | None) -> Finding:
    root, file = str(values[ROOT]), str(values[LIST])
    if not os.path.isdir(root):
        return fault("data", f"{ROOT} leads to no folder: {root!r}", "is its disk mounted?")
    for name, place in ((ROOT, root), (LIST, file)):
        if policy is not None and policy.data_roots and not _is_in(place, policy.data_roots):
            message = f"{name} is outside of the policy's data_roots: {place!r}"
            return fault("data", message, "add its folder to data_roots, or move the data")
    try:
        document = read_document(Path(file))
        lists = {key: document.items(key) for key in document.list_keys}
    except ConfigError as error:
        message = "; ".join(f"{one.location}: {one.message}" for one in error.problems)
        return fault("data", message, f"name the data list: {FILL_IN.format(kit='KIT')}")
    wrong = [problem for _, problems in lists.values() for problem in problems]
    if wrong:
        message = (
            f"{len(wrong)} items of {Path(file).name} are no cases, such as {wrong[0].location}"
        )
        return fault("data", message, f"mmar data check {file} says what is wrong with each")
    items = [item for found, _ in lists.values() for item in found]
    keys = [
        key for key in FILE_KEYS if key != "label" or TASKS.get(values.get("PROCESSING_TASK"), True)
    ]
    roots = (policy.data_roots if policy else ()) or (Path(root), Path(file).parent)
    looked = _look(items, keys, root, roots)
    counts = ", ".join(f"{key} {len(found)}" for key, (found, _) in lists.items())
    return _judged(looked, counts, {key: len(found) for key, (found, _) in lists.items()})


def _judged(looked: _Looked, counts: str, lengths: dict[str, int]) -> Finding:
    for names, what, advice in (
        (looked.missing, "are missing", f"is {ROOT} right? Relative paths are looked up below it"),
        (looked.unreadable, "cannot be read by this user", "give the site's user the right to"),
        (looked.outside, "lie outside of the site's data", "add their folder to data_roots"),
    ):
        if names:
            rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            shown = ", ".join(map(repr, names[:MAX_NAMED]))
            return fault(
                "data", f"{len(names)} of {looked.files} files {what}: {shown}{rest}", advice
            )
    empty = [key for key in (TRAINING, VALIDATION) if not lengths.get(key)]
    if empty:
        message = f"{counts}; the list has no {' and no '.join(empty)}"
        return warning("data", message, "most jobs ask for it; 'mmar data split' makes both")
    return ok("data", f"cases: {counts}; all {looked.files} files there")


def _look(items: list[Item], keys: list[str], root: str, roots: tuple[Path, ...]) -> _Looked:
    """Look for every file once; nothing is opened."""
    named = dict.fromkeys(name for item in items for key in keys for name in item.files(key))
    places = {name: os.path.join(root, name) for name in named}
    missing = tuple(name for name, place in places.items() if not os.path.exists(place))
    there = {name: place for name, place in places.items() if name not in set(missing)}
    return _Looked(
        files=len(named),
        missing=missing,
        unreadable=tuple(name for name, one in there.items() if not os.access(one, os.R_OK)),
        outside=tuple(name for name, one in there.items() if not _is_in(one, roots)),
    )


def _is_in(place: str, roots: tuple[Path, ...]) -> bool:
    real = os.path.realpath(place)
    return any(
        os.path.commonpath([os.path.realpath(one), real]) == os.path.realpath(one) for one in roots
    )
