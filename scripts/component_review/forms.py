"""The forms of arguments by their names; the fields are those of ``component_table.Form``.

A form says everything that an argument may be: a number within bounds or a word of a list, say.
Null is always allowed; it leaves a class its default. Lists are judged item by item.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, Any]
"""The fields of one form that are not left at their defaults."""


def whole(least: int, most: int) -> Fields:
    """Whole numbers within bounds, both of them allowed."""
    return {"number": [least, most], "whole": True}


def real(least: float, most: float) -> Fields:
    """Numbers within bounds, both of them allowed."""
    return {"number": [least, most]}


def words(text: str, **more: Any) -> Fields:
    """One of some words, in any case."""
    return {"words": text.lower().split(), **more}


def refers(*kinds: str, **more: Any) -> Fields:
    """A reference to an entry of one of some kinds."""
    return {"refers": list(kinds), **more}


def mapping(**members: str) -> Fields:
    """An object with these keys and no others; each value has its own form."""
    return {"members": members}


def denied(reason: str) -> Fields:
    """Nothing at all."""
    return {"denied": reason}


BILLION = 1_000_000_000
FLAG: Fields = {"flag": True}

KEY = r"|\w[\w .+\-]{0,99}"
LABEL = r".{0,200}"
DOTTED = r"|[A-Za-z0-9]\w*(\.[A-Za-z0-9]\w*){0,20}"
"""Names of layers; no name of Python's own inner attributes begins so."""

LOG_FORMAT = (
    r"([^%]|%%|%\((asctime|created|levelname|levelno|message|module|msecs|name|process|thread"
    r"|threadName|relativeCreated)\)-?[0-9]{0,2}(\.[0-9])?[sdf]){0,200}"
)
"""The format of a log's lines. Its fields are at most 99 characters wide."""

