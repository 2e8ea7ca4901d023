"""Components that need a package which comes only with an extra: is it installed here?

Found before anything is imported or read; otherwise the missing package would show when the
component is built, after the images have been cached. The table names the package of each class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec, Literal, walk
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import Problem
from mmar_runtime.policy.component_check import all_components
from mmar_runtime.policy.component_table import ComponentEntry

INSTALLED_BY: Mapping[str, str] = {
    "MetricsReloaded": "MetricsReloaded",
    "clearml": "mmar-fl[clearml]",
    "itk": "mmar-fl[itk]",
    "mlflow": "mmar-fl[mlflow]",
    "nrrd": "pynrrd",
    "sklearn": "scikit-learn",
    "torchvision": "mmar-fl[torchvision]",
}
"""Package to import -> what ``pip install`` is given."""


WRITTEN = (
    *(".bmp", ".gif", ".hdr", ".img", ".jpeg", ".jpg", ".mgh", ".mgz"),
    *(".nii", ".nii.gz", ".png", ".tif", ".tiff"),
)
"""Endings of files that SaveImaged writes without an extra; ITK writes all others."""


def extras_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield a problem for each component, and each reader of images, whose package is missing."""
    for spec, entry in all_components(config):
        for place, title, package in _needed(spec, entry) if entry is not None else ():
            if find_spec(package) is None:
                message = f"{title} needs the package {package!r}, which is not installed"
                advice = f"Run pip install '{INSTALLED_BY[package]}', or take {title} out."
                yield Problem(place, message, advice, "missing-package")


def _needed(spec: ComponentSpec, entry: ComponentEntry) -> Iterator[tuple[Location, str, str]]:
    """Yield each needed package with the place and the name that asks for it."""
    for package in entry.packages:
        yield spec.named_at, spec.title, package
    ending = spec.args.items.get("output_ext")
    if isinstance(ending, Literal) and str(ending.value).lower() not in WRITTEN:
        yield ending.location, f"the ending {str(ending.value)!r}", "itk"
    for name, node in spec.args.items.items():
        packages = entry.arguments[name].packages if name in entry.arguments else {}
        for inner in walk(node) if packages else ():
            word = inner.value if isinstance(inner, Literal) else None
            if isinstance(word, str) and word.lower() in packages:
                yield inner.location, word, packages[word.lower()]
