"""Clara Train 4.0 -> 4.1: wiring that used to be implied is written down.

4.0 connected components by their section entries; 4.1 says it with ``@references``. A section is
taken for 4.0 when it has data to run over, but its trainer or evaluator, one of MONAI's, refers to
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from mmar_runtime.config.expressions import (
    Display,
    ExpressionRefused,
    ExpressionTree,
    Lambda,
    Parameter,
    Subscript,
    from_engine_keys,
    parse_expression,
)
from mmar_runtime.config.upgrades.draft import (
    Component,
    Draft,
    Place,
    Rule,
    args_of,
    dictionary_names,
    is_component,
    objects,
    rule,
    set_args,
    short_name,
)
from mmar_runtime.config.upgrades.old_lambdas import Value, computed_values

VERSION = "CLARA_TRAIN_VERSION"
VERSION_VALUE = "4.1.0"

SHARED_WIRING = {
    "network": "model",
    "inferer": "inferer",
    "postprocessing": "post_transforms",
    "additional_metrics": "additional_metrics",
    "iteration_update": "iteration",
    "prepare_batch": "prepare_batch",
}
WIRING = {
    "trainer": {
        "train_data_loader": "dataloader",
        "loss_function": "loss",
        "optimizer": "optimizer",
        "key_train_metric": "key_metric",
        "train_handlers": "handlers",
        **SHARED_WIRING,
    },
    "evaluator": {
        "val_data_loader": "dataloader",
        "key_val_metric": "key_metric",
        "val_handlers": "handlers",
        **SHARED_WIRING,
    },
}
"""Engine -> its arguments and the entries that 4.0 handed to them."""

WIRED_ENGINES = ("SupervisedTrainer", "SupervisedEvaluator")
WIRED_HANDLERS = {
    "LrScheduleHandler": ("lr_scheduler", "@lr_scheduler"),
    "ValidationHandler": ("validator", "@evaluator"),
    "SmartCacheHandler": ("smartcacher", "@dataset"),
}
TRANSFORM_ARGUMENTS = ("output_transform", "batch_transform", "loss_transform")
WHOLE_BATCH_ENGINES = ("AdversarialTrainer", "GanTrainer")
"""MONAI's engines that never take a batch apart: their output is one mapping still."""

SPACING = dictionary_names("Spacing")
ADDING_CHANNELS = dictionary_names("AddChannel", "AsChannelFirst", "EnsureChannelFirst")

INVERTED = "inverted"
"""The ``postfix`` that TransformInverter adds to the key of an inverted image."""

INVERTER_ARGUMENTS = ("nearest_interp", "to_tensor", "device", "post_func", "allow_missing_keys")
INVERTER_WIRING = (
    *("output_keys", "output_key", "batch_keys", "batch_key", "meta_keys", "batch_meta_keys"),
    *("meta_key_postfix", "transform", "loader", "collate_fn", "num_workers", "postfix"),
)
"""Arguments that Invertd does not need, or has under other names."""

SAVER_ARGUMENTS = (
    *("output_dir", "output_postfix", "output_ext", "mode", "padding_mode", "scale", "dtype"),
    *("output_dtype", "squeeze_end_dims", "data_root_dir", "separate_folder", "print_log"),
)
SAVER_WIRING = ("batch_transform", "output_transform", "resample", "name")


# --- Values --------------------------------------------------------------------------------------


@rule("a lambda over the engine's output runs as from_engine: the output is a list now")
def _output_transform(draft: Draft) -> Iterator[Place]:
    """Upgrade lambdas over a batch's output: MONAI now hands over a list with a dict per item."""
    for place, component in _taken_apart(draft):
        for argument in TRANSFORM_ARGUMENTS:
            keys = _subscripted_keys(args_of(component).get(argument))
            if keys:
                set_args(component, **{argument: _from_engine(keys)})
                yield (*place, "args", argument)


ENGINE_LOSS = re.compile(r"\.state\.output\[(['\"])loss\1\]")


@rule("a lambda that takes the loss of an engine takes it from the first item: output is a list")
def _engine_loss(draft: Draft) -> Iterator[Place]:
    """Upgrade ``lambda x: x.state.output['loss']``: all items of the list have the same loss."""
    for place, component in _taken_apart(draft):
        for argument, text in args_of(component).items():
            if isinstance(text, str) and ENGINE_LOSS.search(text):
                args_of(component)[argument] = ENGINE_LOSS.sub(".state.output[0]['loss']", text)
                yield (*place, "args", argument)


