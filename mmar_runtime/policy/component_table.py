"""The classes of MONAI, PyTorch and ignite that a configuration may name, and their arguments.

The table is data: ``components.json`` next to this file, written by
``scripts/generate_component_table.py`` from the pinned packages and reviewed like code. Nothing
here imports those packages, so a configuration is checked in milliseconds and before any of its
classes is imported.

MONAI's constructors swallow words that they do not know: ``AsDiscreted(threshold_values=True)``
builds, and then leaves the prediction as it is. So arguments are checked against the names that
have an effect, not against all names that a constructor accepts.
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
from mmar_runtime.policy.files.paths import PathRole
from mmar_runtime.policy.lambda_forms import LambdaForm

FaultKind = Literal["unknown", "missing", "denied"]

MAX_TEXT = 200
"""Characters of a text that no other rule bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The values that an argument may have: any that the fields name, and lists of them.

    Null is allowed as well; it leaves a class its own default.

    Attributes:
        name: the review's name of the form; many arguments share a form.
        number: the least and the most number.
        whole: whether numbers are whole.
        flag: whether true and false are allowed.
        off: why a flag has to be false; empty where it may be true.
        words: the words that are allowed, in small letters unless they are ``exact``.
        exact: whether capital letters make another word.
        pattern: a regular expression for the whole of a printable text of at most ``MAX_TEXT``.
        dtype: whether an expression such as ``#torch.float32`` is allowed.
        refers: the kinds of entries that ``@name`` may mean, ``conf`` among them.
        parameters: whether ``#@model.parameters()`` is allowed.
        components: whether transforms may be written out.
        data: whether any plain JSON is allowed; the cases of a data set.
        function: the purpose of a lambda or ``from_engine``; ``None`` if neither is allowed.
        members: the form of each value of an object; ``*`` means every plain key.
        path: the use of the place that a text names; the check of paths judges the text.
        tensor: whether a list of numbers is handed over as a tensor.
        fill: the runtime's value if the argument is left out, null or empty.
        packages: the package that a word needs, the word in small letters.
        denied: why nothing is allowed at all.
    """

    name: str
    number: tuple[float, float] | None = None
    whole: bool = False
    flag: bool = False
    off: str = ""
    words: frozenset[str] = frozenset()
    exact: bool = False
    pattern: str = ""
    dtype: bool = False
    refers: frozenset[str] = frozenset()
    parameters: bool = False
    components: bool = False
    data: bool = False
    function: LambdaForm | None = None
    members: Mapping[str, Form] = field(default_factory=dict)
    path: PathRole | None = None
    tensor: bool = False
    fill: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    denied: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentEntry:
    """One class that a configuration may name.

    Attributes:
        path: the module and name under which the class is defined and imported.
        kind: the entries that take the class: ``network``, ``loss``, ``transform`` and so on.
        namespace: the public module that offers the class, such as ``monai.networks.nets``.
        arguments: the form of each argument that has an effect, in the order of the signature.
        required: the arguments without which the class cannot be built.
        consent: the site's consent without which the class is refused, ``egress`` or ``code``, or
            empty.
        packages: what the class imports and MONAI does not bring, such as ``torchvision``.
    """

    path: str
    kind: str
    namespace: str
    arguments: Mapping[str, Form]
    required: tuple[str, ...] = ()
    consent: str = ""
    packages: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the class: the last part of its path."""
        return self.path.rpartition(".")[2]

    @property
    def module(self) -> str:
        """The module that defines the class."""
        return self.path.rpartition(".")[0]

    @property
    def accepted(self) -> tuple[str, ...]:
        """The arguments that a configuration may give, in the order of the signature."""
        return tuple(name for name, form in self.arguments.items() if not form.denied)

    @property
    def paths(self) -> Mapping[str, PathRole]:
        """The arguments that are paths, and the use of each path."""
        return {name: form.path for name, form in self.arguments.items() if form.path is not None}

    @property
    def filled(self) -> Mapping[str, str]:
        """The arguments that the runtime fills in if they are left out, and their values."""
        return {name: form.fill for name, form in self.arguments.items() if form.fill}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentTable:
    """All components, found by kind and name, or by path.

    Attributes:
        generated_from: the versions of the packages that the table describes.
        components: the entries by their path.
        paths_by_name: for each kind, the path of each name; aliases such as ``RandFlipD`` are
            names of their own.
        paths_by_alias: the path of each public path, such as ``monai.networks.nets.UNet``.
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
        """Return the component with exactly this name among those of a kind; None if there is none.

        Raises:
            KeyError: there is no such kind.
        """
        path = self.paths_by_name[kind].get(name)
        return None if path is None else self.components[path]

    def names(self, kind: str) -> tuple[str, ...]:
        """Return all names of a kind, aliases included, sorted.

        Raises:
            KeyError: there is no such kind.
        """
        return tuple(self.paths_by_name[kind])

    def by_path(self, path: str) -> ComponentEntry | None:
        """Return the component with this path, defining or public."""
        return self.components.get(self.paths_by_alias.get(path, path))

    def kinds_of(self, name: str) -> tuple[str, ...]:
        """Return the kinds that know this name; says where a misplaced component belongs."""
        return tuple(kind for kind, paths in self.paths_by_name.items() if name in paths)


@dataclass(frozen=True, slots=True)
class ArgumentFault:
    """One argument that does not fit a component.

    Attributes:
        argument: its name.
        kind: ``unknown``, ``missing`` or ``denied``.
        message: the fault; the caller puts the name of the component before it.
        advice: the next step; empty if the message says it all.
    """

    argument: str
    kind: FaultKind
    message: str
    advice: str = ""


def check_arguments(entry: ComponentEntry, given: Collection[str]) -> tuple[ArgumentFault, ...]:
    """Return the faults among the names of arguments: given names in order, then missing names.

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
    faults = []
    for name in given:
        form = entry.arguments.get(name)
        if form is None:
            # A given name cannot be the intended name: `chanels` next to `in_channels`.
            candidates = [argument for argument in entry.accepted if argument not in given]
            message, advice = f"unknown argument {name!r}", did_you_mean(name, candidates)
            faults.append(ArgumentFault(name, "unknown", message, advice))
        elif form.denied:
            message = f"the argument {name!r} is refused: {form.denied}"
            faults.append(ArgumentFault(name, "denied", message, f"Remove {name!r}."))
    faults += [
        ArgumentFault(name, "missing", f"the required argument {name!r} is missing")
        for name in entry.required
        if name not in given
    ]
    return tuple(faults)


