"""Which entries of a case name files: those that the task names, and all that a loader opens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from mmar_runtime.config import expressions
from mmar_runtime.config.nodes import ComponentSpec, Expression, ListNode, Literal, Node, walk
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import Problem

FILE_KEYS = ("image", "label", "mask")
"""The entries of an item that name files; ``label`` only where the task is segmentation."""

TASKS: Mapping[object, bool] = MappingProxyType(
    {None: True, "": True, "segmentation": True, "annotation": True, "classification": False}
)
"""Value of ``PROCESSING_TASK`` -> whether labels are files."""

LOADER = ("LoadImaged", "LoadImageD", "LoadImageDict")
COPIER = ("CopyItemsd", "CopyItemsD", "CopyItemsDict")
FLATTENER = ("FlattenSubKeysd", "FlattenSubKeysD", "FlattenSubKeysDict")
"""The transforms that open files, and those that give an entry of a case another key."""

RELABELLER = ("MapLabelValued", "MapLabelValueD", "MapLabelValueDict")
"""The transform that writes texts of the config in the place of labels."""

KEY_ARGUMENTS = ("keys", "names", "meta_keys", "meta_key_postfix", "sub_keys", "prefix")
"""Their arguments that are keys, or parts of keys."""

META_POSTFIX = "meta_dict"
"""MONAI's default ending from the key of an image to the key of its metadata."""

NOT_WRITTEN_OUT = (
    expressions.FormattedText | expressions.ReferenceName | expressions.Lambda | expressions.Call
    | expressions.MethodCall | expressions.Subscript
)  # fmt: skip


def file_keys(config: WorkflowConfig) -> frozenset[str]:
    """Return the keys of a case whose texts are names of files."""
    opened = {key for key in FILE_KEYS if key != "label" or labels_are_files(config)}
    for spec in loaders(config):
        opened |= _texts(spec, "keys")
    # The name of a copy, or the key that makes up its name, -> the keys that are copied.
    copies: dict[tuple[str, str], list[set[str]]] = defaultdict(list)
    for spec in _specs(config, COPIER):
        keys, names = _texts(spec, "keys"), _texts(spec, "names")
        for made in [(name, "") for name in names] or [("", key) for key in keys]:
            copies[made].append(keys)
    waiting = list(opened)
    while waiting:
        key = waiting.pop()
        # MONAI names a copy image_0 where ``names`` is left out.
        for sources in (*copies.pop((key, ""), ()), *copies.pop(("", key.rpartition("_")[0]), ())):
            waiting += sources - opened
            opened |= sources
    return frozenset(opened)


def loaders(config: WorkflowConfig) -> tuple[ComponentSpec, ...]:
    """Return the transforms that open files."""
    return tuple(_specs(config, LOADER))


def labels_are_files(config: WorkflowConfig) -> bool:
    """Return whether labels are images: so for segmentation, and where no task is named."""
    return TASKS.get(config.value("PROCESSING_TASK"), False)


def file_keys_check(config: WorkflowConfig) -> Iterator[Problem]:
    """Yield loaders that open another entry than the case's own files."""
    brought: dict[str, ComponentSpec] = {}
    for spec in _specs(config, LOADER + COPIER + FLATTENER + RELABELLER):
        for argument in KEY_ARGUMENTS:
            node = spec.args.items.get(argument)
            if node is not None and not _is_written_out(node):
                message = f"{spec.title}: {argument} has to be texts that are written out"
                yield Problem(spec.args.location / argument, message, "", "path")
        if spec.title in FLATTENER and not _texts(spec, "sub_keys"):
            message = f"{spec.title}: sub_keys has to name the entries to take out of a dictionary"
            yield Problem(spec.args.location, message, "", "path")
        brought |= dict.fromkeys(_brought(spec), spec)
    for key in sorted(brought.keys() & file_keys(config)):
        message = f"{LOADER[0]} opens {key!r}, and {brought[key].title} writes texts there"
        yield Problem(brought[key].location, message, "Give one of them another key.", "path")


def _brought(spec: ComponentSpec) -> set[str]:
    """Return the keys that a transform adds and no list of cases holds."""
    if spec.title in FLATTENER:
        ends = _texts(spec, "sub_keys")
        return ends | {f"{prefix}_{end}" for prefix in _texts(spec, "prefix") for end in ends}
    if spec.title in LOADER:
        ends = _texts(spec, "meta_key_postfix") or {META_POSTFIX}
        named = {f"{key}_{end}" for key in _texts(spec, "keys") for end in ends}
        return named | _texts(spec, "meta_keys")
    if spec.title in RELABELLER and _texts(spec, "target_labels"):
        return _texts(spec, "keys")
    return set()


def _texts(spec: ComponentSpec, argument: str) -> set[str]:
    """Return all texts of an argument, in lists and expressions too."""
    node = spec.args.items.get(argument)
    values: list[object] = []
    for inner in () if node is None else walk(node):
        if isinstance(inner, Literal):
            values.append(inner.value)
        elif isinstance(inner, Expression):
            parts = expressions.walk(inner.tree)
            values += [part.value for part in parts if isinstance(part, expressions.Constant)]
    return {value for value in values if isinstance(value, str)}


def _is_written_out(node: Node) -> bool:
    return all(
        not any(isinstance(part, NOT_WRITTEN_OUT) for part in expressions.walk(inner.tree))
        if isinstance(inner, Expression)
        else isinstance(inner, Literal | ListNode)
        for inner in walk(node)
    )


def _specs(config: WorkflowConfig, titles: tuple[str, ...]) -> Iterator[ComponentSpec]:
    for node in config.nodes():
        if isinstance(node, ComponentSpec) and node.title in titles:
            yield node
