"""What MONAI has renamed, dropped or begun to ignore since Clara Train 4.1.

Rules look at components given by short ``name`` only: a class of the MMAR's own may well take an
argument that MONAI has since renamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmar_runtime.config.upgrades.draft import (
    Component,
    Draft,
    Place,
    Rule,
    args_of,
    dictionary_names,
    rename,
)

BEST_MODEL = "model.pt"
FINAL_MODEL = "final_model.pt"


def _to_tensor(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("ToTensor")):
        rename(component, "EnsureTyped")
        yield place


def _image_meta(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("LoadImage")):
        if "image_only" not in args_of(component):
            args_of(component)["image_only"] = False
            yield place


def _add_channel(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("AddChannel")):
        rename(component, "EnsureChannelFirstd")
        args_of(component)["channel_dim"] = "no_channel"
        yield place


def _channel_last(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("AsChannelFirst")):
        rename(component, "EnsureChannelFirstd")
        args_of(component).setdefault("channel_dim", -1)
        yield place


def _threshold(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("AsDiscrete")):
        args = args_of(component)
        if "threshold_values" not in args and "logit_thresh" not in args:
            continue
        flags = _as_list(args.pop("threshold_values", False))
        levels = _as_list(args.pop("logit_thresh", 0.5))
        if any(flags):
            pairs = _paired(flags, levels)
            args["threshold"] = _per_key([level if flag else None for flag, level in pairs])
        yield place


def _one_hot(draft: Draft) -> Iterator[Place]:
    """``to_onehot: true, n_classes: k`` -> ``to_onehot: k``; ``n_classes`` beside a number goes."""
    for place, component in draft.named(*dictionary_names("AsDiscrete")):
        args = args_of(component)
        given = _as_list(args.get("to_onehot"))
        counts = [args[key] for key in ("n_classes", "num_classes") if key in args]
        flags = any(isinstance(value, bool) for value in given)
        if not counts and not (flags and not any(given)):
            continue  # to_onehot: true without a count has no meaning; the check says so
        for key in ("n_classes", "num_classes", "to_onehot"):
            args.pop(key, None)
        values = [
            (count if value else None) if isinstance(value, bool) else value
            for value, count in _paired(given, _as_list(counts[0] if counts else None))
        ]
        if any(value is not None for value in values):
            args["to_onehot"] = _per_key(values)
        yield place


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) and value else [value]


def _paired(left: list[Any], right: list[Any]) -> list[tuple[Any, Any]]:
    """Two per-key lists side by side; a single value holds for every key."""
    count = max(len(left), len(right))
    return [(left[index % len(left)], right[index % len(right)]) for index in range(count)]


def _per_key(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _spatial_dims(draft: Draft) -> Iterator[Place]:
    for place, component in draft.components():
        args = args_of(component) if "path" not in component else {}
        if "dimensions" in args and "spatial_dims" not in args:
            renamed = {
                "spatial_dims" if key == "dimensions" else key: value for key, value in args.items()
            }
            component["args"] = renamed
            yield place


def _fully_convolutional(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named("TorchVisionFullyConvModel"):
        rename(component, "TorchVisionFCModel")
        args = args_of(component)
        if "n_classes" in args:
            args["num_classes"] = args.pop("n_classes")
        args.setdefault("use_conv", True)
        yield place


def _batched(draft: Draft) -> Iterator[Place]:
    """Deepgrow's transforms are always given by path, as Clara's own documents did."""
    for place, component in draft.components():
        if not str(component.get("path", "")).startswith("monai.apps.deepgrow."):
            continue
        if "batched" in args_of(component):
            del args_of(component)["batched"]
            yield place


def _best_name(draft: Draft) -> Iterator[Place]:
    """MONAI names the file after the metric; Clara's commands read ``models/model.pt``."""
    for place, component in draft.named("CheckpointSaver"):
        fixed = ("key_metric_filename", "key_metric_n_saved", "file_prefix")
        yield from _filename(component, place, "save_key_metric", fixed, BEST_MODEL)


def _final_name(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named("CheckpointSaver"):
        fixed = ("final_filename", "file_prefix")
        yield from _filename(component, place, "save_final", fixed, FINAL_MODEL)


def _filename(
    component: Component, place: Place, switch: str, fixed: tuple[str, ...], name: str
) -> Iterator[Place]:
    args = args_of(component)
    if args.get(switch, False) is not False and not any(key in args for key in fixed):
        args[fixed[0]] = name
        yield place


RULES = (
    Rule(
        "to-tensor",
        "ToTensord runs as EnsureTyped: ToTensord would drop what Invertd needs",
        _to_tensor,
    ),
    Rule(
        "image-meta",
        "LoadImaged runs with image_only=false, so that *_meta_dict stays in the batch",
        _image_meta,
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
    Rule("one-hot", "AsDiscreted's n_classes runs as to_onehot", _one_hot),
    Rule("spatial-dims", "the argument 'dimensions' is now 'spatial_dims'", _spatial_dims),
    Rule(
        "fully-convolutional",
        "TorchVisionFullyConvModel is now TorchVisionFCModel",
        _fully_convolutional,
    ),
    Rule(
        "batched",
        "deepgrow's argument 'batched' is gone: MONAI takes batches apart before transforms",
        _batched,
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
