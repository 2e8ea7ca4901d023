"""What a job's documents say about rounded updates: both have to say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fl_client.jobs.filters import parted_chains
from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem
from mmar_runtime.exchange.job_documents import (
    CLIENT_CONFIG,
    RESULT_FILTERS,
    SERVER_CONFIG,
    JobDocuments,
)
from mmar_runtime.exchange.messages import TRAIN
from mmar_runtime.exchange.rounding_forms import ROUNDINGS

COMPACT = "fl_client.flare.compact.CompactUpdate"
RULE = "transfer"
_ADVICE = "'mmar job create --transfer' writes both documents."


def compact_filter(form: str) -> dict[str, Any]:
    """The entry of ``config_fed_client.json`` that rounds updates."""
    return {"path": COMPACT, "args": {"transfer": form}}


def compacting(client: Mapping[str, Any], form: str) -> dict[str, Any]:
    """``config_fed_client.json`` with the filter that rounds updates, behind all others.

    Args:
        client: a document whose chains of filters are NVFlare's.
        form: of the rounded numbers.
    """
    chains = parted_chains(client["task_result_filters"], (TRAIN,))
    for chain in (one for one in chains if one["tasks"] == [TRAIN]):
        chain["filters"] = [*chain["filters"], compact_filter(form)]
    return {**client, "task_result_filters": chains}


def transfer_faults(job: JobDocuments) -> Iterator[Problem]:
    """Report why sites would not send what the server awaits."""
    place = Location(CLIENT_CONFIG) / RESULT_FILTERS
    asked, given = job.federation.get(RULE), job.filter_argument(COMPACT, RULE)
    named = job.counts(COMPACT)
    if asked is None and not named:
        return
    if asked != given or given not in ROUNDINGS:
        message = (
            f"transfer is {given!r} here, and {asked!r} in {SERVER_CONFIG}; "
            f"it has to be one of {', '.join(ROUNDINGS)}"
        )
        yield Problem(place, message, _ADVICE, RULE)
    elif named != 1 or not _is_last(job):
        message = f"CompactUpdate has to be the last filter of the task {TRAIN!r}, and nowhere else"
        yield Problem(place, message, _ADVICE, RULE)


def _is_last(job: JobDocuments) -> bool:
    chains = [one for one in job.chains(RESULT_FILTERS) if TRAIN in one.tasks]
    filters = chains[0].filters if len(chains) == 1 else ()
    return bool(filters) and filters[-1].path == COMPACT and chains[0].direction is None
