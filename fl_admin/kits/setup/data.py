"""A site's data: are its values filled in, and are all files of its list there?"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fl_admin.kits.setup.environment import ENVIRONMENT, LIST, ROOT
from fl_admin.kits.setup.finding import Finding, fault, ok, warning
from fl_admin.kits.setup.kit import Kit
from fl_client.site_data import unset_variables
from mmar_runtime.config.file_keys import FILE_KEYS, TASKS
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import THREADS_VARIABLE
from mmar_runtime.config.sources import read_site_values
from mmar_runtime.datatools.document import TRAINING, VALIDATION, Item, read_document
from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.files.paths import Places
from mmar_runtime.policy.site_policy import SitePolicy

MAX_NAMED = 3
FILL_IN = "mmar site setup {kit} --data-root DIR --datalist FILE"


def check_data(kit: Kit, policy: SitePolicy | None) -> Iterator[Finding]:
    """Yield the findings ``environment`` and ``data`` of a site's kit."""
    fill_in = FILL_IN.format(kit=shlex.quote(str(kit.folder)))
    try:
        values = read_site_values(kit.local, kit.name)
    except ConfigError as error:
        message = "; ".join(f"{problem.location}: {problem.message}" for problem in error.problems)
        yield fault("environment", message, f"mend local/{ENVIRONMENT}")
        return
    unset = unset_variables(values)
    if unset:
        message = f"{' and '.join(unset)} not filled in; every job is refused until then"
        yield fault("environment", message, fill_in)
        return
    paths = f"{ROOT} and {LIST} set"
    if (count := values.get(THREADS_VARIABLE)) is None:
        cores = os.cpu_count()
        message = f"{paths}; {THREADS_VARIABLE} is not, so torch takes up to {cores} threads"
        advice = f"--set {THREADS_VARIABLE}=N: the same number gives the same bits in every run"
        yield warning("environment", message, advice)
    else:
        yield ok("environment", f"{paths}; {THREADS_VARIABLE} {count}")
    yield _data(values, policy)


def _data(values: dict[str, Scalar], policy: SitePolicy | None) -> Finding:
    root, file = str(values[ROOT]), Path(str(values[LIST]))
    allowed = policy.data_roots if policy is not None else ()
    if not os.path.isdir(root):
        return fault("data", f"{ROOT} leads to no folder: {root!r}", "is its disk mounted?")
    for name in (ROOT, LIST) if allowed else ():
        real = Path(os.path.realpath(str(values[name])))
        if not any(real.is_relative_to(os.path.realpath(top)) for top in allowed):
            message = f"{name} is outside of the policy's data_roots: {values[name]!r}"
            return fault("data", message, "add its folder to data_roots, or move the data")
    try:
        document = read_document(file)
        lists = {key: document.items(key) for key in document.list_keys}
    except ConfigError as error:
        message = "; ".join(f"{problem.location}: {problem.message}" for problem in error.problems)
        return fault("data", message, f"name the data list: {FILL_IN.format(kit='KIT')}")
    wrong = [problem for _, problems in lists.values() for problem in problems]
    if wrong:
        message = f"{len(wrong)} items of {file.name} are not cases, such as {wrong[0].location}"
        return fault("data", message, f"mmar data check {file} says what is wrong with each")
    cases = {key: items for key, (items, _) in lists.items()}
    labels_are_files = TASKS.get(values.get("PROCESSING_TASK"), True)
    keys = [key for key in FILE_KEYS if key != "label" or labels_are_files]
    return _judged(cases, keys, root, allowed or (Path(root),))


def _judged(
    cases: Mapping[str, Sequence[Item]], keys: list[str], root: str, roots: tuple[Path, ...]
) -> Finding:
    """Look for every file once; of most formats, none is opened."""
    items = (item for part in cases.values() for item in part)
    named = dict.fromkeys(name for item in items for key in keys for name in item.files(key))
    places = {name: os.path.join(root, name) for name in named}
    readable = Places(root=os.devnull, data=tuple(map(os.path.realpath, roots)))  # no job is here
    there = {name: place for name, place in places.items() if os.path.exists(place)}
    missing = [name for name in named if name not in there]
    unreadable = [name for name, path in there.items() if not os.access(path, os.R_OK)]
    refused = [name for name, path in there.items() if readable.fault(path, "read:image")]
    convert = "add their folder to data_roots, or convert them to NIfTI"
    for names, what, advice in (
        (missing, "are missing", f"is {ROOT} right? Relative paths are looked up below it"),
        (unreadable, "cannot be read by this user", "give the site's user the right to"),
        (refused, "may not be read by a job", convert),
    ):
        if names:
            rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            shown = ", ".join(map(repr, names[:MAX_NAMED])) + rest
            return fault("data", f"{len(names)} of {len(named)} files {what}: {shown}", advice)
    counts = ", ".join(f"{key} {len(items)}" for key, items in cases.items())
    empty = [key for key in (TRAINING, VALIDATION) if not cases.get(key)]
    if empty:
        message = f"{counts}; the list has no {' and no '.join(empty)}"
        return warning("data", message, "most jobs ask for it; 'mmar data split' makes both")
    return ok("data", f"cases: {counts}; all {len(named)} files there")
