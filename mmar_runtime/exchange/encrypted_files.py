"""Models of which a part is encrypted, on a disk: safetensors, nothing pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mmar_runtime.errors import CheckpointError
from mmar_runtime.exchange.encryption import is_encrypted
from mmar_runtime.files import write_atomically
from mmar_runtime.weights import Checkpoint, Weights

SUFFIX = ".encrypted.safetensors"
FORMAT = "mmar-encrypted-model/1"


def write_encrypted_model(path: Path, weights: Weights, train_conf: Mapping[str, Any]) -> None:
    """Write weights of which a part is encrypted, whole or not at all.

    The file is safetensors: the plain tensors and the four arrays by their names, and in its
    metadata ``format`` and, as JSON, ``train_conf``.
    """
    metadata = {"format": FORMAT, "train_conf": json.dumps(dict(train_conf))}
    content = save({name: tensor.contiguous() for name, tensor in weights.items()}, metadata)
    write_atomically(path, lambda stream: stream.write(content))


def read_encrypted_model(path: Path) -> Checkpoint:
    """Return the content of a file of an encrypted model.

    Raises:
        CheckpointError: there is no such file, or it has another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        train_conf = json.loads(metadata.get("train_conf", "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from error
    if metadata.get("format") != FORMAT or not is_encrypted(weights):
        raise CheckpointError(f"{str(path)!r} holds no encrypted model of this format, {FORMAT}")
    return Checkpoint(
        weights=weights, train_conf=train_conf if isinstance(train_conf, dict) else None
    )
