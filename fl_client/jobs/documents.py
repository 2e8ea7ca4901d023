"""A job's two NVFlare documents: exact keys, each class in its place, one course of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_client.jobs.classes import (
    ALLOWED_CLASSES,
    CLASSES,
    OWN_AGGREGATOR,
    VARIABLES,
    Document,
    Slot,
)
from fl_client.jobs.encryption import encryption_faults
from fl_client.jobs.files import job_problem
from fl_client.jobs.forms import Form, number, unknown_key, unknown_keys, word
from fl_client.jobs.transfer import transfer_faults
from fl_client.privacy.filter_plan import chain_faults
from fl_client.privacy.settings import SETTINGS, filter_settings
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import SCALARS
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.job_documents import (
    CLIENT_CONFIG,
    EVERY_TASK,
    FEDERATION,
    OWN_VALUE,
    SERVER_CONFIG,
    JobDocuments,
    own_value,
)
from mmar_runtime.exchange.messages import TASKS
from mmar_runtime.names import NAME_FORM, is_name
from mmar_runtime.policy.custom_check import own_class_fault, own_module, undefined_fault
from mmar_runtime.policy.document_check import DocumentLimits, read_document
from mmar_runtime.policy.site_policy import SitePolicy

JOB_JSON = DocumentLimits(size=256 * 1024, values=5_000, depth=32, text=4096)
CLASS_KEYS = ("path", "name", "class_path", "ref", "_target_")
"""Keys by which one library or another takes an object for a component."""

FILES: Mapping[Document, str] = {"server": SERVER_CONFIG, "client": CLIENT_CONFIG}
SECTIONS: Mapping[Document, Mapping[str, Slot]] = {
    "server": {"components": "component", "workflows": "workflow"},
    "client": {"components": "component"},
}
"""The sections of a document that list classes, and the place that each is."""

CHAINS: Mapping[str, Slot] = {
    "task_data_filters": "task_data_filter",
    "task_result_filters": "task_result_filter",
}
SERVER_SETTINGS = {
    "task_request_interval": number(0.001, 60),
    "heart_beat_timeout": number(1, 86_400),
}
FORMAT_VERSION = word(2)
ONE_WORKFLOW = (
    f"A job has one workflow, {FEDERATION}; 'mmar job create' writes a job of an MMAR, and "
    "'mmar job import' makes one of an older job."
)
MAX_ENTRIES = 50
"""Components, workflows, chains or filters in one list."""


def document_faults(root: Path, policy: SitePolicy) -> Iterator[Problem]:
    """What NVFlare is asked for, in the two documents of an app.

    Args:
        root: the folder of the app.
        policy: of the site.
    """
    documents: dict[Document, Any] = {}
    places: set[Location] = set()
    for kind, name in FILES.items():
        try:
            document = read_document(root / "config" / name, JOB_JSON)
        except ConfigError as error:
            yield from error.problems
            continue
        if not isinstance(document, dict):
            yield job_problem(name, "has to be a JSON object", "job-file")
            continue
        place = Location(name)
        yield from substitution_faults(document, place, own=_own_values(document))
        yield from _class_faults(document, place, root / "custom", policy)
        yield from _limit_faults(document, place, policy)
        faults = [*_Reading(kind, document).faults()]
        places |= {fault.location for fault in faults}
        yield from faults
        documents[kind] = document
    if len(documents) == 2:
        try:
            job = JobDocuments.of(documents["server"], documents["client"])
        except ConfigError as error:
            yield from (fault for fault in error.problems if fault.location not in places)
            return
        yield from chain_faults(job)
        yield from encryption_faults(job)
        yield from transfer_faults(job)


# --- What holds at any depth ---------------------------------------------------------------------


def _class_faults(
    value: Any, location: Location, custom: Path, policy: SitePolicy
) -> Iterator[Problem]:
    """Every class that is not on the list, however deep it is nested."""
    for item, place in _all_values(value, location):
        for key in CLASS_KEYS if isinstance(item, dict) else ():
            if key in item and not (key == "path" and item[key] in ALLOWED_CLASSES):
                yield from _unlisted(key, item[key], place / key, custom, policy)


def _unlisted(
    key: str, named: Any, place: Location, custom: Path, policy: SitePolicy
) -> Iterator[Problem]:
    """A class that is none of ours: one of the job's own code, where the site allows that."""
    if key == "path" and isinstance(named, str) and own_module(named, custom) is not None:
        fault = own_class_fault(named, custom) or undefined_fault(named, custom)
        if policy.byoc.mode == "off":
            advice = "The site can allow code by its hash, or without one; see byoc."
            message = f"{named!r} is code that this site has not allowed"
            yield Problem(place, message, advice, "code")
        elif fault:
            yield Problem(place, f"{named!r} {fault}", "", "code")
        return
    yield Problem(
        place,
        f"{named!r} is not among the classes that a site allows",
        ONE_WORKFLOW if place.file == SERVER_CONFIG else 'Name the classes of mmar-fl by "path".',
        "allow-list",
    )


