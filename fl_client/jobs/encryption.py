"""What a job's documents say about encryption: both have to say the same, and all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fl_client.jobs.filters import (
    component_argument,
    filter_argument,
    parted_chains,
)
from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem
from mmar_runtime.exchange.flare_documents import CLIENT_CONFIG, read_flare_document
from mmar_runtime.exchange.messages import SCORE, SUBMIT, TRAIN, VALIDATE
from mmar_runtime.exchange.sharing import form_problems

DECRYPT = "fl_client.flare.encryption.DecryptModel"
ENCRYPT = "fl_client.flare.encryption.EncryptReply"
PERSISTOR = "fl_server.flare.persistor.MmarModelPersistor"

DECRYPTED_TASKS = (TRAIN, SCORE, VALIDATE)
"""Tasks that bring a model to a site."""

ENCRYPTED_TASKS = (TRAIN, SUBMIT)
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
    return filter_argument(client, ENCRYPT, "encrypt_layers")


def job_layers(app: Path) -> Any:
    """What a job asks to encrypt, as its ``config_fed_client.json`` has it; None for nothing.

    Raises:
        ConfigError: the document cannot be read.
        AttributeError, TypeError, KeyError: it is none of NVFlare's.
    """
    return encrypt_layers_of(read_flare_document(app, CLIENT_CONFIG))


def encryption_faults(server: Any, client: Any, files: tuple[str, str]) -> Iterator[Problem]:
    """Why what a job asks to encrypt would not be, or not at every place.

    Args:
        server: ``config_fed_server.json``.
        client: ``config_fed_client.json``.
        files: the names of both.
    """
    try:
        asked = component_argument(server, PERSISTOR, "encrypt_layers")
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
    else:
        yield from form_problems(given, Location(files[1]) / "encrypt_layers")
    own = _own_aggregator(server)
    if own:
        message = f"{own} cannot add up what is encrypted"
        yield Problem(Location(files[0]) / "components", message, "Leave it out, or --he.", RULE)
    for key, task, what in covered:
        message = f"{what} has to be the {task[0]} filter of the task {task[1]!r}"
        yield Problem(Location(files[1]) / key, message, _ADVICE, RULE)


def encrypting(client: Mapping[str, Any], layers: list[str]) -> dict[str, Any]:
    """``config_fed_client.json`` with both filters: behind all others on the way out.

    Args:
        client: a document whose chains of filters are NVFlare's.
        layers: what is encrypted.
    """
    out = {"path": ENCRYPT, "args": {"encrypt_layers": layers}}
    results = parted_chains(client["task_result_filters"], ENCRYPTED_TASKS)
    models = parted_chains(client["task_data_filters"], DECRYPTED_TASKS)
    for chain in (one for one in results if one["tasks"][0] in ENCRYPTED_TASKS):
        chain["filters"] = [*chain["filters"], out]
    for chain in (one for one in models if one["tasks"][0] in DECRYPTED_TASKS):
        chain["filters"] = [{"path": DECRYPT, "args": {}}, *chain["filters"]]
    return {**client, "task_result_filters": results, "task_data_filters": models}


def _own_aggregator(server: Any) -> str:
    """The job's own aggregator in the place of the weighted mean; empty for none."""
    for one in server.get("components", []):
        own = one.get("args", {}).get("aggregator")
        if isinstance(own, dict):
            return repr(own.get("path"))
    return ""


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
