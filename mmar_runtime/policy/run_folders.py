"""The folders of a run, for components whose arguments do not name a folder to write to.

Savers of MONAI then write into the working directory, which may be any folder of a site.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec, Literal
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import Variable
from mmar_runtime.config.variables import SubstitutionError, substitute
from mmar_runtime.policy.component_table import ComponentEntry


def run_folders(
    spec: ComponentSpec, entry: ComponentEntry, variables: Mapping[str, Variable]
) -> dict[str, Scalar]:
    """Return the places for arguments that are left out, null or empty, or may come to that."""
    return {
        name: _place(template, variables, spec.location)
        for name, template in entry.filled.items()
        # An expression may come to null.
        if not (isinstance(node := spec.args.items.get(name), Literal) and node.value)
    }


def _place(template: str, variables: Mapping[str, Variable], location: Location) -> Scalar:
    """Return the place that a template names; null where the variable in it is null."""
    try:
        return substitute(template, variables, location)
    except SubstitutionError:
        return None
