"""The global model on the server's disk, and its first weights from ``config_train.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_common.abstract.model_persistor import ModelPersistor
from nvflare.app_common.app_event_type import AppEventType
from nvflare.fuel.utils.memory_utils import try_malloc_trim

from fl_server.encryption import ServerEncryption
from fl_server.flare.encryption import server_encryption
from fl_server.flare.exchange import (
    global_arrays,
    global_weights,
    learnable_from,
    weights_from,
)
from fl_server.flare.later import finish, write_later
from fl_server.initial_model import InitialModel, initial_model, like
from fl_server.record.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import read_site_values
from mmar_runtime.errors import FederationError
from mmar_runtime.exchange.encrypted_files import (
    SUFFIX,
    read_encrypted_model,
    write_encrypted_model,
)
from mmar_runtime.exchange.encryption import is_encrypted
from mmar_runtime.files import link
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import SitePolicy, site_policy
from mmar_runtime.weights import Weights, read_checkpoint, write_checkpoint

RESULTS = "results"
MODELS = "models"
LARGE = 64 * 2**20
"""Bytes of a model from which on what a round has freed is given back to the system at once."""


def results_folder(fl_ctx: FLContext) -> Path:
    """Where a run's results are written, below its run folder."""
    workspace = fl_ctx.get_engine().get_workspace()
    return Path(workspace.get_run_dir(fl_ctx.get_job_id())) / RESULTS


class MmarModelPersistor(ModelPersistor):
    """Keeps the last and the best global model as checkpoints that ``mmar evaluate`` reads.

    Where the sites share some tensors only, the checkpoints hold those. Where sites send theirs
    encrypted, so are the models, in files of ``mmar_runtime.exchange.encryption``.

    Args:
        shared_names: the tensors that the sites share, by exact name or with ``*`` for any
            characters; None for all. The executor has the same argument.
        encrypt_layers: of these the tensors that sites send encrypted, likewise; None for none.
            The sites' filter ``EncryptReply`` has the same argument.
    """

    def __init__(
        self,
        shared_names: list[str] | None = None,
        encrypt_layers: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.shared_names = shared_names
        self.encrypt_layers = encrypt_layers
        self.encryption: ServerEncryption | None = None
        self._initial: InitialModel | None = None
        self._last: Mapping[str, Any] | None = None
        """The model that was saved last; nobody changes it."""

    @property
    def initial(self) -> InitialModel:
        """Where the run started; see ``load_model``.

        Raises:
            FederationError: the run has not started.
        """
        if self._initial is None:
            raise FederationError("the initial model is not there yet")
        return self._initial

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Build the initial model when the run starts; keep a model that was found best."""
        if event_type == EventType.START_RUN:
            self._start(fl_ctx)
        elif event_type == AppEventType.GLOBAL_BEST_MODEL_AVAILABLE:
            self._keep_as_best(fl_ctx)

    def _start(self, fl_ctx: FLContext) -> None:
        workspace = fl_ctx.get_engine().get_workspace()
        local = Path(workspace.get_site_config_dir())
        mmar = Mmar.open(workspace.get_app_dir(fl_ctx.get_job_id()))
        try:
            values = read_site_values(local, fl_ctx.get_identity_name())
            self._initial = self.first_model(mmar, values, site_policy(local))
            if self.encrypt_layers is not None:
                startup = Path(workspace.get_startup_kit_dir())
                self.encryption = server_encryption(
                    startup, self._initial.weights, self.encrypt_layers
                )
        except Exception as error:
            self.system_panic(f"no initial model: {error}", fl_ctx)

    def first_model(
        self, mmar: Mmar, values: dict[str, Scalar], policy: SitePolicy
    ) -> InitialModel:
        """Where the run starts; raises like ``initial_model``."""
        return initial_model(mmar, values=values, policy=policy, shared=self.shared_names)

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models of the server that are evaluated at every site."""
        return (GLOBAL_MODEL, BEST_GLOBAL_MODEL)

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """The first global weights; from now on nothing but the workflow holds their values."""
        initial = self.initial
        self._initial = replace(initial, weights=like(initial.weights))
        return learnable_from(initial.weights)

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        """Keep the global model of the round that just ended, whole or not at all."""
        arrays = self._last = model[ModelLearnableKey.WEIGHTS]
        self.write(GLOBAL_MODEL, weights_from(model), fl_ctx)
        if sum(array.nbytes for array in arrays.values()) > LARGE:
            # NVFlare's memory_gc_rounds does that too, and has the sites wait for it.
            write_later(self, fl_ctx, "a large model", try_malloc_trim)

    def _keep_as_best(self, fl_ctx: FLContext) -> None:
        """The model of the round before is there already, under another name."""
        arrays = global_arrays(fl_ctx)
        if arrays is self._last:
            last = self._place(GLOBAL_MODEL, arrays, fl_ctx)
            best = self._place(BEST_GLOBAL_MODEL, arrays, fl_ctx)
            write_later(self, fl_ctx, "the best global model", lambda: link(last, best))
        else:
            self.write(BEST_GLOBAL_MODEL, global_weights(fl_ctx), fl_ctx)

    def file(self, name: str, fl_ctx: FLContext) -> Path:
        """Where a model lies."""
        finish(fl_ctx)
        folder = results_folder(fl_ctx) / MODELS
        encrypted = folder / f"{name}{SUFFIX}"
        return encrypted if encrypted.is_file() else folder / f"{name}.pt"

    def write(self, name: str, weights: Weights, fl_ctx: FLContext) -> None:
        """Have a model's checkpoint written, with the network's configuration beside the weights.

        The weights must not be changed any more.
        """
        path, train_conf = self._place(name, weights, fl_ctx), self.initial.train_conf
        write = write_encrypted_model if is_encrypted(weights) else write_checkpoint
        write_later(self, fl_ctx, f"the model {name!r}", lambda: write(path, weights, train_conf))

    @staticmethod
    def _place(name: str, weights: Mapping[str, Any], fl_ctx: FLContext) -> Path:
        suffix = SUFFIX if is_encrypted(weights) else ".pt"
        return results_folder(fl_ctx) / MODELS / f"{name}{suffix}"

    def has(self, name: str, fl_ctx: FLContext) -> bool:
        """Whether there is such a model."""
        return self.file(name, fl_ctx).is_file()

    def read(self, name: str, fl_ctx: FLContext) -> Weights:
        """The weights of a model.

        Raises:
            CheckpointError: there is no such model.
        """
        path = self.file(name, fl_ctx)
        if path.name.endswith(SUFFIX):
            return read_encrypted_model(path).weights
        return read_checkpoint(path).weights
