"""A job's two NVFlare documents, read once: what they ask of the server and of its sites.

Nobody else looks into ``config_fed_server.json`` and ``config_fed_client.json``, but for the check
of a job, which judges each key, and for those who write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import TRAIN

SERVER_CONFIG = "config_fed_server.json"
CLIENT_CONFIG = "config_fed_client.json"

FEDERATION = "fl_server.flare.controller.FederationController"
"""The one workflow of a job."""

FEDERATION_ARGUMENTS = Location(SERVER_CONFIG) / "workflows" / 0 / "args"
"""Where a job asks its server for something."""

EXECUTOR = "fl_client.flare.executor.MmarExecutor"
"""What does the tasks of a job at a site."""

EVERY_TASK = "*"
"""How NVFlare writes that an executor takes whatever comes."""

OWN_VALUE = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
"""All that a job's document may have filled in: the value of an entry at its own top level."""

DATA_FILTERS, RESULT_FILTERS = "task_data_filters", "task_result_filters"


def own_value(value: Any, document: Mapping[str, Any]) -> Any:
    """Return a value as NVFlare reads it: the document's own where its name stands in braces."""
    named = OWN_VALUE.fullmatch(value) if isinstance(value, str) else None
    return document.get(named[1], value) if named else value


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of a chain.

    Attributes:
        path: of the class.
        arguments: of the filter.
    """

    path: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FilterChain:
    """Filters that NVFlare applies to a task or to its reply, in order.

    Attributes:
        tasks: the names of the tasks.
        filters: in order.
        direction: ``in`` or ``out`` where the chain says so; None for both.
        place: of the chain.
    """

    tasks: tuple[str, ...]
    filters: tuple[Filter, ...]
    direction: object
    place: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDocuments:
    """The two documents of a job, with ``{name}`` filled in at every depth.

    Attributes:
        server: ``config_fed_server.json``; empty of a plain MMAR. The same holds of the client's.
        client: ``config_fed_client.json``.
    """

    server: Mapping[str, Any]
    client: Mapping[str, Any]

    @classmethod
    def read(cls, app: Path) -> Self:
        """Read the documents of a job's app.

        Raises:
            ConfigError: a document cannot be read, or is not built as NVFlare builds it.
        """
        return cls.of(_read(app, SERVER_CONFIG), _read(app, CLIENT_CONFIG))

    @classmethod
    def of(cls, server: Mapping[str, Any], client: Mapping[str, Any]) -> Self:
        """Take documents that have been read; raises like ``read``."""
        found = cls(server=_filled(server), client=_filled(client))
        problems = [*found._problems()]
        if problems:
            raise ConfigError(problems)
        return found

    def _problems(self) -> Iterator[Problem]:
        """Report what the properties of this class could not read."""
        for name, document, lists in (
            (SERVER_CONFIG, self.server, ("components", "workflows")),
            (CLIENT_CONFIG, self.client, ("components", "executors", DATA_FILTERS, RESULT_FILTERS)),
        ):
            for key in lists:
                entries = document.get(key, [])
                if not isinstance(entries, list) or not all(map(_is_entry, entries)):
                    message = "has to be an array of objects as NVFlare has them"
                    yield Problem(Location(name) / key, message, "", "job-file")

    @property
    def federation(self) -> Mapping[str, Any]:
        """The arguments of the workflow; empty without ours."""
        return _arguments(self.server.get("workflows", []), FEDERATION)

    @property
    def executor(self) -> Mapping[str, Any]:
        """The arguments of the executor; empty without ours."""
        return _arguments([one["executor"] for one in self._executors()], EXECUTOR)

    @property
    def has_executor(self) -> bool:
        """Whether the executor is ours."""
        return any(one["executor"].get("path") == EXECUTOR for one in self._executors())

    def _executors(self) -> list[dict[str, Any]]:
        return [one for one in self.client.get("executors", []) if "executor" in one]

    @property
    def trains(self) -> bool:
        """Whether the sites train; a job that does not only has given models evaluated."""
        return any({TRAIN, EVERY_TASK} & {*one["tasks"]} for one in self._executors())

    def chains(self, key: str) -> Iterator[FilterChain]:
        """The chains of filters at the sites, of ``DATA_FILTERS`` or ``RESULT_FILTERS``."""
        for index, chain in enumerate(self.client.get(key, [])):
            yield FilterChain(
                tasks=tuple(chain["tasks"]),
                filters=tuple(
                    Filter(str(one.get("path")), one.get("args", {})) for one in chain["filters"]
                ),
                direction=chain.get("direction"),
                place=Location(CLIENT_CONFIG) / key / index,
            )

    def counts(self, path: str) -> int:
        """How often the chains of the sites name a filter."""
        chains = (*self.chains(DATA_FILTERS), *self.chains(RESULT_FILTERS))
        return sum(one.path == path for chain in chains for one in chain.filters)

    def filter_argument(self, path: str, name: str) -> Any:
        """An argument of the first such filter of replies; None without the filter."""
        filters = (one for chain in self.chains(RESULT_FILTERS) for one in chain.filters)
        return next((one.arguments.get(name) for one in filters if one.path == path), None)

    @property
    def terms(self) -> JobTerms:
        """What the job asks for.

        Raises:
            ConfigError: the workflow or the executor has an argument that is not a term.
        """
        known = JobTerms.__dataclass_fields__
        given = {
            **{RENAMED.get(key, key): value for key, value in self.federation.items()},
            **self.executor,
        }
        return JobTerms(**{key: value for key, value in given.items() if key in known})


RENAMED = {"num_rounds": "rounds"}


def _is_entry(entry: Any) -> bool:
    """Whether an entry of a list has the parts that everybody reads."""
    if not isinstance(entry, dict) or not isinstance(entry.get("args", {}), dict):
        return False
    if "executor" in entry and not _is_entry(entry["executor"]):
        return False
    tasks, filters = entry.get("tasks", []), entry.get("filters", [])
    chain = "filters" in entry or "executor" in entry
    return (
        isinstance(tasks, list)
        and all(isinstance(task, str) for task in tasks)
        and (not chain or "tasks" in entry)
        and isinstance(filters, list)
        and all(map(_is_entry, filters))
    )


def _arguments(entries: list[dict[str, Any]], path: str) -> Mapping[str, Any]:
    return next((one.get("args", {}) for one in entries if one.get("path") == path), {})


def _read(app: Path, name: str) -> dict[str, Any]:
    file = app / "config" / name
    document = read_json(file) if file.is_file() else {}
    if not isinstance(document, dict):
        raise ConfigError([Problem(Location(name), "has to be a JSON object", "", "job-file")])
    return document


def _filled(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with ``{name}`` replaced by the value of its own top level, at every depth."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return own_value(value, document)

    return {key: fill(value) for key, value in document.items()}