def _own_values(document: Mapping[str, Any]) -> frozenset[str]:
    """The plain values that a document has at its top level; other entries may use them."""
    return frozenset(name for name, value in document.items() if isinstance(value, SCALARS))


def substitution_faults(value: Any, location: Location, own: Collection[str]) -> Iterator[Problem]:
    """Refuse every brace but those around one of the document's own values.

    NVFlare would fill in the site's environment, its folders and addresses, and hands the rest to
    ``str.format``, which walks attributes and makes a text as long as it is asked for.
    """
    for item, place in _all_values(value, location):
        texts = item if isinstance(item, dict) else [item]
        if any(_asks_for_more(one, own) for one in texts if isinstance(one, str)):
            message = "asks for a value that a job may not have"
            advice = "Write the value itself, or {name} of one at the top of this document."
            yield Problem(place, message, advice, "job-file")


def _asks_for_more(text: str, own: Collection[str]) -> bool:
    exact = OWN_VALUE.fullmatch(text)
    return "{" in text and not (exact and exact[1] in own)


def _limit_faults(
    document: Mapping[str, Any], location: Location, policy: SitePolicy
) -> Iterator[Problem]:
    limits = {"num_rounds": policy.limits.rounds, "local_epochs": policy.limits.epochs_per_round}
    for item, place in _all_values(document, location):
        for key, most in limits.items() if isinstance(item, dict) else ():
            value = item.get(key, 1)
            filled = own_value(value, document)
            if type(filled) is not int or not 1 <= filled <= most:
                message = f"has to be a whole number from 1 to {most}, found {value!r}"
                yield Problem(place / key, message, "", "limit")


def _all_values(value: Any, location: Location) -> Iterator[tuple[Any, Location]]:
    yield value, location
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _all_values(item, location / key)


