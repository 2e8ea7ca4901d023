"""Advice when the MMAR's own code fails at a change of MONAI since Clara Train."""

from __future__ import annotations

from collections.abc import Iterator
from traceback import walk_tb

from mmar_runtime.config.nodes import ComponentSpec, walk
from mmar_runtime.config.sections import SLOT_KINDS, WorkflowConfig

COMPAT = "mmar_runtime.components.compat"
PAGE = "docs/look-up/custom-code.md says what has changed."


def own_code_advice(config: WorkflowConfig, root: BaseException) -> str:
    """Return further lines for an error's text; empty if no advice is known.

    Args:
        config: names the MMAR's own code and its uses.
        root: the first exception, which the code has raised.
    """
    own_engines = any(_own(config, "trainer", "evaluator"))
    if own_engines and "is not a valid event for this" in str(root):
        return _advice(
            "An event of one's own has to be registered: pass event_names to MONAI's engine. If it "
            "is registered in _register_additional_events, which MONAI no longer calls, derive "
            f"from {COMPAT}.AdditionalEvents too."
        )
    types = ("TypeError", "AttributeError")
    # A DataLoader's process sends an error as text.
    sent = any(f"\n{name}: " in str(root) for name in types)
    if type(root).__name__ not in types and not sent:
        return ""
    for spec in _own(config, "transform"):
        if _passes_through(root, spec):
            return _advice(
                f"MONAI's images are MetaTensors now. If {spec.title} expects numpy arrays, write "
                f'at {spec.location}:\n    {{"path": "{COMPAT}.numpy_transform", '
                f'"args": {{"transform": "{spec.path}", "arguments": {{...}}}}}}'
            )
    for spec in _own(config, "handler"):
        if _passes_through(root, spec) and "list" in str(root):
            return _advice(
                "engine.state.output is a list with one dictionary for each case now. If "
                f"{spec.title} expects one for the batch, write at {spec.location}:\n"
                f'    {{"path": "{COMPAT}.batch_output_handler", '
                f'"args": {{"handler": "{spec.path}", "arguments": {{...}}}}}}'
            )
    return ""


def _advice(text: str) -> str:
    return f"\n    {text}\n    {PAGE}"


def _own(config: WorkflowConfig, *kinds: str) -> Iterator[ComponentSpec]:
    """Yield the components by ``path`` in the entries of these kinds that are not wrapped yet."""
    for section in config.scopes.values():
        for name, entry in section.entries.items():
            for node in walk(entry) if SLOT_KINDS.get(name) in kinds else ():
                if isinstance(node, ComponentSpec) and not (node.path or COMPAT).startswith(COMPAT):
                    yield node


def _passes_through(error: BaseException, spec: ComponentSpec) -> bool:
    """Return whether the component's module is where the error comes from, or on the way there."""
    module = str(spec.path).rpartition(".")[0]
    return f"{module.replace('.', '/')}.py" in str(error) or any(
        frame.f_globals.get("__name__") == module for frame, _ in walk_tb(error.__traceback__)
    )
