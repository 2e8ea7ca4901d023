"""Every component of a config against the table: is there such a class, with these arguments?

Nothing is imported for this, so a config is checked in milliseconds without torch or MONAI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from mmar_runtime.config.nodes import ComponentSpec, ListNode, Literal, walk
from mmar_runtime.config.sections import SLOT_KINDS, Section, WorkflowConfig
from mmar_runtime.errors import Problem, did_you_mean
from mmar_runtime.policy.argument_check import CONF, argument_faults
from mmar_runtime.policy.component_table import (
    ComponentEntry,
    ComponentTable,
    check_arguments,
    load_component_table,
)
from mmar_runtime.policy.removed_components import REMOVED, REMOVED_ARGUMENTS, REQUIRED_ARGUMENTS

ENGINE_KINDS = frozenset({"trainer", "evaluator"})

EGRESS = "egress"
"""The consent that the table asks for where a component sends data to other machines."""

CODE = "code"
"""The consent for a component that reads its own files back, which a job may have brought."""


def component_check(
    *, allow_code: bool, allow_stored: bool = True, allow_egress: bool = True
) -> Callable[[WorkflowConfig], Iterator[Problem]]:
    """Return the check to hand to the loader.

    Args:
        allow_code: whether components given by ``path`` may come from outside the table, that is
            from the MMAR's own code or any installed package.
        allow_stored: whether components may read back their own files, which a job could
            have brought along. An approval of code by its hash does not cover such files.
        allow_egress: whether components may send data to other machines. Who runs an MMAR
            of their own has decided that by writing them into it; for a job from elsewhere the
            site decides.
    """

    def check(config: WorkflowConfig) -> Iterator[Problem]:
        for scope, section in config.scopes.items():
            kind_of = partial(_kind_of, config, scope)
            for spec, kind, entry in _components_of(section):
                if entry is None:
                    yield from _not_in_the_table(spec, kind, allow_code)
                    continue
                yield from _arguments(spec, entry)
                yield from argument_faults(spec, entry, kind_of)
                if entry.consent == EGRESS and not allow_egress:
                    message = "can send metrics, images and models to another machine; this site "
                    message += "has not allowed that"
                    advice = "Disable it here; TensorBoardStatsHandler and TensorBoardImageHandler "
                    advice += "write to files only."
                    yield Problem(spec.named_at, f"{entry.name} {message}", advice, "egress")
                if entry.consent == CODE and not allow_stored:
                    message = "reads back files of its cache, which a job could have brought "
                    message += "along; only a site that allows all code of jobs allows it"
                    advice = "CacheDataset keeps its cache in memory."
                    yield Problem(spec.named_at, f"{entry.name} {message}", advice, "code")

    return check


def all_components(config: WorkflowConfig) -> Iterator[tuple[ComponentSpec, ComponentEntry | None]]:
    """Yield each component that is not disabled, with its entry in the table, if it has one."""
    for section in config.scopes.values():
        yield from ((spec, entry) for spec, _, entry in _components_of(section))


def components_of_kind(section: Section, wanted: str) -> Iterator[ComponentSpec]:
    """Yield each component of a kind in a section, in any entry and at any depth."""
    for spec, kind, entry in _components_of(section):
        if (kind if entry is None else entry.kind) == wanted:
            yield spec


def table_entry(spec: ComponentSpec, kind: str | None) -> ComponentEntry | None:
    """Return the table's entry for a component; None if the table has none of that kind."""
    table = load_component_table()
    if spec.path is not None:
        entry = table.by_path(spec.path)
        return entry if entry is not None and kind in (None, entry.kind) else None
    name = spec.name or ""
    if kind is not None:
        return table.lookup(kind, name) if kind in table.kinds else None
    kinds = table.kinds_of(name)
    return table.lookup(kinds[0], name) if kinds else None


