"""``config_train.json`` -> the first global weights; so a job writes its network only once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fl_server.guard.metric_contract import MetricContract, metric_contract
from mmar_runtime.config.loader import (
    CROSS_VALIDATION_FILE,
    Check,
    load_evaluation_config,
    load_train_config,
)
from mmar_runtime.config.nodes import ComponentSpec, Literal, plain
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.job_documents import FEDERATION_ARGUMENTS
from mmar_runtime.exchange.sharing import shared_tensors
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.policy.files.paths import resolve_inside, text_fault
from mmar_runtime.policy.limits_check import limits_check, weights_size_check
from mmar_runtime.policy.mmar_check import own_code_check
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SitePolicy
from mmar_runtime.weights import Weights, load_into, read_checkpoint, weights_of


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialModel:
    """Where a federated run starts.

    Attributes:
        weights: the first global weights: of the shared tensors only, where not all are shared.
        train_conf: the network's part of the configuration, as checkpoints carry it.
        key_metric: label of the metric by which models are compared.
        metrics: what a site's metrics of its validation have to be.
        cross_site_metrics: what they have to be in cross-site validation.
        shared_names: the tensors that are shared; None for all.
    """

    weights: Weights
    train_conf: Mapping[str, Any]
    key_metric: str
    metrics: MetricContract
    cross_site_metrics: MetricContract
    shared_names: tuple[str, ...] | None = None


def initial_model(
    mmar: Mmar,
    *,
    values: Mapping[str, Scalar],
    policy: SitePolicy = DEFAULT_POLICY,
    shared: list[str] | None = None,
    load_checkpoint: bool = True,
) -> InitialModel:
    """Return the network of ``train.model`` with its first weights.

    They are drawn from the config's random seed, or read from the checkpoint that an enabled
    CheckpointLoader of the train section names.

    Args:
        mmar: the MMAR of the job; its data lists are not looked at.
        values: the server's own variables.
        policy: what the server allows a job: code for the network, handlers that send to other
            machines. None of the handlers runs here, but a job that no site allows is better
            refused before it starts.
        shared: names of the tensors that the sites share, with ``*`` for any characters; None for
            all.
        load_checkpoint: whether that checkpoint is read; a job that only validates has none.

    Raises:
        ConfigError: no network, no validation with a key metric, or any other fault of the config.
        CheckpointError, WeightsError: the checkpoint cannot be read or does not fit.
    """
    checks = _checks(mmar, policy)
    config = load_train_config(mmar, site=values, checks=checks)
    if not (specs := config.train.specs("model")):
        message = "a federated job needs an entry 'model' in 'train'"
        raise ConfigError([Problem(config.train.location, message, "", "section")])
    network = _network(specs[0], config, policy)
    for loader in _loaders(config) if load_checkpoint else ():
        path = _own_file(loader, mmar, policy)
        load_into(network, read_checkpoint(path).weights, source=str(path))
    metrics, weights = _metrics(config), weights_of(network)
    names = None if shared is None else _shared_names(shared, weights, config)
    return InitialModel(
        weights=weights if names is None else {name: weights[name] for name in names},
        train_conf={"train": {"model": plain(specs[0])}},
        key_metric=metrics.key_metric,
        metrics=metrics,
        cross_site_metrics=_cross_site_metrics(mmar, metrics.key_metric, values, checks),
        shared_names=names,
    )


def _network(spec: ComponentSpec, config: TrainConfig, policy: SitePolicy) -> torch.nn.Module:
    # They bring MONAI in, which takes longest of all. NVFlare's simulator starts the sites once the
    # server's classes are imported, so the sites do their imports while the server does these.
    from mmar_runtime.components.builder import BuildContext
    from mmar_runtime.components.network import build_network
    from mmar_runtime.workflows.session import seed_everything

    if config.settings.random_seed is not None:
        seed_everything(config.settings.random_seed)
    context = BuildContext(
        device=torch.device("cpu"),
        allow_code=policy.byoc.mode != "off",
        max_parameters=policy.limits.parameters,
    )
    return build_network(spec, config, context)


def _checks(mmar: Mmar, policy: SitePolicy) -> list[Check]:
    """Return the values of a server: it has no data, and paths to data mean nothing here."""
    mode = policy.byoc.mode
    components = component_check(
        allow_code=mode != "off", allow_stored=mode == "on", allow_egress=policy.egress
    )
    sizes = [limits_check(policy.limits), weights_size_check(policy.limits)]
    return [components, own_code_check(mmar, policy), *sizes]


def _loaders(config: TrainConfig) -> list[Literal]:
    """Return the file that the config starts from; none unless it is switched on to be loaded."""
    loaders = [spec for spec in config.train.specs("handlers") if spec.name == "CheckpointLoader"]
    paths = [spec.args.items.get("load_path") for spec in loaders]
    return [path for path in paths if isinstance(path, Literal)]


def _own_file(named: Literal, mmar: Mmar, policy: SitePolicy) -> Path:
    """Return the file that a job names, inside of its own folder or below the server's data roots.

    Any other would be sent to all sites as the first global model.
    """
    text = str(named.value)
    fault = text_fault(text) or "leads out of the job's folder"
    roots = () if text_fault(text) else (mmar.root, *policy.data_roots)
    inside = [found for root in roots if (found := resolve_inside(root, text)) is not None]
    if not inside:
        advice = "Put the file into models/ of the job, or below data_roots of the server."
        raise ConfigError([Problem(named.location, f"{text!r} {fault}", advice, "path")])
    return inside[0]


def _shared_names(shared: list[str], weights: Weights, config: TrainConfig) -> tuple[str, ...]:
    place = FEDERATION_ARGUMENTS / "shared_names"
    names = shared_tensors(shared, weights, place)
    if _loaders(config):
        message = "sites that share some tensors would start the others from random values"
        advice = "Leave out shared_names, or the CheckpointLoader of the train section."
        raise ConfigError([Problem(place, message, advice, "shared")])
    return names


def _metrics(config: TrainConfig) -> MetricContract:
    specs = config.validate.specs("key_metric") if config.validate is not None else ()
    if config.validate is None or not specs or specs[0].log_label is None:
        message = "a federated job needs a 'key_metric' in 'validate'; models are compared by it"
        raise ConfigError([Problem(config.train.location, message, "", "section")])
    return metric_contract(config.validate, specs[0].log_label)


def _cross_site_metrics(
    mmar: Mmar, key_metric: str, values: Mapping[str, Scalar], checks: list[Check]
) -> MetricContract:
    """Of ``config_cross_validation.json``; a job without it evaluates no model elsewhere."""
    if not mmar.document(CROSS_VALIDATION_FILE).is_file():
        return MetricContract(key_metric=key_metric)
    config = load_evaluation_config(mmar, file=CROSS_VALIDATION_FILE, site=values, checks=checks)
    return metric_contract(config.section, key_metric)
