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
    JobClass,
    Slot,
)
from fl_client.jobs.encryption import encryption_faults
from fl_client.jobs.files import job_problem
from fl_client.jobs.forms import Form, number, unknown_key, unknown_keys, word
from fl_client.jobs.rounding import rounding_faults
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
)
from mmar_runtime.exchange.messages import TASKS
from mmar_runtime.exchange.weighing import factor_problems
from mmar_runtime.names import NAME_FORM, is_name
from mmar_runtime.policy.custom_check import own_class_fault, own_module, undefined_fault
from mmar_runtime.policy.document_check import DocumentLimits, read_document
from mmar_runtime.policy.site_policy import Limits, SitePolicy

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
FACTORS_KEY = "aggregation_weights"
ONE_WORKFLOW = (
    f"A job has one workflow, {FEDERATION}; 'mmar job create' writes a job of an MMAR, and "
    "'mmar job import' makes one of an older job."
)


def document_faults(root: Path, policy: SitePolicy) -> Iterator[Problem]:
    """Yield what NVFlare is asked for, in the two documents of an app.

    Args:
        root: the folder of the app.
        policy: of the site.
    """
    documents: dict[Document, Any] = {}
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
        documents[kind] = document
    try:
        job = JobDocuments.of(documents.get("server", {}), documents.get("client", {}))
    except ConfigError as error:
        yield from error.problems
        return
    filled: Mapping[Document, Mapping[str, Any]] = {"server": job.server, "client": job.client}
    for kind, document in documents.items():
        yield from _Reading(kind, filled[kind], _names_in_use(document)).faults(policy)
    if len(documents) == 2:
        yield from chain_faults(job)
        yield from encryption_faults(job)
        yield from rounding_faults(job)


# --- What holds at any depth ---------------------------------------------------------------------


def _class_faults(
    value: Any, location: Location, custom: Path, policy: SitePolicy
) -> Iterator[Problem]:
    """Yield every class that is not on the list, however deep it is nested."""
    for item, place in _all_values(value, location):
        for key in CLASS_KEYS if isinstance(item, dict) else ():
            if key in item and not (key == "path" and item[key] in ALLOWED_CLASSES):
                yield from _unlisted(key, item[key], place / key, custom, policy)


def _unlisted(
    key: str, named: Any, place: Location, custom: Path, policy: SitePolicy
) -> Iterator[Problem]:
    """Yield a class that is none of ours: one of the job's own code, where the site allows that."""
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
    """Return the names of a document's plain values at the top; other entries may use them."""
    return frozenset(name for name, value in document.items() if isinstance(value, SCALARS))


def _names_in_use(document: Mapping[str, Any]) -> frozenset[str]:
    """Return those of the names that an entry uses."""
    texts = {item for item, _ in _all_values(document, Location("")) if type(item) is str}
    return frozenset(name for name in _own_values(document) if f"{{{name}}}" in texts)