def _components_of(
    section: Section,
) -> Iterator[tuple[ComponentSpec, str | None, ComponentEntry | None]]:
    """Yield each component, the kind that its place asks for, if any, and its table entry."""
    for name, node in section.entries.items():
        top = node.items if isinstance(node, ListNode) else (node,)
        for inner in walk(node):
            if isinstance(inner, ComponentSpec):
                nested = not any(inner is item for item in top)
                kind = "transform" if nested else SLOT_KINDS.get(name)
                yield inner, kind, table_entry(inner, kind)


def _kind_of(config: WorkflowConfig, scope: str, name: str) -> str | None:
    """Return the kind of entry that a reference in a section means."""
    if name == CONF:
        return CONF
    target = config.find(scope, name)
    if target is None:
        return None  # the check of the references reports this
    section, entry_name = target
    node = config.scopes[section].entries[entry_name]
    entry = table_entry(node, None) if isinstance(node, ComponentSpec) else None
    return SLOT_KINDS.get(entry_name) or (None if entry is None else entry.kind)


def _not_in_the_table(spec: ComponentSpec, kind: str | None, allow_code: bool) -> Iterator[Problem]:
    table = load_component_table()
    of_monai = spec.path is None or (
        spec.path.startswith("monai.") and spec.path not in REMOVED_ARGUMENTS
    )
    if of_monai and spec.title in REMOVED:
        message = f"MONAI no longer has {spec.title!r} as Clara had it"
        yield Problem(spec.named_at, message, REMOVED[spec.title], "gone-component")
    elif spec.path is None:
        yield _unknown_name(spec, kind, table)
    elif (known := table.by_path(spec.path)) is not None:
        yield _misplaced(spec, "path", known.kind, kind)
    elif not allow_code:
        yield Problem(
            spec.location / "path",
            f"{spec.path!r} is code that this site has not allowed",
            "Only components of the table may be used here; see 'name' in docs/look-up/mmar.md.",
            "code",
        )
    else:
        for argument in REMOVED_ARGUMENTS.get(spec.path, ()):
            if argument in spec.args.items:
                message = f"{spec.title}: the argument {argument!r} is gone, and would be ignored"
                place, advice = spec.location / "args" / argument, REMOVED[spec.title]
                yield Problem(place, message, advice, "unknown-argument")


def _unknown_name(spec: ComponentSpec, kind: str | None, table: ComponentTable) -> Problem:
    name = spec.name or ""
    what = (kind or "component").replace("_", " ")
    if others := table.kinds_of(name):
        return _misplaced(spec, "name", others[0], kind)
    known = table.names(kind) if kind in table.kinds else ()
    advice = did_you_mean(name, known) or 'Code of your own is named by "path", module.Class.'
    return Problem(spec.location / "name", f"unknown {what} {name!r}", advice, "unknown-component")


def _misplaced(spec: ComponentSpec, key: str, own: str, kind: str | None) -> Problem:
    given, wanted = (
        f"{'an' if name[0] in 'aeiou' else 'a'} {name.replace('_', ' ')}"
        for name in (own, kind or "component")
    )
    message = f"{spec.title!r} is {given}; this entry takes {wanted}"
    return Problem(spec.location / key, message, "", "component-kind")


def _arguments(spec: ComponentSpec, entry: ComponentEntry) -> Iterator[Problem]:
    given = dict.fromkeys(spec.args.items)  # in the order of the document
    if entry.kind in ENGINE_KINDS:
        given["device"] = None
    if spec.data_list is not None:
        given["data"] = None
    for fault in check_arguments(entry, given):
        place, node = spec.args.location, spec.args.items.get(fault.argument)
        if fault.kind == "denied" and isinstance(node, Literal) and node.value is None:
            continue  # as good as left out
        location = place if fault.kind == "missing" else place / fault.argument
        rule = f"{fault.kind}-argument"
        advice = fault.advice or REQUIRED_ARGUMENTS.get((entry.name, fault.argument), "")
        yield Problem(location, f"{entry.name}: {fault.message}", advice, rule)
