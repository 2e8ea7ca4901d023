"""NVFlare's DXO <-> our values, on the site's side of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply

from fl_client.updates import first_not_finite
from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.arrays import arrays_of, as_tensor
from mmar_runtime.exchange.messages import Update
from mmar_runtime.exchange.plain import to_plain
from mmar_runtime.flare.wire import (
    CASES,
    EPOCH_SAMPLES,
    NOT_DECRYPTED,
    REPORT,
    SAMPLES,
    STATUS,
)
from mmar_runtime.results import EvaluationResult
from mmar_runtime.weights import Weights


def received_weights(shareable: Shareable) -> dict[str, torch.Tensor]:
    """Return the weights of a task; they share the memory of the message where it is writeable.

    Raises:
        WeightsError: the task carries no weights, or values that are not finite, or that could
            not be decrypted.
    """
    if (reason := shareable.get_header(NOT_DECRYPTED)) is not None:
        raise WeightsError(str(reason))
    try:
        dxo = from_shareable(shareable)
    except ValueError as error:
        raise WeightsError(f"the task carries no weights: {error}") from error
    if dxo.data_kind != DataKind.WEIGHTS or not isinstance(dxo.data, Mapping) or not dxo.data:
        raise WeightsError(f"the task carries {dxo.data_kind}, not weights")
    odd = [
        name
        for name, value in dxo.data.items()
        if type(value) is not np.ndarray or value.dtype.kind not in "fiub"
    ]
    if odd:
        raise WeightsError(f"the task carries something that is no dense array, in {odd[0]!r}")
    weights = {name: as_tensor(value) for name, value in dxo.data.items()}
    if (name := first_not_finite(weights)) is not None:
        raise WeightsError(f"the received weights are not finite, in {name!r}; nothing was loaded")
    return weights


def update_reply(update: Update) -> Shareable:
    """Return a contribution as NVFlare's workflows expect it."""
    counts = {SAMPLES: update.samples, EPOCH_SAMPLES: update.epoch_samples}
    meta = {
        MetaKey.NUM_STEPS_CURRENT_ROUND: update.steps,
        **{key: count for key, count in counts.items() if count is not None},
        REPORT: to_plain(update.report),
    }
    return DXO(DataKind.WEIGHT_DIFF, data=arrays_of(update.difference), meta=meta).to_shareable()


def weights_reply(weights: Weights, *, meta: Mapping[str, Any]) -> Shareable:
    """Return a model, such as the site's best."""
    return DXO(DataKind.WEIGHTS, data=arrays_of(weights), meta=dict(meta)).to_shareable()


def metrics_reply(result: EvaluationResult) -> Shareable:
    """Return the metrics of an evaluation, aggregated over the site's data."""
    meta = {CASES: result.cases}
    return DXO(DataKind.METRICS, data=to_plain(result.metrics), meta=meta).to_shareable()


def failed_reply(word: str, reference: str) -> Shareable:
    """Return a failed reply: all that a server learns of an error.

    Args:
        word: one of ``fl_client.status_words``.
        reference: under which the site keeps the error's text.
    """
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(STATUS, f"{word} (reference {reference})")
    return reply
