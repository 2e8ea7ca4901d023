"""A copy of a document that rules may change, and ways to find what they look for in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

Place = tuple[str | int, ...]
"""Keys and indices that lead to a value."""

Component = dict[str, Any]
"""An object with ``name`` or ``path``, and usually ``args``."""

LISTS = ("pre_transforms", "post_transforms", "handlers", "additional_metrics", "metrics")
SECTIONS = ("train", "validate")


class Draft:
    """A document under change.

    Attributes:
        document: the copy; changed in place.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document: dict[str, Any] = copy.deepcopy(dict(document))

    def sections(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """The sections of a training document, or the whole of an evaluation document."""
        found = [name for name in SECTIONS if isinstance(self.document.get(name), dict)]
        if not found:
            yield (), self.document
        for name in found:
            yield (name,), self.document[name]

    def components(self) -> Iterator[tuple[Place, Component]]:
        """Every component of every section, those inside ``Compose`` included."""
        for place, section in self.sections():
            for key, value in list(section.items()):
                yield from _components(value, (*place, key))

    def named(self, *names: str) -> Iterator[tuple[Place, Component]]:
        """The components with one of these short names, whatever alias stands behind."""
        for place, component in self.components():
            if "path" not in component and short_name(component) in names:
                yield place, component


def _components(value: Any, place: Place) -> Iterator[tuple[Place, Component]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _components(item, (*place, index))
    elif is_component(value):
        yield place, value
        args = value.get("args")
        nested = args.get("transforms") if isinstance(args, dict) else None
        if isinstance(nested, list):
            yield from _components(nested, (*place, "args", "transforms"))


def is_component(value: Any) -> TypeGuard[Component]:
    """Whether a JSON value is an object that names a class."""
    return isinstance(value, dict) and (
        isinstance(value.get("name"), str) or isinstance(value.get("path"), str)
    )


def short_name(component: Component) -> str:
    """The class's short name, without its alias."""
    return str(component.get("name", "")).partition("#")[0]


def rename(component: Component, name: str) -> None:
    """Give a component another class; its old name stays as its alias, for ``ref``."""
    old, _, alias = str(component["name"]).partition("#")
    component["name"] = f"{name}#{alias or old}"


def args_of(component: Component) -> dict[str, Any]:
    """A component's arguments, made if there are none; empty where they are no object."""
    args = component.setdefault("args", {})
    return args if isinstance(args, dict) else {}


def dictionary_names(*names: str) -> tuple[str, ...]:
    """The spellings that MONAI gives to dictionary transforms.

    >>> dictionary_names("ToTensor")
    ('ToTensord', 'ToTensorD', 'ToTensorDict')
    """
    return tuple(name + end for name in names for end in ("d", "D", "Dict"))


@dataclass(frozen=True, slots=True)
class Rule:
    """One change: its name, the sentence that announces it, and the function that makes it.

    Attributes:
        apply: changes a draft in place; yields the places where it did.
    """

    name: str
    message: str
    apply: Callable[[Draft], Iterator[Place]]
