"""``config_train.json`` -> the first global weights; so a job writes its network only once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmar_runtime.components.builder import BuildContext
from mmar_runtime.components.network import build_network
from mmar_runtime.config.loader import load_train_config
from mmar_runtime.config.nodes import ComponentSpec, Literal, plain
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.weights import Weights, load_into, read_checkpoint, weights_of
from mmar_runtime.workflows.session import seed_everything


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialModel:
    """Where a federated run starts.

    Attributes:
        weights: the first global weights.
        train_conf: the network's part of the configuration, as checkpoints carry it.
        key_metric: label of the metric by which models are compared.
    """

    weights: Weights
    train_conf: Mapping[str, Any]
    key_metric: str


def initial_model(
    mmar: Mmar,
    *,
    values: Mapping[str, Scalar],
    allow_code: bool = False,
    allow_egress: bool = False,
) -> InitialModel:
    """The network of ``train.model`` with its first weights.

    They are drawn from the config's random seed, or read from the checkpoint that an enabled
    CheckpointLoader of the train section names.

    Args:
        mmar: the MMAR of the job; its data lists are not looked at.
        values: the server's own variables.
        allow_code: whether the network may be code of the job.
        allow_egress: whether the job may name handlers that send to other machines; none of them
            runs here, but a job that no site allows is better refused before it starts.

    Raises:
        ConfigError: no network, no validation with a key metric, or any other fault of the config.
        CheckpointError, WeightsError: the checkpoint cannot be read or does not fit.
    """
    check = component_check(allow_code=allow_code, allow_egress=allow_egress)
    config = load_train_config(mmar, site=values, checks=[check])
    specs = config.train.specs("model")
    if not specs:
        message = "a federated job needs an entry 'model' in 'train'"
        raise ConfigError([Problem(config.train.location, message, "", "section")])
    network = _network(specs[0], config, allow_code)
    for path in _checkpoints(config):
        load_into(network, read_checkpoint(path).weights, source=str(path))
    return InitialModel(
        weights=weights_of(network),
        train_conf={"train": {"model": plain(specs[0])}},
        key_metric=_key_metric(config),
    )


def _network(spec: ComponentSpec, config: TrainConfig, allow_code: bool) -> torch.nn.Module:
    if config.settings.random_seed is not None:
        seed_everything(config.settings.random_seed)
    context = BuildContext(device=torch.device("cpu"), allow_code=allow_code)
    return build_network(spec, config, context)


def _checkpoints(config: TrainConfig) -> list[Path]:
    """The file that the config starts from; none unless it is switched on to be loaded."""
    loaders = [spec for spec in config.train.specs("handlers") if spec.name == "CheckpointLoader"]
    paths = [spec.args.items.get("load_path") for spec in loaders]
    return [Path(str(path.value)) for path in paths if isinstance(path, Literal)]


def _key_metric(config: TrainConfig) -> str:
    specs = config.validate.specs("key_metric") if config.validate is not None else ()
    if not specs or specs[0].log_label is None:
        message = "a federated job needs a 'key_metric' in 'validate'; models are compared by it"
        raise ConfigError([Problem(config.train.location, message, "", "section")])
    return specs[0].log_label