def _from_engine(keys: list[str]) -> str:
    first = ", first=True" if keys == ["loss"] else ""
    return f"#monai.handlers.from_engine({keys!r}{first})"


def _taken_apart(draft: Draft) -> Iterator[tuple[Place, Component]]:
    """Yield the components of sections whose engine takes each batch apart into its items."""
    whole = [
        place
        for place, section in draft.sections()
        for engine in map(section.get, WIRING)
        if is_component(engine)
        and (short_name(engine) in WHOLE_BATCH_ENGINES or args_of(engine).get("decollate") is False)
    ]
    for place, component in draft.components():
        if not any(place[: len(section)] == section for section in whole):
            yield place, component


@rule("a lambda that calls MONAI's transforms runs as post transforms on a copy of the entry")
def _computed_output(draft: Draft) -> Iterator[Place]:
    """Move the transforms in a lambda to the section's post transforms, and ask for their result.

    4.0 ran the lambda after the post transforms and the handlers before it, as the end of the list
    does. Two lambdas that compute the same share the copy.
    """
    for place, section in draft.sections():
        if not _takes_transforms(section):
            continue
        copies: dict[Value, str] = {}
        for where, component in list(_taken_apart(draft)):
            if where[: len(place)] != place:
                continue
            for argument in TRANSFORM_ARGUMENTS:
                text = args_of(component).get(argument)
                values = () if _subscripted_keys(text) else computed_values(text)
                if values:
                    keys = [_copied(value, copies, section) for value in values]
                    set_args(component, **{argument: _from_engine(keys)})
                    yield (*where, "args", argument)


def _copied(value: Value, copies: dict[Value, str], section: dict[str, Any]) -> str:
    """Return the key of a computed value; add the transforms that make it, if none do yet."""
    if not value.transforms:
        return value.key
    if value not in copies:
        same = sum(other.key == value.key for other in copies)
        copies[value] = f"{value.key}_discrete" + (f"_{same + 1}" if same else "")
        name = copies[value]
        section.setdefault("post_transforms", []).extend(
            [
                {"name": "CopyItemsd", "args": {"keys": value.key, "names": name, "times": 1}},
                *(
                    {"name": f"{transform}d", "args": {"keys": name, **_as_json(args)}}
                    for transform, args in value.transforms
                ),
            ]
        )
    return copies[value]


def _as_json(args: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in args}


def _subscripted_keys(text: Any) -> list[str]:
    """Return the keys of ``lambda x: x['a']`` or ``lambda x: (x['a'], x['b'])``, else no keys."""
    tree = _parsed(text)
    if not isinstance(tree, Lambda):
        return []
    body = tree.body
    several = isinstance(body, Display) and body.kind != "dict" and len(body.items) > 1
    items = body.items if isinstance(body, Display) and several else (body,)
    entries = [item for item in items if isinstance(item, Subscript)]
    keys = [item.key for item in entries if isinstance(item.value, Parameter)]
    texts = [key for key in keys if isinstance(key, str)]
    return texts if len(texts) == len(items) else []


def _parsed(text: Any) -> ExpressionTree | None:
    """Return the tree of an expression; None for every other value."""
    if not isinstance(text, str) or not text.strip().startswith(("#", "lambda")):
        return None
    try:
        return parse_expression(text.strip())
    except ExpressionRefused:
        return None


def _named_objects(draft: Draft, handler: str, argument: str) -> Iterator[Place]:
    """Yield a list of names -> a mapping from each name to the object."""
    for place, component in draft.named(handler):
        names = args_of(component).get(argument)
        if not isinstance(names, list):
            continue
        if all(isinstance(name, str) and name.isidentifier() for name in names):
            mapping = {name: "@conf" if name == "train_conf" else f"@{name}" for name in names}
            set_args(component, **{argument: mapping})
            yield (*place, "args", argument)


# --- Transforms ----------------------------------------------------------------------------------


