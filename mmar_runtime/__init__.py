"""One site, no federation: reads an MMAR, builds MONAI and ignite engines, trains, evaluates.

Names are looked up when they are first used, so that reading a config needs neither torch nor
MONAI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmar_runtime.config.loader import load_evaluation_config, load_train_config
    from mmar_runtime.mmar import Mmar
    from mmar_runtime.policy.mmar_check import check_mmar
    from mmar_runtime.results import EvaluationResult, TrainResult
    from mmar_runtime.workflows.evaluation import evaluate
    from mmar_runtime.workflows.training import train

_HOMES = {
    "EvaluationResult": "mmar_runtime.results",
    "Mmar": "mmar_runtime.mmar",
    "TrainResult": "mmar_runtime.results",
    "check_mmar": "mmar_runtime.policy.mmar_check",
    "evaluate": "mmar_runtime.workflows.evaluation",
    "load_evaluation_config": "mmar_runtime.config.loader",
    "load_train_config": "mmar_runtime.config.loader",
    "train": "mmar_runtime.workflows.training",
}

__all__ = [
    "EvaluationResult",
    "Mmar",
    "TrainResult",
    "check_mmar",
    "evaluate",
    "load_evaluation_config",
    "load_train_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
