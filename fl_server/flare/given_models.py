"""Models that came with the job, in place of those of a training: they are evaluated, no more."""

from __future__ import annotations

from pathlib import Path

from nvflare.apis.fl_context import FLContext

from fl_server.flare.exchange import app_folder
from fl_server.flare.persistor import MmarModelPersistor
from fl_server.initial_model import InitialModel, initial_model
from fl_server.record.cross_site import MODEL_NAME
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.errors import FederationError
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.site_policy import SitePolicy
from mmar_runtime.weights import mismatches, read_checkpoint

SUFFIX = ".safetensors"


class GivenModels(MmarModelPersistor):
    """Holds the models of a job that only validates; a persistor to which nothing is saved.

    All are compared with the network of ``config_train.json`` before any site is asked.

    Args:
        models: their names; each lies in ``models/<name>.safetensors`` of the job's app.
    """

    def __init__(self, models: list[str]) -> None:
        super().__init__()
        self.models = models

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models, in the order of the job."""
        return tuple(self.models)

    def first_model(
        self, mmar: Mmar, values: dict[str, Scalar], policy: SitePolicy
    ) -> InitialModel:
        """The network and its metrics, by which the guard judges; its weights go nowhere.

        Raises:
            FederationError: a name is none, or a model does not fit the network.
            CheckpointError: a model is missing, or cannot be read.
        """
        network = initial_model(mmar, values=values, policy=policy, load_checkpoint=False)
        for name in self.models:
            if not _is_name(name):
                # Another file of this server would be sent to every site.
                raise FederationError(f"{name!r} is no name of a model that a job brings")
            faults = mismatches(network.weights, read_checkpoint(_file(mmar, name)).weights)
            if faults:
                raise FederationError(f"the model {name!r} does not fit the network: {faults[0]}")
        return network

    def file(self, name: str, fl_ctx: FLContext) -> Path:
        """Where a model lies: in the job's app."""
        return _file(Mmar(app_folder(fl_ctx)), name)


def _is_name(value: object) -> bool:
    """Whether it is one; NVFlare hands over whatever stands in the job's JSON."""
    return isinstance(value, str) and MODEL_NAME.fullmatch(value) is not None


def _file(mmar: Mmar, name: str) -> Path:
    return mmar.models / f"{name}{SUFFIX}"
