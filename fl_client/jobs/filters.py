"""Chains of filters in a job's documents: a filter of its own for some tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmar_runtime.exchange.job_documents import JobDocuments


def with_filter(
    client: Mapping[str, Any], key: str, tasks: tuple[str, ...], entry: dict[str, Any], place: int
) -> dict[str, Any]:
    """Return ``config_fed_client.json`` with one more filter for some tasks.

    NVFlare takes a single chain of filters for a task: a chain for other tasks as well is divided.

    Args:
        client: a document whose chains of filters are NVFlare's.
        key: of the chains.
        tasks: the tasks that get the filter.
        entry: the filter.
        place: 0 puts the filter before all others, -1 after them.
    """
    chains = []
    for chain in client[key]:
        others = [task for task in chain["tasks"] if task not in tasks]
        if ours := [task for task in chain["tasks"] if task in tasks]:
            filters = [entry, *chain["filters"]] if place == 0 else [*chain["filters"], entry]
            chains.append({**chain, "tasks": ours, "filters": filters})
        if others:
            chains.append({**chain, "tasks": others})
    covered = {task for chain in chains for task in chain["tasks"]}
    if left := [task for task in tasks if task not in covered]:
        chains.append({"tasks": left, "filters": [entry]})
    return {**client, key: chains}


def has_at(job: JobDocuments, key: str, task: str, path: str, place: int) -> bool:
    """Return whether a task has a filter first (0) or last (-1), in its one chain both ways."""
    chains = [chain for chain in job.chains(key) if task in chain.tasks]
    filters = chains[0].filters if len(chains) == 1 and chains[0].direction is None else ()
    return bool(filters) and filters[place].path == path
