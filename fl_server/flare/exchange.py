"""NVFlare's DXO <-> our values, on the server's side of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.task_utils import get_filters
from nvflare.app_common.app_constant import AppConstants

from fl_server.updates import Received
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.arrays import arrays_of, as_tensor, change_data, stored_weights, unpack
from mmar_runtime.exchange.messages import STATUS_WORD, Submit, Task, Train, Validate
from mmar_runtime.exchange.tensor_files import StoredWeights
from mmar_runtime.flare.wire import (
    AGGREGATION_WEIGHTS,
    BASE_MODEL,
    LOGS,
    META_NAMES,
    RETURN_CODES,
    SERVERS_OWN,
    STATUS,
)
from mmar_runtime.weights import Weights

STORED = "mmar_stored"
"""Where a reply has its arrays and what came in files; see ``take_as_arrays``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReply:
    """What a site sent, as it came: nothing of it has been looked at."""

    kind: object
    data: object
    meta: object


class ModelArrays(dict[str, np.ndarray[Any, Any]]):
    """The arrays of a model that nobody changes: what copies it deeply gets the same."""

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelArrays:
        """NVFlare copies each task before it is sent, so that nobody changes it meanwhile."""
        return self


def as_arrays(weights: Weights) -> ModelArrays:
    """Return arrays that share the tensors' memory."""
    return ModelArrays(arrays_of(weights))


def weights_dxo(weights: Weights) -> DXO:
    """Return a model for the way to a site."""
    return DXO(DataKind.WEIGHTS, data=as_arrays(weights))


def own_names(task: Shareable) -> None:
    """Give a task a dictionary of its own, in which a filter may replace arrays."""
    change_data(task, lambda data: dict(data) if isinstance(data, ModelArrays) else data)


def app_folder(fl_ctx: FLContext) -> Path:
    """Return the job's app as it was deployed to this server."""
    return Path(fl_ctx.get_engine().get_workspace().get_app_dir(fl_ctx.get_job_id()))


def cookie(reply: Shareable, name: str) -> object:
    """Return a cookie of the task that came back with its reply; None if it did not."""
    jar = reply.get_cookie_jar()
    return jar.get(name) if type(jar) is dict else None


def answered_round(reply: Shareable) -> int | None:
    """Return the round of a site's reply to ``train``, counted from 1; None if unknown."""
    number = cookie(reply, AppConstants.CONTRIBUTION_ROUND)
    return number + 1 if type(number) is int else None


def claimed(fl_ctx: FLContext) -> dict[str, object]:
    """Return the name and the job that the sender gives itself."""
    peer = fl_ctx.get_peer_context()
    if not isinstance(peer, FLContext):
        return {}
    return {"site": peer.get_identity_name(), "job": peer.get_job_id()}


def raw_reply(reply: Shareable) -> RawReply:
    """Return the parts of a reply.

    Raises:
        FederationError: it has none.
    """
    try:
        dxo = from_shareable(reply)
    except Exception as error:  # whatever a site sent may raise anything
        raise FederationError(f"the reply holds no data ({type(error).__name__})") from error
    return RawReply(kind=dxo.data_kind, data=dxo.data, meta=dxo.meta)


def plain_metadata(raw: RawReply, claims: Mapping[str, object]) -> object:
    """Return the metadata of a reply under the guard's names; other keys keep their own."""
    if type(raw.meta) is not dict:
        return raw.meta
    named = {
        META_NAMES.get(key, f"meta.{key}") if type(key) is str else key: value
        for key, value in raw.meta.items()
    }
    kind = raw.kind.value if isinstance(raw.kind, DataKind) else raw.kind
    return {**named, "kind": kind, **claims}


