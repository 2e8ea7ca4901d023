"""What a review of the finished walls found: entries under other names, parts put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.security.case import GONE, TRAIN, Case

RULES = ("limit", "metric", "component-kind", "reference", "data-list")
BOTH = ["image", "label"]
OUTPUT = ["pred", "label"]
LIST = {
    "data_list_file_path": "{DATASET_JSON}",
    "data_file_base_dir": "{DATA_ROOT}",
    "data_list_key": "training",
}
FIVE_PERSONS = {"policy_version": 1, "min_dataset_size": 5}


def transform(name: str, /, keys: Any = BOTH, **arguments: Any) -> dict[str, Any]:
    """A transform as it stands in a document."""
    return {"name": name, "args": {"keys": keys, **arguments}}


def compose(*transforms: Any) -> dict[str, Any]:
    """Several transforms as one."""
    return {"name": "Compose", "args": {"transforms": list(transforms)}}


VOXEL = transform("SpatialCropd", roi_start=[9, 9, 9], roi_end=[10, 10, 10])
CROPS = "validate/post_transforms"

METRICS: Mapping[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "free-cases": ("cases of the job's own, in an entry that nobody counts", {
        "train/mine": {"name": "Dataset", "args": {
            "data": [{"image": "{DATA_ROOT}/a.nii.gz", "label": "{DATA_ROOT}/b.nii.gz"}],
            "transform": "@pre_transforms"}},
        "train/dataloader/args/dataset": "@mine"}, FIVE_PERSONS),
    "free-list": ("another list than the one that is counted", {
        "train/mine": {"name": "Dataset", **LIST, "args": {"transform": "@pre_transforms"}},
        "train/dataloader/args/dataset": "@mine"}, FIVE_PERSONS),
    "free-part": ("a part of the list at a time", {
        "validate/mine": {"name": "SmartCacheDataset", **LIST, "args": {
            "transform": "@pre_transforms", "cache_num": 1, "replace_rate": 0.1}},
        "validate/dataloader/args/dataset": "@mine"}, None),
    "free-loader": ("a loader that leaves cases out", {
        "validate/mine": {"name": "DataLoader", "args": {
            "dataset": "@dataset", "batch_size": 400, "drop_last": True}},
        "validate/evaluator/args/val_data_loader": "@mine"}, None),
    "free-evaluator": ("an engine of a few batches", {
        "validate/mine": {"name": "SupervisedEvaluator", "args": {
            "val_data_loader": "@dataloader", "network": "@model", "epoch_length": 1,
            "key_val_metric": "@key_metric"}},
        "train/handlers/2/args/validator": "@mine"}, None),
    "free-metric": ("a metric", {
        "validate/mine": {"name": "MeanDice", "log_label": "mine", "args": {}}}, None),
    "other-section": ("the training's loader, which leaves cases out", {
        "train/dataloader/args/drop_last": True, "validate/dataloader": GONE}, None),
    "free-transforms": ("one voxel, by transforms in another entry", {
        "validate/mine": compose(VOXEL), "validate/dataset/args/transform": "@mine"}, None),
    "free-postprocessing": ("the same behind the network", {
        "validate/mine": compose(VOXEL), "validate/evaluator/args/postprocessing": "@mine"}, None),
    "free-handler": ("the same by a handler", {
        "validate/mine": compose(VOXEL),
        "validate/handlers/-": {"name": "PostProcessing", "args": {"transform": "@mine"}}}, None),
    "free-loss": ("an image by the name of a loss", {
        "validate/mine": compose(transform("CopyItemsd", "image", names="loss_x")),
        "validate/evaluator/args/postprocessing": "@mine",
        "validate/key_metric": {"name": "Average", "log_label": "a", "args": {
            "output_transform": "#monai.handlers.from_engine(['loss_x'])"}}}, None),
    "computed-loss": ("the same by a computed name", {
        "validate/post_transforms/-": transform("CopyItemsd", "image", names="#f'lo{\"ss\"}'"),
        "validate/key_metric": {"name": "Average", "log_label": "a", "args": {
            "output_transform": "#monai.handlers.from_engine(['loss'])"}}}, None),
    "joined-loss": ("the same by a key and its ending", {
        "validate/pre_transforms/-": transform("FgBgToIndicesd", "lo", fg_postfix="ss"),
        "validate/key_metric": {"name": "Average", "log_label": "a", "args": {
            "output_transform": "#monai.handlers.from_engine(['loss'])"}}}, None),
    "two-slabs": ("a voxel where two slabs meet", {CROPS: [
        transform("SpatialCropd", OUTPUT, roi_start=[3, 0, 0], roi_end=[4, 8, 8]),
        transform("SpatialCropd", OUTPUT, roi_start=[0, 3, 3], roi_end=[64, 4, 4])]}, None),
    "two-centres": ("a slab and a line", {CROPS: [
        transform("CenterSpatialCropd", OUTPUT, roi_size=[1, 64, 64]),
        transform("CenterSpatialCropd", OUTPUT, roi_size=[64, 1, 1])]}, None),
    "two-whole-axes": ("with axes as they are", {CROPS: [
        transform("CenterSpatialCropd", OUTPUT, roi_size=[1, -1, -1]),
        transform("CenterSpatialCropd", OUTPUT, roi_size=[-1, 1, 1])]}, None),
    "resized-crop": ("a line resized and cropped", {CROPS: [
        transform("Resized", OUTPUT, spatial_size=[64, 1, 1]),
        transform("CenterSpatialCropd", OUTPUT, roi_size=[1, 64, 64])]}, None),
    "scaled-crops": ("a twentieth of a twentieth", {
        CROPS: [transform("CenterScaleCropd", OUTPUT, roi_scale=0.05)] * 3}, None),
    "crop-and-zoom": ("64 values zoomed to one", {CROPS: [
        transform("CenterSpatialCropd", OUTPUT, roi_size=[8, 8, 1]),
        transform("Zoomd", OUTPUT, zoom=0.05, keep_size=False)]}, None),
    "spacing-and-zoom": ("voxels of 50 mm, zoomed", {
        "validate/pre_transforms/-": transform("Spacingd", pixdim=[50, 50, 50]),
        CROPS: [transform("Zoomd", OUTPUT, zoom=0.06, keep_size=False)]}, None),
    "affine-and-zoom": ("a small image, zoomed", {
        "validate/pre_transforms/-": transform("RandAffined", prob=1, scale_range=[-0.9, -0.8]),
        CROPS: [transform("Zoomd", OUTPUT, zoom=0.06, keep_size=False)]}, None),
    "corner-keys": ("corners that a case brings along", {
        "validate/pre_transforms/-": transform("SpatialCropd", roi_start="from", roi_end="to")},
        None),
    "low-resolution": ("one voxel, grown to an image", {
        "validate/pre_transforms/-": transform(
            "RandSimulateLowResolutiond", prob=1, zoom_range=[0.01, 0.011])}, None),
}  # fmt: skip

TWICE = transform("RepeatChanneld", "image", repeats=2)
LOAD = {"name": "LoadImaged#load", "args": {"keys": BOTH}}


def some(count: int, inner: dict[str, Any]) -> dict[str, Any]:
    """A transform that may run so often."""
    return {"name": "SomeOf", "args": {
        "transforms": [inner], "num_transforms": count, "replace": True}}  # fmt: skip


def training(*transforms: Any) -> dict[str, Any]:
    """Other transforms for the training, and one for the validation."""
    return {"train/pre_transforms": [LOAD, *transforms],
            "validate/pre_transforms": [{"ref": "load"}], CROPS: []}  # fmt: skip


def grown(*transforms: Any, batch: int = 1) -> dict[str, Any]:
    """The same of images that were made large."""
    large = transform("Resized", spatial_size=[512, 512, 512])
    return training(large, *transforms) | {"train/dataloader/args/batch_size": batch}


COPIES = {f"train/e{index}": compose(f"@e{index + 1}", f"@e{index + 1}") for index in range(40)} | {
    "train/e40": compose(TWICE)
}

SIZES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "free-copies": ("copies of copies in another entry", {
        "train/mine": compose(*[transform("RepeatChanneld", "image", repeats=4000)] * 3),
        "train/dataset/args/transform": "@mine"}),
    "late-copies": ("copies behind the network", {
        CROPS: [transform("RepeatChanneld", "pred", repeats=4000)] * 3}),
    "doubled-by-references": ("a doubling by a chain of references", {
        **COPIES, "train/dataset/args/transform": "@e0"}),
    "doubled-in-expression": ("the same in expressions", {
        **{name: {"name": "Compose", "args": {"transforms": f"#[@e{index + 1}, @e{index + 1}]"}}
           for index, name in enumerate(list(COPIES)[:-1])},
        "train/e40": compose(TWICE), "train/dataset/args/transform": "@e0"}),
    "some-of": ("a doubling done sixty times", training(some(60, TWICE))),
    "some-of-some": ("loops in loops", training(some(64, some(64, some(64, TWICE))))),
    "some-of-many": ("one loop of four thousand", training(some(4096, TWICE))),
    "concatenated": ("an image put together with itself", training(
        *[transform("ConcatItemsd", ["image"] * 8, name="image")] * 12)),
    "concatenated-computed": ("the same by an expression", training(
        *[transform("ConcatItemsd", f"#{['image'] * 100}", name="image")] * 6)),
    "windows": ("thousands of large windows at once", {
        "validate/inferer/args/roi_size": [500, 500, 500],
        "validate/inferer/args/sw_batch_size": 4096}),
    "median": ("a median of 343 values for each of 512^3 voxels", grown(
        transform("MedianSmoothd", radius=3))),
    "median-computed": ("the same by an expression", grown(
        transform("MedianSmoothd", radius="#3 if True else 1"))),
    "median-late": ("a median behind the network, of large windows", {
        "validate/dataloader/args/batch_size": 64,
        CROPS: [transform("Resized", OUTPUT, spatial_size=[128, 128, 128]),
                transform("MedianSmoothd", "pred", radius=3)]}),
    "median-by-expression": ("a median in a network of 3 axes, by an expression", {
        **grown(transform("MedianSmoothd", radius=2), batch=4),
        "train/model/args/spatial_dims": "#1 + 2"}),
    "one-hot": ("a thousand channels of a large image", grown(
        transform("AsDiscreted", "label", to_onehot=1024))),
    "one-hot-late": ("the same behind the network", {CROPS: [
        transform("Resized", OUTPUT, spatial_size=[512, 512, 512]),
        transform("AsDiscreted", OUTPUT, argmax=[True, False], to_onehot=[None, 1000])]}),
    "one-hot-computed": ("the number by an expression", grown(
        transform("AsDiscreted", "label", to_onehot="#2 if False else 1000"))),
    "one-hot-then-large": ("a thousand channels, enlarged", training(
        transform("AsDiscreted", "label", to_onehot=1000),
        transform("Resized", spatial_size=[512, 512, 512]))),
    "one-hot-copies": ("a thousand channels, and copies of them", training(
        transform("AsDiscreted", "label", to_onehot=1000),
        transform("RepeatChanneld", "label", repeats=1000))),
    "one-hot-batch": ("a thousand channels of many crops", {
        **training(transform("RandSpatialCropSamplesd", roi_size=[96, 96, 96], num_samples=16),
                   transform("AsDiscreted", "label", to_onehot=1000)),
        "train/dataloader/args/batch_size": 16}),
    "votes": ("votes of thousands of classes", {CROPS: [
        transform("Resized", OUTPUT, spatial_size=[256, 256, 256]),
        transform("VoteEnsembled", OUTPUT, output_key="votes", num_classes=4000)]}),
    "patches": ("patches a few voxels apart", grown(
        transform("GridPatchd", patch_size=[64, 64, 64], overlap=0.95))),
    "patches-random": ("the same at random places", grown(
        transform("RandGridPatchd", patch_size=[64, 64, 64], overlap=0.9, num_patches=10))),
    "patches-axes": ("close together on one axis, in a list", grown(
        transform("GridPatchd", patch_size=[64, 64, 64], overlap=[0.0, 0.0, 0.95]), batch=16)),
    "patches-unknown": ("of an image whose size nothing names", {
        **training(transform("GridPatchd", patch_size=[32, 32, 32], overlap=0.95)),
        "train/dataloader/args/batch_size": 8}),
    "patches-whole-axes": ("thousands of slabs", grown(
        transform("GridPatchd", patch_size=[64, 0, 0], num_patches=4096))),
    "patches-enlarged": ("each of many patches enlarged", grown(
        transform("GridPatchd", patch_size=[16, 16, 16]),
        transform("Resized", spatial_size=[128, 128, 128]))),
    "joint-bins": ("a joint histogram of every voxel", {
        "train/loss": {"name": "GlobalMutualInformationLoss", "args": {"num_bins": 65_536}}}),
    "copied-keys": ("copies of copies of keys, slow to follow", {
        **training(*[
            transform("CopyItemsd", f"#{[f'{index}{one}' for one in range(90)]}",
                      names=f"#{[f'{index}x{one}' for one in range(60)]}")
            for index in range(150)]),
        "train/model/args/out_channels": 10**6}),
}  # fmt: skip

HOSTILE: tuple[Case, ...] = (
    *(
        Case(id=f"review-{id_}", family="metric", tries=tries, rules=RULES,
             edits={TRAIN: changes}, policy=policy)
        for id_, (tries, changes, policy) in METRICS.items()
    ),
    *(
        Case(id=f"review-{id_}", family="component", tries=tries, rules=("limit",),
             edits={TRAIN: changes})
        for id_, (tries, changes) in SIZES.items()
    ),
)  # fmt: skip

USUAL: Mapping[str, tuple[str, dict[str, Any]]] = {
    "free-network": ("a second network and its optimizer", {
        "train/second": {"name": "UNet", "args": {
            "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8],
            "strides": [2]}},
        "train/second_optimizer": {"name": "SGD", "args": {
            "params": "#@second.parameters()", "lr": 0.1}}}),
    "free-compose": ("transforms in an entry of their own", {
        "train/augment": compose(transform("RandFlipd", prob=0.5), transform("RandRotate90d")),
        "train/dataset/args/transform": "@augment"}),
    "slices": ("slices of a volume, cropped and resized", {
        "train/pre_transforms/-": transform("RandSpatialCropd", roi_size=[64, 64, 1]),
        "train/post_transforms/-": transform("Resized", OUTPUT, spatial_size=[96, 96, -1])}),
    "two-crops": ("a crop in a crop", {
        "train/pre_transforms/6": transform("RandSpatialCropd", roi_size=[96, 96, 96]),
        "train/pre_transforms/-": transform("CenterSpatialCropd", roi_size=[64, 64, 32])}),
    "augmented": ("a usual augmentation", {"train/pre_transforms/6": transform(
        "RandSpatialCropd", roi_size=[96, 96, 64]),
        "train/pre_transforms/8": transform("RandZoomd", min_zoom=0.7, max_zoom=1.4),
        "train/pre_transforms/-": transform("RandAffined", scale_range=[0.3, 0.3, 0.3])}),
    "low-resolution": ("thick slices, as nnU-Net makes them", {
        "train/pre_transforms/-": transform(
            "RandSimulateLowResolutiond", "image", prob=0.25, zoom_range=[0.5, 1.0])}),
    "augmentations": ("some of several, two times", training(
        some(2, transform("RandFlipd", prob=0.5)), {"name": "OneOf", "args": {"transforms": [
            transform("RandZoomd", min_zoom=0.9, max_zoom=1.1), transform("RandRotated")]}})),
    "modalities": ("four modalities as channels of an image", training(
        transform("ConcatItemsd", ["image", "label", "image", "label"], name="both"))),
    "windows": ("many windows at once", {
        "validate/inferer/args/roi_size": [160, 160, 160],
        "validate/inferer/args/sw_batch_size": 16}),
    "written-nulls": ("nothing, where a class takes a function", {
        "train/post_transforms/0/args/other": None,
        "train/trainer/args/compile_kwargs": None,
        "train/pre_transforms/-": transform("DataStatsd", "image", additional_info=None)}),
    "median": ("a median of crops", {
        "train/pre_transforms/-": transform("MedianSmoothd", "image", radius=1)}),
    "median-wide": ("a wider median, axis by axis", training(
        transform("RandSpatialCropSamplesd", roi_size=[96, 96, 96], num_samples=4),
        transform("MedianSmoothd", "image", radius=[3, 3, 1]))),
    "median-volume": ("a median of a volume", training(
        transform("Resized", spatial_size=[256, 256, 256]),
        transform("MedianSmoothd", "image", radius=2))),
    "one-hot": ("two channels of full volumes", {CROPS: [
        transform("Resized", OUTPUT, spatial_size=[512, 512, 700]),
        transform("AsDiscreted", OUTPUT, argmax=[True, False], to_onehot=2)]}),
    "one-hot-organs": ("channels of 13 organs and the rest, twice", {CROPS: [
        transform("Resized", OUTPUT, spatial_size=[512, 512, 700]),
        transform("AsDiscreted", "pred", argmax=True, to_onehot=14),
        transform("AsDiscreted", "label", to_onehot=14)]}),
    "one-hot-brain": ("channels of 133 regions of a brain, of many crops", {
        **training(transform("RandCropByPosNegLabeld", label_key="label", num_samples=16,
                             spatial_size=[96, 96, 96])),
        "train/dataloader/args/batch_size": 4,
        "train/post_transforms": [
            transform("AsDiscreted", "pred", argmax=True, to_onehot=133),
            transform("AsDiscreted", "label", to_onehot=133)]}),
    "one-hot-slices": ("channels of a batch of slices", {
        **training(transform("Resized", spatial_size=[512, 512, 1])),
        "train/dataloader/args/batch_size": 256,
        "train/post_transforms": [transform("AsDiscreted", OUTPUT, to_onehot=14)]}),
    "patches": ("patches of a slide", {
        **training(transform("RandGridPatchd", "image", patch_size=[256, 256], num_patches=44,
                             sort_fn="min", pad_mode=None, constant_values=255)),
        "train/dataloader/args/batch_size": 4}),
    "patches-of-volume": ("patches of a volume that overlap by half", training(
        transform("Resized", spatial_size=[256, 256, 256]),
        transform("GridPatchd", patch_size=[64, 64, 64], overlap=0.5, pad_mode="constant"))),
    "patches-of-axes": ("slabs that overlap by a quarter", training(
        transform("GridPatchd", patch_size=[32, 0, 0], overlap=0.25))),
    "patches-small": ("many small patches", {
        **training(transform("GridPatchd", patch_size=[8, 8, 8], overlap=0.5)),
        "train/dataloader/args/batch_size": 8}),
    "logged-loss": ("a log of losses", {"train/handlers/-": {"name": "MetricLogger", "args": {
        "loss_transform": "#monai.handlers.from_engine(['loss'], first=True)"}}}),
    "mean-loss": ("the mean loss next to a label's name", {
        "train/key_metric": {"name": "Average", "log_label": "train_loss", "args": {
            "output_transform": "#monai.handlers.from_engine(['loss'], first=True)"}}}),
}  # fmt: skip

BENIGN: tuple[Case, ...] = tuple(
    Case(id=f"review-{id_}", family="benign", tries=tries, rules=(), edits={TRAIN: changes})
    for id_, (tries, changes) in USUAL.items()
)
