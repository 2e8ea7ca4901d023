"""Homomorphic encryption at a site: two filters of NVFlare.

``DecryptModel`` stands first behind what the server sends, ``EncryptReply`` last before what
leaves: the site's own privacy filters, then those of the job, then the encryption, then the gate.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fl_client.flare.audit import note
from fl_client.flare.encryption_keys import PLACE, asked_layers, site_keys, weigh_by
from fl_client.flare.failure import failure
from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.arrays import as_tensor
from mmar_runtime.exchange.encryption import (
    ARRAYS,
    LAYOUT,
    EncryptedPart,
    is_encrypted,
    layout_of,
    plain_part,
)
from mmar_runtime.exchange.rounding import Arrays
from mmar_runtime.exchange.weighing import WeighBy, claim_of
from mmar_runtime.flare.wire import AGGREGATION_WEIGHTS, NOT_DECRYPTED, SAMPLES
from mmar_runtime.weights import digest

if TYPE_CHECKING:  # brings TenSEAL in, which only an encrypted job needs
    from mmar_runtime.exchange.ckks import Keys

RECEIVED = "mmar_received_weights"
FACTOR = "mmar_aggregation_weight"
"""What ``EncryptReply`` has to know of the task, in the context of the task."""

CAME_ENCRYPTED = "mmar_came_encrypted"
"""Whether a model of the job has come encrypted; of the run, as each task has its own filter."""


class DecryptModel(Filter):
    """Puts the decrypted tensors in the place of the encrypted part of a received model."""

    def __init__(self) -> None:
        super().__init__()
        self._layers: Any = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Read when the run starts what the job encrypts; else no encrypted model is taken."""
        if event_type == EventType.START_RUN:
            self._layers = asked_layers(fl_ctx)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the task with a model that can be read; or with the reason why there is none."""
        shareable.set_header(NOT_DECRYPTED, None)
        factors = shareable.get_header(AGGREGATION_WEIGHTS)
        try:
            dxo = from_shareable(shareable)
            if is_encrypted(dxo.data):
                model = decrypted(dxo.data, site_keys(_startup(fl_ctx)))
                _require_layout(dxo.data, model, self._layers)
                fl_ctx.set_prop(CAME_ENCRYPTED, True, private=True, sticky=True)
                dxo.data = model
                shareable = dxo.update_shareable(shareable)
            elif fl_ctx.get_prop(CAME_ENCRYPTED):
                raise WeightsError(
                    "a model came in plain after one that was encrypted; only the first one of a "
                    "job is in plain, and nothing was loaded"
                )
            factor = _factor(factors, fl_ctx.get_identity_name())
        except Exception as error:
            # It becomes the error of the task, with its status word, where the model is read.
            shareable.set_header(NOT_DECRYPTED, str(error))
            return shareable
        fl_ctx.set_prop(RECEIVED, dxo.data, private=True, sticky=False)
        fl_ctx.set_prop(FACTOR, factor, private=True, sticky=False)
        return shareable


class EncryptReply(Filter):
    """Encrypts tensors of an update, or of the site's best model, before they leave.

    Args:
        encrypt_layers: which: exact names, or names with ``*`` for any characters, of which the
            floating-point tensors are meant. The server's workflow has the same argument.
    """

    def __init__(self, encrypt_layers: list[str]) -> None:
        super().__init__()
        self.encrypt_layers = encrypt_layers
        self._weigh_by: WeighBy | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Read when the run starts what the sites of the job claim as their weight."""
        if event_type == EventType.START_RUN:
            self._weigh_by = weigh_by(fl_ctx)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the reply as it may leave; a failed one where it cannot be encrypted."""
        if shareable.get_return_code() not in (None, ReturnCode.OK):
            return shareable
        try:
            dxo = from_shareable(shareable)
            if dxo.data_kind in (DataKind.WEIGHT_DIFF, DataKind.WEIGHTS):
                dxo.data = self._encrypted(dxo, fl_ctx)
                shareable = dxo.update_shareable(shareable)
            return shareable
        except Exception as error:
            task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
            return failure(error, task=task, by=self, fl_ctx=fl_ctx)

    def _encrypted(self, dxo: DXO, fl_ctx: FLContext) -> dict[str, npt.NDArray[Any]]:
        weight, base = 1.0, None
        if dxo.data_kind == DataKind.WEIGHT_DIFF:
            base = fl_ctx.get_prop(RECEIVED)
            if base is None:
                raise WeightsError("the update does not say what it is a difference to")
            weight = self._claim(dxo) * fl_ctx.get_prop(FACTOR)
        data = encrypted(
            dxo.data,
            base,
            layers=self.encrypt_layers,
            weight=weight,
            keys=site_keys(_startup(fl_ctx)),
        )
        sizes = {name: array.nbytes for name, array in data.items()}
        hidden = sum(size for name, size in sizes.items() if name in ARRAYS)
        note(
            fl_ctx,
            "reply-encrypted",
            bytes=sum(sizes.values()),
            encrypted_bytes=hidden,
            tensors=digest({name: as_tensor(array) for name, array in data.items()}),
        )
        return data

    def _claim(self, dxo: DXO) -> int:
        """Return what the site claims as its weight, by the rule of the job."""
        steps, samples = map(dxo.get_meta_prop, (MetaKey.NUM_STEPS_CURRENT_ROUND, SAMPLES))
        if self._weigh_by is None or type(steps) is not int:
            raise WeightsError("the update has no steps, or the rule of the job was not read")
        try:
            return claim_of(self._weigh_by, steps=steps, samples=samples)
        except ValueError as error:
            raise WeightsError(str(error)) from error


def encrypted(
    data: Arrays, base: Arrays | None, *, layers: Any, weight: float, keys: Keys
) -> dict[str, npt.NDArray[Any]]:
    """Return what leaves in the place of some weights, or of a difference of weights.

    A tensor that a filter has left out of a difference did not move.

    Args:
        data: the weights, or a difference.
        base: to what it is a difference; None for weights.
        layers: the names, or names with ``*``, of what is encrypted.
        weight: by which the encrypted tensors are multiplied.
        keys: of this site.

    Raises:
        WeightsError: a tensor to encrypt is missing, of another shape, too large or not finite.
        ConfigError: ``layers`` fit nothing.
    """
    layout = layout_of(data if base is None else base, layers, PLACE)
    if base is None:
        row = layout.joined(data)
    else:
        still = {name: np.zeros_like(base[name]) for name in layout.tensors}
        row = layout.joined({**still, **data}) + layout.joined(base)
    part = EncryptedPart(layout=layout, weight=weight, ciphertexts=keys.encrypt(row, weight))
    plain = {name: array for name, array in data.items() if name not in layout.tensors}
    return {**plain, **part.arrays}


def decrypted(data: Arrays, keys: Keys) -> dict[str, npt.NDArray[Any]]:
    """Return a model with all its tensors; each has the shape and the dtype that it had.

    Raises:
        WeightsError: it was not encrypted with these keys, or its values are not finite.
    """
    part = EncryptedPart.of(data)
    tensors = keys.tensors(part)
    if both := sorted(tensors.keys() & data.keys()):
        raise WeightsError(f"{both[0]!r} came in plain and encrypted")
    return {**plain_part(data), **tensors}


def _require_layout(data: Arrays, model: Arrays, layers: Any) -> None:
    """Refuse ciphertexts that the server labels as tensors that leave in plain."""
    if data[LAYOUT].tobytes() != layout_of(model, layers, PLACE).text:
        raise WeightsError(
            "other tensors of the received model are encrypted than those that the job encrypts; "
            "nothing was loaded"
        )


def _startup(fl_ctx: FLContext) -> Path:
    return Path(fl_ctx.get_engine().get_workspace().get_startup_kit_dir())


def _factor(factors: object, site: str) -> float:
    """Return the factor of this site's claim, as the server has told it."""
    factor = factors.get(site, 1.0) if isinstance(factors, dict) else 1.0
    if type(factor) not in (int, float) or not math.isfinite(factor) or factor <= 0:
        raise WeightsError(f"the aggregation weight of this site came as {factor!r}")
    return float(factor)
