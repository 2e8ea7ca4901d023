"""What a job's NVFlare documents ask of a site, as far as the site itself has to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmar_runtime.config.sources import read_json
from mmar_runtime.exchange.flare_documents import (
    CLIENT_CONFIG,
    SERVER_CONFIG,
    own_value,
    read_flare_document,
)
from mmar_runtime.exchange.messages import TRAIN
from mmar_runtime.mmar import Mmar

TRAINING = "fl_server.flare.wake.WakingScatterAndGather"
NVFLARES_ROUNDS = 5
"""Of its ``ScatterAndGather`` where a job names none."""

EVERY_TASK = "*"
"""How NVFlare writes that an executor takes whatever comes."""


def job_trains(mmar: Mmar) -> bool:
    """Whether a job trains at the sites; one that does not only has given models evaluated.

    Raises:
        ConfigError: the document is missing, or no JSON.
    """
    tasks = {task for one in _executors(mmar) for task in one.get("tasks") or ()}
    return bool(tasks & {TRAIN, EVERY_TASK})


def rounds_of(mmar: Mmar) -> int | None:
    """The rounds of training that a job asks for; None for a job without our training workflow.

    Raises:
        ConfigError: the document is not JSON.
    """
    document = read_flare_document(mmar.root, SERVER_CONFIG)
    for one in document.get("workflows", []):
        if one.get("path") == TRAINING:
            return int(own_value(one.get("args", {}).get("num_rounds", NVFLARES_ROUNDS), document))
    return None


def shared_names_of(mmar: Mmar) -> list[str] | None:
    """The names of the tensors that a job's sites share; None for all, also of a plain MMAR.

    Raises:
        ConfigError: the document is no JSON.
    """
    if not mmar.document(CLIENT_CONFIG).is_file():
        return None
    for one in _executors(mmar):
        names = one.get("executor", {}).get("args", {}).get("shared_names")
        if names is not None:
            return list(names)
    return None


def _executors(mmar: Mmar) -> Iterator[dict[str, Any]]:
    yield from read_json(mmar.document(CLIENT_CONFIG)).get("executors", [])
