"""Metrics that would carry data away, and lists that would make one person look like many.

Beside each hostile family stand the metrics and lists that people use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.security.case import GONE, TRAIN, VALIDATION, Case

METRICS = ("metric", "metric-count", "limit", "argument", "expression", "unknown-argument",
           "denied-argument", "unknown-component", "component-kind", "lambda",
           "missing-argument")  # fmt: skip
PAIR = "#monai.handlers.from_engine(['pred', 'label'])"
LOSS = "#monai.handlers.from_engine(['loss'], first=True)"
KEY = "validate/key_metric"
MORE = "validate/additional_metrics/-"
BEFORE = "validate/pre_transforms/-"
AFTER = "validate/post_transforms/-"

Edits = Mapping[str, Mapping[str, Any]]


def metric(name: str, output: str | None = PAIR, **arguments: Any) -> dict[str, Any]:
    """A metric ``val_more`` of a class."""
    given = arguments if output is None else {**arguments, "output_transform": output}
    place = {"path": name} if "." in name else {"name": name}
    return {**place, "log_label": "val_more", "args": given}


def more(name: str, output: str | None = PAIR, **arguments: Any) -> Edits:
    """The same as a metric more of the validation."""
    return {TRAIN: {MORE: metric(name, output, **arguments)}}


def made(place: str, name: str, **arguments: Any) -> Edits:
    """A transform more of the validation."""
    return {TRAIN: {place: {"name": name, "args": {"keys": ["image", "label"], **arguments}}}}


def many(count: int) -> Edits:
    """So many metrics beside the key metric."""
    metrics = [{**metric("Accuracy"), "log_label": f"val_{n}"} for n in range(count)]
    return {TRAIN: {"validate/additional_metrics": metrics}}


_VOXEL = "lambda x: x[0]['image'][0][10][11][12]"

CARRIERS: dict[str, tuple[str, Edits]] = {
    "average-voxel": ("a voxel as a mean", more("Average", _VOXEL)),
    "average-image": ("the mean of the images", more("Average", "lambda x: x['image']")),
    "average-prediction": ("a prediction that is the image", more(
        "Average", "#monai.handlers.from_engine(['pred'])")),
    "average-label": ("what a label holds", more(
        "Average", "#monai.handlers.from_engine(['label'])")),
    "average-of-nothing": ("whatever an engine hands over", more("Average", None)),
    "average-by-path": ("the same class by its module", more(
        "ignite.metrics.Average", "#monai.handlers.from_engine(['image'])")),
    "average-in-training": ("a voxel in each epoch's report", {TRAIN: {
        "train/key_metric/name": "Average", "train/key_metric/args/output_transform": _VOXEL}}),
    "average-as-key": ("a voxel as the key metric", {TRAIN: {
        f"{KEY}/name": "Average", f"{KEY}/args": {"output_transform": _VOXEL}}}),
    "average-in-evaluation": ("a voxel in another workflow", {VALIDATION: {
        "additional_metrics/-": metric("Average", _VOXEL)}}),
    "average-false-loss": ("an image by the name of a loss", {TRAIN: {
        BEFORE: {"name": "CopyItemsd", "args": {"keys": "image", "names": "my_loss"}},
        MORE: metric("Average", "#monai.handlers.from_engine(['my_loss'])")}}),
    "average-joined-loss": ("an image in the place of the loss", {TRAIN: {
        AFTER: {"name": "ConcatItemsd", "args": {"keys": ["image"], "name": "loss"}},
        MORE: metric("Average", LOSS)}}),
    "average-hidden-loss": ("the same inside of a choice", {TRAIN: {
        AFTER: {"name": "OneOf", "args": {"transforms": [
            {"name": "CopyItemsd", "args": {"keys": "image", "names": ["loss"]}}]}},
        MORE: metric("Average", LOSS)}}),
    "geometric-average": ("another mean", more(
        "GeometricAverage", "#monai.handlers.from_engine(['image'])")),
    "running-average": ("the image of the last case", more(
        "RunningAverage", "#monai.handlers.from_engine(['image'])", alpha=0.0)),
    "running-loss": ("the loss of the last case alone", more("RunningAverage", LOSS, alpha=0.0)),
    "running-loss-negative": ("the same by a sign", more("RunningAverage", LOSS, alpha=-1.0)),
    "running-loss-computed": ("the same by an expression", more(
        "RunningAverage", LOSS, alpha="#0 or 0.98")),
    "running-source": ("a mean of who knows what", more(
        "RunningAverage", None, src="@loss", alpha=0.98)),
    "entropy": ("what one tensor holds", more("Entropy")),
    "mutual-information": ("the same", more("MutualInformation")),
    "frequency": ("how fast a machine is", more("Frequency", None)),
    "gpu": ("what else runs on a machine", more("GpuInfo", None)),
    "group": ("metrics inside of a metric", more("MetricGroup", metrics={
        "a": {"name": "Average", "args": {"output_transform": _VOXEL}}})),
    "bleu": ("texts", more("Bleu")),
    "rouge": ("texts", more("Rouge")),
    "characters": ("texts", more("CharacterErrorRate")),
    "perplexity": ("texts", more("Perplexity")),
    "image-and-label": ("no prediction at all", more(
        "MeanAbsoluteError", "#monai.handlers.from_engine(['image', 'label'])")),
    "image-and-copy": ("a copy of the image", {TRAIN: {
        BEFORE: {"name": "CopyItemsd", "args": {"keys": ["image"], "names": ["reference"]}},
        MORE: metric("MeanAbsoluteError",
                     "#monai.handlers.from_engine(['reference', 'label'])")}}),
    "copy-of-copy": ("a copy of a copy", {TRAIN: {
        BEFORE: {"name": "CopyItemsd", "args": {"keys": ["image"], "names": ["a"]}},
        AFTER: {"name": "CopyItemsd", "args": {"keys": ["a"], "names": ["b"]}},
        MORE: metric("MeanSquaredError", "#monai.handlers.from_engine(['a', 'b'])")}}),
    "part-of-prediction": ("a voxel of the prediction", more(
        "MeanAbsoluteError", "lambda x: (x[0]['pred'][0][1][2], x[0]['label'][0][1][2])")),
    "first-case": ("the first case of each batch", more(
        "MeanDice", "#monai.handlers.from_engine(['pred', 'label'], first=True)")),
    "amplified": ("digits that rounding takes away", more(
        "MeanAbsoluteError", "lambda x: (x['pred'] * 1000000000, x['label'])")),
    "hundred-and-fifty": ("150 metrics", many(150)),
    "one-too-many": ("33 with the key metric", many(32)),
    "many-labels": ("as many by one metric", more(
        "MeanDice", reduction="mean_batch", return_with_label=[f"v{n}" for n in range(40)])),
    "many-in-training": ("as many in each epoch", {TRAIN: {"train/additional_metrics": [
        {**metric("Accuracy"), "log_label": f"train_{n}"} for n in range(40)]}}),
    "crop-to-voxel": ("a region of one voxel", made(
        BEFORE, "SpatialCropd", roi_center=[10, 11, 12], roi_size=[1, 1, 1])),
    "crop-corners": ("the same between corners", made(
        BEFORE, "SpatialCropd", roi_start=[10, 11, 12], roi_end=[11, 12, 13])),
    "crop-corner": ("a corner of a region that hangs over", made(
        BEFORE, "SpatialCropd", roi_start=[-9, -9, -9], roi_end=[1, 1, 1])),
    "crop-after": ("the same behind the network", {TRAIN: {AFTER: {
        "name": "SpatialCropd",
        "args": {"keys": ["pred", "label"], "roi_center": [1, 2, 3], "roi_size": [1, 1, 1]}}}}),
    "crop-computed": ("the same by an expression", made(
        BEFORE, "CenterSpatialCropd", roi_size="#[1, 2 // 2, 0 or 1]")),
    "crop-center": ("the voxel in the middle", made(BEFORE, "CenterSpatialCropd", roi_size=1)),
    "crop-pad": ("the same by another name", made(
        BEFORE, "ResizeWithPadOrCropd", spatial_size=[1, 1, 1])),
    "crop-weighted": ("the voxel that weighs most", made(
        BEFORE, "RandWeightedCropd", w_key="label", spatial_size=[1, 1, 1])),
    "crop-random": ("a voxel at random", made(
        BEFORE, "RandSpatialCropd", roi_size=[1, 1, 1], random_size=False)),
    "crop-scale": ("a thousandth of an axis", made(
        BEFORE, "CenterScaleCropd", roi_scale=0.001)),
    "resized": ("one voxel of all", made(BEFORE, "Resized", spatial_size=[1, 1, 1])),
    "resampled": ("a voxel of a metre", made(BEFORE, "Spacingd", pixdim=[1000.0, 1000.0, 1000.0])),
    "zoomed": ("the same by its factor", made(BEFORE, "Zoomd", zoom=0.001, keep_size=False)),
    "patch": ("patches of one voxel", made(BEFORE, "GridPatchd", patch_size=[1, 1, 1])),
    "zoomed-in": ("one voxel grown to an image", made(BEFORE, "Zoomd", zoom=1000.0)),
    "scaled-in": ("the same by another name", made(
        BEFORE, "Affined", scale_params=[0.0001, 0.0001, 0.0001])),
    "scaled-in-random": ("the same at random", made(
        BEFORE, "RandAffined", prob=1.0, scale_range=[-0.9999, -0.9999, -0.9999])),
    "matrix": ("the same by a matrix", made(BEFORE, "Affined", affine=[
        [0.001, 0, 0, 5], [0, 0.001, 0, 6], [0, 0, 0.001, 7], [0, 0, 0, 1]])),
    "mask": ("all voxels but one set to 0", made(
        BEFORE, "MaskIntensityd", mask_data=[[[[0.0, 0.0, 1.0]]]])),
    "holes": ("the same by a hole that stays", made(
        BEFORE, "RandCoarseDropoutd", holes=1, spatial_size=[1, 1, 1], dropout_holes=False,
        fill_value=0, prob=1.0)),
    "crop-by-key": ("a region whose size an entry holds", made(
        BEFORE, "SpatialCropd", roi_center=[8, 8, 8], roi_size="size")),
    "crop-in-choice": ("one voxel, inside of a choice", {TRAIN: {BEFORE: {
        "name": "OneOf", "args": {"transforms": [
            {"name": "CenterSpatialCropd",
             "args": {"keys": ["image", "label"], "roi_size": [1, 1, 1]}}]}}}}),
    "many-classes": ("a number for each of 200 classes", more(
        "MeanDice", reduction="mean_batch", num_classes=200, return_with_label=True)),
    "part-of-list": ("a data set that shows one case at a time", {TRAIN: {
        "validate/dataset/name": "SmartCacheDataset",
        "validate/dataset/args": {"transform": "@pre_transforms", "cache_num": 1}}}),
    "crop-in-training": ("the loss of one voxel", {TRAIN: {"train/pre_transforms/-": {
        "name": "CenterSpatialCropd", "args": {"keys": ["image", "label"], "roi_size": 1}}}}),
    "first-batch": ("a data set of one batch", {TRAIN: {
        "validate/evaluator/args/epoch_length": 1}}),
    "first-batch-computed": ("the same by an expression", {TRAIN: {
        "validate/evaluator/args/epoch_length": "#1 + 0"}}),
    "first-batch-evaluation": ("the same in another workflow", {VALIDATION: {
        "evaluator/args/epoch_length": 1}}),
    "last-batch": ("a data set without its last batch", {TRAIN: {
        "validate/dataloader/args/drop_last": True}}),
}  # fmt: skip

FEW = {"policy_version": 1, "min_dataset_size": 5, "cross_site": {"min_cases": 5}}

BENIGN_METRICS: dict[str, tuple[str, Edits]] = {
    "hausdorff": ("a distance of surfaces", more(
        "HausdorffDistance", percentile=95, include_background=False)),
    "surface-distance": ("another one", more("SurfaceDistance", symmetric=True)),
    "confusion-matrix": ("MONAI's", more(
        "ConfusionMatrix", metric_name="sensitivity", include_background=False)),
    "roc": ("of a classification", more("ROCAUC")),
    "iou": ("an overlap", more("MeanIoUHandler", include_background=False)),
    "dice-of-a-class": ("one class alone", more("MeanDice", include_background=False,
                                                reduction="mean_batch")),
    "dice-by-label": ("each class by its name", more(
        "MeanDice", reduction="mean_batch", return_with_label=["liver", "spleen", "kidney"])),
    "regression": ("a regression's", more("MeanAbsoluteError")),
    "root-mean-square": ("the same", more("RootMeanSquaredError", reduction="mean")),
    "reconstruction": ("a prediction of the image itself", more(
        "PeakSignalToNoiseRatio", "#monai.handlers.from_engine(['pred', 'image'])", max_val=1.0)),
    "ignite-accuracy": ("ignite's by its module", more("ignite.metrics.Accuracy")),
    "precision": ("ignite's by its name", more("Precision", average=True)),
    "lambda-pair": ("the pair by a lambda", more(
        "MeanDice", "lambda x: (x['pred'], x['label'])")),
    "copied-prediction": ("two forms of a prediction", {TRAIN: {
        AFTER: {"name": "CopyItemsd", "args": {"keys": "pred", "names": "pred_class"}},
        MORE: metric("Accuracy", "#monai.handlers.from_engine(['pred_class', 'label'])")}}),
    "mean-loss": ("the mean of the loss", {TRAIN: {
        "train/additional_metrics": [metric("Average", LOSS)]}}),
    "running-loss": ("ignite's running mean of the loss", {TRAIN: {
        "train/additional_metrics": [metric("RunningAverage", LOSS, alpha=0.98)]}}),
    "thirty-two": ("as many metrics as a site reports", many(31)),
    "crop-middle": ("a region of the usual size", made(
        BEFORE, "CenterSpatialCropd", roi_size=[12, 12, 8])),
    "crop-slice": ("a slice", made(BEFORE, "ResizeWithPadOrCropd", spatial_size=[-1, -1, 1])),
    "crop-corners": ("between corners", made(
        BEFORE, "SpatialCropd", roi_start=[0, 0, 0], roi_end=[12, 12, 8])),
    "resized": ("a square", made(BEFORE, "Resized", spatial_size=16)),
    "resized-longest": ("by the longest axis", made(
        BEFORE, "Resized", spatial_size=64, size_mode="longest")),
    "zoomed": ("twice as large", made(BEFORE, "Zoomd", zoom=[2.0, 2.0, 1.0])),
    "affine": ("a usual augmentation", {TRAIN: {"train/pre_transforms/-": {
        "name": "RandAffined", "args": {"keys": ["image", "label"], "prob": 0.5,
                                        "rotate_range": [0.1, 0.1, 0.1],
                                        "scale_range": [0.1, 0.1, 0.1]}}}}),
    "holes": ("small holes in a training", {TRAIN: {"train/pre_transforms/-": {
        "name": "RandCoarseDropoutd",
        "args": {"keys": "image", "holes": 6, "spatial_size": [2, 2, 2], "prob": 0.5}}}}),
    "masked": ("a mask among the entries", made(BEFORE, "MaskIntensityd", mask_key="label")),
    "classes": ("a number for each class", more(
        "MeanDice", reduction="mean_batch", num_classes=3, return_with_label=True)),
    "cached-in-training": ("a training that caches a part", {TRAIN: {
        "train/dataset/name": "SmartCacheDataset",
        "train/dataset/args": {"transform": "@pre_transforms", "cache_num": 32,
                               "replace_rate": 0.2}}}),
    "spacing-2d": ("an axis as it is", made(BEFORE, "Spacingd", pixdim=[0.7, 0.7, -1.0])),
    "no-length": ("a whole data set, in words", {TRAIN: {
        "validate/evaluator/args/epoch_length": None,
        "validate/dataloader/args/drop_last": False}}),
    "training-length": ("a short epoch of a training", {TRAIN: {
        "train/trainer/args/epoch_length": 50}}),
    "dropped-in-training": ("a training without its last batch", {TRAIN: {
        "train/dataloader/args/drop_last": True}}),
}  # fmt: skip

LIST = "data_list_file_path"
ROWS = [{"image": "same.nii.gz", "label": "same.nii.gz"}] * 6
OWN_LIST = json.dumps({"training": ROWS, "validation": ROWS})
LISTS = ("data-list", "path", "argument", "unknown-argument", "missing-file", "job-file")


def listed(place: str, found: str | None, **more_edits: Any) -> Edits:
    """Another list of a data set; None for none at all."""
    dataset = f"{place}/dataset" if place else "dataset"
    keys = (LIST, "data_file_base_dir", "data_list_key") if found is None else ()
    changes = {f"{dataset}/{key}": GONE for key in keys}
    if found is not None:
        changes[f"{dataset}/{LIST}"] = found
    document = TRAIN if place else VALIDATION
    return {document: {**changes, **{f"{dataset}/args/{k}": v for k, v in more_edits.items()}}}


UNCOUNTED: dict[str, tuple[str, Edits]] = {
    "own-list": ("one image six times, in the job's list", listed("train", "config/six.json")),
    "own-list-root": ("the same by a variable", listed("train", "{MMAR_ROOT}/config/six.json")),
    "own-list-dots": (
        "the same by a way round",
        listed("train", "{MMAR_ROOT}/models/../config/six.json"),
    ),
    "own-list-validation": (
        "the same of the validation",
        listed("validate", "{MMAR_ROOT}/config/six.json"),
    ),
    "own-list-evaluation": (
        "the same in another workflow",
        listed("", "{MMAR_ROOT}/config/six.json"),
    ),
    "own-list-variable": (
        "the same by the job's own variable",
        {TRAIN: {"MY_LIST": "config/six.json", f"train/dataset/{LIST}": "{MMAR_ROOT}/{MY_LIST}"}},
    ),
    "rows": ("six rows in the workflow", listed("train", None, data=ROWS)),
    "rows-validation": ("the same of the validation", listed("validate", None, data=ROWS)),
    "rows-evaluation": ("the same in another workflow", listed("", None, data=ROWS)),
    "rows-of-site": (
        "the site's images by name",
        listed(
            "train",
            None,
            data=[{"image": "{DATA_ROOT}/a.nii.gz", "label": "{DATA_ROOT}/b.nii.gz"}] * 6,
        ),
    ),
    "rows-computed": (
        "rows by an expression",
        listed("train", None, data="#[{'image': 'a'}, {'image': 'a'}]"),
    ),
    "rows-texts": ("paths alone", listed("train", None, data=["{DATA_ROOT}/a.nii.gz"] * 6)),
    "rows-empty": ("no row at all", listed("train", None, data=[])),
    "no-list": ("nothing that one could count", listed("train", None)),
    "rows-and-list": ("both", listed("train", "{DATASET_JSON}", data=ROWS)),
    "rows-reference": ("rows from somewhere", listed("train", None, data="@model")),
}

HOSTILE: tuple[Case, ...] = (
    *(
        Case(id=id_, family="data list", tries=tries, rules=LISTS, edits=edits, policy=FEW,
             files={"config/six.json": OWN_LIST})
        for id_, (tries, edits) in UNCOUNTED.items()
    ),
    *(
        Case(id=id_, family="metric", tries=tries, rules=METRICS, edits=edits)
        for id_, (tries, edits) in CARRIERS.items()
    ),
    Case(id="first-batch-of-training", family="metric",
         tries="an epoch of one case, where a site asks for five", rules=METRICS, policy=FEW,
         edits={TRAIN: {"train/trainer/args/epoch_length": 1}}),
    Case(id="more-than-the-policy", family="metric", tries="more metrics than this site reports",
         rules=METRICS, policy={"policy_version": 1, "outgoing": {"max_metrics": 3}},
         edits=many(3)),
)  # fmt: skip

BENIGN_LISTS: dict[str, tuple[str, Edits]] = {
    "site-list": ("the site's own list", {}),
    "another-section": ("another section of it", {TRAIN: {"VAL_DATALIST_KEY": "test"}}),
    "another-file": (
        "another list among the site's data",
        listed("train", "{DATA_ROOT}/dataset_fold_0.json"),
    ),
    "cached": (
        "a data set that caches a part",
        {TRAIN: {"train/dataset/args/cache_num": 2, "train/dataset/args/cache_rate": 0.5}},
    ),
    "job": ("the example", {}),
}

BENIGN: tuple[Case, ...] = (
    *(
        Case(id=f"metric-{id_}", family="benign", tries=tries, rules=(), edits=edits)
        for id_, (tries, edits) in BENIGN_METRICS.items()
    ),
    *(
        Case(
            id=f"least-number-{id_}",
            family="benign",
            tries=tries,
            rules=(),
            edits=edits,
            policy=FEW,
            base="job" if id_ == "job" else "mmar",
        )
        for id_, (tries, edits) in BENIGN_LISTS.items()
    ),
)
