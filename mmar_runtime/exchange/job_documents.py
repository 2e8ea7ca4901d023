"""A job's two NVFlare documents, read once: the requests to the server and to its sites.

Nobody else looks into ``config_fed_server.json`` and ``config_fed_client.json``, but for the check
of a job, which judges each key, and for those who write them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import SCALARS, read_json
from mmar_runtime.errors import ConfigError, Problem, did_you_mean
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import TRAIN
from mmar_runtime.exchange.weighing import WEIGH_BY, WeighBy, factor_problems

SERVER_CONFIG = "config_fed_server.json"
CLIENT_CONFIG = "config_fed_client.json"

FEDERATION = "fl_server.flare.controller.FederationController"
"""The workflow of a job."""

FEDERATION_ARGUMENTS = Location(SERVER_CONFIG) / "workflows" / 0 / "args"
"""Where a job asks its server for something."""

FACTORS_PLACE = FEDERATION_ARGUMENTS / "aggregation_weights"

EXECUTOR = "fl_client.flare.executor.MmarExecutor"
"""The executor of a job's tasks at a site."""

EVERY_TASK = "*"
"""NVFlare's word for an executor of all tasks."""

OWN_VALUE = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
"""All that a job's document may have filled in: a plain value at its own top level."""

MAX_ENTRIES = 50
"""Components, workflows, executors, chains or filters in one list."""

DATA_FILTERS, RESULT_FILTERS = "task_data_filters", "task_result_filters"


def own_value(value: Any, document: Mapping[str, Any]) -> Any:
    """Return a value as NVFlare reads it: a name in braces means the document's own value."""
    named = OWN_VALUE.fullmatch(value) if isinstance(value, str) else None
    own = document.get(named[1]) if named else None
    return own if isinstance(own, SCALARS) else value


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
        documents = cls(server=_filled(server), client=_filled(client))
        problems = [*documents._problems()]
        if problems:
            raise ConfigError(problems)
        return documents

    def _problems(self) -> Iterator[Problem]:
        """Report what the properties of this class could not read."""
        both: dict[str, Problems] = {DATA_FILTERS: _chain_problems, RESULT_FILTERS: _chain_problems}
        lists: dict[str, Problems] = {"components": _class_problems, "workflows": _class_problems}
        for key, problems in {**lists, **both}.items():
            yield from _list_problems(self.server, key, Location(SERVER_CONFIG), problems)
        lists = {"components": _class_problems, "executors": _executor_problems}
        for key, problems in {**lists, **both}.items():
            yield from _list_problems(self.client, key, Location(CLIENT_CONFIG), problems)

    @property
    def federation(self) -> Mapping[str, Any]:
        """The arguments of the workflow; empty without ours."""
        return _arguments(self.server.get("workflows", []), FEDERATION)

    @property
    def executor(self) -> Mapping[str, Any]:
        """The arguments of the executor; empty without ours."""
        return _arguments([entry["executor"] for entry in self._executors()], EXECUTOR)

    @property
    def has_executor(self) -> bool:
        """Whether the executor is ours."""
        return any(entry["executor"].get("path") == EXECUTOR for entry in self._executors())

    def _executors(self) -> list[dict[str, Any]]:
        executors: list[dict[str, Any]] = self.client.get("executors", [])
        return executors

    @property
    def trains(self) -> bool:
        """Whether the sites train; a job that does not only has given models evaluated."""
        return any({TRAIN, EVERY_TASK} & {*entry["tasks"]} for entry in self._executors())

    @property
    def weigh_by(self) -> WeighBy:
        """What a site claims as its weight in the mean."""
        rule: WeighBy = self.federation.get("weigh_by", WEIGH_BY[0])
        return rule

    def chains(self, key: str) -> Iterator[FilterChain]:
        """Yield the chains of filters at the sites, of ``DATA_FILTERS`` or ``RESULT_FILTERS``."""
        for index, chain in enumerate(self.client.get(key, [])):
            yield FilterChain(
                tasks=tuple(chain["tasks"]),
                filters=tuple(
                    Filter(str(entry.get("path")), entry.get("args", {}))
                    for entry in chain["filters"]
                ),
                direction=chain.get("direction"),
                place=Location(CLIENT_CONFIG) / key / index,
            )

    def counts(self, path: str) -> int:
        """Return how often the chains of the sites name a filter."""
        chains = (*self.chains(DATA_FILTERS), *self.chains(RESULT_FILTERS))
        return sum(filter.path == path for chain in chains for filter in chain.filters)

    def filter_argument(self, path: str, name: str) -> Any:
        """Return an argument of the first such filter of replies; None without the filter."""
        filters = (filter for chain in self.chains(RESULT_FILTERS) for filter in chain.filters)
        return next((filter.arguments.get(name) for filter in filters if filter.path == path), None)

    @property
    def terms(self) -> JobTerms:
        """The terms of the job.

        Raises:
            ConfigError: an argument of the workflow or the executor is unknown or is missing, or
                the two documents contradict each other.
        """
        problems = [*self._term_problems()]
        if problems:
            raise ConfigError(problems)
        federation = {name: self.federation[name] for name in self.federation.keys() - CARRIED}
        rounds = federation.pop("num_rounds", 0)
        return JobTerms(rounds=rounds, **{**federation, **self.executor})

    def _term_problems(self) -> Iterator[Problem]:
        executor = Location(CLIENT_CONFIG) / "executors" / 0 / "executor" / "args"
        for given, known, place in (
            (self.federation, {*SERVER_TERMS, *CARRIED}, FEDERATION_ARGUMENTS),
            (self.executor, EXECUTOR_TERMS, executor),
        ):
            for name in sorted(given.keys() - known):
                advice = did_you_mean(name, known)
                yield Problem(place / name, "is not an argument of a job", advice, "argument")
        if "min_sites" not in self.federation:
            advice = f"It is an argument of {FEDERATION}."
            yield Problem(FEDERATION_ARGUMENTS / "min_sites", "is missing", advice, "argument")
        yield from self._weight_problems()
        for name in sorted(self.federation.keys() & self.executor.keys()):
            here, there = self.executor[name], self.federation[name]
            if here != there:
                message = f"is {here!r} here, and {there!r} in {SERVER_CONFIG}"
                yield Problem(executor / name, message, "Both have to be equal.", "argument")

    def _weight_problems(self) -> Iterator[Problem]:
        if self.weigh_by not in WEIGH_BY:
            message = f"has to be one of {', '.join(WEIGH_BY)}, found {self.weigh_by!r}"
            yield Problem(FEDERATION_ARGUMENTS / "weigh_by", message, "", "argument")
        factors = self.federation.get("aggregation_weights") or {}
        yield from factor_problems(factors, FACTORS_PLACE)


