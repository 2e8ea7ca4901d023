"""Models that came with a job, in place of those of a training: they are evaluated, no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from fl_server.record.cross_site import MODEL_NAME
from mmar_runtime.errors import FederationError
from mmar_runtime.mmar import Mmar
from mmar_runtime.weights import Weights, mismatches, read_checkpoint

SUFFIX = ".safetensors"


def given_models(
    mmar: Mmar, names: Iterable[object], network: Weights
) -> Mapping[str, Callable[[], Weights]]:
    """Return the models of a job that trains none: name -> what reads its weights.

    Args:
        mmar: of the job; each model lies in ``models/<name>.safetensors``.
        names: as they stand in the job's JSON.
        network: weights of the network, which all models have to fit.

    Raises:
        FederationError: a name is not a model's, or a model does not fit the network.
        CheckpointError: a model is missing, or cannot be read.
    """
    models = {}
    for name in names:
        if not isinstance(name, str) or MODEL_NAME.fullmatch(name) is None:
            # Another file of this server would be sent to every site.
            raise FederationError(f"{name!r} is not a name of a model that a job brings")
        read = partial(_weights, mmar, name)
        if faults := mismatches(network, read()):
            raise FederationError(f"the model {name!r} does not fit the network: {faults[0]}")
        models[name] = read
    return models


def _weights(mmar: Mmar, name: str) -> Weights:
    return read_checkpoint(mmar.models / f"{name}{SUFFIX}").weights
