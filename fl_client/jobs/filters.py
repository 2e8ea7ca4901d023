"""What a job's two NVFlare documents say of one class, and chains of filters taken apart."""

from __future__ import annotations

from typing import Any


def filter_argument(client: Any, path: str, name: str) -> Any:
    """An argument of the first such filter of replies, as written there; None for none.

    Args:
        client: ``config_fed_client.json``.
        path: of the filter's class.
        name: of the argument.

    Raises:
        AttributeError, TypeError, KeyError: the document is none of NVFlare's.
    """
    for chain in client.get("task_result_filters", []):
        for one in chain["filters"]:
            if one.get("path") == path:
                return one.get("args", {}).get(name)
    return None


def component_argument(server: Any, path: str, name: str) -> Any:
    """The same of a component of ``config_fed_server.json``; raises like ``filter_argument``."""
    for one in server.get("components", []):
        if one.get("path") == path:
            return one.get("args", {}).get(name)
    return None


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
