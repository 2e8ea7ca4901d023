"""What a job's documents say about rounded updates: both have to say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fl_client.jobs.filters import (
    component_argument,
    filter_argument,
    parted_chains,
)
from fl_client.privacy.filter_plan import AGGREGATOR
from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem
from mmar_runtime.exchange.flare_documents import CLIENT_CONFIG, read_flare_document
from mmar_runtime.exchange.messages import TRAIN
from mmar_runtime.exchange.rounding_forms import FORMS

COMPACT = "fl_client.flare.compact.CompactUpdate"
RULE = "transfer"
_ADVICE = "'mmar job create --transfer' writes both documents."


def transfer_of(client: Any) -> Any:
    """The form that ``config_fed_client.json`` asks for, as written there; None for none.

    Raises:
        AttributeError, TypeError, KeyError: the document is none of NVFlare's.
    """
    return filter_argument(client, COMPACT, RULE)


def job_transfer(app: Path) -> Any:
    """The form that a job asks for, as its ``config_fed_client.json`` has it; None for none.

    Raises:
        ConfigError: the document cannot be read.
        AttributeError, TypeError, KeyError: it is none of NVFlare's.
    """
    return transfer_of(read_flare_document(app, CLIENT_CONFIG))


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


def transfer_faults(server: Any, client: Any, files: tuple[str, str]) -> Iterator[Problem]:
    """Why sites would not send what the server awaits.

    Args:
        server: ``config_fed_server.json``.
        client: ``config_fed_client.json``.
        files: the names of both.
    """
    place = Location(files[1]) / "task_result_filters"
    try:
        asked, given = component_argument(server, AGGREGATOR, RULE), transfer_of(client)
        named = str(client).count(COMPACT)
        is_last = _is_last(client, given)
    except (AttributeError, TypeError, KeyError, IndexError):
        message = "its components or filters are not as NVFlare has them"
        yield Problem(Location(files[1]), message, "", RULE)
        return
    if asked is None and not named:
        return
    if asked != given or given not in FORMS:
        message = (
            f"transfer is {given!r} here, and {asked!r} in {files[0]}; "
            f"it has to be one of {', '.join(FORMS)}"
        )
        yield Problem(place, message, _ADVICE, RULE)
    elif named != 1 or not is_last:
        message = f"CompactUpdate has to be the last filter of the task {TRAIN!r}, and nowhere else"
        yield Problem(place, message, _ADVICE, RULE)


def _is_last(client: Any, form: Any) -> bool:
    chains = [one for one in client.get("task_result_filters", []) if TRAIN in one["tasks"]]
    fits = len(chains) == 1 and chains[0]["filters"][-1] == compact_filter(form)
    return fits and chains[0].get("direction") is None
