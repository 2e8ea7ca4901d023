"""What MONAI has changed since Clara Train 4.1, as rules that rewrite a component's spec.

Each rule is a function that returns the new spec, or None where it has nothing to do. Rules apply
to components given by short ``name``: a class of the MMAR's own may well take an argument that
MONAI has since renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import ComponentSpec, ListNode, Literal, MapNode, Node, map_node
from mmar_runtime.config.sections import Notice

Rewrite = Callable[[ComponentSpec], ComponentSpec | None]

BEST_MODEL = "model.pt"
FINAL_MODEL = "final_model.pt"


@dataclass(frozen=True, slots=True)
class Rule:
    """A named rewrite and the sentence that announces it."""

    name: str
    message: str
    rewrite: Rewrite


class Upgrader:
    """Applies every rule to every component and remembers where each one did something."""

    def __init__(self) -> None:
        self._places: dict[str, list[Location]] = {}

    def __call__(self, node: Node) -> Node:
        """The node with every component in it translated."""
        if isinstance(node, ListNode):
            return replace(node, items=tuple(map(self, node.items)))
        if isinstance(node, MapNode):
            return map_node(node.location, {key: self(item) for key, item in node.items.items()})
        if isinstance(node, ComponentSpec):
            return self._component(node)
        return node

    def _component(self, spec: ComponentSpec) -> ComponentSpec:
        args = map_node(spec.args.location, {k: self(item) for k, item in spec.args.items.items()})
        spec = replace(spec, args=args)
        for rule in RULES:
            rewritten = rule.rewrite(spec) if spec.name is not None else None
            if rewritten is not None:
                spec = rewritten
                self._places.setdefault(rule.name, []).append(spec.location)
        return spec

    @property
    def notices(self) -> tuple[Notice, ...]:
        """One notice for each rule that did something, in the order of the rules."""
        return tuple(
            Notice(rule=rule.name, message=rule.message, places=tuple(self._places[rule.name]))
            for rule in RULES
            if rule.name in self._places
        )


def _args(spec: ComponentSpec, drop: tuple[str, ...] = (), **new: Any) -> MapNode:
    items: dict[str, Node] = {k: v for k, v in spec.args.items.items() if k not in drop}
    for key, value in new.items():
        items[key] = Literal(location=spec.args.location / key, value=value)
    return map_node(spec.args.location, items)


def _named(spec: ComponentSpec, *names: str) -> bool:
    """Whether the spec's class is one of these dictionary transforms, under any of its names."""
    spellings = {name + end for name in names for end in ("d", "D", "Dict")}
    return spec.name in spellings


def _literals(node: Node | None) -> list[Any]:
    """The values of a literal or of a list of literals."""
    if isinstance(node, ListNode):
        return [value for item in node.items for value in _literals(item)]
    return [node.value] if isinstance(node, Literal) else []


def _to_tensor(spec: ComponentSpec) -> ComponentSpec | None:
    return replace(spec, name="EnsureTyped") if _named(spec, "ToTensor") else None


def _load_image_meta(spec: ComponentSpec) -> ComponentSpec | None:
    if not _named(spec, "LoadImage") or "image_only" in spec.args.items:
        return None
    return replace(spec, args=_args(spec, image_only=False))


def _add_channel(spec: ComponentSpec) -> ComponentSpec | None:
    if not _named(spec, "AddChannel"):
        return None
    return replace(spec, name="EnsureChannelFirstd", args=_args(spec, channel_dim="no_channel"))


def _channel_last(spec: ComponentSpec) -> ComponentSpec | None:
    if not _named(spec, "AsChannelFirst"):
        return None
    dims = _literals(spec.args.items.get("channel_dim")) or [-1]
    args = _args(spec, drop=("channel_dim",), channel_dim=dims[0])
    return replace(spec, name="EnsureChannelFirstd", args=args)


def _threshold(spec: ComponentSpec) -> ComponentSpec | None:
    old = ("threshold_values", "logit_thresh")
    if not _named(spec, "AsDiscrete") or not any(key in spec.args.items for key in old):
        return None
    flags = _literals(spec.args.items.get("threshold_values")) or [False]
    levels = _literals(spec.args.items.get("logit_thresh")) or [0.5]
    values = _per_key([level if flag else None for flag, level in _paired(flags, levels)])
    args = _args(spec, drop=old)
    if any(flags):
        items = {**args.items, "threshold": _node(spec.args.location / "threshold", values)}
        args = map_node(spec.args.location, items)
    return replace(spec, args=args)