@cache
def load_component_table() -> ComponentTable:
    """Return the table that comes with this package; read once."""
    file = resources.files("mmar_runtime.policy") / "components.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    forms: dict[str, Form] = {}
    for name in document["forms"]:
        _parse_form(name, document["forms"], forms)
    components = {
        path: ComponentEntry(
            path=path,
            kind=record["kind"],
            namespace=record["namespace"],
            arguments=MappingProxyType({k: forms[form] for k, form in record["arguments"].items()}),
            required=tuple(record.get("required", ())),
            consent=record.get("consent", ""),
            packages=tuple(record.get("packages", ())),
        )
        for path, record in document["components"].items()
    }
    paths_by_name = {kind: MappingProxyType(paths) for kind, paths in document["names"].items()}
    return ComponentTable(
        generated_from=MappingProxyType(document["generated_from"]),
        components=MappingProxyType(components),
        paths_by_name=MappingProxyType(paths_by_name),
        paths_by_alias=MappingProxyType(dict(_aliases(components, paths_by_name))),
    )


def _parse_form(name: str, records: Mapping[str, Any], parsed: dict[str, Form]) -> Form:
    """Return the form of that name, those of its members first; each is parsed once."""
    if name not in parsed:
        fields = dict(records[name])
        members = fields.pop("members", {})
        for key in ("words", "refers"):
            fields[key] = frozenset(fields.get(key, ()))
        if "number" in fields:
            fields["number"] = tuple(fields["number"])
        inner = {key: _parse_form(form, records, parsed) for key, form in members.items()}
        parsed[name] = Form(name=name, members=MappingProxyType(inner), **fields)
    return parsed[name]


def _aliases(
    components: Mapping[str, ComponentEntry], paths_by_name: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, str]]:
    """Yield each public path with the defining path: by namespace and by defining module."""
    for path, entry in components.items():
        # Also for a class whose short name belongs to another class: its full path does not clash.
        yield f"{entry.namespace}.{entry.name}", path
    for paths in paths_by_name.values():
        for name, path in paths.items():
            yield f"{components[path].namespace}.{name}", path
            yield f"{components[path].module}.{name}", path
