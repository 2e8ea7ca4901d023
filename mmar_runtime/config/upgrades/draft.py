"""A copy of a document that rules may change, and ways to find places in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

Place = tuple[str | int, ...]
"""Keys and indices that lead to a value."""

Component = dict[str, Any]
"""An object with ``name`` or ``path``, and usually ``args``."""

SECTIONS = ("train", "validate")
TRANSFORM_LISTS = ("pre_transforms", "post_transforms")


class Draft:
    """A document under change.

    Attributes:
        document: the copy; changed in place.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document: dict[str, Any] = copy.deepcopy(dict(document))

    def sections(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Yield the sections of a training document, or the whole of an evaluation document."""
        names = [name for name in SECTIONS if isinstance(self.document.get(name), dict)]
        if not names:
            yield (), self.document
        for name in names:
            yield (name,), self.document[name]

    def components(self) -> Iterator[tuple[Place, Component]]:
        """Yield every component of every section, those inside ``Compose`` included."""
        for place, section in self.sections():
            for key, value in list(section.items()):
                yield from _components(value, (*place, key))

    def named(self, *names: str) -> Iterator[tuple[Place, Component]]:
        """Yield the components with one of these short names, with any alias."""
        for place, component in self.components():
            if short_name(component) in names:
                yield place, component

    def rename(self, component: Component, name: str) -> None:
        """Give a component another class; a ``ref`` that means it goes on meaning it."""
        old, _, alias = str(component["name"]).partition("#")
        if not alias and self._is_ref(old):
            alias = old
        elif alias:
            for item in self._refs(old):
                item["ref"] = alias
        component["name"] = f"{name}#{alias}" if alias else name

    def _is_ref(self, name: str) -> bool:
        return any(True for _ in self._refs(name))

    def _refs(self, name: str) -> Iterator[dict[str, Any]]:
        for _, section in self.sections():
            for slot in TRANSFORM_LISTS:
                for item in objects(section, slot):
                    if item.get("ref") == name:
                        yield item

    def transform(self, item: dict[str, Any]) -> Component:
        """Return a transform of an array, or the transform that its ``ref`` means; else empty."""
        if "ref" not in item:
            return item if is_component(item) else {}
        source = self.document.get("train")
        for slot in TRANSFORM_LISTS:
            for other in objects(source if isinstance(source, dict) else self.document, slot):
                if not is_component(other):
                    continue
                alias = str(other.get("name", "")).partition("#")[2]
                if item["ref"] in (short_name(other), alias or short_name(other)):
                    return other
        return {}


def _components(value: Any, place: Place) -> Iterator[tuple[Place, Component]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _components(item, (*place, index))
    elif is_component(value):
        yield place, value
        nested = args_of(value).get("transforms")
        if isinstance(nested, list):
            yield from _components(nested, (*place, "args", "transforms"))


def is_component(value: Any) -> TypeGuard[Component]:
    """Return whether a JSON value is an object that names a class, with valid arguments if any."""
    return (
        isinstance(value, dict)
        and (isinstance(value.get("name"), str) or isinstance(value.get("path"), str))
        and isinstance(value.get("args", {}), dict)
    )


def short_name(component: Component) -> str:
    """Return the class's short name, without its alias; empty where a ``path`` names the class."""
    name = component.get("name")
    return name.partition("#")[0] if isinstance(name, str) and "path" not in component else ""


def args_of(component: Component) -> dict[str, Any]:
    """Return a component's arguments, to be read; see ``set_args``."""
    args: dict[str, Any] = component.get("args", {})
    return args


def set_args(component: Component, **values: Any) -> None:
    """Give a component arguments, in place of those of the same names."""
    component.setdefault("args", {}).update(values)


def objects(section: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the objects in a section's array; none where there is no array."""
    value = section.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def dictionary_names(*names: str) -> tuple[str, ...]:
    """Return the spellings that MONAI gives to dictionary transforms.

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


def rule(message: str) -> Callable[[Callable[[Draft], Iterator[Place]]], Rule]:
    """Return a decorator that makes a rule of a function and names the rule after the function."""
    return lambda apply: Rule(apply.__name__.strip("_").replace("_", "-"), message, apply)
