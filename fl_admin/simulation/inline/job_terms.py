"""What the engine that runs a job without NVFlare cannot do of what the job asks for."""

from __future__ import annotations

from collections.abc import Iterator

from fl_admin.jobs.job import Job
from fl_client.jobs.classes import WAKER
from fl_client.jobs.transfer import COMPACT, transfer_faults
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.job_documents import (
    CLIENT_CONFIG,
    DATA_FILTERS,
    EXECUTOR,
    FEDERATION,
    RESULT_FILTERS,
    SERVER_CONFIG,
    JobDocuments,
)
from mmar_runtime.exchange.job_terms import JobTerms
from mmar_runtime.exchange.messages import TASKS, TRAIN

ADVICE = "Run it with --engine nvflare."


def job_terms(job: Job) -> JobTerms:
    """The terms of a job that trains.

    Raises:
        ConfigError: with everything in the job that this engine cannot do.
    """
    documents = job.documents
    problems = [*_problems(documents), *transfer_faults(documents)]
    if problems:
        raise ConfigError(problems)
    return documents.terms


def _problems(documents: JobDocuments) -> Iterator[Problem]:
    server, client = Location(SERVER_CONFIG), Location(CLIENT_CONFIG)
    for place, entries, known in (
        (server / "components", documents.server.get("components", []), ()),
        (server / "workflows", documents.server.get("workflows", []), (FEDERATION,)),
        (client / "components", documents.client.get("components", []), (WAKER,)),
    ):
        for entry in entries:
            if entry.get("path") not in known:
                message = f"the inline engine does not know {entry.get('path')!r}"
                yield Problem(place / str(entry.get("id", "")), message, ADVICE, "engine")
    if not documents.federation:
        message = "names no FederationController"
        yield Problem(server / "workflows", message, ADVICE, "engine")
    elif "num_rounds" not in documents.federation:
        message = "the inline engine runs jobs that train; this one names no num_rounds"
        yield Problem(server / "workflows", message, ADVICE, "engine")
    for name in ("aggregator", "encrypt_layers"):
        if documents.federation.get(name) is not None:
            message = f"the inline engine does not know the argument {name!r}"
            yield Problem(server / "workflows" / "args" / name, message, ADVICE, "engine")
    executors = documents.client.get("executors", [])
    tasks = sorted(task for one in executors for task in one.get("tasks", []))
    if not documents.has_executor or len(executors) != 1 or tasks != sorted(TASKS):
        message = f"the inline engine stands for one {EXECUTOR}, with the tasks {', '.join(TASKS)}"
        yield Problem(client / "executors", message, ADVICE, "engine")
    for key in (DATA_FILTERS, RESULT_FILTERS):
        for chain in documents.chains(key):
            if chain.tasks != (TRAIN,) or any(one.path != COMPACT for one in chain.filters):
                message = "the inline engine runs no filters but the rounding of updates"
                yield Problem(chain.place, message, ADVICE, "engine")
