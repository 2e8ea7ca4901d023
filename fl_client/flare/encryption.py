"""Homomorphic encryption at a site: two filters of NVFlare, and whether this site can do it.

``DecryptModel`` stands first behind what the server sends, ``EncryptReply`` last before what
leaves: the site's own privacy filters, then those of the job, then the encryption, then the gate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.fuel.sec.security_content_service import LoadResult, SecurityContentManager

from fl_client.encryption import RULE, job_layers
from fl_client.flare.audit import note
from fl_client.flare.exchange import NOT_DECRYPTED, as_tensor
from fl_client.flare.failed_filter import failed_reply
from mmar_runtime.config.location import Location
from mmar_runtime.encrypted_weights import (
    ARRAYS,
    LAYOUT,
    EncryptedPart,
    is_encrypted,
    layout_of,
)
from mmar_runtime.errors import MmarError, Problem, WeightsError
from mmar_runtime.he_extra import MISSING_EXTRA, extra_is_installed
from mmar_runtime.weights import digest

if TYPE_CHECKING:  # brings TenSEAL in, which only an encrypted job needs
    from mmar_runtime.ckks import Keys

Arrays = Mapping[str, npt.NDArray[Any]]

PLACE = Location("config_fed_client.json") / "task_result_filters" / "encrypt_layers"
AGGREGATION_WEIGHTS = "mmar_aggregation_weights"
"""The header of a task that maps a site to the factor of its steps in the mean."""

RECEIVED = "mmar_received_weights"
FACTOR = "mmar_aggregation_weight"
"""What ``EncryptReply`` has to know of the task, in the context of the task."""

CAME_ENCRYPTED = "mmar_came_encrypted"
"""Whether a model of the job has come encrypted; of the run, as each task has its own filter."""

NO_KEYS = (
    "the job asks for homomorphic encryption, and this kit has no keys for it: the federation was "
    "provisioned without 'he: true'"
)


class DecryptModel(Filter):
    """Puts the decrypted tensors in the place of the encrypted part of a received model."""

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The task with a model that can be read; or with the reason why there is none."""
        shareable.set_header(NOT_DECRYPTED, None)
        factors = shareable.get_header(AGGREGATION_WEIGHTS)
        try:
            dxo = from_shareable(shareable)
            if is_encrypted(dxo.data):
                model = decrypted(dxo.data, site_keys(_startup(fl_ctx)))
                _require_layout(dxo.data, model, fl_ctx)
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
            floating-point tensors are meant. The server's persistor has the same argument.
    """

    def __init__(self, encrypt_layers: list[str]) -> None:
        super().__init__()
        self.encrypt_layers = encrypt_layers

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The reply as it may leave; a failed one where it cannot be encrypted."""
        if shareable.get_return_code() not in (None, ReturnCode.OK):
            return shareable
        try:
            dxo = from_shareable(shareable)
            if dxo.data_kind in (DataKind.WEIGHT_DIFF, DataKind.WEIGHTS):
                dxo.data = self._encrypted(dxo, fl_ctx)
                shareable = dxo.update_shareable(shareable)
            return shareable
        except Exception as error:
            return failed_reply(error, "encryption", fl_ctx)

    def _encrypted(self, dxo: DXO, fl_ctx: FLContext) -> dict[str, npt.NDArray[Any]]:
        weight, base = 1.0, None
        if dxo.data_kind == DataKind.WEIGHT_DIFF:
            base = fl_ctx.get_prop(RECEIVED)
            steps = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
            if base is None or type(steps) is not int:
                raise WeightsError("the update does not say what it is a difference to, or steps")
            weight = steps * fl_ctx.get_prop(FACTOR)
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


def encrypted(
    data: Arrays, base: Arrays | None, *, layers: Any, weight: float, keys: Keys
) -> dict[str, npt.NDArray[Any]]:
    """What leaves in the place of some weights, or of a difference of weights.

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
    """A model with all its tensors; each has the shape and the dtype that it had.

    Raises:
        WeightsError: it was not encrypted with these keys, or its values are not finite.
    """
    part = EncryptedPart.of(data)
    row = keys.decrypt(part.ciphertexts, part.weight, part.layout.count)
    tensors = part.layout.parted(row)
    both = sorted(tensors.keys() & data.keys())
    if both:
        raise WeightsError(f"{both[0]!r} came in plain and encrypted")
    return {**{name: one for name, one in data.items() if name not in ARRAYS}, **tensors}


def _require_layout(data: Arrays, model: Arrays, fl_ctx: FLContext) -> None:
    """The server could label ciphertexts as tensors that leave in plain."""
    workspace = fl_ctx.get_engine().get_workspace()
    layers = job_layers(Path(workspace.get_app_dir(fl_ctx.get_job_id())))
    if data[LAYOUT].tobytes() != layout_of(model, layers, PLACE).text:
        raise WeightsError(
            "other tensors of the received model are encrypted than those that the job encrypts; "
            "nothing was loaded"
        )


def site_keys(startup: Path) -> Keys:
    """The keys in a site's kit, with the secret one.

    Raises:
        MmarError: the extra is not installed.
        WeightsError: there are none, they were changed, or cannot be used.
    """
    if not extra_is_installed():
        raise MmarError(MISSING_EXTRA)
    from mmar_runtime.ckks import CLIENT_CONTEXT, Keys

    return Keys(_signed(startup, CLIENT_CONTEXT), source=CLIENT_CONTEXT)


def _signed(startup: Path, name: str) -> bytes:
    """A file of the kit, as it was provisioned."""
    kit = SecurityContentManager(str(startup))
    content, result = kit.load_content(name)
    if not content:
        raise WeightsError(NO_KEYS)
    if kit.valid_config and result != LoadResult.OK:
        raise WeightsError(f"{name} is not as it was provisioned: {result.value}")
    return bytes(content)


def ability_faults(app: Path, startup: Path) -> Iterator[Problem]:
    """Why what a job asks to encrypt cannot be encrypted here: a site or a server.

    Args:
        app: the job's app.
        startup: the folder of the kit with the keys.

    Raises:
        ConfigError: ``config_fed_client.json`` cannot be read.
    """
    if job_layers(app) is None:
        return
    message = MISSING_EXTRA
    if extra_is_installed():
        from mmar_runtime.ckks import CLIENT_CONTEXT, SERVER_CONTEXT, Keys

        is_server = (startup / SERVER_CONTEXT).is_file() and not (
            startup / CLIENT_CONTEXT
        ).is_file()
        try:
            name = SERVER_CONTEXT if is_server else CLIENT_CONTEXT
            Keys(_signed(startup, name), source=name)
            return
        except WeightsError as error:
            message = str(error)
    yield Problem(PLACE, message, "", RULE)


def _startup(fl_ctx: FLContext) -> Path:
    return Path(fl_ctx.get_engine().get_workspace().get_startup_kit_dir())


def _factor(factors: object, site: str) -> float:
    """The factor of this site's steps, as the server has told it."""
    found = factors.get(site, 1.0) if isinstance(factors, dict) else 1.0
    if type(found) not in (int, float) or not math.isfinite(found) or found <= 0:
        raise WeightsError(f"the aggregation weight of this site came as {found!r}")
    return float(found)