# --- What stands where ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reading:
    """One of the two documents, read key by key.

    Attributes:
        kind: which document.
        document: its content.
    """

    kind: Document
    document: Mapping[str, Any]

    @property
    def place(self) -> Location:
        return Location(FILES[self.kind])

    def faults(self) -> Iterator[Problem]:
        """Everything that has no place in the document."""
        sections = SECTIONS[self.kind]
        own = ("server",) if self.kind == "server" else ("executors",)
        known = ("format_version", *own, *sections, *CHAINS, *VARIABLES[self.kind])
        used = self._variables_in_use()
        for key, value in self.document.items():
            if key not in known and key not in used:
                yield unknown_key(self.place / key, key, known)
            elif key in VARIABLES[self.kind] and not VARIABLES[self.kind][key].fits(value):
                text = VARIABLES[self.kind][key].text
                yield Problem(self.place / key, f"has to be {text}", "", "limit")
        if not FORMAT_VERSION.fits(self.document.get("format_version")):
            yield Problem(self.place / "format_version", "has to be 2", "", "job-file")
        for section in (*sections, *CHAINS, "executors"):
            yield from _list_faults(self.document.get(section, []), self.place / section)
        for section, slot in sections.items():
            for entry, place in _listed(self.document, section, self.place):
                yield from self._entry(entry, place, slot)
        for section, slot in CHAINS.items():
            yield from self._chains(section, slot)
        yield from self._server() if self.kind == "server" else self._executors()
        yield from self._repeated()

    def _variables_in_use(self) -> frozenset[str]:
        """Further values at the top that an argument of one of our classes is filled with."""
        arguments = {
            name for one in CLASSES.values() if one.document == self.kind for name in one.arguments
        }
        texts = {item for item, _ in _all_values(self.document, self.place) if type(item) is str}
        return frozenset(
            name for name in _own_values(self.document) & arguments if f"{{{name}}}" in texts
        )

    def _server(self) -> Iterator[Problem]:
        settings = self.document.get("server", {})
        place = self.place / "server"
        if not isinstance(settings, dict):
            yield Problem(place, "has to be an object", "", "job-file")
            return
        yield from _form_faults(settings, SERVER_SETTINGS, place, "job-file")
        if not self.document.get("workflows"):
            message = "names no workflow"
            yield Problem(self.place / "workflows", message, ONE_WORKFLOW, "job-file")

    def _executors(self) -> Iterator[Problem]:
        if not self.document.get("executors"):
            yield Problem(self.place / "executors", "names no executor", "", "job-file")
        for entry, place in _listed(self.document, "executors", self.place):
            if not isinstance(entry, dict):
                yield Problem(place, "has to be an object of tasks and executor", "", "job-file")
                continue
            yield from unknown_keys(entry, ("tasks", "executor"), place)
            yield from _task_faults(entry.get("tasks"), place / "tasks")
            yield from self._entry(entry.get("executor"), place / "executor", "executor")

    def _chains(self, section: str, slot: Slot) -> Iterator[Problem]:
        for chain, place in _listed(self.document, section, self.place):
            if not isinstance(chain, dict):
                yield Problem(place, "has to be an object of tasks and filters", "", "job-file")
                continue
            yield from unknown_keys(chain, ("tasks", "filters"), place)
            yield from _list_faults(chain.get("filters"), place / "filters")
            for entry, inner in _listed(chain, "filters", place):
                yield from self._entry(entry, inner, slot)

    def _entry(self, entry: Any, place: Location, slot: Slot) -> Iterator[Problem]:
        """One class with its arguments; those of an own class are its own affair."""
        keys = ("path", "args") if slot in CHAINS.values() else ("id", "path", "args")
        if not isinstance(entry, dict):
            yield Problem(place, f"has to be an object of {', '.join(keys)}", "", "job-file")
            return
        yield from unknown_keys(entry, keys, place)
        if "id" in entry and not is_name(entry["id"]):
            yield Problem(place / "id", f"has to be {NAME_FORM}", "", "job-file")
        if slot == "component" and "id" not in entry:
            yield Problem(place, "has no id", "", "job-file")
        path, arguments = entry.get("path"), entry.get("args", {})
        if not isinstance(path, str):
            yield Problem(place, "names no class by 'path'", "", "allow-list")
        if not isinstance(arguments, dict):
            yield Problem(place / "args", "has to be an object", "", "argument")
        elif isinstance(path, str) and path in CLASSES:
            one = CLASSES[path]
            if (one.document, one.slot) != (self.kind, slot):
                message = f"{path!r} stands in another place: {FILES[one.document]}, {one.slot}"
                yield Problem(place / "path", message, "", "allow-list")
            else:
                yield from self._arguments(path, arguments, place / "args")
        else:
            yield from self._lent(arguments, place / "args")

    def _arguments(
        self, path: str, arguments: Mapping[str, Any], place: Location
    ) -> Iterator[Problem]:
        filled = {key: own_value(value, self.document) for key, value in arguments.items()}
        if path in SETTINGS:
            try:
                filter_settings(path, filled, place)
            except ConfigError as error:
                yield from error.problems
            return
        if path == FEDERATION and filled.get(OWN_AGGREGATOR) is not None:
            yield from self._own_aggregator(filled.pop(OWN_AGGREGATOR), place / OWN_AGGREGATOR)
        one = CLASSES[path]
        yield from _form_faults(filled, one.arguments, place)
        for key in one.required:
            if key not in arguments:
                yield Problem(place / key, "is missing", "", "argument")

    def _own_aggregator(self, entry: Any, place: Location) -> Iterator[Problem]:
        """A class of the job's own code, in the place of the mean."""
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            yield Problem(place, "has to be an object of path, args", "", "argument")
            return
        yield from unknown_keys(entry, ("path", "args"), place)
        if entry["path"] in CLASSES:
            message = f"{entry['path']!r} is not a class of the job's own code"
            yield Problem(place / "path", message, "", "allow-list")
        yield from self._lent(entry.get("args"), place / "args")

    def _lent(self, arguments: Any, place: Location) -> Iterator[Problem]:
        """Refuse classes of the table among arguments of an own class, which no form judges."""
        for item, inner in _all_values(arguments, place):
            if isinstance(item, dict) and item.get("path") in ALLOWED_CLASSES:
                message = "stands in the arguments of a class of the job's own code"
                yield Problem(inner / "path", message, "", "allow-list")

    def _entries(self) -> Iterator[tuple[dict[str, Any], Location]]:
        """All components, workflows and executors."""
        for section in SECTIONS[self.kind]:
            yield from _objects(self.document, section, self.place)
        for one, place in _objects(self.document, "executors", self.place):
            if isinstance(one.get("executor"), dict):
                yield one["executor"], place / "executor"

    def _repeated(self) -> Iterator[Problem]:
        """Ids, classes of the table, and tasks that a document names twice."""
        entries = [*self._entries()]
        for key in ("id", "path"):
            values = Counter(str(one[key]) for one, _ in entries if key in one)
            for entry, place in entries:
                value = str(entry.get(key))
                if values[value] > 1 and (key == "id" or value in CLASSES):
                    message = f"{value!r} is named twice"
                    yield Problem(place / key, message, "A job has each once.", "course")
        found = [one.get("tasks") for one, _ in _objects(self.document, "executors", self.place)]
        tasks = Counter(str(task) for one in found if isinstance(one, list) for task in one)
        if any(count > 1 for count in tasks.values()) or (EVERY_TASK in tasks and len(tasks) > 1):
            yield Problem(self.place / "executors", "name a task twice", "", "course")


