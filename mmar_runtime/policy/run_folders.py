"""The folders of a run, for components whose arguments do not name a folder to write to.

Savers of MONAI then write into the working directory, which may be any folder of a site.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmar_runtime.config.nodes import ComponentSpec, Literal
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import Variable
from mmar_runtime.config.variables import SubstitutionError, substitute
from mmar_runtime.policy.component_table import ComponentEntry


def run_folders(
    spec: ComponentSpec, entry: ComponentEntry, variables: Mapping[str, Variable]
) -> dict[str, Scalar]:
    """Return the places for arguments that are left out, null or empty, or may come to that."""
    places: dict[str, Scalar] = {}
    for name, template in entry.filled.items():
        node = spec.args.items.get(name)
        if isinstance(node, Literal) and node.value:
            continue  # an expression may come to null
        try:
            places[name] = substitute(template, variables, spec.location)
        except SubstitutionError:
            places[name] = None  # the variable in the template is null
    return places
