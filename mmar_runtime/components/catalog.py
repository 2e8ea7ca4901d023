"""A component's spec -> its class: from the table by name, or the MMAR's own code by path."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ignite.metrics import Metric
from monai.engines import PrepareBatch, Workflow
from monai.inferers import Inferer
from monai.transforms import Compose, MapTransform
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset

from mmar_runtime.components.deep_supervision import (
    SingleAnswerUNetPlusPlus,
    StackedDeepSupervisionLoss,
)
from mmar_runtime.components.handlers.checkpoint_loader import WholeCheckpointLoader
from mmar_runtime.components.handlers.checkpoint_saver import AtomicCheckpointSaver
from mmar_runtime.components.handlers.metrics_saver import NamedMetricsSaver
from mmar_runtime.components.handlers.trackers import (
    OwnRunMLFlowHandler,
    TaskClearMLImageHandler,
    TaskClearMLStatsHandler,
)
from mmar_runtime.components.images.image_readers import LoadImaged
from mmar_runtime.components.images.label_words import MapWords
from mmar_runtime.config.nodes import ComponentSpec
from mmar_runtime.errors import ComponentError, ConfigError, Problem, did_you_mean
from mmar_runtime.policy.component_check import table_entry
from mmar_runtime.policy.component_table import ComponentEntry
from mmar_runtime.policy.extras_check import INSTALLED_BY

REPLACED_CLASSES: Mapping[str, type] = {
    "monai.handlers.checkpoint_loader.CheckpointLoader": WholeCheckpointLoader,
    "monai.handlers.checkpoint_saver.CheckpointSaver": AtomicCheckpointSaver,
    "monai.handlers.clearml_handlers.ClearMLImageHandler": TaskClearMLImageHandler,
    "monai.handlers.clearml_handlers.ClearMLStatsHandler": TaskClearMLStatsHandler,
    "monai.handlers.metrics_saver.MetricsSaver": NamedMetricsSaver,
    "monai.handlers.mlflow_handler.MLFlowHandler": OwnRunMLFlowHandler,
    "monai.losses.ds_loss.DeepSupervisionLoss": StackedDeepSupervisionLoss,
    "monai.networks.nets.basic_unetplusplus.BasicUNetPlusPlus": SingleAnswerUNetPlusPlus,
    "monai.transforms.io.dictionary.LoadImaged": LoadImaged,
    "monai.transforms.utility.dictionary.MapLabelValued": MapWords,
}
"""Classes that run in place of the library's, with the same arguments."""

BASES: Mapping[str, tuple[type, ...]] = {
    "dataloader": (DataLoader,),
    "dataset": (Dataset,),
    "evaluator": (Workflow,),
    "inferer": (Inferer,),
    "loss": (Module,),
    "lr_scheduler": (LRScheduler, ReduceLROnPlateau),
    "metric": (Metric,),
    "network": (Module,),
    "optimizer": (Optimizer,),
    "prepare_batch": (PrepareBatch,),
    "trainer": (Workflow,),
    "transform": (MapTransform, Compose),
}
"""The kind of a component -> the base of its class; a handler has ``attach`` instead."""

FROM_ELSEWHERE = " Put the module there, or install its package into this environment."

_LOOKED_IN: set[Path] = set()
"""The ``custom`` folder of imports now; a process has a single search path."""


def find_class(
    spec: ComponentSpec, kind: str | None, *, custom: Path, allow_code: bool
) -> tuple[type[Any], ComponentEntry | None]:
    """Return a component's class and its entry in the table; no entry for code from elsewhere.

    Raises:
        ConfigError: an unknown name, or code where none is allowed.
        ComponentError: the MMAR's code cannot be imported or has no such class.
    """
    entry = table_entry(spec, kind)
    if entry is not None:
        return REPLACED_CLASSES.get(entry.path) or _from_table(entry), entry
    if spec.path is None:
        message = f"unknown component {spec.name!r}"
        raise ConfigError([Problem(spec.location / "name", message, "", "unknown-component")])
    if not allow_code:
        message = f"{spec.path!r} is code that this site has not allowed"
        raise ConfigError([Problem(spec.location / "path", message, "", "code")])
    return own_class(spec, custom), None


