"""Arguments that MONAI has renamed, dropped or given another default, as rules.

The facts are data: ``argument_changes.json``, which ``scripts/generate_component_table.py`` writes
from MONAI's deprecation records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import resources
from typing import Any

from mmar_runtime.config.upgrades.draft import (
    Draft,
    Place,
    Rule,
    args_of,
    dictionary_names,
    rule,
    set_args,
)

CHANGES: dict[str, dict[str, Any]] = json.loads(
    (resources.files(__package__) / "argument_changes.json").read_text(encoding="utf-8")
)


FURTHER_EFFECTS = {
    "ce_weight weight": "; it weighs the Dice part as well now, so the loss has other values",
    "focal_weight weight": "; it weighs the Dice part as well now, so the loss has other values",
}
"""Renamed arguments that do more under the new name."""


def spellings(classes: Iterable[str]) -> tuple[str, ...]:
    """Return the names of classes, for a dictionary transform each of its names.

    >>> spellings(["UNet", "Spacingd"])
    ('UNet', 'Spacingd', 'SpacingD', 'SpacingDict')
    """
    return tuple(
        spelling
        for name in classes
        for spelling in (dictionary_names(name[:-1]) if name.endswith("d") else (name,))
    )


def _renamed(draft: Draft, old: str, new: str, names: tuple[str, ...]) -> Iterator[Place]:
    for place, component in draft.named(*names):
        args = args_of(component)
        if old in args and new not in args:
            set_args(component, **{new: args.pop(old)})
            yield (*place, "args", old)


def _dropped(draft: Draft, argument: str, names: tuple[str, ...]) -> Iterator[Place]:
    for place, component in draft.named(*names):
        if argument in args_of(component):
            del args_of(component)[argument]
            yield (*place, "args", argument)


def _stated(draft: Draft, argument: str, value: Any, names: tuple[str, ...]) -> Iterator[Place]:
    """Write down a default that the class no longer has, or will no longer have."""
    for place, component in draft.named(*names):
        if argument not in args_of(component):
            set_args(component, **{argument: value})
            yield place


@rule("LoadImaged reads PNG, JPEG and BMP rows first, as Clara 4.0 did, not columns first")
def _rows_first(draft: Draft) -> Iterator[Place]:
    """Keep the axes of pictures that a network classifies.

    Where a mask is read or written beside the picture, both have today's order of axes.
    """
    if any(draft.named(*dictionary_names("SaveImage"))):
        return
    for place, component in draft.named(*dictionary_names("LoadImage")):
        args = args_of(component)
        reader, keys = args.get("reader", "PILReader"), args.get("keys")
        is_alone = isinstance(keys, str) or (isinstance(keys, list) and len(keys) == 1)
        if is_alone and str(reader).lower() == "pilreader" and "reverse_indexing" not in args:
            set_args(component, reverse_indexing=False)
            yield place


def _renames() -> Iterator[Rule]:
    for pair, classes in CHANGES["renamed"].items():
        old, new = pair.split()
        apply = partial(_renamed, old=old, new=new, names=spellings(classes))
        effect = FURTHER_EFFECTS.get(pair, "")
        yield Rule("renamed", f"MONAI has renamed {old} to {new}{effect}", apply)


def _drops() -> Iterator[Rule]:
    for argument, classes in CHANGES["dropped"].items():
        message = f"MONAI has dropped the argument {argument}; it has no effect any more"
        apply = partial(_dropped, argument=argument, names=spellings(classes))
        yield Rule("dropped", message, apply)


def _todays_defaults() -> Iterator[Rule]:
    for name, values in CHANGES["today"].items():
        for argument, value in values.items():
            message = f"{name}'s {argument} is kept as {json.dumps(value)}; its default changes"
            apply = partial(_stated, argument=argument, value=value, names=spellings([name]))
            yield Rule("default", message, apply)


def _claras_defaults(version: str) -> Iterator[Rule]:
    for place, value in CHANGES[version].items():
        name, argument = place.split()
        message = f"{name} runs with {argument}={json.dumps(value)}, the default in Clara's time"
        apply = partial(_stated, argument=argument, value=value, names=spellings([name]))
        yield Rule("default", message, apply)


RULES = (*_renames(), *_drops(), *_todays_defaults())
"""For every document."""

CLARA_RULES = tuple(_claras_defaults("clara"))
"""For a document that Clara Train ran: another document means today's defaults."""

CLARA_4_0_RULES = (*_claras_defaults("clara 4.0"), _rows_first)
"""For a document of Clara Train 4.0 alone."""
