"""What a run asks of its data before it starts: problems that are certain, notices of the rest."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from mmar_runtime.config.sections import EvaluationConfig, TrainConfig
from mmar_runtime.datatools.run_check import with_data_checked
from mmar_runtime.errors import UnfitDataError

Change = Callable[..., None]
WriteVolume = Callable[..., Path]
Judge = Callable[..., list[str]]

SHAPE = (6, 5, 4)
KEYS = ["image", "label"]


def section(key: str, **more: Any) -> dict[str, Any]:
    return {
        "pre_transforms": [
            {"name": "LoadImaged", "args": {"keys": KEYS}},
            {"name": "EnsureChannelFirstd", "args": {"keys": KEYS}},
            {"name": "ScaleIntensityd", "args": {"keys": "image"}},
        ],
        "dataset": {
            "name": "Dataset",
            "data_list_file_path": "{DATASET_JSON}",
            "data_file_base_dir": "{DATA_ROOT}",
            "data_list_key": key,
            "args": {"transform": "@pre_transforms"},
        },
        "dataloader": {"name": "DataLoader", "args": {"dataset": "@dataset", "batch_size": 1}},
        "key_metric": {"name": "MeanDice", "log_label": "dice", "args": {}},
        **more,
    }


def training() -> dict[str, Any]:
    """Two classes of voxels, one channel of the image."""
    network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8]}
    return {
        "epochs": 1,
        "train": section(
            "training",
            model={"name": "UNet", "args": {**network, "strides": [2]}},
            loss={"name": "DiceCELoss", "args": {"to_onehot_y": True, "softmax": True}},
            trainer={"name": "SupervisedTrainer", "args": {}},
        ),
        "validate": section("validation", evaluator={"name": "SupervisedEvaluator", "args": {}}),
    }


def data_notices(config: TrainConfig | EvaluationConfig) -> list[str]:
    return [str(notice) for notice in config.notices if notice.rule == "data"]


@pytest.fixture
def judge(data_set: Path, load_train: Callable[..., TrainConfig]) -> Judge:
    """``judge(change)`` checks the data for a training whose document ``change`` has altered.

    Returns the notices, or the problems; ``ok=False`` says that problems are expected.
    """

    def run(change: Callable[[Any], object] = lambda conf: None, *, ok: bool = True) -> list[str]:
        document = copy.deepcopy(training())
        change(document)
        values = {"DATA_ROOT": str(data_set), "DATASET_JSON": str(data_set / "dataset.json")}
        config = load_train(document, values)
        if ok:
            return data_notices(with_data_checked(config, cached=False))
        with pytest.raises(UnfitDataError) as raised:
            with_data_checked(config, cached=False)
        return [f"{problem.location.place}: {problem.message}" for problem in raised.value.problems]

    return run


def without(transform: str) -> Callable[[Any], None]:
    def change(conf: Any) -> None:
        for part in (conf["train"], conf["validate"]):
            kept = [spec for spec in part["pre_transforms"] if spec["name"] != transform]
            part["pre_transforms"] = kept

    return change


def added(transform: str, at: int = 2, **args: Any) -> Callable[[Any], None]:
    def change(conf: Any) -> None:
        for part in (conf["train"], conf["validate"]):
            part["pre_transforms"].insert(at, {"name": transform, "args": {"keys": KEYS, **args}})

    return change


def relabelled(data_set: Path, volume: WriteVolume, voxels: Any, case: int = 2) -> str:
    return str(volume(data_set / f"labels/case_{case}.nii.gz", voxels))


# --- Label values --------------------------------------------------------------------------------


def test_sound_data_bring_neither_problem_nor_notice(judge: Judge) -> None:
    assert judge() == []


def test_a_class_beyond_the_outputs_is_named_with_file_and_argument(
    judge: Judge, data_set: Path, volume: WriteVolume
) -> None:
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[0, 0, :3] = 3
    file = relabelled(data_set, volume, voxels)

    assert judge(ok=False) == [
        f"training[1].label: holds 3 (3 voxels) in {file!r}; "
        "config_train.json: train.model.args.out_channels has room for 0 to 1"
    ]


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ((0, 255), "put AsDiscreted with threshold 0.5"),
        ((1, 2), "seem to count from 1"),
        ((0, -1), "map the values"),
        ((0, 4), "Set it to 5"),
        ((0, 0.5), "resampled without nearest neighbour"),
        (tuple(range(60)), "is it an image"),
    ],
)
def test_the_advice_fits_the_values(
    load_train: Callable[..., TrainConfig],
    data_set: Path,
    volume: WriteVolume,
    values: tuple[float, ...],
    advice: str,
) -> None:
    voxels = np.resize(np.array(values, np.float32), SHAPE)
    relabelled(data_set, volume, voxels)
    environment = {"DATA_ROOT": str(data_set), "DATASET_JSON": str(data_set / "dataset.json")}

    with pytest.raises(UnfitDataError, match=advice):
        with_data_checked(load_train(training(), environment), cached=False)


def test_a_transform_that_may_change_values_leaves_them_unjudged(
    judge: Judge, data_set: Path, volume: WriteVolume
) -> None:
    relabelled(data_set, volume, np.full(SHAPE, 255, np.uint8))

    judge(added("AsDiscreted", threshold=0.5))
    assert judge(without("ScaleIntensityd"), ok=False) != []


def test_a_mask_of_a_network_with_one_output_is_0_or_1(
    judge: Judge, data_set: Path, volume: WriteVolume
) -> None:
    def one_output(conf: Any) -> None:
        conf["train"]["model"]["args"]["out_channels"] = 1
        conf["train"]["loss"] = {"name": "DiceLoss", "args": {"sigmoid": True}}

    assert judge(one_output) == []
    relabelled(data_set, volume, np.resize(np.array([0, 255], np.uint8), SHAPE))
    [problem] = judge(one_output, ok=False)
    assert problem.startswith("training[1].label: holds 255 (60 voxels)")


def test_the_one_hot_of_the_validation_bounds_its_labels(
    judge: Judge, data_set: Path, volume: WriteVolume
) -> None:
    def one_hot(conf: Any) -> None:
        spec = {"name": "AsDiscreted", "args": {"keys": ["pred", "label"], "to_onehot": [None, 2]}}
        conf["validate"]["post_transforms"] = [spec]

    relabelled(data_set, volume, np.full(SHAPE, 2, np.uint8), case=3)
    assert judge() == []  # without a bound nothing is certain
    [problem] = judge(one_hot, ok=False)
    assert "config_train.json: validate.post_transforms[0].args.to_onehot has room" in problem


def picture(data_set: Path, name: str, pixels: Any) -> None:
    Image.fromarray(pixels).save(data_set / name)


def test_masks_that_are_pictures_are_judged_alike(
    judge: Judge, data_set: Path, change: Change
) -> None:
    grey = np.zeros((6, 5), np.uint8)
    picture(data_set, "i.png", grey + 7)
    picture(data_set, "good.png", grey + 1)
    picture(data_set, "mask.png", grey + 255)
    picture(data_set, "rgb.png", np.zeros((6, 5, 3), np.uint8))
    items = [{"image": "i.png", "label": name} for name in ("good.png", "mask.png", "rgb.png")]
    change(data_set / "dataset.json", training=items)

    masks = [problem for problem in judge(ok=False) if ".label" in problem]
    assert "training[1].label: holds 255 (30 voxels)" in masks[0]
    assert "training[2].label: has 3 channels" in masks[1]


@pytest.fixture
def classes(judge: Judge, data_set: Path, change: Change) -> Judge:
    """``classes(labels)``: a classification whose training has these labels."""

    def run(labels: list[Any], *, ok: bool = True) -> list[str]:
        items = [
            {"image": f"images/case_{at + 1}.nii.gz", "label": x} for at, x in enumerate(labels)
        ]
        held_out = {"image": "images/case_4.nii.gz", "label": 0}
        change(data_set / "dataset.json", training=items, validation=[held_out])
        environment = {"PROCESSING_TASK": "classification"}

        def classify(conf: Any) -> None:
            conf.update(environment)
            conf["train"]["loss"] = {"name": "CrossEntropyLoss", "args": {}}
            for part in ("train", "validate"):
                for spec in conf[part]["pre_transforms"]:
                    spec["args"]["keys"] = "image"

        return judge(classify, ok=ok)

    return run


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0, "1"], "is the text '1'; a class is a number from 0"),
        ([0, "ill"], "is the text 'ill'; a class is a number from 0"),
        ([0, 2], "holds 2; config_train.json: train.model.args.out_channels has room for 0 to 1"),
        ([0, -1], "holds -1; config_train.json"),
        ([0, 1.0], "is 1.0; cross entropy takes the number of the class"),
        ([0, [0, 1]], "is [0, 1]; cross entropy takes the number of the class"),
    ],
)
def test_an_impossible_class_is_told(classes: Judge, labels: list[Any], found: str) -> None:
    [problem] = classes(labels, ok=False)
    assert problem.startswith(f"training[1].label: {found}")


def test_classes_from_0_are_sound_and_an_ignored_one_too(classes: Judge) -> None:
    assert classes([0, 1]) == []
    assert classes([0, -100]) == []


def test_a_list_of_a_single_class_is_a_notice(classes: Judge) -> None:
    [notice] = classes([1, 1])
    assert notice.startswith("all 2 labels of config_train.json: train hold 1 alone")


# --- Grids ---------------------------------------------------------------------------------------


def test_a_label_of_another_shape_is_a_problem(
    judge: Judge, data_set: Path, volume: WriteVolume
) -> None:
    relabelled(data_set, volume, np.zeros((6, 5, 3), np.uint8))

    [problem] = judge(ok=False)
    assert "has another grid than the item's image: shape 6 x 5 x 3 voxels" in problem


def test_a_mirrored_label_is_a_problem(judge: Judge, data_set: Path, volume: WriteVolume) -> None:
    file = data_set / "labels/case_2.nii.gz"
    volume(file, np.zeros(SHAPE, np.uint8), affine=np.diag([-1.0, 1.0, 2.5, 1.0]))

    [problem] = judge(ok=False)
    assert "axes LAS, not RAS" in problem


def test_a_label_without_position_matters_where_positions_are_used(
    judge: Judge, data_set: Path
) -> None:
    file = data_set / "labels/case_2.nii.gz"
    bare = nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), None)
    bare.header.set_zooms((1, 1, 2.5))
    nibabel.save(bare, file)

    [notice] = judge()
    assert "sform_code and qform_code of its header are 0" in notice
    [problem] = judge(added("Orientationd", axcodes="RAS"), ok=False)
    assert "sform_code and qform_code of its header are 0" in problem


def test_a_label_of_half_the_resolution_is_sound_where_both_are_resampled(
    judge: Judge, data_set: Path, volume: WriteVolume
) -> None:
    halved = np.diag([2.0, 1.0, 2.5, 1.0])
    halved[0, 3] = 0.5  # the middle of two voxels
    volume(data_set / "labels/case_2.nii.gz", np.zeros((3, 5, 4), np.uint8), affine=halved)

    assert judge(ok=False) != []
    assert judge(added("Spacingd", pixdim=[1, 1, 1], mode=["bilinear", "nearest"])) == []


# --- Copies --------------------------------------------------------------------------------------


def test_a_label_that_is_the_image_is_a_problem_under_any_name(
    judge: Judge, data_set: Path, change: Change
) -> None:
    shutil.copy(data_set / "images/case_1.nii.gz", data_set / "labels/case_1.nii.gz")
    items = json.loads((data_set / "dataset.json").read_text())["training"]
    items[1]["label"] = items[1]["image"]
    change(data_set / "dataset.json", training=items)

    problems = judge(ok=False)
    assert any(
        text.startswith("training[1].label: is the item's image itself") for text in problems
    )
    assert any(
        text.startswith("training[0].label") and "has the content of the item's image" in text
        for text in problems
    )


def test_a_network_that_restores_images_may_have_them_as_labels(
    judge: Judge, data_set: Path, change: Change
) -> None:
    def restoring(conf: Any) -> None:
        conf["train"]["model"]["args"]["out_channels"] = 1
        conf["train"]["loss"] = {"name": "MSELoss", "args": {}}
        metric = {"name": "MeanSquaredError", "log_label": "error", "args": {}}
        conf["train"]["key_metric"] = conf["validate"]["key_metric"] = metric

    for key, file in (("training", "images/case_1.nii.gz"), ("validation", "images/case_2.nii.gz")):
        change(data_set / "dataset.json", **{key: [{"image": file, "label": file}]})

    [notice] = judge(restoring)
    assert "is the item's image itself" in notice


def test_an_image_of_the_training_in_the_validation_is_a_notice(
    judge: Judge, data_set: Path
) -> None:
    shutil.copy(data_set / "images/case_1.nii.gz", data_set / "images/case_3.nii.gz")

    [notice] = judge()
    assert "case_3.nii.gz' is a copy of " in notice
    assert "case_1.nii.gz', training[0]. A score on it says nothing about new images." in notice


def test_the_same_list_for_both_is_a_single_notice(judge: Judge) -> None:
    def same(conf: Any) -> None:
        conf["validate"]["dataset"]["data_list_key"] = "training"

    [notice] = judge(same)
    assert notice.endswith("(dataset.json: training[0] and 1 more)")


# --- Image and network ---------------------------------------------------------------------------


def test_channels_of_a_file_that_do_not_fit_the_network_are_told(
    judge: Judge, data_set: Path, volume: WriteVolume
) -> None:
    volume(data_set / "images/case_2.nii.gz", np.zeros((*SHAPE, 4), np.int16))

    [problem] = judge(ok=False)
    assert problem.startswith("training[1].image: has 4 channels in ")
    assert problem.endswith("; config_train.json: train.model.args.in_channels says 1")


def test_a_batch_of_different_sizes_names_batch_size_and_files(
    judge: Judge, data_set: Path, volume: WriteVolume
) -> None:
    def two_at_once(conf: Any) -> None:
        conf["train"]["dataloader"]["args"]["batch_size"] = 2

    for folder, kind in (("images", np.int16), ("labels", np.uint8)):
        volume(data_set / f"{folder}/case_2.nii.gz", np.resize(np.array([0, 1], kind), (8, 5, 4)))

    assert judge() == []
    [problem] = judge(two_at_once, ok=False)
    assert problem.startswith("train.dataloader.args.batch_size: is 2, and images of a batch")
    assert "6 x 5 x 4 in" in problem
    assert "8 x 5 x 4 in" in problem
    cropped = added("RandSpatialCropd", roi_size=[4, 4, 4], random_size=False)
    assert judge(lambda conf: (two_at_once(conf), cropped(conf))) == []


def test_a_format_names_the_package_that_reads_it(
    judge: Judge, data_set: Path, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmar_runtime.datatools.run_check.find_spec", lambda name: None)
    (data_set / "a.mha").write_bytes(b"ObjectType = Image\n")
    items = [{"image": "a.mha", "label": "labels/case_1.nii.gz"}]
    change(data_set / "dataset.json", training=items)

    [problem] = judge(ok=False)
    assert problem.endswith("a.mha' is read by the package itk, which is not installed")


def test_images_under_other_keys_are_looked_at_too(
    judge: Judge, data_set: Path, change: Change, volume: WriteVolume
) -> None:
    def two_images(conf: Any) -> None:
        for part in (conf["train"], conf["validate"]):
            for spec in part["pre_transforms"][:2]:
                spec["args"]["keys"] = ["t1", "t2", "label"]
            del part["pre_transforms"][2]

    label = "labels/case_1.nii.gz"
    items = [
        {"t1": f"images/case_{one}.nii.gz", "t2": f"images/case_{two}.nii.gz", "label": label}
        for one, two in ((1, 2), (3, 4))
    ]
    change(data_set / "dataset.json", training=items[:1], validation=items[1:])

    assert judge(two_images) == []
    volume(data_set / "images/case_2.nii.gz", np.zeros((6, 5, 3), np.int16))
    [problem] = judge(two_images, ok=False)
    assert problem.startswith("training[0].t2: has another grid than the item's image")


def test_an_item_without_label_is_told(judge: Judge, data_set: Path, change: Change) -> None:
    items = [{"image": "images/case_1.nii.gz"}]
    change(data_set / "dataset.json", training=items)

    assert judge(ok=False) == ["training[0]: has no 'label', and predictions are compared with it"]


def test_an_inference_needs_no_labels(
    data_set: Path, load_evaluation: Callable[..., EvaluationConfig]
) -> None:
    document = section("test", evaluator={"name": "SupervisedEvaluator", "args": {}})
    del document["key_metric"]
    document["model"] = training()["train"]["model"]
    environment = {"DATA_ROOT": str(data_set), "DATASET_JSON": str(data_set / "dataset.json")}

    config = load_evaluation(document, environment)
    assert data_notices(with_data_checked(config, cached=False)) == []
