"""Arguments: what the classes of the table would do with values that nobody means them to have.

One hostile value for each form of the table, at the first class that uses the form; then cases
written by hand, and benign ones that look alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmar_runtime.policy.component_table import ComponentEntry, Form, load_component_table
from tests.security.case import ENVIRONMENT, TRAIN, VALIDATION, Case, train

RULES = ("denied-argument", "limit", "path")

SLOTS = {
    "dataloader": "train/dataloader",
    "dataset": "train/dataset",
    "evaluator": "validate/evaluator",
    "handler": "train/handlers/-",
    "inferer": "validate/inferer",
    "loss": "train/loss",
    "lr_scheduler": "train/lr_scheduler",
    "metric": "validate/key_metric",
    "network": "train/model",
    "optimizer": "train/optimizer",
    "prepare_batch": "train/prepare_batch",
    "trainer": "train/trainer",
    "transform": "train/pre_transforms/-",
}
"""Where a component of a kind stands."""

SHELL = "os.system"


def hostile_values(form: Form) -> Iterator[object]:
    """Values that a form has to refuse: one for each way in which it can be meant."""
    if form.data or form.components:  # judged case by case, component by component
        return
    if form.denied:
        yield "lambda x: x"
        return
    if form.path is not None:
        yield "/etc/passwd"
        yield {"__class__": "touch MARKER"}
    elif form.number is not None:
        yield 1e300
    elif form.pattern:
        yield "\u001b]0;touch MARKER\u0007"
    elif form.flag:
        yield "$(touch MARKER)"
    elif form.words:
        yield SHELL
    elif form.function is not None:
        yield "lambda x: x[0]['image'][0][10][11][12]" if form.function != "log_output" else SHELL
    else:
        yield SHELL


def _sweep() -> Iterator[Case]:
    for entry, argument in _first_uses():
        found = entry.arguments[argument]
        for index, value in enumerate(hostile_values(found)):
            yield train(
                f"sweep-{entry.name}-{argument}-{index}",
                "argument",
                f"{entry.name}: {argument}",
                RULES,
                {SLOTS[entry.kind]: {"name": entry.name, "args": {argument: value},
                                     **_label(entry)}},
            )  # fmt: skip


def _first_uses() -> Iterator[tuple[ComponentEntry, str]]:
    """A class and an argument for each form."""
    table = load_component_table()
    seen = set()
    for entry in table.components.values():
        if table.lookup(entry.kind, entry.name) is not entry or entry.consent:
            continue
        for argument, form in entry.arguments.items():
            if form.name not in seen:
                seen.add(form.name)
                yield entry, argument


def _label(entry: ComponentEntry) -> dict[str, str]:
    return {"log_label": "val"} if entry.kind == "metric" else {}


def handler(name: str, /, **arguments: Any) -> dict[str, Any]:
    """One handler more for the training."""
    return {"train/handlers/-": {"name": name, "args": arguments}}


def transform(name: str, /, **arguments: Any) -> dict[str, Any]:
    """One transform more for the training."""
    return {"train/pre_transforms/-": {"name": name, "args": {"keys": "image", **arguments}}}


def engine(**arguments: Any) -> dict[str, Any]:
    """More arguments for the trainer."""
    return {f"train/trainer/args/{name}": value for name, value in arguments.items()}


def loss(name: str, /, **arguments: Any) -> dict[str, Any]:
    """Another loss."""
    return {"train/loss": {"name": name, "args": arguments}}


def network(name: str, /, **arguments: Any) -> dict[str, Any]:
    """Another network."""
    given = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, **arguments}
    return {"train/model": {"name": name, "args": given}}


SAVED = {"model": "@model"}
INDUCTOR = {"options": {"cpp.cxx": ["touch MARKER; g++"]}}

HAND: dict[str, tuple[str, dict[str, Any]]] = {
    "compile": ("a compiler", engine(compile=True)),
    "compile-number": ("a compiler, by a number", engine(compile=1)),
    "compile-expression": ("a compiler, by an expression", engine(compile="#1 < 2")),
    "compile-or": ("a compiler, by or", engine(compile="#None or True")),
    "compile-kwargs": ("a shell as the compiler", engine(compile_kwargs=INDUCTOR)),
    "compile-march": ("an option of the compiler", engine(
        compile=True, compile_kwargs={"options": {"cpp.march": "native -fplugin=MARKER"}})),
    "compile-trace": ("a trace into any folder", engine(
        compile_kwargs={"options": {"trace.enabled": True, "trace.debug_dir": "MARKER"}})),
    "compile-backend": ("a backend that is imported", engine(compile_kwargs={"backend": SHELL})),
    "compile-evaluator": ("a compiler at the evaluator", {
        "validate/evaluator/args/compile": True}),
    "compile-dict": ("options as an expression", engine(
        compile_kwargs="#{'backend': 'os.system'}")),
    "to-kwargs": ("arguments of Tensor.to", engine(to_kwargs={"memory_format": SHELL})),
    "to-kwargs-other": ("an argument nobody knows", engine(to_kwargs={"callback": "x"})),
    "amp-kwargs": ("a device type of autocast", engine(amp_kwargs={"device_type": "meta"})),
    "amp-kwargs-dunder": ("a dunder among them", engine(amp_kwargs={"__class__": 1})),
    "event-names": ("an event of one's own", engine(event_names=["FOO_COMPLETED"])),
    "event-to-attr": ("an attribute of the state", engine(event_to_attr={"x": "__class__"})),
    "metric-cmp": ("a comparison", engine(metric_cmp_fn="lambda x: x")),
    "iteration-text": ("a function's path", engine(iteration_update="os.system")),
    "iteration-network": ("an object of another kind", engine(iteration_update="@model")),
    "prepare-batch-text": ("a function's path", engine(prepare_batch="os.system")),
    "decollate-text": ("a text for a switch", engine(decollate="os.system")),
    "non-blocking-list": ("an object for a switch", engine(non_blocking={"a": 1})),
    "epochs-huge": ("a training without end", engine(max_epochs=10**12)),
    "epochs-interval": ("the same by or", engine(max_epochs="#0 or 1000000000000")),
    "epoch-length": ("an epoch without end", engine(epoch_length=1e300)),
    "handlers-of-loss": ("a loss for a handler", engine(train_handlers="@loss")),
    "loss-of-data": ("a data set for a loss", engine(loss_function="@dataset")),
    "conf-for-network": ("the config for a network", engine(network="@conf")),
    "formatter-width": ("a log line of a gigabyte", handler(
        "LogfileHandler", output_dir="{MMAR_CKPT_DIR}", formatter="%(asctime)1000000000s")),
    "formatter-attribute": ("a field of logging's records that holds objects", handler(
        "LogfileHandler", output_dir="{MMAR_CKPT_DIR}", formatter="%(args)s %(exc_info)s")),
    "formatter-escape": ("an escape in each line", handler(
        "LogfileHandler", output_dir="{MMAR_CKPT_DIR}", formatter="\u001b[2J%(message)s")),
    "logfile-shell": ("the start script of a kit", handler(
        "LogfileHandler", output_dir="/opt/kit/startup", filename="start.sh")),
    "logfile-name": ("a way out in a name", handler(
        "LogfileHandler", output_dir="{MMAR_CKPT_DIR}", filename="../../startup/start.sh")),
    "saver-name": ("a file's name that is a way out", handler(
        "CheckpointSaver", save_dir="{MMAR_CKPT_DIR}", save_dict=SAVED, save_final=True,
        final_filename="../x.pt")),
    "save-dict-data": ("images in a checkpoint", handler(
        "CheckpointSaver", save_dir="{MMAR_CKPT_DIR}", save_dict={"x": "@dataset"})),
    "save-dict-number": ("a number in a checkpoint", handler(
        "CheckpointSaver", save_dir="{MMAR_CKPT_DIR}", save_dict={"x": 1})),
    "save-dict-text": ("a text for the parts", handler(
        "CheckpointSaver", save_dir="{MMAR_CKPT_DIR}", save_dict="model")),
    "saver-object": ("a saver", handler("ClassificationSaver", saver="@model")),
    "saver-many": ("a checkpoint for each step, all kept", handler(
        "CheckpointSaver", save_dir="{MMAR_CKPT_DIR}", save_dict=SAVED, save_interval=1,
        n_saved=10**9)),
    "load-dict-data": ("a data set that is loaded into", handler(
        "CheckpointLoader", load_path="{MMAR_CKPT_DIR}/a.pt", load_dict={"x": "@dataloader"})),
    "map-location": ("a device that is a path", handler(
        "CheckpointLoader", load_path="{MMAR_CKPT_DIR}/a.pt", load_dict=SAVED,
        map_location={"cpu": "/etc/passwd"})),
    "state-attributes": ("the batch in a log", handler(
        "StatsHandler", state_attributes=["batch"])),
    "state-dunder": ("an inner attribute", handler(
        "StatsHandler", state_attributes=["__class__"])),
    "tag-escape": ("an escape in a tag", handler("StatsHandler", tag_name="\u001b[2J")),
    "tag-newline": ("a line break in a tag", handler("StatsHandler", tag_name="a\nlevel=ERROR")),
    "tag-long": ("a tag of 4000 letters", handler("StatsHandler", tag_name="a" * 4000)),
    "name-newline": ("a line break in a logger's name", handler("StatsHandler", name="a\nb")),
    "key-var-format": ("a format that walks", handler(
        "StatsHandler", key_var_format="{{0.__class__}}")),
    "epoch-logger": ("a function", handler("StatsHandler", epoch_print_logger="lambda x: x")),
    "summary-writer": ("a writer", handler("TensorBoardStatsHandler", summary_writer="@model")),
    "summary-ops": ("an operation that is a path", handler(
        "MetricsSaver", save_dir="{MMAR_CKPT_DIR}", summary_ops=["/etc/passwd"])),
    "summary-percentile": ("a percentile of a billion", handler(
        "MetricsSaver", save_dir="{MMAR_CKPT_DIR}", summary_ops=["1000000000percentile"])),
    "delimiter": ("a formula as a delimiter", handler(
        "MetricsSaver", save_dir="{MMAR_CKPT_DIR}", delimiter="\n=cmd|' /C calc'!A0")),
    "metric-details": ("a way out in a metric's name", handler(
        "MetricsSaver", save_dir="{MMAR_CKPT_DIR}", metric_details=["../../x"])),
    "output-type": ("a format that is not csv", handler(
        "MetricsSaver", save_dir="{MMAR_CKPT_DIR}", output_type="../x")),
    "writer-fstring": ("a writer by an f-string", transform(
        "SaveImaged", output_dir="{MMAR_CKPT_DIR}", writer="#f\"{'os'}.system\"")),
    "reader-or": ("a reader by or", {"train/pre_transforms/0/args/reader": "#'' or 'os.system'"}),
    "reader-reference": ("a reference as a reader", {
        "train/pre_transforms/0/args/reader": "@loss"}),
    "merger": ("a merger by its path", {"validate/inferer": {
        "name": "PatchInferer", "args": {"merger_cls": "monai.inferers.ZarrAvgMerger"}}}),
    "dtype-object": ("an array of objects", transform("CastToTyped", dtype="object")),
    "dtype-path": ("a dtype that is imported", transform("CastToTyped", dtype=SHELL)),
    "mode-import": ("a mode that is a path", transform("Resized", spatial_size=[8, 8, 8],
                                                       mode=SHELL)),
    "mode-choice": ("a mode by a choice", transform(
        "Resized", spatial_size=[8, 8, 8], mode="#'area' if 1 else 'os.system'")),
    "threshold-dunder": ("a threshold that is looked up", transform(
        "ForegroundMaskd", threshold="__class__")),
    "threshold-object": ("the same in an object", transform(
        "ForegroundMaskd", threshold={"R": "os.system"})),
    "axcodes": ("codes of a thousand letters", transform("Orientationd", axcodes="R" * 1000)),
    "select-fn": ("a function's path", transform(
        "CropForegroundd", source_key="image", select_fn=SHELL)),
    "select-lambda": ("a function that is no comparison", transform(
        "CropForegroundd", source_key="image", select_fn="lambda x: x['a']")),
    "sigma": ("a kernel of 32 GB", transform("GaussianSmoothd", sigma=1e9)),
    "sigma-list": ("the same in a list", transform("GaussianSmoothd", sigma=[1, 1, 1e9])),
    "sigma-ratio": ("the same by a division", transform("GaussianSmoothd", sigma="#1 / 0.0000001")),
    "sigma-sharpen": ("a kernel of any width", transform("GaussianSharpend", sigma1=1e6)),
    "sigma-range": ("a kernel of any width at random", transform(
        "RandGaussianSmoothd", sigma_x=[1e8, 1e9])),
    "radius": ("a median of millions", transform("MedianSmoothd", radius=500)),
    "window": ("a window of a billion", transform(
        "SavitzkyGolaySmoothd", window_length=10**9 + 1, order=3)),
    "degree": ("a polynomial of a million", transform("RandBiasFieldd", degree=10**6)),
    "grid": ("a grid of a billion points", transform(
        "Rand2DElasticd", spacing=1e-9, magnitude_range=[1, 2])),
    "control-points": ("a billion control points", transform(
        "RandHistogramShiftd", num_control_points=10**9)),
    "divisible": ("padding to a billion", transform("DivisiblePadd", k=10**9)),
    "margin": ("a margin of a billion", transform(
        "CropForegroundd", source_key="image", margin=10**9)),
    "delay": ("a day's sleep", transform("SimulateDelayd", delay_time=86_400)),
    "probability": ("a probability of 1e300", transform("RandFlipd", prob=1e300)),
    "cells": ("a grid of a billion cells", transform("RandGridDistortiond", num_cells=10**9)),
    "overlap": ("windows one voxel apart", {"validate/inferer/args/overlap": 0.9999}),
    "overlap-list": ("the same on one axis", {"validate/inferer/args/overlap": [0.25, 0.25, 1]}),
    "sigma-scale": ("a weight map of any width", {"validate/inferer/args/sigma_scale": 1e9}),
    "kernel": ("a kernel of a thousand voxels", network(
        "UNet", channels=[4, 8], strides=[2], kernel_size=1001)),
    "ssim-window": ("a window of a thousand", loss("SSIMLoss", spatial_dims=3, win_size=1001)),
    "scales": ("a scale of a billion", loss("MultiScaleLoss", loss="@loss", scales=[1e9])),
    "iterations": ("a skeleton without end", loss("SoftclDiceLoss", iter_=10**9)),
    "lbfgs": ("a step without end", {"train/optimizer": {"name": "LBFGS", "args": {
        "params": "#@model.parameters()", "max_iter": 10**6}}}),
    "lbfgs-history": ("a history larger than memory", {"train/optimizer": {
        "name": "LBFGS", "args": {"params": "#@model.parameters()", "history_size": 10**6}}}),
    "muon": ("steps without end", {"train/optimizer": {"name": "Muon", "args": {
        "params": "#@model.parameters()", "ns_steps": 10**6}}}),
    "params-of-data": ("parameters of what has none", {
        "train/optimizer/args/params": "#@dataset.parameters()"}),
    "params-text": ("a text for parameters", {"train/optimizer/args/params": SHELL}),
    "norm-layer": ("a class for a layer", network(
        "SwinUNETR", feature_size=12, norm_layer=SHELL)),
    "norm-path": ("a path for a norm", network(
        "UNet", channels=[4, 8], strides=[2], norm=SHELL)),
    "norm-kwargs": ("an argument of a norm that nobody knows", network(
        "UNet", channels=[4, 8], strides=[2], norm=["batch", {"device": "cuda"}])),
    "act-huge": ("an activation of a billion parameters", network(
        "UNet", channels=[4, 8], strides=[2], act=["prelu", {"num_parameters": 10**9}])),
    "backbone": ("a function of torchvision", network(
        "MILModel", num_classes=2, pretrained=False, backbone="get_weight")),
    "model-name": ("a module of torchvision", network(
        "TorchVisionFCModel", model_name="list_models")),
    "efficient": ("a block that repeats a billion times", network(
        "EfficientNet", blocks_args_str=["r1000000000_k3_s11_e1_i32_o16_se0.25"])),
    "cell": ("a class for a cell", network("TopologySearch", cell=SHELL)),
    "target-layers": ("an inner attribute as a layer", {"validate/inferer": {
        "name": "SaliencyInferer",
        "args": {"cam_name": "GradCAM", "target_layers": "__class__.__init__"}}}),
    "cam-name": ("a class by its name", {"validate/inferer": {
        "name": "SaliencyInferer", "args": {"cam_name": "os", "target_layers": "x"}}}),
    "batch-size-function": ("a function that counts", {"validate/key_metric": {
        "name": "Loss", "log_label": "val", "args": {
            "loss_fn": "@loss", "batch_size": "lambda x: x"}}}),
    "overrides": ("an argument of a lazy transform that nobody knows", {
        "train/pre_transforms/-": {"name": "Compose", "args": {
            "transforms": [], "overrides": {"image": {"func": SHELL}}}}}),
    "log-stats": ("a line break in a logger's name", {"train/pre_transforms/-": {
        "name": "Compose", "args": {"transforms": [], "log_stats": "a\nb"}}}),
    "pin-device": ("a device that is a path", {
        "train/dataloader/args/pin_memory_device": "/dev/mem"}),
    "prefetch-text": ("a text for a number", {"train/dataloader/args/prefetch_factor": SHELL}),
    "runtime-cache": ("a cache of another process", {
        "train/dataset/args/runtime_cache": ["MARKER"]}),
    "nan-by-division": ("no number at all", {"train/dataset/args/cache_rate": "#0 / 0"}),
    "number-text": ("a text for a number", {"train/dataset/args/cache_rate": "0.5; touch MARKER"}),
}  # fmt: skip

LEFT_OUT: dict[str, tuple[str, object, dict[str, Any]]] = {
    "tensorboard": ("MMAR_CKPT_DIR", "config", handler("TensorBoardStatsHandler")),
    "tensorboard-null": (
        "MMAR_CKPT_DIR", "custom", handler("TensorBoardStatsHandler", log_dir=None)),
    "tensorboard-empty": (
        "MMAR_CKPT_DIR", None, handler("TensorBoardImageHandler", log_dir="")),
    "tensorboard-expression": (
        "MMAR_CKPT_DIR", "config", handler("TensorBoardStatsHandler", log_dir="#None")),
    "tensorboard-out": ("MMAR_CKPT_DIR", "../..", handler("TensorBoardStatsHandler")),
    "tensorboard-number": ("MMAR_CKPT_DIR", 5, handler("TensorBoardStatsHandler")),
    "metrics-saver": ("MMAR_EVAL_OUTPUT_PATH", "", handler("MetricsSaver", save_dir="")),
    "classification-saver": (
        "MMAR_EVAL_OUTPUT_PATH", "config", handler("ClassificationSaver")),
    "checkpoint-saver": ("MMAR_CKPT_DIR", "custom", handler(
        "CheckpointSaver", save_dir="", save_dict=SAVED, save_final=True)),
    "log-file": ("MMAR_CKPT_DIR", "resources", handler("LogfileHandler", output_dir=None)),
    "probability-maps": ("MMAR_EVAL_OUTPUT_PATH", "commands", handler("ProbMapProducer")),
    "image": ("MMAR_EVAL_OUTPUT_PATH", "custom", transform("SaveImaged")),
    "classification": ("MMAR_EVAL_OUTPUT_PATH", "config", transform("SaveClassificationd")),
    "mapping": ("MMAR_EVAL_OUTPUT_PATH", "config", transform("WriteFileMappingd")),
    "mapping-no-folder": ("MMAR_EVAL_OUTPUT_PATH", None, transform("WriteFileMappingd")),
}  # fmt: skip
"""The variable of the run's folder, where it leads, and a component that names no folder."""

