"""What a job's documents say about encryption: both have to say the same, and all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fl_client.jobs.filters import has_at, with_filter
from mmar_runtime.config.location import Location
from mmar_runtime.errors import Problem
from mmar_runtime.exchange.job_documents import (
    CLIENT_CONFIG,
    DATA_FILTERS,
    RESULT_FILTERS,
    SERVER_CONFIG,
    JobDocuments,
)
from mmar_runtime.exchange.messages import SCORE, SUBMIT, TRAIN, VALIDATE
from mmar_runtime.exchange.sharing import form_problems

DECRYPT = "fl_client.flare.encryption.DecryptModel"
ENCRYPT = "fl_client.flare.encryption.EncryptReply"

DECRYPTED_TASKS = (TRAIN, SCORE, VALIDATE)
"""Tasks that bring a model to a site."""

ENCRYPTED_TASKS = (TRAIN, SUBMIT)
"""Tasks whose reply holds weights."""

ALL = ("*",)
"""Every floating-point tensor."""

RULE = "encryption"
_ADVICE = "'mmar job create --he' writes both documents."


def encryption_faults(job: JobDocuments) -> Iterator[Problem]:
    """Report why what a job asks to encrypt would not be, or not at every place."""
    asked = job.federation.get("encrypt_layers")
    given = job.filter_argument(ENCRYPT, "encrypt_layers")
    if asked is None and not job.counts(ENCRYPT) and not job.counts(DECRYPT):
        return
    is_list = isinstance(given, list) and all(isinstance(layer, str) for layer in given)
    if asked != given or not is_list:
        message = f"encrypt_layers is {given!r} here, and {asked!r} in {SERVER_CONFIG}"
        yield Problem(Location(CLIENT_CONFIG) / RESULT_FILTERS, message, _ADVICE, RULE)
    else:
        yield from form_problems(given, Location(CLIENT_CONFIG) / "encrypt_layers")
    own = job.federation.get("aggregator")
    if isinstance(own, dict):
        message = f"{own.get('path')!r} cannot add up what is encrypted"
        workflows = Location(SERVER_CONFIG) / "workflows"
        yield Problem(workflows, message, "Leave it out, or --he.", RULE)
    for key, place, path, tasks, index in (
        (RESULT_FILTERS, "last", ENCRYPT, ENCRYPTED_TASKS, -1),
        (DATA_FILTERS, "first", DECRYPT, DECRYPTED_TASKS, 0),
    ):
        for task in tasks:
            if not has_at(job, key, task, path, index):
                name = path.rpartition(".")[2]
                message = f"{name} has to be the {place} filter of the task {task!r}"
                yield Problem(Location(CLIENT_CONFIG) / key, message, _ADVICE, RULE)


def with_encryption(client: Mapping[str, Any], layers: list[str]) -> dict[str, Any]:
    """Return ``config_fed_client.json`` with both filters: after all others on the way out.

    Args:
        client: a document whose chains of filters are NVFlare's.
        layers: what is encrypted.
    """
    out = {"path": ENCRYPT, "args": {"encrypt_layers": layers}}
    client = with_filter(client, RESULT_FILTERS, ENCRYPTED_TASKS, out, -1)
    return with_filter(client, DATA_FILTERS, DECRYPTED_TASKS, {"path": DECRYPT, "args": {}}, 0)
