"""Components that need a package which comes only with an extra: is it installed here?

Found before anything is imported or read; otherwise the missing package would show when the handler
is built, after the images have been cached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import Problem
from mmar_runtime.policy.component_check import all_components

EXTRAS: Mapping[str, str] = {
    "monai.handlers.clearml_handlers": "clearml",
    "monai.handlers.mlflow_handler": "mlflow",
}
"""The module of a component -> the package that it imports, which is also the extra's name."""


def extras_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield a problem for each component whose package is missing."""
    for spec, entry in all_components(config):
        extra = EXTRAS.get(entry.module) if entry is not None else None
        if extra is not None and find_spec(extra) is None:
            yield Problem(
                spec.named_at,
                f"{spec.title} needs the package {extra!r}, which is not installed",
                f"Run pip install 'mmar-fl[{extra}]', or disable the handler.",
                "missing-package",
            )