HOSTILE: tuple[Case, ...] = (
    *_sweep(),
    *(train(id_, "argument", tries, RULES, changes) for id_, (tries, changes) in HAND.items()),
    *(
        Case(
            id=f"left-out-{id_}",
            family="argument",
            tries=f"writing into {folder!r} by a default",
            rules=RULES,
            edits={ENVIRONMENT: {variable: folder}, TRAIN: changes},
        )
        for id_, (variable, folder, changes) in LEFT_OUT.items()
    ),
)

LOOKS_SCARY: dict[str, tuple[str, dict[str, Any]]] = {
    "compile-off": ("a compiler that is off", engine(compile=False)),
    "amp-dtype": ("bfloat16", engine(amp_kwargs={"dtype": "#torch.bfloat16"})),
    "to-kwargs-copy": ("copies", engine(to_kwargs={"copy": True})),
    "epochs-computed": ("epochs that are computed", engine(max_epochs="#2 * 50")),
    "no-events": ("null for what is not used", engine(
        iteration_update=None, prepare_batch=None, inferer=None, epoch_length=None)),
    "logfile": ("a log file with its own format", handler(
        "LogfileHandler", output_dir="{MMAR_CKPT_DIR}", filename="train.log",
        formatter="%(asctime)s - %(levelname)-8s %(message)s (100%%)")),
    "tensorboard-left-out": ("TensorBoard without a folder", handler(
        "TensorBoardStatsHandler", tag_name="train_loss",
        output_transform="#monai.handlers.from_engine(['loss'], first=True)")),
    "metrics-saver-details": ("all details, some operations", handler(
        "MetricsSaver", save_dir="{MMAR_CKPT_DIR}", metrics="*",
        batch_transform="lambda x: x[0]['image_meta_dict']",
        summary_ops=["mean", "median", "90percentile"], delimiter="\t")),
    "save-image-left-out": ("an image saved without a folder", transform(
        "SaveImaged", output_postfix="seg", output_ext=".nii.gz", resample=False,
        output_dtype="uint8", mode="nearest", padding_mode="border", squeeze_end_dims=True)),
    "saver-key-metric": ("the best model under its own name", handler(
        "CheckpointSaver", save_dir="{MMAR_CKPT_DIR}",
        save_dict={"model": "@model", "opt": "@optimizer", "train_conf": "@conf"},
        save_key_metric=True, key_metric_filename="best.pt", key_metric_n_saved=2)),
    "label-tag": ("a tag with blanks and percent", handler(
        "StatsHandler", tag_name="loss (50 %)", name="train.stats",
        output_transform="lambda x: x[0]['loss']")),
    "state-attributes": ("attributes of the state", handler(
        "StatsHandler", state_attributes=["best_metric"], iteration_log=10, epoch_log=False,
        output_transform="lambda x: None")),
    "window-wide": ("a window of CT values", transform(
        "ScaleIntensityRanged", a_min=-1024, a_max=65_535, b_min=0.0, b_max=1.0, clip=True)),
    "keys-odd": ("keys with points and dashes", transform(
        "CopyItemsd", names=["image-1", "image.copy", "_tmp", "T1 w"], times=4)),
    "spacing-modes": ("a mode for each key", {"train/pre_transforms/3": {
        "name": "Spacingd", "args": {"keys": ["image", "label"], "pixdim": [1.0, 1.0, -1],
                                     "mode": ["bilinear", "nearest"], "padding_mode": "border",
                                     "align_corners": [True, None], "dtype": "float32"}}}),
    "pad-mode-numpy": ("a mode of numpy", transform(
        "SpatialPadd", spatial_size=[-1, 32, 32], mode="constant", constant_values=-1000)),
    "spline": ("an order of splines", transform("Resized", spatial_size=[8, 8, 8], mode=3)),
    "affine-ranges": ("ranges within ranges", transform(
        "RandAffined", prob=0.2, rotate_range=[[-0.3, 0.3], 0.1, 0.1], scale_range=0.1,
        translate_range=[10, 10, 5], padding_mode="zeros", cache_grid=True,
        spatial_size=[8, 8, 8])),
    "select-positive": ("the foreground by a lambda", {
        "train/pre_transforms/5/args/select_fn": "lambda x: x > 0",
        "train/pre_transforms/5/args/margin": 10}),
    "map-labels": ("labels that are texts", transform(
        "MapLabelValued", orig_labels=["benign", "malignant"], target_labels=[0, 1])),
    "class-weights": ("weights for each class", loss(
        "DiceCELoss", to_onehot_y=True, softmax=True, weight=[0.1, 1.0], lambda_ce=0.5,
        reduction="MEAN")),
    "onecycle": ("a schedule with words", {"train/lr_scheduler": {"name": "OneCycleLR", "args": {
        "optimizer": "@optimizer", "max_lr": 0.01, "total_steps": 1000,
        "anneal_strategy": "cos"}}}),
    "plateau": ("a schedule of a metric", {"train/lr_scheduler": {
        "name": "ReduceLROnPlateau", "args": {"optimizer": "@optimizer", "mode": "max",
                                              "patience": 5, "threshold_mode": "rel"}}}),
    "adam": ("an optimizer with all it takes", {"train/optimizer": {"name": "Adam", "args": {
        "params": "#@model.parameters()", "lr": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8,
        "weight_decay": 1e-5, "amsgrad": True}}}),
    "groups": ("groups of parameters", {"train/optimizer/args/params": [
        {"params": "#@model.parameters()", "lr": 0.001, "weight_decay": 0}]}),
    "dynunet": ("kernels and strides for each axis", network(
        "DynUNet", kernel_size=[[3, 3, 1], [3, 3, 3]], strides=[[1, 1, 1], [2, 2, 1]],
        upsample_kernel_size=[[2, 2, 1]], norm_name=["INSTANCE", {"affine": True}],
        act_name=["leakyrelu", {"inplace": True, "negative_slope": 0.01}], dropout=None)),
    "segresnet": ("a norm with groups", network(
        "SegResNet", init_filters=8, dropout_prob=0.2, norm=["GROUP", {"num_groups": 8}],
        act="RELU", upsample_mode="nontrainable")),
    "unetr": ("words of a transformer", network(
        "UNETR", img_size=[32, 32, 32], feature_size=16, norm_name="instance",
        proj_type="perceptron", dropout_rate=0.1)),
    "flexible": ("a backbone by its name", network(
        "FlexibleUNet", backbone="efficientnet-b0", pretrained=False)),
    "workers-none": ("data in this process", {
        "train/dataloader/args/num_workers": 0, "train/dataloader/args/timeout": 0,
        "train/dataloader/args/prefetch_factor": None, "train/dataloader/args/pin_memory": True}),
    "cache-all": ("a cache of all cases", {
        "train/dataset/args": {"transform": "@pre_transforms", "cache_num": 100_000,
                               "cache_rate": 1, "num_workers": 4, "progress": True}}),
    "window-gaussian": ("a Gaussian blend", {"validate/inferer/args": {
        "roi_size": [16, 16, 16], "sw_batch_size": 4, "overlap": 0.625, "mode": "gaussian",
        "padding_mode": "replicate", "cval": -1, "sw_device": "cuda", "device": "cpu"}}),
}  # fmt: skip

BENIGN: tuple[Case, ...] = (
    *(
        Case(id=f"argument-{id_}", family="benign", tries=tries, rules=(), edits={TRAIN: changes})
        for id_, (tries, changes) in LOOKS_SCARY.items()
    ),
    Case(id="argument-metric-words", family="benign", tries="a reduction by its name", rules=(),
         edits={VALIDATION: {"key_metric/args/reduction": "mean"}}),
    Case(id="argument-own-run-folder", family="benign", tries="a run folder of the author's own",
         rules=(), edits={ENVIRONMENT: {"MMAR_CKPT_DIR": "models/run_1"},
                          TRAIN: handler("TensorBoardImageHandler", log_dir="")}),
    Case(id="argument-null-by-variable", family="benign", tries="null for an argument", rules=(),
         edits={ENVIRONMENT: {"nothing": None}, TRAIN: transform(
             "Resized", spatial_size=[8, 8, 8], align_corners="{nothing}")}),
)  # fmt: skip
