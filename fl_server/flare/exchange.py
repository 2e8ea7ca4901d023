"""NVFlare's DXO <-> our values, on the server's side of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import (
    ModelLearnable,
    ModelLearnableKey,
    make_model_learnable,
)
from nvflare.app_common.app_constant import AppConstants

from fl_server.run_record import EpochReport, SiteContribution
from mmar_runtime.errors import FederationError
from mmar_runtime.weights import Weights

REPORT = "mmar_report"
STATUS = "mmar_status"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedUpdate:
    """A contribution as it came from the wire, not checked yet."""

    difference: Weights
    steps: Any
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteModel:
    """A site's own best model, with the round it is of and its metrics at that site."""

    weights: Weights
    round_number: int
    metrics: Mapping[str, Any]


def as_tensor(value: Any) -> torch.Tensor:
    """A tensor that shares the array's memory where that can be written to."""
    array = np.asarray(value)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def weights_from(learnable: ModelLearnable) -> dict[str, torch.Tensor]:
    """The weights of NVFlare's model object."""
    return {name: as_tensor(value) for name, value in learnable[ModelLearnableKey.WEIGHTS].items()}


def learnable_from(weights: Weights) -> ModelLearnable:
    """NVFlare's model object with these weights."""
    return make_model_learnable(as_arrays(weights), {})


def as_arrays(weights: Weights) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays that share the tensors' memory."""
    return {name: tensor.numpy() for name, tensor in weights.items()}


def weights_dxo(weights: Weights) -> DXO:
    """A model for the way to a site."""
    return DXO(DataKind.WEIGHTS, data=as_arrays(weights))


def global_weights(fl_ctx: FLContext) -> dict[str, torch.Tensor]:
    """The global model that the workflow holds at this moment.

    Raises:
        FederationError: there is none.
    """
    learnable = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
    if not isinstance(learnable, ModelLearnable):
        raise FederationError("the workflow holds no global model")
    return weights_from(learnable)


def round_number(fl_ctx: FLContext) -> int:
    """The current round, counted from 1; NVFlare counts from 0."""
    return int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND)) + 1


def answered_round(reply: Shareable) -> int | None:
    """The round that a site's reply to ``train`` belongs to, counted from 1; None if unknown."""
    number = reply.get_cookie(AppConstants.CONTRIBUTION_ROUND)
    return number + 1 if type(number) is int else None


def peer_name(fl_ctx: FLContext) -> str:
    """The site that sent what is being handled, by its authenticated identity."""
    return str(fl_ctx.get_peer_context().get_identity_name())


def update_from(result: Shareable) -> ReceivedUpdate:
    """A site's contribution.

    Raises:
        FederationError: it is no difference of weights, or has no report.
    """
    dxo = _dxo(result, DataKind.WEIGHT_DIFF)
    report = dxo.get_meta_prop(REPORT)
    if not isinstance(report, Mapping):
        raise FederationError("the contribution carries no report of the round")
    return ReceivedUpdate(
        difference={name: as_tensor(value) for name, value in dxo.data.items()},
        steps=dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND),
        report=report,
    )


def contribution_from(update: ReceivedUpdate) -> SiteContribution:
    """What the run record keeps of a contribution.

    Raises:
        FederationError: the site's report lacks something or holds numbers that are not finite.
    """
    report = dict(update.report)
    try:
        epochs = tuple(
            EpochReport(**epoch) for epoch in report["epochs"] if epoch["loss"] is not None
        )
        return SiteContribution(
            steps=update.steps,
            sent_bytes=sum(tensor.nbytes for tensor in update.difference.values()),
            seconds=report["seconds"],
            received_metrics=report["received_metrics"],
            local_metrics=report["local_metrics"],
            epochs=epochs,
            built=report["built"],
            process=report["process"],
        )
    except (KeyError, TypeError) as error:
        raise FederationError(f"the report of the round is not complete: {error}") from error


def site_model_from(result: Shareable) -> SiteModel:
    """A site's best model.

    Raises:
        FederationError: it is no set of weights, or does not say how good it is.
    """
    dxo = _dxo(result, DataKind.WEIGHTS)
    number, metrics = dxo.get_meta_prop("round"), dxo.get_meta_prop("metrics")
    if not isinstance(number, int) or not isinstance(metrics, Mapping):
        raise FederationError("the model comes without its round and its metrics")
    weights = {name: as_tensor(value) for name, value in dxo.data.items()}
    return SiteModel(weights=weights, round_number=number, metrics=metrics)


def metrics_from(result: Shareable) -> Mapping[str, Any]:
    """The metrics in a site's reply.

    Raises:
        FederationError: it holds none.
    """
    return dict(_dxo(result, DataKind.METRICS).data)


def failure_of(result: Shareable) -> str | None:
    """Why a site's reply is no result; None if it is one."""
    code = result.get_return_code()
    if code in (None, ReturnCode.OK):
        return None
    return str(result.get_header(STATUS) or code)


def _dxo(result: Shareable, kind: str) -> DXO:
    try:
        dxo = from_shareable(result)
    except ValueError as error:
        raise FederationError(f"the reply holds no data: {error}") from error
    if dxo.data_kind != kind or not isinstance(dxo.data, Mapping) or not dxo.data:
        raise FederationError(f"the reply holds {dxo.data_kind}, not {kind}")
    return dxo


def site_names(fl_ctx: FLContext) -> tuple[str, ...]:
    """The sites of this run, in the order of their names."""
    return tuple(sorted(client.name for client in fl_ctx.get_engine().get_clients()))


def job_name(fl_ctx: FLContext) -> str:
    """The job's name from its meta data, else its id."""
    meta = fl_ctx.get_prop(FLContextKey.JOB_META) or {}
    return str(meta.get("name") or fl_ctx.get_job_id())
