"""Chains of filters, taken apart by their tasks."""

from __future__ import annotations

from typing import Any


def parted_chains(chains: list[dict[str, Any]], tasks: tuple[str, ...]) -> list[dict[str, Any]]:
    """Chains of which each is for some of the tasks or for others; each of the tasks has one.

    NVFlare takes a single chain of filters for a task.
    """
    found = []
    for chain in chains:
        ours = [task for task in chain["tasks"] if task in tasks]
        others = [task for task in chain["tasks"] if task not in tasks]
        found += [{**chain, "tasks": part} for part in (ours, others) if part]
    covered = {task for chain in found for task in chain["tasks"]}
    left = [task for task in tasks if task not in covered]
    return [*found, {"tasks": left, "filters": []}] if left else found
