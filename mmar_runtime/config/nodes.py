"""The grammar of a workflow document: the meaning of each JSON value.

Literal         a number, a truth value, null, or a string with its variables filled in
ListNode        [...]
MapNode         {...} without a component in it
Reference       "@name"
Expression      "#..." or "lambda ..."
ComponentSpec   {"name" | "path": ..., "args": {...}}
TransformRef    {"ref": ...}
WeightsFile     {"ts_path" | "ckpt_path": ...}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias
from typing import Literal as OneOf

from mmar_runtime.config.expressions import ExpressionTree, references
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar

WeightsKind: TypeAlias = OneOf["ts_path", "ckpt_path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """A plain value: a number, a flag, a text or null."""

    location: Location
    value: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNode:
    """A JSON array."""

    location: Location
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapNode:
    """A JSON object that is not a component."""

    location: Location
    items: Mapping[str, Node]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """``@name``: the object built from the section's entry of that name."""

    location: Location
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """``#...`` or a bare lambda: its text and the tree that is interpreted over built objects."""

    location: Location
    text: str
    tree: ExpressionTree


@dataclass(frozen=True, slots=True, kw_only=True)
class DataListSource:
    """Which list of which file a data set is read from; paths in the list are below ``base``."""

    location: Location
    file: str
    base: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSpec:
    """A component: its class by short ``name`` or import ``path``, and its arguments.

    Attributes:
        alias: the text after ``#`` in the name; a ``ref`` may use it instead of the name.
        disabled: leave this component out.
        rank: build it in this process of a distributed run only; None means in each.
        log_label: the key of a metric in logs and results.
        negate: of a metric: whether a lower value is better.
        data_list: for a data set: where its items come from.
    """

    location: Location
    name: str | None
    path: str | None
    args: MapNode
    alias: str | None = None
    disabled: bool = False
    rank: int | None = None
    log_label: str | None = None
    negate: bool = False
    data_list: DataListSource | None = None

    @property
    def title(self) -> str:
        """The class as the config calls it, without the package."""
        return self.name or (self.path or "").rpartition(".")[2]

    @property
    def named_at(self) -> Location:
        """Where the config names the class."""
        return self.location / ("name" if self.path is None else "path")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformRef:
    """``{"ref": ...}``: the train section's transform of that name or alias."""

    location: Location
    name: str
    disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """A model given as a file: TorchScript (``ts_path``) or a checkpoint (``ckpt_path``)."""

    location: Location
    kind: WeightsKind
    path: str
    disabled: bool = False

    @property
    def named_at(self) -> Location:
        """Where the config names the file."""
        return self.location / self.kind


Node = (
    Literal
    | ListNode
    | MapNode
    | Reference
    | Expression
    | ComponentSpec
    | TransformRef
    | WeightsFile
)


def map_node(location: Location, items: Mapping[str, Node]) -> MapNode:
    """Return a ``MapNode`` whose mapping cannot be changed any more."""
    return MapNode(location=location, items=MappingProxyType(dict(items)))


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly inside a node."""
    if isinstance(node, ListNode):
        return node.items
    if isinstance(node, MapNode):
        return tuple(node.items.values())
    return (node.args,) if isinstance(node, ComponentSpec) else ()


def walk(node: Node, *, with_disabled: bool = False) -> Iterator[Node]:
    """Yield a node and everything inside it, parents first; disabled components are left out."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if with_disabled or not is_disabled(node):
            yield node
            waiting += reversed(children(node))


def is_disabled(node: Node) -> bool:
    """Return whether the config leaves this node out."""
    return isinstance(node, ComponentSpec | TransformRef | WeightsFile) and node.disabled


def referenced_names(node: Node) -> Iterator[tuple[str, Location]]:
    """Yield each ``@name`` inside a node, in expressions too, with the place that asks for it."""
    for inner in walk(node):
        if isinstance(inner, Reference):
            yield inner.name, inner.location
        elif isinstance(inner, Expression):
            for name in sorted(references(inner.tree)):
                yield name, inner.location


def plain(node: Node) -> Any:
    """Return a node as JSON again, with variables filled in and disabled components left out."""
    match node:
        case Literal():
            return node.value
        case ListNode():
            return [plain(item) for item in node.items if not is_disabled(item)]
        case MapNode():
            return {key: plain(value) for key, value in node.items.items()}
        case Reference():
            return f"@{node.name}"
        case Expression():
            return node.text
        case ComponentSpec():
            return _plain_component(node)
        case TransformRef():
            return {"ref": node.name}
        case WeightsFile():
            return {node.kind: node.path}


def _plain_component(spec: ComponentSpec) -> dict[str, Any]:
    content: dict[str, Any] = {"path": spec.path} if spec.path else {"name": spec.name}
    if spec.rank is not None:
        content["rank"] = spec.rank
    if spec.log_label is not None:
        content["log_label"] = spec.log_label
    if spec.negate:
        content["negate"] = True
    if spec.data_list is not None:
        content["data_list_file_path"] = spec.data_list.file
        content["data_file_base_dir"] = spec.data_list.base
        content["data_list_key"] = spec.data_list.key
    if spec.args.items:
        content["args"] = plain(spec.args)
    return content
