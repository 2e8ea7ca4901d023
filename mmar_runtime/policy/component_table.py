"""The classes of MONAI, PyTorch and ignite that a configuration may name, and their arguments.

The table is data: ``components.json`` beside this file, written by
``scripts/generate_component_table.py`` from the pinned packages and reviewed like code. Nothing
here imports those packages, so a configuration is checked in milliseconds and before any of its
classes is imported.

MONAI's constructors swallow words that they do not know: ``AsDiscreted(threshold_values=True)``
builds, and then leaves the prediction as it is. So arguments are checked against the names that
have an effect, not against what a constructor accepts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal

from mmar_runtime.errors import did_you_mean

FaultKind = Literal["unknown", "missing", "denied"]
PathRole = Literal[
    "read:data", "read:base", "read:model", "read:run", "write:run", "write:service", "name"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentEntry:
    """One class that a configuration may name.

    Attributes:
        path: the module and name under which the class is defined; this is what is imported.
        kind: where the class may stand: ``network``, ``loss``, ``transform`` and so on.
        namespace: the public module that offers the class, such as ``monai.networks.nets``.
        arguments: each argument that has an effect, and whether it is required.
        open: whether arguments are accepted that are not listed.
        denied: arguments that are refused whatever their value, with the reason.
        denied_if_true: arguments that are refused unless they are off, with the reason. Where
            their default is on, they are required.
        choices: arguments whose text must be one of a few words; see :func:`check_choices`.
        consent: what the site has to agree to before the class is used, ``egress`` or ``code``, or
            empty.
        paths: arguments that are paths, and what is done there: ``read:data``, ``read:model``,
            ``write:run``, or ``name`` for the name of a file alone, also where it is the key of an
            object; ``read:base`` for the folder relative to which results are named after their
            images, ``read:run`` for files of the MMAR, and ``write:service`` for a service's
            address or a place of its files.
        bounds: the largest number that an argument may be or hold; ``*`` stands for all others.
    """

    path: str
    kind: str
    namespace: str
    arguments: Mapping[str, bool]
    open: bool = False
    denied: Mapping[str, str] = field(default_factory=dict)
    denied_if_true: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    consent: str = ""
    paths: Mapping[str, PathRole] = field(default_factory=dict)
    bounds: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the class: the last part of its path."""
        return self.path.rpartition(".")[2]

    @property
    def module(self) -> str:
        """The module that defines the class."""
        return self.path.rpartition(".")[0]

    @property
    def required(self) -> tuple[str, ...]:
        """The arguments without which the class cannot be built, in the order of its signature."""
        return tuple(name for name, required in self.arguments.items() if required)

    @property
    def accepted(self) -> tuple[str, ...]:
        """The arguments that a configuration may give, in the order of the signature."""
        return tuple(name for name in self.arguments if name not in self.denied)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentTable:
    """All components, found by kind and name, or by path.

    Attributes:
        generated_from: the versions of the packages that the table describes.
        components: the entries by their path.
        paths_by_name: for each kind, the path behind each name; aliases such as ``RandFlipD`` are
            names of their own.
        paths_by_alias: the path behind each public path, such as ``monai.networks.nets.UNet``.
    """

    generated_from: Mapping[str, str]
    components: Mapping[str, ComponentEntry]
    paths_by_name: Mapping[str, Mapping[str, str]]
    paths_by_alias: Mapping[str, str]

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds of components."""
        return tuple(self.paths_by_name)

    def lookup(self, kind: str, name: str) -> ComponentEntry | None:
        """The component with exactly this name among those of a kind; ``None`` if there is none.

        Raises:
            KeyError: there is no such kind.
        """
        path = self.paths_by_name[kind].get(name)
        return None if path is None else self.components[path]

    def names(self, kind: str) -> tuple[str, ...]:
        """All names of a kind, aliases included, sorted.

        Raises:
            KeyError: there is no such kind.
        """
        return tuple(self.paths_by_name[kind])

    def by_path(self, path: str) -> ComponentEntry | None:
        """The component with this path, be it the defining one or a public one."""
        return self.components.get(self.paths_by_alias.get(path, path))

    def kinds_of(self, name: str) -> tuple[str, ...]:
        """The kinds that know this name; says where a misplaced component belongs."""
        return tuple(kind for kind, paths in self.paths_by_name.items() if name in paths)


@dataclass(frozen=True, slots=True)
class ArgumentFault:
    """One argument that does not fit a component.

    Attributes:
        argument: its name.
        kind: ``unknown``, ``missing`` or ``denied``.
        message: what is wrong; the caller knows the name of the component and puts it in front.
        advice: what to do about it; empty where the message says it all.
    """

    argument: str
    kind: FaultKind
    message: str
    advice: str = ""


def check_arguments(entry: ComponentEntry, given: Collection[str]) -> tuple[ArgumentFault, ...]:
    """The faults among the names of arguments: the given ones in their order, then the missing.

    Only names are seen here, so an argument of ``entry.denied_if_true`` is always reported as
    denied; a caller that has seen that its value is off drops the fault.

    Args:
        entry: the component.
        given: the names of all arguments, those included that the runtime adds itself, such as
            the ``device`` of a trainer.

    >>> unet = load_component_table().lookup("network", "UNet")
    >>> given = ["spatial_dims", "in_channels", "out_channels", "chanels", "strides"]
    >>> for fault in check_arguments(unet, given):
    ...     print(f"{fault.kind}: {fault.message}")
    unknown: unknown argument 'chanels'
    missing: the required argument 'channels' is missing
    """
    faults = [fault for name in given if (fault := _given_fault(entry, name, given)) is not None]
    faults += [
        ArgumentFault(name, "missing", f"the required argument {name!r} is missing")
        for name in entry.required
        if name not in given
    ]
    return tuple(faults)


def check_choices(
    entry: ComponentEntry, arguments: Mapping[str, object]
) -> tuple[ArgumentFault, ...]:
    """The faults among the arguments that must be one of a few words, such as a ``reader``.

    MONAI imports whatever dotted path it is given there, so anything but these words, a list of
    them or ``None`` is denied; a reference or an expression is too.

    Args:
        entry: the component.
        arguments: the values as they stand in the JSON; those of other arguments are not looked
            at.
    """
    return tuple(
        _choice_fault(name, arguments[name], words)
        for name, words in entry.choices.items()
        if name in arguments and not _is_choice(arguments[name], words)
    )


@cache
def load_component_table() -> ComponentTable:
    """The table that comes with this package; read once."""
    file = resources.files("mmar_runtime.policy") / "components.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    components = {
        path: _parse_entry(path, record) for path, record in document["components"].items()
    }
    paths_by_name = {kind: MappingProxyType(paths) for kind, paths in document["names"].items()}
    return ComponentTable(
        generated_from=MappingProxyType(document["generated_from"]),
        components=MappingProxyType(components),
        paths_by_name=MappingProxyType(paths_by_name),
        paths_by_alias=MappingProxyType(dict(_aliases(components, paths_by_name))),
    )


def _parse_entry(path: str, record: Mapping[str, Any]) -> ComponentEntry:
    choices = {name: tuple(words) for name, words in record.get("choices", {}).items()}
    return ComponentEntry(
        path=path,
        kind=record["kind"],
        namespace=record["namespace"],
        arguments=MappingProxyType(record["arguments"]),
        open=record["open"],
        denied=MappingProxyType(record.get("denied", {})),
        denied_if_true=MappingProxyType(record.get("denied_if_true", {})),
        choices=MappingProxyType(choices),
        consent=record.get("consent", ""),
        paths=MappingProxyType(record.get("paths", {})),
        bounds=MappingProxyType(record.get("bounds", {})),
    )


def _aliases(
    components: Mapping[str, ComponentEntry], paths_by_name: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, str]]:
    """Each public path with the defining one: by the namespace and by the defining module."""
    for path, entry in components.items():
        # Also for a class whose short name belongs to another one: its full path is no clash.
        yield f"{entry.namespace}.{entry.name}", path
    for paths in paths_by_name.values():
        for name, path in paths.items():
            yield f"{components[path].namespace}.{name}", path
            yield f"{components[path].module}.{name}", path


def _given_fault(entry: ComponentEntry, name: str, given: Collection[str]) -> ArgumentFault | None:
    if name in entry.denied:
        message = f"the argument {name!r} is refused: {entry.denied[name]}"
        return ArgumentFault(name, "denied", message, f"Remove {name!r}.")
    if name in entry.denied_if_true:
        message = f"the argument {name!r} must be false: {entry.denied_if_true[name]}"
        return ArgumentFault(name, "denied", message, f'Write "{name}": false.')
    if name in entry.arguments or entry.open:
        return None
    # What is given already cannot be what was meant: `chanels` beside `in_channels`.
    candidates = [argument for argument in entry.accepted if argument not in given]
    advice = did_you_mean(name, candidates)
    return ArgumentFault(name, "unknown", f"unknown argument {name!r}", advice)


def _is_choice(value: object, words: tuple[str, ...]) -> bool:
    """Whether a value, or each member of a list, is one of the words; nothing at all is fine."""
    if value is None:
        return True
    members = value if isinstance(value, (list, tuple)) else (value,)
    return all(isinstance(member, str) and member in words for member in members)


def _choice_fault(name: str, value: object, words: tuple[str, ...]) -> ArgumentFault:
    listed = ", ".join(map(repr, words))
    message = f"the argument {name!r} is {value!r}; allowed: {listed}"
    return ArgumentFault(name, "denied", message, "Use one of the allowed words.")
