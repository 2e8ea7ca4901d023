"""What a job's documents say about encryption: both have to say the same, and all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem

DECRYPT = "fl_client.flare.encryption.DecryptModel"
ENCRYPT = "fl_client.flare.encryption.EncryptReply"
PERSISTOR = "fl_server.flare.persistor.MmarModelPersistor"

DECRYPTED_TASKS = ("train", "score_model", "validate")
"""Tasks that bring a model to a site."""

ENCRYPTED_TASKS = ("train", "submit_model")
"""Tasks whose reply holds weights."""

ALL = ("*",)
"""Every floating-point tensor."""

RULE = "encryption"
_ADVICE = "'mmar job create --he' writes both documents."


def encrypt_layers_of(client: Any) -> Any:
    """Which tensors ``config_fed_client.json`` asks to encrypt, as written there; None for none.

    Raises:
        AttributeError, TypeError, KeyError: the document is none of NVFlare's.
    """
    for chain in client.get("task_result_filters", []):
        for one in chain["filters"]:
            if one.get("path") == ENCRYPT:
                return one.get("args", {}).get("encrypt_layers")
    return None


def encryption_faults(server: Any, client: Any, files: tuple[str, str]) -> Iterator[Problem]:
    """Why what a job asks to encrypt would not be, or not at every place.

    Args:
        server: ``config_fed_server.json``.
        client: ``config_fed_client.json``.
        files: the names of both.
    """
    try:
        asked = _server_layers(server)
        given = encrypt_layers_of(client)
        named = str(client).count(ENCRYPT) + str(client).count(DECRYPT)
        covered = [*_uncovered(client)]
    except (AttributeError, TypeError, KeyError, IndexError):
        message = "its components or filters are not as NVFlare has them"
        yield Problem(Location(files[1]), message, "", RULE)
        return
    if asked is None and not named:
        return
    if asked != given or not _is_list(given):
        message = f"encrypt_layers is {given!r} here, and {asked!r} in {files[0]}"
        yield Problem(Location(files[1]) / "task_result_filters", message, _ADVICE, RULE)
    for key, task, what in covered:
        message = f"{what} has to be the {task[0]} filter of the task {task[1]!r}"
        yield Problem(Location(files[1]) / key, message, _ADVICE, RULE)


def encrypting(client: Mapping[str, Any], layers: list[str]) -> dict[str, Any]:
    """``config_fed_client.json`` with both filters: behind all others on the way out.

    Raises:
        AttributeError, TypeError, KeyError: the document is none of NVFlare's.
    """
    results = [dict(one, filters=list(one["filters"])) for one in client["task_result_filters"]]
    models = [dict(one, filters=list(one["filters"])) for one in client["task_data_filters"]]
    out = {"path": ENCRYPT, "args": {"encrypt_layers": layers}}
    for task in ENCRYPTED_TASKS:
        _chain(results, task)["filters"].append(out)
    for task in DECRYPTED_TASKS:
        _chain(models, task)["filters"].insert(0, {"path": DECRYPT, "args": {}})
    return {**client, "task_result_filters": results, "task_data_filters": models}


def _chain(chains: list[dict[str, Any]], task: str) -> dict[str, Any]:
    """The chain of one task alone; NVFlare takes a single chain for each."""
    for chain in chains:
        if task in chain["tasks"]:
            if chain["tasks"] == [task]:
                return chain
            chain["tasks"] = [one for one in chain["tasks"] if one != task]
            own = {**chain, "tasks": [task], "filters": list(chain["filters"])}
            chains.append(own)
            return own
    chains.append({"tasks": [task], "filters": []})
    return chains[-1]


def _server_layers(server: Any) -> Any:
    for one in server.get("components", []):
        if one.get("path") == PERSISTOR:
            return one.get("args", {}).get("encrypt_layers")
    return None


def _is_list(layers: Any) -> bool:
    return isinstance(layers, list) and all(isinstance(one, str) for one in layers)


def _uncovered(client: Any) -> Iterator[tuple[str, tuple[str, str], str]]:
    sides = (
        ("task_result_filters", "last", ENCRYPT, ENCRYPTED_TASKS, -1),
        ("task_data_filters", "first", DECRYPT, DECRYPTED_TASKS, 0),
    )
    for key, place, path, tasks, index in sides:
        for task in tasks:
            chains = [one for one in client.get(key, []) if task in one["tasks"]]
            fits = len(chains) == 1 and chains[0]["filters"][index].get("path") == path
            if not fits or chains[0].get("direction") is not None:
                yield key, (place, task), path.rpartition(".")[2]