@rule("channels come before Spacingd, which needs them first")
def _channel_order(draft: Draft) -> Iterator[Place]:
    """Move the transform that puts channels first before Spacingd, which needs them."""
    for place, section in draft.sections():
        transforms = section.get("pre_transforms")
        if not isinstance(transforms, list):
            continue
        spaced: dict[str, int] = {}  # key -> where Spacingd first met it without channels
        with_channels: set[str] = set()
        for index, item in enumerate(transforms):
            transform = draft.transform(item) if isinstance(item, dict) else {}
            keys = set(_names(args_of(transform).get("keys")))
            if short_name(transform) in SPACING:
                spaced |= dict.fromkeys(keys - with_channels - spaced.keys(), index)
            loads = short_name(transform) in dictionary_names("LoadImage")
            ensures = loads and args_of(transform).get("ensure_channel_first") is True
            if not ensures and short_name(transform) not in ADDING_CHANNELS:
                continue
            with_channels |= keys
            if keys & spaced.keys():
                first = min(spaced[key] for key in keys & spaced.keys())
                transforms.insert(first, transforms.pop(index))
                spaced = {
                    key: at if at < first else at + 1
                    for key, at in spaced.items()
                    if key not in keys
                }
                yield (*place, "pre_transforms", index)


BATCH_AXES = {"ConcatItems": "dim", "SplitChannel": "channel_dim", "SqueezeDim": "dim"}


@rule("an axis in 4.0's post transforms counts from the channel: batches are taken apart before")
def _batch_axes(draft: Draft) -> Iterator[Place]:
    """Lower axes by one where the post transforms saw a whole batch, whose first axis is gone."""
    for place, section in draft.sections():
        if not any(_is_unwired(section, name) for name in WIRING):
            continue
        for where, component in draft.components():
            if where[: len(place) + 1] != (*place, "post_transforms"):
                continue
            for name, argument in BATCH_AXES.items():
                axis: Any = args_of(component).get(argument)
                is_axis = isinstance(axis, int) and not isinstance(axis, bool) and axis > 0
                if short_name(component) in dictionary_names(name) and is_axis:
                    set_args(component, **{argument: axis - 1})
                    yield (*where, "args", argument)


# --- Sections ------------------------------------------------------------------------------------


@rule("4.0's list 'metrics' is now key_metric and additional_metrics")
def _metrics(draft: Draft) -> Iterator[Place]:
    """Turn ``metrics`` with an ``is_key_metric`` into ``key_metric`` and ``additional_metrics``."""
    for place, section in draft.sections():
        metrics = section.get("metrics")
        if not isinstance(metrics, list) or not all(isinstance(item, dict) for item in metrics):
            continue
        flags = [metric.get("is_key_metric", False) for metric in metrics]
        known = all(isinstance(flag, bool) for flag in flags) and sum(flags) <= 1
        if not known or "key_metric" in section or "additional_metrics" in section:
            continue  # the loader reports the fault of the list
        del section["metrics"]
        others = []
        for metric, is_key in zip(metrics, flags, strict=True):
            metric.pop("is_key_metric", None)
            if is_key:
                section["key_metric"] = metric
            else:
                others.append(metric)
        if others:
            section["additional_metrics"] = others
        yield (*place, "metrics")


@rule("the handler SegmentationSaver runs as the post transform SaveImaged")
def _saver(draft: Draft) -> Iterator[Place]:
    """Yield the handler SegmentationSaver -> the post transform SaveImaged."""
    for place, section in draft.sections():
        for index, handler in _handlers(section, "SegmentationSaver"):
            old = args_of(handler)
            inverters = [inverter for _, inverter in _handlers(section, "TransformInverter")]
            key = _saved_key(old.get("output_transform"), inverters)
            unknown = old.keys() - {*SAVER_ARGUMENTS, *SAVER_WIRING}
            if key is None or unknown or not _takes_transforms(section):
                continue
            inverted = any(key in _inverted_keys(inverter) for inverter in inverters) or any(
                short_name(draft.transform(item)) in dictionary_names("Invert")
                for item in objects(section, "post_transforms")
            )
            if inverters and inverted and _inverts_copies(section, inverters):
                key = _copies(inverters).get(key, f"{key}_{INVERTED}")
            save = {
                "keys": key,
                "meta_keys": f"{key}_meta_dict",
                "output_postfix": "seg",
                "resample": False if inverted else old.get("resample", True),
                "squeeze_end_dims": True,
                **{name: value for name, value in old.items() if name in SAVER_ARGUMENTS},
            }
            _take_out(section, handler)
            saving = _instead_of(handler, "SaveImaged", save)
            section.setdefault("post_transforms", []).append(saving)
            yield (*place, "handlers", index)


