"""Clara Train 4.0 -> 4.1: wiring that used to be implied is written down.

4.0 connected components by their section entries; 4.1 says it with ``@references``. A section is
taken for 4.0 when it has data to run over, but its trainer or evaluator, one of MONAI's, refers to
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmar_runtime.config.expressions import (
    Display,
    ExpressionRefused,
    ExpressionTree,
    Lambda,
    Parameter,
    Subscript,
    parse_expression,
)
from mmar_runtime.config.upgrades.draft import (
    Component,
    Draft,
    Place,
    Rule,
    args_of,
    is_component,
    short_name,
)

VERSION = "CLARA_TRAIN_VERSION"
VERSION_VALUE = "4.1.0"

TRAINER_WIRING = {
    "train_data_loader": "dataloader",
    "network": "model",
    "loss_function": "loss",
    "optimizer": "optimizer",
    "inferer": "inferer",
    "postprocessing": "post_transforms",
    "key_train_metric": "key_metric",
    "additional_metrics": "additional_metrics",
    "train_handlers": "handlers",
    "iteration_update": "iteration",
    "prepare_batch": "prepare_batch",
}
EVALUATOR_WIRING = {
    "val_data_loader": "dataloader",
    "network": "model",
    "inferer": "inferer",
    "postprocessing": "post_transforms",
    "key_val_metric": "key_metric",
    "additional_metrics": "additional_metrics",
    "val_handlers": "handlers",
    "iteration_update": "iteration",
    "prepare_batch": "prepare_batch",
}
WIRED_ENGINES = ("SupervisedTrainer", "SupervisedEvaluator")
WIRED_HANDLERS = {
    "LrScheduleHandler": ("lr_scheduler", "@lr_scheduler"),
    "ValidationHandler": ("validator", "@evaluator"),
    "SmartCacheHandler": ("smartcacher", "@dataset"),
}
TRANSFORM_ARGUMENTS = ("output_transform", "batch_transform")


def _metrics(draft: Draft) -> Iterator[Place]:
    """``metrics`` with one ``is_key_metric`` -> ``key_metric`` and ``additional_metrics``."""
    for place, section in draft.sections():
        metrics = section.get("metrics")
        if not isinstance(metrics, list) or not all(map(is_component, metrics)):
            continue
        del section["metrics"]
        key = [metric for metric in metrics if metric.get("is_key_metric") is True]
        others = [metric for metric in metrics if metric.get("is_key_metric") is not True]
        for metric in metrics:
            metric.pop("is_key_metric", None)
        if key:
            section["key_metric"] = key[0]
        if others or key[1:]:
            section["additional_metrics"] = [*key[1:], *others]
        yield (*place, "metrics")


def _load_dict(draft: Draft) -> Iterator[Place]:
    yield from _named_objects(draft, "CheckpointLoader", "load_dict")


def _save_dict(draft: Draft) -> Iterator[Place]:
    yield from _named_objects(draft, "CheckpointSaver", "save_dict")


def _named_objects(draft: Draft, handler: str, argument: str) -> Iterator[Place]:
    """A list of names -> a mapping from each name to the object."""
    for place, component in draft.named(handler):
        names = args_of(component).get(argument)
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            args_of(component)[argument] = {
                name: "@conf" if name == "train_conf" else f"@{name}" for name in names
            }
            yield (*place, "args", argument)


def _implied_sections(draft: Draft) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The sections whose engine refers to nothing."""
    for place, section in draft.sections():
        engine = section.get("trainer") or section.get("evaluator")
        if not is_component(engine) or short_name(engine) not in WIRED_ENGINES:
            continue
        if "dataloader" not in section or engine.get("disabled") is True:
            continue
        if not any(_refers(value) for value in args_of(engine).values()):
            yield place, section


def _refers(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("@", "#"))


def _wiring(draft: Draft) -> Iterator[Place]:
    """Everything that 4.0 connected by itself, in one go: the parts only make sense together."""
    model_is_there = any("model" in section for _, section in draft.sections())
    for place, section in list(_implied_sections(draft)):
        _wire_parts(section)
        for name, wiring in (("trainer", TRAINER_WIRING), ("evaluator", EVALUATOR_WIRING)):
            engine = section.get(name)
            if not is_component(engine):
                continue
            args = args_of(engine)
            if name == "trainer":
                args.setdefault("max_epochs", "{epochs}")
            args.setdefault("device", "cuda")
            for argument, entry in wiring.items():
                there = entry in section or (entry == "model" and model_is_there)
                if there and argument not in args:
                    args[argument] = f"@{entry}"
            args.setdefault("amp", "{amp}")
        yield place


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
            args_of(component).setdefault(argument, value)
    for handler in section.get("handlers") or ():
        if is_component(handler) and short_name(handler) in WIRED_HANDLERS:
            argument, value = WIRED_HANDLERS[short_name(handler)]
            args_of(handler).setdefault(argument, value)


def _output_transforms(draft: Draft) -> Iterator[Place]:
    """Lambdas over a whole batch's output; MONAI now hands a list with one entry for each item."""
    for place, component in draft.components():
        for argument in TRANSFORM_ARGUMENTS:
            keys = _subscripted_keys(args_of(component).get(argument))
            if keys is not None:
                args_of(component)[argument] = _from_engine(keys)
                yield (*place, "args", argument)


