"""A network from a file: TorchScript, or a checkpoint with the config it was trained by."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mmar_runtime.components.builder import BuildContext, ComponentBuilder
from mmar_runtime.config import pairs
from mmar_runtime.config.loader import TRAIN_FILE
from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec, ListNode, WeightsFile
from mmar_runtime.config.parser import NodeParser
from mmar_runtime.config.sections import EvaluationConfig, Section, WorkflowConfig
from mmar_runtime.config.sources import read_json
from mmar_runtime.config.upgrades import upgrade_document
from mmar_runtime.errors import CheckpointError, ConfigError
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check
from mmar_runtime.policy.fit_check import training_beside
from mmar_runtime.weights import Checkpoint, digest, load_into, read_checkpoint

logger = logging.getLogger(__name__)


def network_from_file(
    source: WeightsFile, config: WorkflowConfig, context: BuildContext
) -> torch.nn.Module:
    """Return the network that a ``ts_path`` or ``ckpt_path`` names, with its weights.

    Raises:
        CheckpointError: no such file, unreadable, or no configuration to build the network from.
        WeightsError: the file's weights do not fit its configuration.
    """
    path = Path(source.path)
    if source.kind == "ts_path":
        exported = _torchscript(path, context)
        if difference := other_weights(exported, path, Path(str(config.value("MMAR_CKPT")))):
            logger.warning("%s", difference)
        return exported
    checkpoint = read_checkpoint(path)
    spec = network_spec(checkpoint, path, config)
    network = build_network(spec, config, context)
    load_into(network, checkpoint.weights, source=str(path))
    if isinstance(config, EvaluationConfig) and checkpoint.train_conf is not None:
        for difference in other_preparation(checkpoint.train_conf, path, config):
            logger.warning("%s", difference)
    return network


def other_preparation(
    train_conf: Mapping[str, Any], path: Path, config: EvaluationConfig
) -> Iterator[str]:
    """Yield in what images are prepared otherwise than when the weights of a file were trained.

    Nothing, if the MMAR's own training differs from the evaluation too: the check has told that.
    """
    training = training_beside(config)
    own = None if training is None else training.validate or training.train
    if own is not None and any(pairs.preparation(config.section, own)):
        return
    name = "validate" if train_conf.get("validate") else "train"
    upgrade = upgrade_document({name: train_conf.get(name)}, path.name)
    raw = upgrade.document[name]
    raw = raw.get("pre_transforms") if isinstance(raw, Mapping) else None
    place = Location(path.name) / "train_conf" / name / "pre_transforms"
    parser = NodeParser(config.variables)
    entries = raw if isinstance(raw, list) else []
    items = [parser.entry(item, place / index) for index, item in enumerate(entries)]
    if parser.problems or not all(isinstance(item, ComponentSpec) for item in items) or not items:
        return
    listed = ListNode(location=place, items=tuple(items))
    then = Section(location=place, entries={"pre_transforms": listed})
    for finding in pairs.preparation(config.section, then):
        yield str(finding.notice)


def _torchscript(path: Path, context: BuildContext) -> torch.nn.Module:
    if not context.allow_code:
        raise CheckpointError(
            f"{str(path)!r} is TorchScript, which is code; it is not allowed here"
        )
    if not path.is_file():
        raise CheckpointError(
            f"there is no TorchScript file {str(path)!r}\n"
            "    To evaluate a checkpoint instead: --set dont_load_ts_model=True "
            "dont_load_ckpt_model=False"
        )
    with warnings.catch_warnings():
        # torch 2.13 points to torch.export here; Clara's files are TorchScript all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            network: torch.nn.Module = torch.jit.load(path, map_location=context.device)
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{str(path)!r} is not TorchScript: {error}") from error
    logger.info("loaded TorchScript model from path: %s", path)
    return network


def other_weights(exported: torch.nn.Module, path: Path, checkpoint: Path) -> str:
    """Return a sentence if an exported network has other weights than the checkpoint beside it.

    Empty if the tensors are equal, under any names, or if one of the two holds none to compare.

    Args:
        exported: the network of the file.
        path: the file.
        checkpoint: what the file is usually made of.
    """
    try:
        weights = read_checkpoint(checkpoint).weights
    except CheckpointError:
        return ""
    there, here = (
        sorted(digest({"": tensor}) for tensor in tensors.values())
        for tensors in (weights, exported.state_dict())
    )
    if not here or here == there:
        return ""
    older = path.stat().st_mtime < checkpoint.stat().st_mtime
    age = "is older than" if older else "is newer than"
    return (
        f"{path} {age} {checkpoint} and holds other weights; these results are those of "
        f"{path.name}. 'mmar export' makes it of {checkpoint.name} again"
    )


def network_spec(checkpoint: Checkpoint, path: Path, config: WorkflowConfig) -> ComponentSpec:
    """Return the network's component, from the checkpoint's own ``train_conf`` or the MMAR's.

    Raises:
        CheckpointError: neither names the network.
    """
    if checkpoint.train_conf is not None:
        raw, location = _model_entry(checkpoint.train_conf), Location(path.name) / "train_conf"
        return _parsed(raw, location, config)
    train_file = Mmar(config.mmar_root).document(TRAIN_FILE)
    try:
        raw = _model_entry(read_json(train_file))
    except (ConfigError, CheckpointError) as error:
        raise CheckpointError(
            f"{str(path)!r} carries no train_conf, and the MMAR's own config does not say what "
            f"the network is: {error}"
        ) from error
    return _parsed(raw, Location(train_file.name) / "train" / "model", config)


def _model_entry(train_conf: Any) -> Any:
    try:
        return train_conf["train"]["model"]
    except (KeyError, TypeError):
        raise CheckpointError("a training configuration without train.model") from None


def _parsed(raw: Any, location: Location, config: WorkflowConfig) -> ComponentSpec:
    parser = NodeParser(config.variables)
    # The file may be as old as the network's arguments.
    upgrade = upgrade_document({"train": {"model": raw}}, location.file)
    node = parser.entry(upgrade.document["train"]["model"], location)
    if parser.problems:
        raise ConfigError(parser.problems)
    if not isinstance(node, ComponentSpec):
        raise CheckpointError(f"{location}: the network is not given as a component")
    return node


def build_network(
    spec: ComponentSpec, config: WorkflowConfig, context: BuildContext
) -> torch.nn.Module:
    """Return the network alone, checked against the table first.

    Raises:
        ConfigError: an unknown network or argument.
    """
    section = Section(location=spec.location, entries={"model": spec})
    only_network = EvaluationConfig(
        mmar_root=config.mmar_root,
        file=config.file,
        settings=config.settings,
        variables=config.variables,
        own_names=frozenset(),
        section=section,
    )
    problems = list(component_check(allow_code=context.allow_code)(only_network))
    if problems:
        raise ConfigError(problems)
    network: torch.nn.Module = ComponentBuilder(only_network, context).get("", "model")
    return network