def _saved_key(text: Any, inverters: list[Component]) -> str | None:
    """Return the written key without the inverter's ending; None if the key is unknown."""
    if text is None:
        return "pred"
    tree = _parsed(text)
    keys = from_engine_keys(tree) if tree is not None else None
    if keys is None or len(keys) != 1:
        return None
    originals = {copy: key for key, copy in _copies(inverters).items()}
    return originals.get(keys[0], keys[0].removesuffix(f"_{INVERTED}"))


@rule("the handler TransformInverter runs as the post transform Invertd")
def _inverter(draft: Draft) -> Iterator[Place]:
    """Yield the handler TransformInverter -> the post transform Invertd.

    Metrics saw the prediction before it was inverted, next to a label that never is. Where there
    are metrics a copy is inverted; also where a post transform asks for the inverted entry.
    """
    for place, section in draft.sections():
        for index, handler in _handlers(section, "TransformInverter"):
            old = args_of(handler)
            if {_bare(text) for text in _names(old.get("post_func"))} == {"lambdax:x"}:
                del old["post_func"]  # it changes nothing
            keys = _inverted_keys(handler)
            unknown = old.keys() - {*INVERTER_ARGUMENTS, *INVERTER_WIRING}
            if not keys or unknown or not _takes_transforms(section):
                continue
            inverted = list(_copies([handler]).values())
            copies = inverted if _inverts_copies(section, [handler]) else keys
            invert = {
                "keys": _one_or_all(copies),
                "transform": "@pre_transforms",
                "orig_keys": old.get("batch_keys", old.get("batch_key", "image")),
                "meta_keys": _one_or_all([f"{key}_meta_dict" for key in copies]),
                "nearest_interp": True,
                "to_tensor": True,
                "device": "cuda",
                **{name: value for name, value in old.items() if name in INVERTER_ARGUMENTS},
            }
            _take_out(section, handler)
            transforms = section.setdefault("post_transforms", [])
            added = [_instead_of(handler, "Invertd", invert)]
            if copies is keys:
                position = _behind_activations(draft, transforms)
            else:
                copying = {"keys": _one_or_all(keys), "names": _one_or_all(copies), "times": 1}
                added.insert(0, {"name": "CopyItemsd", "args": copying})
                saving = (
                    number
                    for number, item in enumerate(transforms)
                    if is_component(item) and {*copies} & {*_names(args_of(item).get("keys"))}
                )
                position = next(saving, len(transforms))
            transforms[position:position] = added
            yield (*place, "handlers", index)


def _bare(text: str) -> str:
    return "".join(text.split())


def _inverts_copies(section: dict[str, Any], inverters: list[Component]) -> bool:
    inverted = {*_copies(inverters).values()}
    asked = (
        _names(args_of(item).get("keys"))
        for item in objects(section, "post_transforms")
        if is_component(item)
    )
    return _has_metrics(section) or any(inverted & {*keys} for keys in asked)


def _copies(inverters: list[Component]) -> dict[str, str]:
    """Return the keys that handlers invert, each with the key of its inverted copy."""
    return {
        key: f"{key}_{args_of(inverter).get('postfix', INVERTED)}"
        for inverter in inverters
        for key in _inverted_keys(inverter)
    }


def _inverted_keys(handler: Component) -> list[str]:
    args = args_of(handler)
    return _names(args.get("output_keys", args.get("output_key", "pred")))


def _behind_activations(draft: Draft, transforms: list[Any]) -> int:
    """Return the place after the last Activationsd, where the prediction is inverted."""
    names = dictionary_names("Activations")
    places = [
        index + 1
        for index, item in enumerate(transforms)
        if isinstance(item, dict) and short_name(draft.transform(item)) in names
    ]
    return max(places, default=0)


def _names(value: Any) -> list[str]:
    """Return a key or an array of keys; none where the value is neither."""
    values = value if isinstance(value, list) else [value]
    return values if all(isinstance(item, str) for item in values) else []


