"""What a job's two NVFlare configs ask for, read by the engine that runs them without NVFlare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fl_admin.jobs.job import Job
from fl_client.jobs.classes import (
    COURSE,
    EXECUTOR,
    FULL_MODEL,
    MODEL_LOCATOR,
    PUBLISHING,
    RECORDER,
    SCORING,
    VALIDATION,
    WAKER,
)
from fl_client.jobs.client_config import TRAINING
from fl_client.jobs.encryption import PERSISTOR
from fl_client.jobs.transfer import compact_filter, transfer_faults
from fl_client.privacy.filter_plan import AGGREGATOR
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.flare_documents import CLIENT_CONFIG, SERVER_CONFIG, own_value
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import TASKS, TRAIN
from mmar_runtime.exchange.rounding_forms import FORMS

ADVICE = "Run it with --engine nvflare."
MEANT: Mapping[str, frozenset[str]] = {
    TRAINING: frozenset({"min_clients", "num_rounds", "train_timeout"}),
    SCORING: frozenset({"min_sites", "timeout"}),
    VALIDATION: frozenset({"submit_model_timeout", "validation_timeout"}),
    PUBLISHING: frozenset(),
    AGGREGATOR: frozenset({"min_sites", "aggregation_weights", "limits", "transfer"}),
    PERSISTOR: frozenset({"shared_names"}),
    RECORDER: frozenset({"min_sites", "num_rounds"}),
    MODEL_LOCATOR: frozenset(),
    FULL_MODEL: frozenset(),
    EXECUTOR: frozenset({"local_epochs", "steps_aggregation", "shared_names"}),
    WAKER: frozenset(),
}
"""The classes that this engine stands for -> the arguments that mean something to it."""

PASSED_OVER = frozenset(
    {
        "aggregator_id", "persistor_id", "shareable_generator_id", "recorder_id",
        "model_locator_id", "memory_gc_rounds", "wait_time_after_min_received", "task_check_period",
        "max_wait", "idle_wait",
    }
)  # fmt: skip
"""Arguments that only say how NVFlare's parts find each other and how they wait."""

FILTERS = ("task_data_filters", "task_result_filters")
ROUNDING = [[{"tasks": [TRAIN], "filters": [compact_filter(form)]}] for form in FORMS]
"""The chains that this engine stands for."""


def job_terms(job: Job) -> JobTerms:
    """The terms of a job.

    Raises:
        ConfigError: with everything in the job that this engine does not know.
    """
    server = _filled(read_json(job.mmar.document(SERVER_CONFIG)))
    client = _filled(read_json(job.mmar.document(CLIENT_CONFIG)))
    problems = [*_server_problems(server), *_client_problems(client)]
    if problems:
        raise ConfigError(problems)
    arguments = {one["path"]: one.get("args", {}) for one in _named(server)}
    executor = client["executors"][0]["executor"].get("args", {})
    files = (SERVER_CONFIG, CLIENT_CONFIG)
    problems = [*_contradictions(arguments, executor), *transfer_faults(server, client, files)]
    if problems:
        raise ConfigError(problems)
    return JobTerms(
        rounds=arguments[TRAINING]["num_rounds"],
        min_sites=arguments[TRAINING]["min_clients"],
        aggregation_weights=arguments[AGGREGATOR].get("aggregation_weights") or {},
        limits=arguments[AGGREGATOR].get("limits") or {},
        transfer=arguments[AGGREGATOR].get("transfer"),
        train_timeout=arguments[TRAINING].get("train_timeout", 0),
        score_timeout=arguments[SCORING].get("timeout", 0),
        validation_timeout=arguments[VALIDATION].get("validation_timeout", 6000),
        **executor,
    )


def _filled(document: Any) -> dict[str, Any]:
    """A config with ``{name}`` replaced by the value of its own top level."""
    if not isinstance(document, dict):
        return {}

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return own_value(value, document)

    return {key: fill(value) for key, value in document.items()}


def _named(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Workflows and components."""
    for key in ("workflows", "components"):
        entries = config.get(key, [])
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("path"), str):
                yield entry


def _server_problems(server: Mapping[str, Any]) -> Iterator[Problem]:
    place = Location(SERVER_CONFIG)
    yield from _component_problems(server, place)
    paths = [one["path"] for one in _named(server)]
    workflows = tuple(path for path in paths if path in COURSE)
    if workflows != COURSE:
        names = ", ".join(path.rpartition(".")[2] for path in COURSE)
        message = f"the inline engine runs the workflows {names}, in this order"
        yield Problem(place / "workflows", message, ADVICE, "engine")
    for path in (AGGREGATOR, PERSISTOR, RECORDER):
        if path not in paths:
            message = f"names no {path.rpartition('.')[2]}"
            yield Problem(place / "components", message, ADVICE, "engine")


def _client_problems(client: Mapping[str, Any]) -> Iterator[Problem]:
    place = Location(CLIENT_CONFIG)
    yield from _component_problems(client, place)
    executors = client.get("executors")
    one = executors[0] if isinstance(executors, list) and len(executors) == 1 else {}
    executor = one.get("executor", {}) if isinstance(one, dict) else {}
    if executor.get("path") != EXECUTOR or sorted(one.get("tasks", [])) != sorted(TASKS):
        message = f"the inline engine stands for one {EXECUTOR}, with the tasks {', '.join(TASKS)}"
        yield Problem(place / "executors", message, ADVICE, "engine")
        return
    yield from _argument_problems(executor, place / "executors" / 0)


def _component_problems(config: Mapping[str, Any], place: Location) -> Iterator[Problem]:
    for entry in _named(config):
        named = place / str(entry.get("id", entry["path"]))
        if entry["path"] not in MEANT:
            message = f"the inline engine does not know {entry['path']!r}"
            yield Problem(named, message, ADVICE, "engine")
        else:
            yield from _argument_problems(entry, named)
    for key in FILTERS:
        if config.get(key) and config[key] not in ROUNDING:
            message = "the inline engine runs no filters but the rounding of updates"
            yield Problem(place / key, message, ADVICE, "engine")


def _argument_problems(entry: Mapping[str, Any], place: Location) -> Iterator[Problem]:
    arguments = entry.get("args", {})
    known = MEANT[entry["path"]] | PASSED_OVER
    for name in arguments if isinstance(arguments, dict) else ():
        if name not in known:
            message = f"the inline engine does not know the argument {name!r}"
            yield Problem(place / "args" / name, message, ADVICE, "engine")


def _contradictions(
    arguments: Mapping[str, Mapping[str, Any]], executor: Mapping[str, Any]
) -> Iterator[Problem]:
    """Numbers that several components name, and name differently or not at all."""
    told = {
        "min_sites": [
            arguments[TRAINING].get("min_clients"),
            *(arguments[path].get("min_sites") for path in (SCORING, AGGREGATOR, RECORDER)),
        ],
        "num_rounds": [arguments[path].get("num_rounds") for path in (TRAINING, RECORDER)],
        "shared_names": [arguments[PERSISTOR].get("shared_names"), executor.get("shared_names")],
    }
    for name, values in told.items():
        if any(value != values[0] for value in values):
            message = f"components name different {name}: {values}"
            yield Problem(Location(SERVER_CONFIG), message, ADVICE, "engine")
        elif values[0] is None and name != "shared_names":
            message = f"no component names {name}, and the inline engine has no default for it"
            yield Problem(Location(SERVER_CONFIG), message, ADVICE, "engine")