DTYPES = " ".join(
    f"{package}{name}"
    for package in ("", "torch.", "np.", "numpy.")
    for name in (
        *("bool", "bool_", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32"),
        *("int64", "int", "long", "bfloat16", "float16", "float32", "float64", "half", "float"),
        "double",
    )
)
"""Numbers and flags of a fixed width. An array of objects would be stored as a pickle."""

ACTIVATIONS = (
    "elu relu leakyrelu prelu relu6 selu celu gelu sigmoid tanh softmax logsoftmax swish memswish "
    "mish geglu"
)
NORMS = "instance batch instance_nvfuser group layer localresponse syncbatch"

INTERPOLATION = (
    "nearest nearest-exact linear bilinear bicubic trilinear area "  # torch
    "0 1 2 3 4 5 "  # the orders of splines
    "constant edge linear_ramp maximum mean median minimum reflect symmetric wrap empty "  # numpy
    "grid-mirror grid-constant mirror grid-wrap "  # scipy
    "replicate circular zeros border reflection"  # torch
)
"""How to sample between voxels and what to put behind the edge; a class takes some of them."""

LAYER = dict.fromkeys(
    (
        *("inplace", "negative_slope", "alpha", "beta", "dim", "affine", "eps", "momentum"),
        *("track_running_stats", "num_groups", "p", "num_parameters", "init", "num_features"),
        *("elementwise_affine", "num_channels", "bias", "size", "k", "lower", "upper"),
        *("approximate", "kernel_size", "stride", "padding", "output_size", "ceil_mode"),
    ),
    "layer detail",
)
"""Arguments of the layers of ``torch.nn`` that MONAI's factories build."""

# Not PydicomReader: it orders slices by their numbers, and gives frames of one file no place.
READERS = ["ITKReader", "NibabelReader", "NrrdReader", "NumpyReader", "PILReader"]

THRESHOLD = real(-1e10, 1e10) | words(
    "otsu isodata li local mean minimum niblack sauvola triangle yen"
)

FORMS: Mapping[str, Fields] = {
    # --- refused, with the reason ---
    "no function": denied("it takes a function, which a configuration cannot give"),
    "split in two": denied(
        "MONAI has split it; write dropout_prob_down: p and dropout_prob_up: [p, p]"
    ),
    "no object": denied("it takes a Python object, which a configuration cannot give"),
    "no type": denied("it takes a class, and any class can be code"),
    "no pickle": denied(
        "it decides how stored Python objects are loaded, and loading them can run code"
    ),
    "no regex": denied("a regular expression from a configuration can hang the run"),
    "no format": denied("a format from a configuration can read the attributes of objects"),
    "no compiler": denied("its options reach the command line of a compiler"),
    "no download": denied("it downloads weights from the internet"),
    "no progress": denied("it only shows the progress of a download, and downloads are refused"),
    "no events": denied("it registers events or attributes that no handler of the table knows"),
    "set by the runtime": denied(
        "the runtime sets it, so that runs are reproducible and sites see their own data"
    ),
    "off: compiler": FLAG | {"off": "it starts a compiler, and nothing may be executed in a run"},
    "off: download": FLAG | {"off": "it downloads weights from the internet"},
    # --- switches and numbers ---
    "flag": FLAG,
    "flag or count": FLAG | whole(0, BILLION),
    "fraction": real(0, 1),
    "overlap": real(0, 0.95),
    "rate": real(0, 1000),
    "momentum": real(0, 1),
    "epsilon": real(0, 1000),
    "real": real(-1e6, 1e6),
    "intensity": real(-1e10, 1e10),
    "class weights": real(-1e6, 1e6) | {"tensor": True},
    "whole": whole(-65_536, 65_536),
    "count": whole(0, 65_536),
    "axis": whole(-8, 8),
    "steps": whole(-1, BILLION),
    "interval": whole(0, BILLION),
    "bytes or voxels": whole(0, 2**63 - 1),
    "seed": whole(0, 2**32 - 1),
    "size": whole(-1, 8192),
    "position": whole(-8192, 8192),
    "position or key": whole(-8192, 8192) | {"pattern": KEY},
    "border": whole(0, 1024),
    "divisor": whole(1, 1024),
    "copies": whole(0, 4096),
    "few": whole(0, 64),
    "kernel": whole(0, 65),
    "radius": whole(0, 3),
    "window": whole(0, 1001),
    "degree": whole(0, 8),
    "sigma": real(0, 64),
    "zoom": real(0, 64),
    "factor": real(-1000, 1000),
    "exponent": real(-100, 100),
    "angle": real(-1000, 1000),
    "shift": real(-8192, 8192),
    "spacing": real(-1000, 1000),
    "grid spacing": real(1, 8192),
    "downsampling": real(0.01, 4),
    "percentile": real(0, 100),
    "seconds": real(0, 60),
    "timeout": real(0, 86_400),
    "grid": whole(1, 256),
    "bins": whole(1, 65_536),
    "joint bins": whole(1, 1024),  # of two images together, for each voxel
    "batch": whole(-1, 4096),
    "workers": whole(0, BILLION),  # a site's policy says how many there may be
    "prefetch": whole(0, 64),
    "buffer": whole(0, 4096),
    "classes": whole(0, 4096),
    "one-hot": whole(0, 1024),
    "kept files": whole(-1, 1000),
    "frames": whole(1, 4096),
    "channels shown": whole(1, 64),
    "iterations": whole(0, 10_000),
    "evaluations": whole(0, 100_000),
    "history": whole(0, 1000),
    "running weight": real(0.5, 1),
    "protocol": whole(0, 5),
    # Networks: channels, layers, heads and patches; the site's limit on parameters comes on top.
    "width": whole(-1, 16_384),
    "network real": real(-16_384, 16_384),
    "dims": whole(1, 3),
    "layers": whole(0, 512),
    "vocabulary": whole(0, 1_000_000),
    "log level": whole(0, 100) | words("notset debug info warning warn error critical"),
    "alias flag": FLAG | {"pattern": LABEL},
    "label value": real(-1e10, 1e10) | {"pattern": LABEL},
    "fill": real(-1e10, 1e10) | FLAG,
    # --- text ---
    "key": {"pattern": KEY},
    "key map": {"pattern": KEY, "members": {"*": "key"}},
    "label": {"pattern": LABEL},
    "label flag": FLAG | {"pattern": KEY},
    "layer name": {"pattern": DOTTED},
    "metric names": {"pattern": r"\*|\w[\w .@+\-]{0,99}"},
    "log format": {"pattern": LOG_FORMAT},
    "separator": {"words": ["", ".", "_", "-", ",", ";", ":", "|", " ", "\t"]},
    "device": {"pattern": r"|cpu|cuda(:[0-9]{1,2})?", "number": [0, 63], "whole": True},
    "device map": {
        "pattern": r"cpu|cuda(:[0-9]{1,2})?",
        "members": {"*": "device"},
    },
    "dtype": {"words": DTYPES.split(), "dtype": True},
    "axis codes": {"pattern": r"[A-Za-z]{1,4}"},
    "axis labels": {"pattern": r"[A-Za-z]{1,2}"},
    "order of axes": {"pattern": r"[XYZxyz]{1,3}"},
    "order of layers": {"pattern": r"[NDAnda]{0,3}"},
    # EfficientNet's own notation, as in r2_k3_s11_e1_i32_o16_se0.25; a repeat is at most 99.
    "efficient blocks": {
        "pattern": r"r[0-9]{1,2}(_(k[0-9]{1,2}|s[0-9]{1,2}|[eio][0-9]{1,4}|se0\.[0-9]{1,4}"
        r"|noskip)){3,8}"
    },
    "no channel": whole(-8, 64) | words("no_channel"),
    # --- words ---
    "interpolation": words(INTERPOLATION) | whole(0, 5),
    "padding": words("constant reflect replicate circular zeros border reflection edge symmetric "
                     "wrap mean median minimum maximum linear_ramp empty mirror nearest "
                     "grid-mirror grid-constant grid-wrap"),
    "reduction": words("none mean sum mean_batch sum_batch mean_channel sum_channel batchmean"),
    "average": words("none macro micro weighted samples recall precision") | FLAG,
    "result mode": words("flatten named both"),
    "activation": words(ACTIVATIONS, members=LAYER),
    "norm": words(f"{NORMS} none", members=LAYER) | {"pattern": "|none"},
    "layer detail": FLAG | real(-16_384, 16_384) | words("none tanh"),
    "dropout": real(0, 1) | words("dropout alphadropout", members=LAYER),
    "pooling": words("max adaptivemax avg adaptiveavg", members=LAYER),
    "image reader": {
        "words": [*READERS, *map(str.lower, READERS)], "exact": True,
        "packages": {"itkreader": "itk", "nrrdreader": "nrrd"},
    },
    "image writer": {
        "words": ["ITKWriter", "NibabelWriter", "PILWriter"], "exact": True,
        "packages": {"itkwriter": "itk"},
    },
    "merger": {"words": ["AvgMerger"], "exact": True},
    "state fields": words("iteration epoch epoch_length max_epochs best_metric best_metric_epoch "
                          "key_metric_name rank"),
    "summary": {
        "pattern": r"\*|mean|median|max|min|std|notnans|[0-9]{1,2}percentile|100percentile"
    },
    "network names": words(
        "resnet10 resnet18 resnet34 resnet50 resnet101 resnet152 resnet200 "
        "efficientnet-b0 efficientnet-b1 efficientnet-b2 efficientnet-b3 efficientnet-b4 "
        "efficientnet-b5 efficientnet-b6 efficientnet-b7 efficientnet-b8 efficientnet-l2"
    ),
    # An attribute of torchvision.models is looked up by this name, and called.
    "torchvision names": words(
        "alexnet googlenet inception_v3 resnet18 resnet34 resnet50 resnet101 resnet152 "
        "resnext50_32x4d resnext101_32x8d resnext101_64x4d wide_resnet50_2 wide_resnet101_2 "
        "vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn densenet121 densenet161 "
        "densenet169 densenet201 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large "
        "efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 "
        "efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_s efficientnet_v2_m "
        "efficientnet_v2_l shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 "
        "shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 mnasnet0_5 mnasnet0_75 mnasnet1_0 "
        "mnasnet1_3 regnet_y_400mf regnet_x_400mf convnext_tiny convnext_small convnext_base "
        "convnext_large swin_t swin_s swin_b vit_b_16 vit_b_32 vit_l_16 vit_l_32 vit_h_14 maxvit_t",
        exact=True, refers=["network"],
    ),
    "n-grams": whole(1, 9) | words("L"),
    "cache while running": FLAG | words("threads thread process processes"),
    # --- references ---
    **{
        kind: refers(kind)
        for kind in (
            *("network", "loss", "optimizer", "lr_scheduler", "dataset", "dataloader", "inferer"),
            *("prepare_batch", "iteration", "trainer", "evaluator", "splitter"),
        )
    },
    "dataset map": {"members": {"*": "dataset"}},
    "handlers": refers("handler"),
    "metrics": refers("metric"),
    "metric map": {"members": {"*": "metrics"}, "refers": ["metric"]},
    "noise scheduler": refers("scheduler"),
    "transforms": refers("transform"),
    "flag or key": FLAG | {"pattern": KEY},
    "transforms written out": refers("transform", components=True),
    "parameters": {"parameters": True, "members": {"params": "parameters of a group", "*": "real"}},
    "parameters of a group": {"parameters": True},
    "part": refers("network", "optimizer", "lr_scheduler", "loss", "trainer", "evaluator", "conf"),
    "parts to load": {"members": {"*": "part"}},
    "cases": {"data": True},
    # --- functions, by what they return; see lambda_forms ---
    "metric output": {"function": "metric_output"},
    "log output": {"function": "log_output"},
    "number of engine": {"function": "number"},
    "mask": {"function": "mask"},
    "voxels": {"function": "voxels"},
    "comparison": {"function": "comparison"},
    # --- places; see PathRole ---
    # `fill` is what the runtime takes where an argument is left out, null or empty: MONAI would
    # write into the working directory.
    "results folder": {"path": "write:run", "fill": "{MMAR_EVAL_OUTPUT_PATH}"},
    "mapping file": {"path": "write:run", "fill": "{MMAR_EVAL_OUTPUT_PATH}/mapping.json"},
    "models folder": {"path": "write:run", "fill": "{MMAR_CKPT_DIR}"},
    "cache folder": {"path": "write:run"},
    "weights file": {"path": "read:model"},
    "images folder": {"path": "read:base"},
    "run files": {"path": "read:run"},
    "service": {"path": "write:service"},
    "tracker": {"path": "write:service", "fill": "sqlite:///{MMAR_CKPT_DIR}/mlruns.db"},
    "service or flag": FLAG | {"path": "write:service"},
    "file name": {"path": "name"},
    "parts to save": {"path": "name", "members": {"*": "part"}},
    # --- objects with stated keys ---
    "autocast": mapping(dtype="dtype", cache_enabled="flag"),
    "transfer": mapping(dtype="dtype", copy="flag"),
    "lazy overrides": {"members": {"*": "lazy override"}},
    "lazy override": mapping(
        mode="interpolation", padding_mode="padding", dtype="dtype", align_corners="flag",
        resample_mode="interpolation", device="device",
    ),
    "parameters of a run": {"members": {"*": "run parameter"}},
    "run parameter": FLAG | real(-1e10, 1e10) | {"pattern": LABEL},
    "flags by name": FLAG | {"members": {"*": "label flag"}},
    "label numbers": {"members": {"*": "count"}},
    "sizes by key": whole(-1, 8192) | {"members": {"*": "size"}},
    "thresholds": THRESHOLD | {"members": dict.fromkeys("RGBHSV", "threshold")},
    "threshold": THRESHOLD,
    "high-resolution layers": mapping(
        name="key", n_features="width", kernel_size="kernel", kernels="kernel",
        repeat="layers",
    ),
}  # fmt: skip