def _subscripted_keys(text: Any) -> list[str] | None:
    """The keys of ``lambda x: x['a']`` or ``lambda x: (x['a'], x['b'])``; None for all else."""
    if not isinstance(text, str) or not text.lstrip("# ").startswith("lambda"):
        return None
    try:
        tree = parse_expression(text.strip())
    except ExpressionRefused:
        return None
    if not isinstance(tree, Lambda):
        return None
    items = tree.body.items if isinstance(tree.body, Display) else (tree.body,)
    keys = [_key(item) for item in items]
    found = [key for key in keys if key is not None]
    return found if found and len(found) == len(keys) else None


def _key(tree: ExpressionTree) -> str | None:
    if not isinstance(tree, Subscript) or not isinstance(tree.value, Parameter):
        return None
    return tree.key if isinstance(tree.key, str) else None


def _from_engine(keys: list[str]) -> str:
    first = ", first=True" if keys == ["loss"] else ""
    return f"#monai.handlers.from_engine({keys!r}{first})"


def _inverter(draft: Draft) -> Iterator[Place]:
    """The handler TransformInverter -> the post transform Invertd."""
    for place, section in draft.sections():
        for index, handler in _handlers(section, "TransformInverter"):
            old = args_of(handler)
            invert: Component = {
                "name": "Invertd",
                "args": {
                    "keys": old.get("output_keys", "pred"),
                    "transform": "@pre_transforms",
                    "orig_keys": old.get("batch_keys", "image"),
                    "meta_keys": "pred_meta_dict",
                    "nearest_interp": old.get("nearest_interp", True),
                    "to_tensor": old.get("to_tensor", True),
                    "device": old.get("device", "cuda"),
                },
            }
            _replace_handler(section, handler, invert, after=("Activationsd",))
            yield (*place, "handlers", index)


def _saver(draft: Draft) -> Iterator[Place]:
    """The handler SegmentationSaver -> the post transform SaveImaged."""
    kept = ("output_dir", "output_postfix", "output_ext", "output_dtype", "separate_folder")
    for place, section in draft.sections():
        for index, handler in _handlers(section, "SegmentationSaver"):
            old = args_of(handler)
            save: Component = {
                "name": "SaveImaged",
                "args": {
                    "keys": "pred",
                    "meta_keys": "pred_meta_dict",
                    **{key: old[key] for key in kept if key in old},
                    "resample": False,
                    "squeeze_end_dims": True,
                },
            }
            behind = ("Activationsd", "Invertd", "AsDiscreted")
            _replace_handler(section, handler, save, after=behind)
            yield (*place, "handlers", index)


def _handlers(section: dict[str, Any], name: str) -> list[tuple[int, Component]]:
    handlers = section.get("handlers")
    return [
        (index, handler)
        for index, handler in enumerate(handlers if isinstance(handlers, list) else ())
        if is_component(handler) and short_name(handler) == name
    ]


def _replace_handler(
    section: dict[str, Any], handler: Component, transform: Component, *, after: tuple[str, ...]
) -> None:
    """Take a handler out and put a transform behind the last one of those in ``after``."""
    section["handlers"] = [other for other in section["handlers"] if other is not handler]
    if "disabled" in handler:
        transform["disabled"] = handler["disabled"]
    transforms = section.setdefault("post_transforms", [])
    behind = [
        index + 1
        for index, item in enumerate(transforms)
        if isinstance(item, dict) and _transform_name(item) in after
    ]
    transforms.insert(max(behind, default=0), transform)


def _transform_name(item: dict[str, Any]) -> str:
    """A transform's name, or that of its ``ref``, in the spelling that ends with ``d``."""
    name = str(item.get("ref", item.get("name", ""))).partition("#")[0]
    for end in ("Dict", "D"):
        if name.endswith(end):
            return name.removesuffix(end) + "d"
    return name


def _channel_order(draft: Draft) -> Iterator[Place]:
    """Spacingd needs channels first; some old documents had it the other way round."""
    for place, section in draft.sections():
        transforms = section.get("pre_transforms")
        if not isinstance(transforms, list):
            continue
        names = [_transform_name(item) if isinstance(item, dict) else "" for item in transforms]
        channel = [
            index
            for index, name in enumerate(names)
            if name in ("AddChanneld", "AsChannelFirstd", "EnsureChannelFirstd")
        ]
        spacing = [index for index, name in enumerate(names) if name == "Spacingd"]
        if channel and spacing and spacing[0] < channel[0]:
            transforms.insert(spacing[0], transforms.pop(channel[0]))
            yield (*place, "pre_transforms", channel[0])


RULES = (
    Rule("metrics", "4.0's list 'metrics' is now key_metric and additional_metrics", _metrics),
    Rule("load-dict", "4.0's list 'load_dict' is now a mapping to objects", _load_dict),
    Rule("save-dict", "4.0's list 'save_dict' is now a mapping to objects", _save_dict),
    Rule(
        "output-transform",
        "a lambda over the engine's output runs as from_engine: the output is a list now",
        _output_transforms,
    ),
    Rule(
        "inverter",
        "the handler TransformInverter runs as the post transform Invertd",
        _inverter,
    ),
    Rule("saver", "the handler SegmentationSaver runs as the post transform SaveImaged", _saver),
    Rule(
        "wiring",
        "4.0 connected components by itself; the references are now written down",
        _wiring,
    ),
    Rule("channel-order", "channels come before Spacingd, which needs them first", _channel_order),
)