def _listed(
    holder: Mapping[str, Any], key: str, location: Location
) -> Iterator[tuple[Any, Location]]:
    """The entries of a list and their places."""
    found = holder.get(key)
    for index, one in enumerate(found if isinstance(found, list) else ()):
        yield one, location / key / index


def _objects(
    holder: Mapping[str, Any], key: str, location: Location
) -> Iterator[tuple[dict[str, Any], Location]]:
    """Those entries of a list that are objects."""
    return ((one, place) for one, place in _listed(holder, key, location) if isinstance(one, dict))


def _list_faults(found: Any, place: Location) -> Iterator[Problem]:
    if not isinstance(found, list) or len(found) > MAX_ENTRIES:
        yield Problem(place, f"has to be an array of at most {MAX_ENTRIES}", "", "job-file")


def _form_faults(
    values: Mapping[str, Any], forms: Mapping[str, Form], place: Location, rule: str = "argument"
) -> Iterator[Problem]:
    """Keys that are not there, and values of another form."""
    for key, value in values.items():
        if key not in forms:
            yield unknown_key(place / key, key, forms, rule)
        elif not forms[key].fits(value):
            yield Problem(place / key, f"has to be {forms[key].text}", "", rule)


def _task_faults(tasks: Any, place: Location) -> Iterator[Problem]:
    known = (*TASKS, EVERY_TASK)
    if not isinstance(tasks, list) or not tasks or any(one not in known for one in tasks):
        message = f"has to list tasks of a site: {', '.join(known)}"
        yield Problem(place, message, "", "job-file")