def substitution_faults(value: Any, location: Location, own: Collection[str]) -> Iterator[Problem]:
    """Refuse every brace but those around one of the document's own values.

    NVFlare would fill in the site's environment, its folders and addresses, and hands the rest to
    ``str.format``, which walks attributes and makes a text as long as it is asked for.
    """
    for item, place in _all_values(value, location):
        texts = item if isinstance(item, dict) else [item]
        braced = [text for text in texts if isinstance(text, str) and "{" in text]
        named = [OWN_VALUE.fullmatch(text) for text in braced]
        if not all(name and name[1] in own for name in named):
            message = "asks for a value that a job may not have"
            advice = "Write the value itself, or {name} of one at the top of this document."
            yield Problem(place, message, advice, "job-file")


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
        document: its content, built as NVFlare builds it, with ``{name}`` filled in.
        used: names of its own values that its entries use.
    """

    kind: Document
    document: Mapping[str, Any]
    used: frozenset[str]

    @property
    def place(self) -> Location:
        return Location(FILES[self.kind])

    def faults(self, policy: SitePolicy) -> Iterator[Problem]:
        """Yield everything that has no place in the document, or is past a limit of the site."""
        yield from self._limits(policy.limits)
        yield from self._keys()
        for entry, place, slot in self._entries():
            yield from self._entry(entry, place, slot)
        for section in CHAINS:
            for filters, place in _listed(self.document, section, self.place):
                yield from unknown_keys(filters, ("tasks", "filters"), place)
        yield from self._server() if self.kind == "server" else self._executors()
        yield from self._repeated()

    def _limits(self, site: Limits) -> Iterator[Problem]:
        limits = {"num_rounds": site.rounds, "local_epochs": site.epochs_per_round}
        for item, place in _all_values(self.document, self.place):
            for key, most in limits.items() if isinstance(item, dict) else ():
                value = item.get(key, 1)
                if type(value) is not int or not 1 <= value <= most:
                    message = f"has to be a whole number from 1 to {most}, found {value!r}"
                    yield Problem(place / key, message, "", "limit")

    def _keys(self) -> Iterator[Problem]:
        variables = VARIABLES[self.kind]
        own = "server" if self.kind == "server" else "executors"
        known = ("format_version", own, *SECTIONS[self.kind], *CHAINS, *variables)
        used = self.used & {
            argument
            for job_class in CLASSES.values()
            if job_class.document == self.kind
            for argument in job_class.arguments
        }
        for key, value in self.document.items():
            if key not in known and key not in used:
                yield unknown_key(self.place / key, key, known)
            elif key in variables and not variables[key].fits(value):
                yield Problem(self.place / key, f"has to be {variables[key].text}", "", "limit")
        version = self.document.get("format_version")
        if not FORMAT_VERSION.fits(version):
            message = f"has to be 2, found {version!r}"
            yield Problem(self.place / "format_version", message, "", "job-file")

    def _entries(self) -> Iterator[tuple[dict[str, Any], Location, Slot]]:
        """Yield every class that the document names, with its place and the slot there."""
        for section, slot in SECTIONS[self.kind].items():
            for entry, place in _listed(self.document, section, self.place):
                yield entry, place, slot
        if self.kind == "client":
            for entry, place in _listed(self.document, "executors", self.place):
                yield entry["executor"], place / "executor", "executor"
        for section, slot in CHAINS.items():
            for filters, place in _listed(self.document, section, self.place):
                for entry, inner in _listed(filters, "filters", place):
                    yield entry, inner, slot

    def _server(self) -> Iterator[Problem]:
        settings = self.document.get("server", {})
        place = self.place / "server"
        if not isinstance(settings, dict):
            yield Problem(place, "has to be an object", "", "job-file")
            return
        yield from _form_faults(settings, SERVER_SETTINGS, place, "job-file")
        if not self.document.get("workflows"):
            yield Problem(self.place / "workflows", "names no workflow", ONE_WORKFLOW, "job-file")

    def _executors(self) -> Iterator[Problem]:
        if not self.document.get("executors"):
            yield Problem(self.place / "executors", "names no executor", "", "job-file")
        known = (*TASKS, EVERY_TASK)
        for entry, place in _listed(self.document, "executors", self.place):
            yield from unknown_keys(entry, ("tasks", "executor"), place)
            if not entry["tasks"] or not set(entry["tasks"]) <= set(known):
                message = (
                    f"has to list tasks of a site: {', '.join(known)}; found {entry['tasks']!r}"
                )
                yield Problem(place / "tasks", message, "", "job-file")

    def _entry(self, entry: dict[str, Any], place: Location, slot: Slot) -> Iterator[Problem]:
        """Judge a class with its arguments; those of an own class are its own affair."""
        keys = ("path", "args") if slot in CHAINS.values() else ("id", "path", "args")
        yield from unknown_keys(entry, keys, place)
        if "id" in entry and not is_name(entry["id"]):
            yield Problem(place / "id", f"has to be {NAME_FORM}", "", "job-file")
        if slot == "component" and "id" not in entry:
            yield Problem(place, "has no id", "", "job-file")
        path, arguments = entry.get("path"), entry.get("args", {})
        job_class = CLASSES.get(path) if isinstance(path, str) else None
        if not isinstance(path, str):
            yield Problem(place, "names no class by 'path'", "", "allow-list")
        elif job_class is None:
            yield from _lent(arguments, place / "args")
        elif (job_class.document, job_class.slot) != (self.kind, slot):
            there = f"{FILES[job_class.document]}, {job_class.slot}"
            message = f"{path!r} stands in another place: {there}"
            yield Problem(place / "path", message, "", "allow-list")
        else:
            yield from _argument_faults(path, job_class, arguments, place / "args")

    def _repeated(self) -> Iterator[Problem]:
        """Yield ids, classes of the table, and tasks that the document names twice."""
        entries = [
            (entry, place) for entry, place, slot in self._entries() if slot not in CHAINS.values()
        ]
        for key in ("id", "path"):
            values = Counter(str(entry[key]) for entry, _ in entries if key in entry)
            for entry, place in entries:
                value = str(entry.get(key))
                if values[value] > 1 and (key == "id" or value in CLASSES):
                    message = f"{value!r} is named twice"
                    yield Problem(place / key, message, "A job has each once.", "course")
        executors = _listed(self.document, "executors", self.place) if self.kind == "client" else ()
        tasks = Counter(task for entry, _ in executors for task in entry["tasks"])
        if any(count > 1 for count in tasks.values()) or (EVERY_TASK in tasks and len(tasks) > 1):
            yield Problem(self.place / "executors", "name a task twice", "", "course")


def _argument_faults(
    path: str, job_class: JobClass, arguments: Mapping[str, Any], place: Location
) -> Iterator[Problem]:
    """Judge the arguments of a class of the table."""
    if path in SETTINGS:
        try:
            filter_settings(path, arguments, place)
        except ConfigError as error:
            yield from error.problems
        return
    given = dict(arguments)
    if path == FEDERATION and given.get(OWN_AGGREGATOR) is not None:
        yield from _aggregator_faults(given.pop(OWN_AGGREGATOR), place / OWN_AGGREGATOR)
    factors = given.get(FACTORS_KEY) if path == FEDERATION else None
    if faults := [*factor_problems(factors or {}, place / FACTORS_KEY)]:
        # They name the site; the form of the whole would not.
        del given[FACTORS_KEY]
        yield from faults
    yield from _form_faults(given, job_class.arguments, place)
    for key in job_class.required:
        if key not in arguments:
            yield Problem(place / key, "is missing", "", "argument")


def _aggregator_faults(entry: Any, place: Location) -> Iterator[Problem]:
    """Judge a class of the job's own code, in the place of the mean."""
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        yield Problem(place, "has to be an object of path, args", "", "argument")
        return
    yield from unknown_keys(entry, ("path", "args"), place)
    if entry["path"] in CLASSES:
        message = f"{entry['path']!r} is not a class of the job's own code"
        yield Problem(place / "path", message, "", "allow-list")
    yield from _lent(entry.get("args"), place / "args")


def _lent(arguments: Any, place: Location) -> Iterator[Problem]:
    """Refuse classes of the table among arguments of an own class, which no form judges."""
    for item, inner in _all_values(arguments, place):
        if isinstance(item, dict) and item.get("path") in ALLOWED_CLASSES:
            message = "stands in the arguments of a class of the job's own code"
            yield Problem(inner / "path", message, "", "allow-list")


def _listed(
    holder: Mapping[str, Any], key: str, location: Location
) -> Iterator[tuple[dict[str, Any], Location]]:
    """Yield the entries of a list, and their places."""
    for index, entry in enumerate(holder.get(key, [])):
        yield entry, location / key / index


def _form_faults(
    values: Mapping[str, Any], forms: Mapping[str, Form], place: Location, rule: str = "argument"
) -> Iterator[Problem]:
    """Yield unknown keys, and values of another form."""
    for key, value in values.items():
        if key not in forms:
            yield unknown_key(place / key, key, forms, rule)
        elif not forms[key].fits(value):
            yield Problem(place / key, f"has to be {forms[key].text}", "", rule)
