"""What a job's documents say about rounded updates: both have to say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fl_client.jobs.filters import has_at, with_filter
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


def rounding_filter(rounding: str) -> dict[str, Any]:
    """Return the entry of ``config_fed_client.json`` that rounds updates."""
    return {"path": COMPACT, "args": {"transfer": rounding}}


def with_rounding(client: Mapping[str, Any], rounding: str) -> dict[str, Any]:
    """Return ``config_fed_client.json`` with the filter that rounds updates, after all others.

    Args:
        client: a document whose chains of filters are NVFlare's.
        rounding: the type of the rounded numbers.
    """
    return with_filter(client, RESULT_FILTERS, (TRAIN,), rounding_filter(rounding), -1)


def rounding_faults(job: JobDocuments) -> Iterator[Problem]:
    """Yield why sites would not send updates as the server expects them."""
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
    elif named != 1 or not has_at(job, RESULT_FILTERS, TRAIN, COMPACT, -1):
        message = f"CompactUpdate has to be the last filter of the task {TRAIN!r}, and nowhere else"
        yield Problem(place, message, _ADVICE, RULE)
