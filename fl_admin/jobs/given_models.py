"""Checkpoints from anywhere -> the models of a job that has them evaluated at every site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_admin.at_server.results import results_folder
from fl_admin.jobs.settings import SETTINGS_PLACE, TEMPLATES
from fl_client.jobs.files import META
from fl_server.record.cross_site import BEST_GLOBAL_MODEL, GLOBAL_MODEL, MODEL_NAME
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import CheckpointError, ConfigError, Problem
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.mmar_check import SITE_VARIABLES
from mmar_runtime.policy.site_policy import OWN_MMAR_POLICY

if TYPE_CHECKING:
    from mmar_runtime.weights import Weights

SUFFIX = ".safetensors"
MAX_SHOWN = 3
"""Tensors that do not fit, of one model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSettings:
    """A job that trains nothing.

    Attributes:
        models: names of the models, in the order of the matrix.
        min_sites: sites that have to evaluate each of them.
    """

    models: tuple[str, ...]
    min_sites: int = 2

    @property
    def own_classes(self) -> tuple[str, ...]:
        """None: such a job has neither filters nor an aggregator of its own."""
        return ()

    def problems(self) -> Iterator[Problem]:
        """Yield what no federation can do."""
        if type(self.min_sites) is not int or self.min_sites < 1:
            message = f"has to be a whole number from 1, found {self.min_sites!r}"
            yield Problem(SETTINGS_PLACE / "min_sites", message, "", "job")
        for name in self.models:
            if MODEL_NAME.fullmatch(name) is None:
                message = (
                    f"{name!r} is not a name of a model: letters, digits and ._-, at most 100, the "
                    "first one a letter or a digit; not SRV_ at the beginning"
                )
                yield Problem(SETTINGS_PLACE / "models", message, "Write --model NAME=FILE.", "job")

    def documents(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the job's documents by file name: ``meta.json`` and NVFlare's two configs."""
        meta = read_json(TEMPLATES / META)
        server, client = (
            read_json(TEMPLATES / "validation" / file) for file in (SERVER_CONFIG, CLIENT_CONFIG)
        )
        meta.update(name=name, min_clients=self.min_sites)
        server.update(min_clients=self.min_sites)
        server["workflows"][0]["args"]["models"] = list(self.models)
        return {META: meta, SERVER_CONFIG: server, CLIENT_CONFIG: client}


def models_of(run: Path) -> dict[str, Path]:
    """Return the global models of a run and the best model of each site, by their names.

    Args:
        run: folder of a simulation, of a downloaded job, or of their results.

    Raises:
        ConfigError: there are none, or they hold a part of the network only.
    """
    from fl_server.record.files import read_run_record

    folder = results_folder(run, holds="models")
    files = sorted((folder / "models").glob("*.pt"))
    record = folder / "run_record.json"
    place = Location("--models-of")
    if not files:
        message = f"{str(folder / 'models')!r} holds no models"
        raise ConfigError([Problem(place, message, "", "job")])
    if record.is_file() and read_run_record(record).shared_names is not None:
        message = (
            "the sites of that run shared a part of the network; its models are not whole networks"
        )
        advice = "Each site keeps the rest to itself. Name whole networks with --model NAME=FILE."
        raise ConfigError([Problem(place, message, advice, "shared")])
    first = (GLOBAL_MODEL, BEST_GLOBAL_MODEL)
    names = sorted((path.stem for path in files), key=lambda name: (name not in first, name))
    return {name: folder / "models" / f"{name}.pt" for name in names}


def write_given_models(models: Mapping[str, Path], app: Mmar, values: Mapping[str, Scalar]) -> None:
    """Write the models into a job's app, as safetensors, once each fits the network of training.

    Args:
        models: name -> checkpoint.
        app: the app with its documents and its code.
        values: the job's own variables.

    Raises:
        ConfigError: with every file that cannot be read, holds values that are not finite, or does
            not fit.
    """
    from safetensors.torch import save_file

    from fl_server.initial_model import initial_model

    own_values = {**SITE_VARIABLES, **values}
    network = initial_model(
        app, values=own_values, policy=OWN_MMAR_POLICY, load_checkpoint=False
    ).weights
    problems: list[Problem] = []
    app.models.mkdir(exist_ok=True)
    for name, path in models.items():
        try:
            weights = _fitting(path, network, Location("--model") / name)
        except ConfigError as error:
            problems += error.problems
            continue
        # Copies: a file of safetensors takes no tensors that share their memory.
        copies = {key: tensor.clone().contiguous() for key, tensor in weights.items()}
        save_file(copies, app.models / f"{name}{SUFFIX}")
    if problems:
        raise ConfigError(problems)


def _fitting(path: Path, network: Weights, place: Location) -> Weights:
    """Return the weights in a file, if they fit the network.

    Raises:
        ConfigError: they do not, or are not finite; or the file cannot be read.
    """
    from fl_client.updates import first_not_finite
    from mmar_runtime.weights import mismatches, read_checkpoint

    try:
        weights = read_checkpoint(path).weights
    except CheckpointError as error:
        raise ConfigError([Problem(place, str(error), "", "checkpoint")]) from error
    faults = mismatches(network, weights)
    if faults:
        rest = len(faults) - MAX_SHOWN
        more = f"; and {rest} more" if rest > 0 else ""
        listed = "; ".join(faults[:MAX_SHOWN])
        message = f"{str(path)!r} does not fit the network: {listed}{more}"
        advice = "The network is 'model' of the train section of config_train.json."
        raise ConfigError([Problem(place, message, advice, "checkpoint")])
    odd = first_not_finite(weights)
    if odd is not None:
        message = f"{str(path)!r} holds values that are not finite, in {odd!r}"
        raise ConfigError([Problem(place, message, "", "checkpoint")])
    return weights
