"""Arguments and classes that MONAI has renamed, dropped or ignored since Clara Train 4.1.

Rules look at components given by short ``name``: a class of the MMAR's own may well take an
argument that MONAI has since renamed. A rule leaves a doubtful value as it is; the
check of components then refuses it at its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from mmar_runtime.config.upgrades import argument_changes
from mmar_runtime.config.upgrades.draft import (
    Component,
    Draft,
    Place,
    args_of,
    dictionary_names,
    is_component,
    rule,
    set_args,
    short_name,
)

BEST_MODEL = "model.pt"
FINAL_MODEL = "final_model.pt"

DEEPGROW = "monai.apps.deepgrow."
"""MONAI's own, but always given by ``path``, as Clara's documents did."""

_PYDICOM_ALONE = frozenset({"fname_regex", "label_dict", "swap_ij", "to_gpu"})

_METRICS: Mapping[str, str] = MappingProxyType(
    {
        "ConfusionMatrixMetric": "ConfusionMatrix",
        "DiceMetric": "MeanDice",
        "HausdorffDistanceMetric": "HausdorffDistance",
        "MeanIoU": "MeanIoUHandler",
        "ROCAUCMetric": "ROCAUC",
        "SurfaceDistanceMetric": "SurfaceDistance",
    }
)
"""Metric of MONAI that no engine takes -> the class that an engine takes in its place."""

_RESNETS: Mapping[str, tuple[str, list[int]]] = MappingProxyType(
    {
        "resnet10": ("basic", [1, 1, 1, 1]),
        "resnet18": ("basic", [2, 2, 2, 2]),
        "resnet34": ("basic", [3, 4, 6, 3]),
        "resnet50": ("bottleneck", [3, 4, 6, 3]),
        "resnet101": ("bottleneck", [3, 4, 23, 3]),
        "resnet152": ("bottleneck", [3, 8, 36, 3]),
        "resnet200": ("bottleneck", [3, 24, 36, 3]),
    }
)
"""Function of MONAI -> the block and the layers of the network that it makes."""


_OLD_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "ahnet": "AHNet",
        "densenet": "DenseNet",
        "dynunet": "DynUNet",
        "se_resnet50": "SEResNet50",
        "se_resnet101": "SEResNet101",
        "se_resnet152": "SEResNet152",
        "se_resnext50_32x4d": "SEResNext50",
        "se_resnext101_32x4d": "SEResNext101",
        "senet": "SENet",
        "unet": "UNet",
    }
)
"""Name of a network in 2021, a function or a second name -> the class."""

_WITH_PROGRESS = frozenset(
    {
        *("ahnet", "densenet121", "densenet169", "densenet201", "densenet264", "efficientnetbn"),
        *("senet154", "seresnet50", "seresnet101", "seresnet152", "seresnext50", "seresnext101"),
    }
)
"""Networks, in small letters, that took 'progress' beside 'pretrained'."""

_OLD_LOADERS = {"LoadNifti": "NibabelReader", "LoadPNG": "PILReader"}


@rule("a name that MONAI had for a network in 2021 runs as its class")
def _old_name(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*_OLD_NAMES):
        draft.rename(component, _OLD_NAMES[short_name(component)])
        yield place


@rule("LoadNiftid and LoadPNGd run as LoadImaged with their reader")
def _loader(draft: Draft) -> Iterator[Place]:
    for name, reader in _OLD_LOADERS.items():
        for place, component in draft.named(*dictionary_names(name)):
            draft.rename(component, "LoadImaged")
            set_args(component, reader=reader)
            yield place


@rule("ToTensord runs as EnsureTyped: ToTensord would drop what Invertd needs")
def _to_tensor(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("ToTensor")):
        draft.rename(component, "EnsureTyped")
        yield place


@rule("LoadImaged runs with image_only=false, so that *_meta_dict stays in the batch")
def _image_meta(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("LoadImage")):
        if "image_only" not in args_of(component):
            set_args(component, image_only=False)
            yield place


@rule("PydicomReader runs as ITKReader, which places slices and frames by their positions")
def _dicom_reader(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("LoadImage")):
        reader = args_of(component).get("reader")
        names = [str(name).lower() for name in _as_list(reader)]
        if names == ["pydicomreader"] and not _PYDICOM_ALONE & args_of(component).keys():
            set_args(component, reader="ITKReader")
            yield (*place, "args", "reader")


@rule("AddChanneld is gone from MONAI; runs as EnsureChannelFirstd(channel_dim='no_channel')")
def _add_channel(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("AddChannel")):
        draft.rename(component, "EnsureChannelFirstd")
        set_args(component, channel_dim="no_channel")
        yield place


@rule("AsChannelFirstd is gone from MONAI; runs as EnsureChannelFirstd")
def _channel_last(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("AsChannelFirst")):
        draft.rename(component, "EnsureChannelFirstd")
        set_args(component, channel_dim=args_of(component).get("channel_dim", -1))
        yield place


@rule("AsDiscreted's threshold_values and logit_thresh run as threshold; MONAI ignores them")
def _threshold(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("AsDiscrete")):
        args = args_of(component)
        if "threshold_values" not in args and "logit_thresh" not in args:
            continue
        flags = _as_list(args.get("threshold_values", False))
        levels = _as_list(args.get("logit_thresh", 0.5))
        pairs = _paired(flags, levels)
        known = all(flag is None or isinstance(flag, bool) for flag in flags) and None not in levels
        if not known or not pairs or (any(flags) and "threshold" in args):
            continue
        args.pop("threshold_values", None)
        args.pop("logit_thresh", None)
        if any(flags):
            args["threshold"] = _per_key([level if flag else None for flag, level in pairs])
        yield place


@rule("AsDiscreted's n_classes runs as to_onehot")
def _one_hot(draft: Draft) -> Iterator[Place]:
    """Turn ``to_onehot: true, n_classes: k`` into ``to_onehot: k``; drop a spare ``n_classes``."""
    for place, component in draft.named(*dictionary_names("AsDiscrete")):
        args = args_of(component)
        given = _as_list(args.get("to_onehot"))
        counts = [args[key] for key in ("n_classes", "num_classes") if key in args]
        flags = any(isinstance(value, bool) for value in given)
        if not counts and (not flags or any(given)):
            continue  # to_onehot: true without a count has no meaning; MONAI's own error says so
        pairs = _paired(given, _as_list(counts[0] if counts else None))
        known = all(_is_number(count) or (count is None and not flag) for flag, count in pairs)
        if not pairs or not known or len(counts) > 1:
            continue
        for key in ("n_classes", "num_classes", "to_onehot"):
            args.pop(key, None)
        values = [
            (count if value else None) if isinstance(value, bool) else value
            for value, count in pairs
        ]
        if any(value is not None for value in values):
            args["to_onehot"] = _per_key(values)
        yield place


def _is_number(value: Any) -> bool:
    """Return a number, or a variable that holds one."""
    is_variable = isinstance(value, str) and value.startswith("{")
    return is_variable or (isinstance(value, int) and not isinstance(value, bool))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _paired(left: list[Any], right: list[Any]) -> list[tuple[Any, Any]]:
    """Return two per-key lists side by side, one value for every key; empty if they do not fit."""
    count = max(len(left), len(right))
    if not left or not right or not {len(left), len(right)} <= {1, count}:
        return []
    return list(zip(left * (count // len(left)), right * (count // len(right)), strict=True))


def _per_key(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


@rule("the argument 'dimensions' is now 'spatial_dims'")
def _spatial_dims(draft: Draft) -> Iterator[Place]:
    for place, component in draft.components():
        args = args_of(component)
        of_monai = bool(short_name(component)) or _is_deepgrow(component)
        if of_monai and "dimensions" in args and "spatial_dims" not in args:
            component["args"] = {
                "spatial_dims" if key == "dimensions" else key: value for key, value in args.items()
            }
            yield place


@rule("SplitChanneld is gone from MONAI; runs as SplitDimd")
def _split_channel(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*dictionary_names("SplitChannel")):
        args = args_of(component)
        draft.rename(component, "SplitDimd")
        if "channel_dim" in args:
            set_args(component, dim=args.pop("channel_dim"))
        yield place


@rule("MONAI's function for a residual network runs as the class ResNet, with its layers")
def _resnet(draft: Draft) -> Iterator[Place]:
    """Turn ``resnet18`` into ``ResNet``; weights from the internet stay for the check to refuse."""
    for place, component in draft.named(*_RESNETS):
        block, layers = _RESNETS[short_name(component)]
        args = {key: value for key, value in args_of(component).items() if key != "progress"}
        if args.get("pretrained") is False:
            del args["pretrained"]
        inplanes = [64, 128, 256, 512]
        draft.rename(component, "ResNet")
        component["args"] = {
            "block": block, "layers": layers, "block_inplanes": inplanes, **args,
        }  # fmt: skip
        yield place


@rule("'progress' of a network is dropped: it shows a download, and nothing is downloaded")
def _progress(draft: Draft) -> Iterator[Place]:
    for place, component in draft.components():
        is_flag = isinstance(args_of(component).get("progress"), bool)
        if is_flag and short_name(component).lower() in _WITH_PROGRESS:
            del args_of(component)["progress"]
            yield (*place, "args", "progress")


@rule("VNet's dropout_prob runs as dropout_prob_down and dropout_prob_up")
def _dropout(draft: Draft) -> Iterator[Place]:
    """Split the rate; on the way up the other branch always had a rate of one half."""
    for place, component in draft.named("VNet"):
        args = args_of(component)
        if "dropout_prob" in args and not {"dropout_prob_down", "dropout_prob_up"} & args.keys():
            rate = args.pop("dropout_prob")
            set_args(component, dropout_prob_down=rate, dropout_prob_up=[rate, 0.5])
            yield (*place, "args", "dropout_prob")


@rule("a metric of monai.metrics runs as the class of monai.handlers that an engine takes")
def _metric_class(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named(*_METRICS):
        draft.rename(component, _METRICS[short_name(component)])
        yield place


@rule("GradientAccumulation runs as the trainer's accumulation_steps")
def _accumulation(draft: Draft) -> Iterator[Place]:
    for place, section in draft.sections():
        iteration, trainer = section.get("iteration"), section.get("trainer")
        if not is_component(iteration) or short_name(iteration) != "GradientAccumulation":
            continue
        steps = args_of(iteration).get("accumulation_steps")
        known = args_of(iteration).keys() <= {"accumulation_steps"} and _is_number(steps)
        if known and is_component(trainer) and short_name(trainer) == "SupervisedTrainer":
            del section["iteration"]
            args = {key: value for key, value in args_of(trainer).items() if value != "@iteration"}
            trainer["args"] = {**args, "accumulation_steps": steps}
            yield (*place, "iteration")


@rule("CSVDataset runs as Dataset over that data list, in which paths are below DATA_ROOT")
def _table(draft: Draft) -> Iterator[Place]:
    """Turn ``CSVDataset(src, transform)`` into a Dataset; a relative ``src`` is below DATA_ROOT."""
    for place, component in draft.named("CSVDataset"):
        args = args_of(component)
        source = args.get("src")
        if not isinstance(source, str) or not args.keys() <= {"src", "transform"}:
            continue
        below = source if source.startswith(("/", "{")) else f"{{DATA_ROOT}}/{source}"
        draft.rename(component, "Dataset")
        component |= {"data_list_file_path": below, "data_file_base_dir": "{DATA_ROOT}"}
        component |= {"data_list_key": "all"}
        del args["src"]
        yield place


@rule("an EarlyStopHandler gets the trainer when it is built")
def _early_stop(draft: Draft) -> Iterator[Place]:
    """Take out ``"trainer": "@trainer"``: the trainer is built from its handlers, not before."""
    for place, component in draft.named("EarlyStopHandler"):
        if args_of(component).get("trainer") == "@trainer":
            del args_of(component)["trainer"]
            yield (*place, "args", "trainer")


@rule("TensorBoardStatsHandler's intervals run as iteration_log and epoch_log")
def _intervals(draft: Draft) -> Iterator[Place]:
    """Turn ``iteration_log: true, iteration_interval: 5`` into ``iteration_log: 5``."""
    for place, component in draft.named("TensorBoardStatsHandler"):
        args = args_of(component)
        for event in ("iteration", "epoch"):
            interval, log = f"{event}_interval", f"{event}_log"
            if _is_number(args.get(interval)) and isinstance(args.get(log, True), bool):
                count = args.pop(interval)
                set_args(component, **{log: args.get(log, True) and count})
                yield (*place, "args", interval)


@rule("TorchVisionFullyConvModel is now TorchVisionFCModel with use_conv=true")
def _fully_convolutional(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named("TorchVisionFullyConvModel"):
        args = args_of(component)
        draft.rename(component, "TorchVisionFCModel")
        renamed = {"n_classes": "num_classes"}
        pool = {"kernel_size": args.pop("pool_size", 7), "stride": args.pop("pool_stride", 1)}
        component["args"] = {
            "use_conv": True,
            "pool": ["avg", pool],
            **{renamed.get(key, key): value for key, value in args.items()},
        }
        yield place


@rule("deepgrow's argument 'batched' is gone: MONAI takes batches apart before transforms")
def _batched(draft: Draft) -> Iterator[Place]:
    for place, component in draft.components():
        if _is_deepgrow(component) and "batched" in args_of(component):
            del args_of(component)["batched"]
            yield place


def _is_deepgrow(component: Component) -> bool:
    return str(component.get("path", "")).startswith(DEEPGROW)


@rule(f"CheckpointSaver writes the best model as {BEST_MODEL}, as Clara did")
def _best_name(draft: Draft) -> Iterator[Place]:
    """Name the best checkpoint as Clara's commands read it; MONAI names it after the metric."""
    for place, component in draft.named("CheckpointSaver"):
        fixed = ("key_metric_filename", "key_metric_n_saved", "file_prefix")
        yield from _filename(component, place, "save_key_metric", fixed, BEST_MODEL)


@rule(f"CheckpointSaver writes the last model as {FINAL_MODEL}, as Clara did")
def _final_name(draft: Draft) -> Iterator[Place]:
    for place, component in draft.named("CheckpointSaver"):
        fixed = ("final_filename", "file_prefix")
        yield from _filename(component, place, "save_final", fixed, FINAL_MODEL)


def _filename(
    component: Component, place: Place, switch: str, fixed: tuple[str, ...], name: str
) -> Iterator[Place]:
    args = args_of(component)
    if args.get(switch) not in (None, False) and not any(key in args for key in fixed):
        args[fixed[0]] = name
        yield place


RULES = (
    _old_name,
    _loader,
    _to_tensor,
    _image_meta,
    _dicom_reader,
    _add_channel,
    _channel_last,
    _threshold,
    _one_hot,
    _spatial_dims,
    _split_channel,
    _resnet,
    _progress,
    _dropout,
    *argument_changes.RULES,
    _metric_class,
    _accumulation,
    _table,
    _early_stop,
    _intervals,
    _fully_convolutional,
    _batched,
    _best_name,
    _final_name,
)