def _one_hot(spec: ComponentSpec) -> ComponentSpec | None:
    """``to_onehot: true, n_classes: k`` -> ``to_onehot: k``; ``n_classes`` beside a number goes."""
    old = tuple(key for key in ("n_classes", "num_classes") if key in spec.args.items)
    given = _literals(spec.args.items.get("to_onehot"))
    booleans = any(isinstance(value, bool) for value in given)
    if not _named(spec, "AsDiscrete") or not (old or booleans):
        return None
    counts = _literals(spec.args.items[old[0]]) if old else [None]
    if booleans and any(given) and counts == [None]:
        return None  # to_onehot: true without a count has no meaning; MONAI's own error says so
    values = [
        (count if value else None) if isinstance(value, bool) else value
        for value, count in _paired(given, counts)
    ]
    args = _args(spec, drop=(*old, "to_onehot"))
    if any(value is not None for value in values):
        node = _node(spec.args.location / "to_onehot", _per_key(values))
        args = map_node(spec.args.location, {**args.items, "to_onehot": node})
    return replace(spec, args=args)


def _paired(left: list[Any], right: list[Any]) -> list[tuple[Any, Any]]:
    """Two per-key lists side by side; a single value holds for every key."""
    count = max(len(left), len(right))
    return [(left[index % len(left)], right[index % len(right)]) for index in range(count)]


def _per_key(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _node(location: Location, value: Any) -> Node:
    if isinstance(value, list):
        items = tuple(_node(location / index, item) for index, item in enumerate(value))
        return ListNode(location=location, items=items)
    return Literal(location=location, value=value)


def _spatial_dims(spec: ComponentSpec) -> ComponentSpec | None:
    if "dimensions" not in spec.args.items or "spatial_dims" in spec.args.items:
        return None
    items: Mapping[str, Node] = {
        "spatial_dims" if key == "dimensions" else key: node
        for key, node in spec.args.items.items()
    }
    return replace(spec, args=map_node(spec.args.location, items))


def _best_name(spec: ComponentSpec) -> ComponentSpec | None:
    """MONAI names the file after the metric; Clara's commands read ``models/model.pt``."""
    args = spec.args.items
    if spec.name != "CheckpointSaver" or _literals(args.get("save_key_metric")) != [True]:
        return None
    if "key_metric_filename" in args or "key_metric_n_saved" in args or "file_prefix" in args:
        return None
    return replace(spec, args=_args(spec, key_metric_filename=BEST_MODEL))


def _final_name(spec: ComponentSpec) -> ComponentSpec | None:
    args = spec.args.items
    if spec.name != "CheckpointSaver" or _literals(args.get("save_final")) != [True]:
        return None
    if "final_filename" in args or "file_prefix" in args:
        return None
    return replace(spec, args=_args(spec, final_filename=FINAL_MODEL))


RULES = (
    Rule(
        "to-tensor",
        "ToTensord runs as EnsureTyped: ToTensord would drop what Invertd needs",
        _to_tensor,
    ),
    Rule(
        "image-meta",
        "LoadImaged runs with image_only=false, so that *_meta_dict stays in the batch",
        _load_image_meta,
    ),
    Rule(
        "add-channel",
        "AddChanneld is gone from MONAI; runs as EnsureChannelFirstd(channel_dim='no_channel')",
        _add_channel,
    ),
    Rule(
        "channel-last",
        "AsChannelFirstd is gone from MONAI; runs as EnsureChannelFirstd",
        _channel_last,
    ),
    Rule(
        "threshold",
        "AsDiscreted's threshold_values and logit_thresh run as threshold; MONAI ignores them",
        _threshold,
    ),
    Rule(
        "one-hot",
        "AsDiscreted's n_classes runs as to_onehot",
        _one_hot,
    ),
    Rule(
        "spatial-dims",
        "the argument 'dimensions' is now 'spatial_dims'",
        _spatial_dims,
    ),
    Rule(
        "best-name",
        f"CheckpointSaver writes the best model as {BEST_MODEL}, as Clara did",
        _best_name,
    ),
    Rule(
        "final-name",
        f"CheckpointSaver writes the last model as {FINAL_MODEL}, as Clara did",
        _final_name,
    ),
)