def _one_or_all(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


def _has_metrics(section: dict[str, Any]) -> bool:
    return "key_metric" in section or "additional_metrics" in section


def _takes_transforms(section: dict[str, Any]) -> bool:
    return isinstance(section.get("post_transforms", []), list)


def _handlers(section: dict[str, Any], name: str) -> list[tuple[int, Component]]:
    """Return the handlers of that name and their indices, but for those that never run."""
    handlers = section.get("handlers")
    return [
        (index, handler)
        for index, handler in enumerate(handlers if isinstance(handlers, list) else ())
        if is_component(handler)
        and short_name(handler) == name
        and handler.get("disabled") is not True
    ]


def _take_out(section: dict[str, Any], handler: Component) -> None:
    section["handlers"] = [other for other in section["handlers"] if other is not handler]


def _instead_of(handler: Component, name: str, args: dict[str, Any]) -> Component:
    """Return a transform that is disabled where the handler was."""
    kept = {"disabled": handler["disabled"]} if "disabled" in handler else {}
    return {"name": name, **kept, "args": args}


# --- Wiring --------------------------------------------------------------------------------------


@rule("4.0 connected components by itself; the references are now written down")
def _wiring(draft: Draft) -> Iterator[Place]:
    """Write all connections that 4.0 made by itself; no part makes sense alone."""
    model_is_there = any("model" in section for _, section in draft.sections())
    for place, section in draft.sections():
        engines = [name for name in WIRING if _is_unwired(section, name)]
        if engines:
            _wire_parts(section)
        for name in engines:
            # The validate section's engine runs the network that is trained.
            entries = {*section, "model"} if model_is_there else {*section}
            wiring = {arg: f"@{entry}" for arg, entry in WIRING[name].items() if entry in entries}
            epochs = {"max_epochs": "{epochs}"} if name == "trainer" else {}
            own = args_of(section[name])
            section[name]["args"] = {**epochs, "device": "cuda", **wiring, "amp": "{amp}", **own}
        if engines:
            yield place


def _is_unwired(section: dict[str, Any], name: str) -> bool:
    """Return whether this is one of MONAI's engines, has data to run over and refers to nothing."""
    engine = section.get(name)
    return (
        is_component(engine)
        and short_name(engine) in WIRED_ENGINES
        and engine.get("disabled") is not True
        and "dataloader" in section
        and not _refers(args_of(engine))
    )


def _refers(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_refers, value.values()))
    if isinstance(value, list):
        return any(map(_refers, value))
    return isinstance(value, str) and value.strip().startswith(("@", "#"))


def _wire_parts(section: dict[str, Any]) -> None:
    parts = (
        ("optimizer", "params", "#@model.parameters()", True),
        ("lr_scheduler", "optimizer", "@optimizer", "optimizer" in section),
        ("dataset", "transform", "@pre_transforms", "pre_transforms" in section),
        ("dataloader", "dataset", "@dataset", "dataset" in section),
    )
    for entry, argument, value, possible in parts:
        component = section.get(entry)
        if possible and is_component(component):
            component["args"] = {argument: value, **args_of(component)}
    for handler in objects(section, "handlers"):
        if is_component(handler) and short_name(handler) in WIRED_HANDLERS:
            argument, value = WIRED_HANDLERS[short_name(handler)]
            handler["args"] = {argument: value, **args_of(handler)}


# --- In order ------------------------------------------------------------------------------------

# Values before moves, so that a notice names the place where a reader of the file finds it;
# wiring last, as it names the entries that the others have made.
FIRST_RULES = (_batch_axes, _computed_output)
"""Before MONAI's changes, which then also apply to the transforms of lambdas."""

RULES = (
    _output_transform,
    _engine_loss,
    Rule(
        "load-dict",
        "4.0's list 'load_dict' is now a mapping to objects",
        partial(_named_objects, handler="CheckpointLoader", argument="load_dict"),
    ),
    Rule(
        "save-dict",
        "4.0's list 'save_dict' is now a mapping to objects",
        partial(_named_objects, handler="CheckpointSaver", argument="save_dict"),
    ),
    _channel_order,
    _metrics,
    _saver,
    _inverter,
    _wiring,
)