def _from_table(entry: ComponentEntry) -> type[Any]:
    """Return the class itself, and raise unless the table means it."""
    module, _, name = entry.path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    named = inspect.isclass(cls) and f"{cls.__module__}.{cls.__qualname__}" == entry.path
    is_handler = entry.kind == "handler"
    if not named or not (
        hasattr(cls, "attach") if is_handler else issubclass(cls, BASES[entry.kind])
    ):
        raise ComponentError(
            f"the table names {entry.path}, but the installed package has {cls!r} there; "
            "install the versions in constraints.txt"
        )
    return cls  # type: ignore[no-any-return]  # a class, as was just seen


def own_class(spec: ComponentSpec, custom: Path) -> type[Any]:
    """Return a class by its path, from the MMAR's ``custom`` folder or an installed package."""
    module, _, name = str(spec.path).rpartition(".")
    _look_in(custom)
    try:
        cls = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        missing = str(error.name).partition(".")[0] if isinstance(error, ImportError) else ""
        package = INSTALLED_BY.get(missing, "")
        advice = f" Run pip install {package!r} for the package." if package else ""
        raise ComponentError(
            f"{spec.location / 'path'}: the module {module!r} cannot be imported: {reason}\n"
            f"    The MMAR's own code is looked up in {str(custom)!r}.{advice or FROM_ELSEWHERE}"
        ) from error
    if cls is None:
        names = [key for key in vars(sys.modules[module]) if not key.startswith("_")]
        raise ComponentError(
            f"{spec.location / 'path'}: the module {module!r} has no {name!r}. "
            f"{did_you_mean(name, names)}"
        )
    return cls  # type: ignore[no-any-return]  # any object; a call shows what it is


def _look_in(custom: Path) -> None:
    """Let imports find the modules of an MMAR, and forget those of another MMAR.

    Two MMARs may have modules of equal names; objects of the other MMAR's classes stay whole.
    """
    for other in _LOOKED_IN - {custom}:
        _LOOKED_IN.discard(other)
        sys.path[:] = [folder for folder in sys.path if folder != str(other)]
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file is not None and Path(file).is_relative_to(other):
                del sys.modules[name]
    if custom.is_dir() and str(custom) not in sys.path:
        # Appended, so that a file in custom/ cannot take the place of an installed package.
        sys.path.append(str(custom))
        _LOOKED_IN.add(custom)
        importlib.invalidate_caches()
        # A site approves this folder as it is; Python's compiled files would be further files.
        sys.dont_write_bytecode = True


def check_own_arguments(spec: ComponentSpec, cls: type[Any], given: Mapping[str, Any]) -> None:
    """Hold arguments against a class that is not in the table, before it is called.

    Raises:
        ConfigError: with every unknown and every missing argument.
    """
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):
        return  # a class in C without a signature: a call shows
    parameters = signature.parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    problems = [
        Problem(
            spec.args.location / name,
            f"{spec.title}: unknown argument {name!r}",
            did_you_mean(name, names),
            "unknown-argument",
        )
        for name in given
        if name not in names and not takes_any
    ]
    problems += [
        Problem(
            spec.args.location,
            f"{spec.title}: the argument {parameter.name!r} is missing",
            rule="missing-argument",
        )
        for parameter in parameters
        if parameter.name in names
        and parameter.default is parameter.empty
        and parameter.name not in given
    ]
    if problems:
        raise ConfigError(problems)


def takes_argument(cls: Callable[..., Any], name: str) -> bool:
    """Return whether a class can be given an argument of that name."""
    parameters = inspect.signature(cls).parameters.values()
    return any(
        parameter.name == name or parameter.kind is parameter.VAR_KEYWORD
        for parameter in parameters
    )
