"""Numbers of which there has to be one at least: there is no batch of 0 images.

Bounds of other numbers are in the table, see ``argument_check``.
"""

from __future__ import annotations

from collections.abc import Iterator

from mmar_runtime.config.nodes import Literal
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import Problem
from mmar_runtime.policy.component_check import all_components

AT_LEAST_ONE = frozenset(
    {
        *("accumulation_steps", "batch_size", "epoch_length", "in_channels", "interval"),
        *("max_epochs", "num_samples", "out_channels", "spatial_dims", "sw_batch_size"),
    }
)


def number_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield the loader's check of arguments that count something."""
    for spec, entry in all_components(config):
        if entry is None:
            continue
        for name in sorted(AT_LEAST_ONE & spec.args.items.keys()):
            node, form = spec.args.items[name], entry.arguments.get(name)
            value = node.value if isinstance(node, Literal) else None
            least = form.number[0] if form is not None and form.number is not None else 0
            if type(value) is int and least <= value < 1:  # the form itself refuses less
                message = f"{spec.title}: {name} is {value}; 1 is the least"
                yield Problem(node.location, message, "", "limit")