def message_of(
    task: Task, *, rounds: int, base_model: str, factors: Mapping[str, float] | None
) -> Shareable:
    """Return a task as it goes to a site.

    Args:
        task: what the run wants.
        rounds: how many the job asks for.
        base_model: what identifies the global model that a round starts from.
        factors: site -> factor of its claim, which sites of an encrypted job have to know.
    """
    if isinstance(task, Submit):
        return Shareable()
    message = weights_dxo(task.weights).to_shareable()
    if isinstance(task, Train):
        message.set_header(AppConstants.CURRENT_ROUND, task.round_number - 1)
        message.set_header(AppConstants.NUM_ROUNDS, rounds)
        message.add_cookie(AppConstants.CONTRIBUTION_ROUND, task.round_number - 1)
        message.add_cookie(BASE_MODEL, base_model)
        if factors is not None:
            message.set_header(AGGREGATION_WEIGHTS, dict(factors))
    elif isinstance(task, Validate):
        owner = f"{SERVERS_OWN}{task.owner}" if task.is_global else task.owner
        message.set_header(AppConstants.MODEL_OWNER, owner)
        message.add_cookie(AppConstants.MODEL_OWNER, task.owner)
    return message


def received_from(reply: Shareable, fl_ctx: FLContext) -> Received:
    """Return a reply of a site as plain values, of which nothing has been judged."""
    claims = claimed(fl_ctx)
    if cookie(reply, AppConstants.CONTRIBUTION_ROUND) is not None:
        claims |= {"round": answered_round(reply), "base_model": cookie(reply, BASE_MODEL)}
    try:
        raw = raw_reply(reply)
    except FederationError:
        return Received(data=None, metadata={"kind": "none", **claims})

    def weights() -> Weights:
        arrays: Any = raw.data
        stored = _as_it_came(reply, arrays)
        return stored or {name: as_tensor(value) for name, value in arrays.items()}

    return Received(
        data=raw.data,
        metadata=plain_metadata(raw, claims),
        weights=weights,
        logs=reply.get_header(LOGS, {}),
    )


def take_as_arrays(fl_ctx: FLContext) -> None:
    """Give the reply that has come the arrays that filters and guard know.

    A contribution that came in files is kept beside them as such, for the mean, which needs a
    tensor at a time; but not where a filter is going to change the arrays. Whoever else tries to
    gets an error.
    """
    reply = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
    if not isinstance(reply, dict):
        return
    reply.pop(STORED, None)  # a site may have sent something by that name
    configured = fl_ctx.get_prop(FLContextKey.RUNNER).config.task_result_filters
    task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
    filters = get_filters("task_result_filters", fl_ctx, configured, task, FilterKey.IN)
    stored = None if filters else stored_weights(reply)
    unpack(reply)
    if stored is not None:
        arrays = reply["DXO"]["data"]
        for array in arrays.values():
            array.flags.writeable = False
        reply[STORED] = (dict(arrays), stored)


def _as_it_came(reply: Shareable, judged: Mapping[str, Any]) -> StoredWeights | None:
    """Return a contribution in files, if it is the one whose arrays were judged; else None."""
    if STORED not in reply:
        return None
    arrays, stored = reply[STORED]
    same = arrays.keys() == judged.keys() and all(
        arrays[name] is array for name, array in judged.items()
    )
    return stored if same else None


def in_memory(reply: Shareable) -> Shareable:
    """Return a reply with arrays that may be changed, for code of a job's own."""
    own = Shareable()
    own.update({key: value for key, value in reply.items() if key != STORED})
    change_data(own, _writeable)
    return own


def _writeable(data: object) -> object:
    if not isinstance(data, dict):
        return data
    return {
        name: value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value
        for name, value in data.items()
    }


def failure_of(result: Shareable) -> str | None:
    """Return why a site's reply is no result; None if it is one."""
    code = result.get_return_code()
    if code in (None, ReturnCode.OK):
        return None
    status = result.get_header(STATUS)
    if type(status) is str and STATUS_WORD.fullmatch(status):
        return status
    return code if type(code) is str and code in RETURN_CODES else "an unknown return code"


def site_names(fl_ctx: FLContext) -> tuple[str, ...]:
    """Return the sites of this run, in the order of their names."""
    return tuple(sorted(client.name for client in fl_ctx.get_engine().get_clients()))


def job_name(fl_ctx: FLContext) -> str:
    """Return the job's name from its meta data, else its id."""
    meta = fl_ctx.get_prop(FLContextKey.JOB_META) or {}
    return str(meta.get("name") or fl_ctx.get_job_id())