EXECUTOR_TERMS = frozenset({"local_epochs", "steps_aggregation", "shared_names"})
"""Arguments of the executor."""

SERVER_TERMS = (
    frozenset(JobTerms.__dataclass_fields__) - {"rounds", "local_epochs", "steps_aggregation"}
) | {"num_rounds"}
"""Arguments of the workflow that are terms of the job."""

CARRIED = frozenset(
    {"models", "aggregator", "wait_for_others", "encrypt_layers", "enable_tensor_disk_offload"}
)
"""Further arguments of the workflow, which NVFlare's carrier alone supports."""

Problems = Callable[[Mapping[str, Any], Location], Iterator[Problem]]


def _list_problems(
    document: Mapping[str, Any], key: str, place: Location, problems: Problems
) -> Iterator[Problem]:
    """Yield everything that keeps a list of a document from being read."""
    entries = document.get(key, [])
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        message = f"has to be an array of at most {MAX_ENTRIES}"
        yield Problem(place / key, message, "", "job-file")
        return
    for index, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield from problems(entry, place / key / index)
        else:
            yield Problem(place / key / index, "has to be an object", "", "job-file")


def _class_problems(entry: Mapping[str, Any], place: Location) -> Iterator[Problem]:
    if not isinstance(entry.get("args", {}), dict):
        yield Problem(place / "args", "has to be an object", "", "job-file")
    if "disabled" in entry:
        message = "NVFlare would leave the class out"
        yield Problem(place / "disabled", message, "Leave out the entry.", "job-file")


def _executor_problems(entry: Mapping[str, Any], place: Location) -> Iterator[Problem]:
    executor = entry.get("executor")
    if isinstance(executor, dict):
        yield from _class_problems(executor, place / "executor")
    else:
        yield Problem(place / "executor", "has to be an object", "", "job-file")
    yield from _task_problems(entry, place)


def _chain_problems(entry: Mapping[str, Any], place: Location) -> Iterator[Problem]:
    if "filters" not in entry:
        yield Problem(place / "filters", "is missing", "", "job-file")
    yield from _list_problems(entry, "filters", place, _class_problems)
    yield from _task_problems(entry, place)


def _task_problems(entry: Mapping[str, Any], place: Location) -> Iterator[Problem]:
    tasks = entry.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        yield Problem(place / "tasks", "has to be an array of names of tasks", "", "job-file")


def _arguments(entries: list[dict[str, Any]], path: str) -> Mapping[str, Any]:
    return next((entry.get("args", {}) for entry in entries if entry.get("path") == path), {})


def _read(app: Path, name: str) -> dict[str, Any]:
    file = app / "config" / name
    document = read_json(file) if file.is_file() else {}
    if not isinstance(document, dict):
        raise ConfigError([Problem(Location(name), "has to be a JSON object", "", "job-file")])
    return document


def _filled(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with each ``{name}`` replaced by the top-level value of that name."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return own_value(value, document)

    return {key: fill(value) for key, value in document.items()}
