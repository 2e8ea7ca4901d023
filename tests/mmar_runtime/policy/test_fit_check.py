"""Parts of a workflow that are each right and do not fit, and what may be meant."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.config.sections import EvaluationConfig, TrainConfig
from mmar_runtime.policy.fit_check import fit_check, fit_notices
from mmar_runtime.policy.mmar_check import check_mmar

LoadTrain = Callable[..., TrainConfig]
LoadEvaluation = Callable[..., EvaluationConfig]

BOTH = ["image", "label"]
PAIR = "#monai.handlers.from_engine(['pred', 'label'])"
LOAD = {"name": "LoadImaged", "args": {"keys": BOTH}}
SOFTMAX = {"name": "Activationsd", "args": {"keys": "pred", "softmax": True}}
SIGMOID = {"name": "Activationsd", "args": {"keys": "pred", "sigmoid": True}}
THRESHOLD = {"name": "AsDiscreted", "args": {"keys": "pred", "threshold": 0.5}}
ARGMAX = {"name": "AsDiscreted", "args": {"keys": "pred", "argmax": True}}


def one_hot(classes: int = 2) -> dict[str, Any]:
    args = {"keys": ["pred", "label"], "argmax": [True, False], "to_onehot": classes}
    return {"name": "AsDiscreted", "args": args}


def invert(keys: Any = "pred") -> dict[str, Any]:
    args = {"keys": keys, "transform": "@pre_transforms", "orig_keys": "image"}
    return {"name": "Invertd", "args": args}


def transform(title: str, keys: Any = BOTH, **args: Any) -> dict[str, Any]:
    return {"name": title, "args": {"keys": keys, **args}}


def dice(label: str = "val_mean_dice", **args: Any) -> dict[str, Any]:
    return {"name": "MeanDice", "log_label": label, "args": {"output_transform": PAIR, **args}}


def unet(outputs: int = 2, **args: Any) -> dict[str, Any]:
    return {"name": "UNet", "args": {"in_channels": 1, "out_channels": outputs, **args}}


def section(pre: list[Any], post: list[Any], **more: Any) -> dict[str, Any]:
    return {"pre_transforms": [LOAD, *pre], "post_transforms": post, "key_metric": dice(), **more}


def engine(title: str, *more: str) -> dict[str, Any]:
    """An engine that refers to all that a section has."""
    names = ("key_metric", "post_transforms", "pre_transforms", *more)
    return {"name": title, "args": {name: f"@{name}" for name in names}}


def training(
    pre: list[Any], post: list[Any] | None = None, *, outputs: int = 2, **loss: Any
) -> dict[str, Any]:
    """A training whose validation prepares and scores images as the training does."""
    own = section(pre, [SOFTMAX, one_hot(outputs)] if post is None else post)
    arguments = loss or {"softmax": True}
    train = {
        "loss": {"name": "DiceLoss", "args": arguments},
        "model": unet(outputs),
        "trainer": engine("SupervisedTrainer", "loss", "model"),
    }
    return {
        "train": {**own, **train},
        "validate": {**own, "evaluator": engine("SupervisedEvaluator")},
    }


def evaluation(pre: list[Any], post: list[Any], **more: Any) -> dict[str, Any]:
    model = {"ckpt_path": "models/model.pt"}
    evaluator = engine("SupervisedEvaluator")
    return {**section(pre, post), "model": model, "evaluator": evaluator, **more}


def rules(config: TrainConfig | EvaluationConfig) -> dict[str, list[str]]:
    """Rule of each problem -> the places."""
    found: dict[str, list[str]] = {}
    for problem in fit_check(config):
        found.setdefault(problem.rule, []).append(problem.location.place)
    return found


def noticed(config: TrainConfig | EvaluationConfig) -> list[str]:
    return [notice.rule for notice in fit_notices(config)]


# --- Labels keep their classes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "args"),
    [
        ("Spacingd", {"pixdim": [1, 1, 1]}),
        ("SpacingD", {"pixdim": [1, 1, 1], "mode": "bilinear"}),
        ("Resized", {"spatial_size": [8, 8], "mode": ["area", "area"]}),
        ("RandRotated", {"range_x": 0.1, "mode": ["nearest", "bilinear"]}),
        ("RandZoomd", {}),
        ("RandAffined", {"prob": 1.0}),
        ("Rand3DElasticd", {"sigma_range": [1, 2], "magnitude_range": [1, 2]}),
    ],
)
def test_a_label_meets_no_mode_that_interpolates(
    load_train: LoadTrain, title: str, args: dict[str, Any]
) -> None:
    found = rules(load_train(training([transform(title, **args)])))

    place = "pre_transforms[1].args.mode" if "mode" in args else "pre_transforms[1]"
    assert found == {"label-interpolated": [f"train.{place}", f"validate.{place}"]}


@pytest.mark.parametrize(
    ("title", "args"),
    [
        ("Spacingd", {"pixdim": [1, 1, 1], "mode": ["bilinear", "nearest"]}),
        ("Spacingd", {"pixdim": [1, 1, 1], "mode": [3, 0]}),
        ("Resized", {"spatial_size": [8, 8], "mode": "nearest"}),
        ("RandZoomd", {"mode": ["trilinear", "nearest-exact"]}),
        ("Orientationd", {"axcodes": "RAS"}),
        ("RandFlipd", {"prob": 0.5}),
        ("SpatialPadd", {"spatial_size": [8, 8]}),
    ],
)
def test_a_label_may_go_through_all_else(
    load_train: LoadTrain, title: str, args: dict[str, Any]
) -> None:
    assert rules(load_train(training([transform(title, **args)]))) == {}


def test_what_a_crop_takes_for_a_label_is_one(load_train: LoadTrain) -> None:
    steps = [
        transform("LoadImaged", "seg"),
        transform(
            "Resized", ["image", "label", "seg"], spatial_size=8, mode=["area", "nearest", "area"]
        ),
        transform("RandCropByPosNegLabeld", [*BOTH, "seg"], label_key="seg", spatial_size=4),
    ]

    assert rules(load_train(training(steps))) == {
        "label-interpolated": [
            "train.pre_transforms[2].args.mode",
            "validate.pre_transforms[2].args.mode",
        ]
    }


def test_the_advice_writes_one_mode_for_each_key(load_train: LoadTrain) -> None:
    [problem, _] = fit_check(load_train(training([transform("Spacingd", pixdim=[1, 1, 1])])))

    assert problem.message == (
        "Spacingd interpolates 'label' with mode 'bilinear', its default: "
        "between two classes it makes numbers that are none"
    )
    assert problem.advice == 'Write "mode": ["bilinear", "nearest"], one for each of the keys.'


def test_a_label_that_is_made_classes_again_may_be_interpolated(load_train: LoadTrain) -> None:
    smooth = transform("Resized", spatial_size=[8, 8])
    again = transform("AsDiscreted", "label", threshold=0.5)

    assert rules(load_train(training([smooth, again]))) == {}


def test_a_label_without_classes_may_be_interpolated(load_train: LoadTrain) -> None:
    document = training([transform("Resized", spatial_size=[8, 8])], [])
    document["train"]["loss"] = {"name": "MSELoss"}
    for part in document.values():
        part["key_metric"] = {**dice(), "name": "MeanSquaredError"}

    assert rules(load_train(document)) == {}


def test_no_noise_on_a_label(load_train: LoadTrain) -> None:
    noise = [transform("RandGaussianNoised"), transform("NormalizeIntensityd", "image")]

    assert rules(load_train(training(noise))) == {
        "label-values": ["train.pre_transforms[1]", "validate.pre_transforms[1]"]
    }


# --- One grid ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        transform("Spacingd", "image", pixdim=[1, 1, 1]),
        transform("RandFlipd", "image", prob=0.5),
        transform("CropForegroundd", "image", source_key="image"),
        transform("Orientationd", "label", axcodes="RAS"),
    ],
)
def test_the_loss_compares_one_grid(load_train: LoadTrain, step: dict[str, Any]) -> None:
    found = rules(load_train(training([step])))

    assert found["grids"][0] == "train.loss"
    assert "validate.key_metric.args.output_transform" in found["grids"]


def test_equal_steps_of_two_transforms_make_one_grid(load_train: LoadTrain) -> None:
    steps = [
        transform("Spacingd", "image", pixdim=[1, 1, 2], mode="bilinear"),
        transform("Spacingd", "label", pixdim=[1.0, 1.0, 2.0], mode="nearest"),
    ]
    random = [transform("RandFlipd", key, prob=0.5) for key in BOTH]

    assert rules(load_train(training(steps))) == {}
    assert "grids" in rules(load_train(training(random)))


def test_padding_may_leave_a_volume_alone(load_train: LoadTrain) -> None:
    config = load_train(training([transform("SpatialPadd", "image", spatial_size=[8, 8, 8])]))

    assert rules(config) == {}
    assert noticed(config) == ["grids"] * 3


def test_own_code_may_do_anything_to_a_grid(load_train: LoadTrain) -> None:
    own = {"path": "own.Cropped", "args": {"keys": "label"}}
    step = transform("Spacingd", "image", pixdim=[1, 1, 1])

    assert rules(load_train(training([step, own]))) == {}


def test_an_inverted_prediction_meets_an_inverted_label(load_evaluation: LoadEvaluation) -> None:
    near = transform("Spacingd", pixdim=[1, 1, 1], mode=["bilinear", "nearest"])
    alone = transform("Spacingd", "image", pixdim=[1, 1, 1])
    post = [SOFTMAX, invert(), one_hot()]

    [problem] = fit_check(load_evaluation(evaluation([near], post)))
    assert str(problem.location) == ("config_validation.json: key_metric.args.output_transform")
    assert problem.message == (
        "MeanDice compares 'pred' with 'label' on different grids: 'label' went through Spacingd "
        "(pre_transforms[1]); 'pred' has the grid of the file, as Invertd or no step made it"
    )
    for pre, good in (
        ([alone], post),
        ([near], [SOFTMAX, one_hot()]),
        ([near], [SOFTMAX, invert(["pred", "label"]), one_hot()]),
    ):
        assert rules(load_evaluation(evaluation(pre, good))) == {}


def test_a_copy_of_the_prediction_keeps_its_grid(load_evaluation: LoadEvaluation) -> None:
    near = transform("Spacingd", pixdim=[1, 1, 1], mode=["bilinear", "nearest"])
    copy = {"name": "CopyItemsd", "args": {"keys": "pred", "names": "scan"}}
    post = [SOFTMAX, copy, invert("scan"), one_hot()]

    assert rules(load_evaluation(evaluation([near], post))) == {}


def test_what_a_crop_cuts_off_a_label_is_told(load_train: LoadTrain) -> None:
    config = load_train(training([transform("CropForegroundd", source_key="image")]))

    assert rules(config) == {}
    assert "pre_transforms[1]" in str(list(fit_notices(config))[-1])
    assert noticed(config) == ["label-cut"] * 2


def test_an_image_that_was_cut_is_not_stretched_to_the_file_without_a_word(
    load_evaluation: LoadEvaluation,
) -> None:
    crop = transform("CropForegroundd", "image", source_key="image")
    save = transform("SaveImaged", "pred", output_dir="eval", resample=True)
    kept = transform("SaveImaged", "pred", output_dir="eval", resample=False)

    def told(*post: dict[str, Any]) -> list[str]:
        return noticed(load_evaluation(evaluation([crop], [SOFTMAX, one_hot(), *post])))

    assert told(save) == ["saved-cut"]
    assert told(kept) == told(invert(), save) == []


def test_a_network_of_several_outputs_needs_a_loss_of_several(load_train: LoadTrain) -> None:
    document = training([])
    deep = {"name": "DynUNet", "args": {"deep_supervision": True}}
    inner = document["train"]["loss"]
    of_several = {"name": "DeepSupervisionLoss", "args": {"loss": "@inner"}}

    def problems(**more: Any) -> dict[str, list[str]]:
        return rules(load_train({**document, "train": {**document["train"], **more}}))

    assert list(problems(model=deep)) == ["outputs"]
    assert problems(model=deep, loss=of_several, inner=inner) == {}
    assert problems(model={"name": "DynUNet", "args": {"deep_supervision": False}}) == {}


# --- Classes and activations ---------------------------------------------------------------------


def test_more_than_two_classes_need_one_hot(
    load_train: LoadTrain, load_evaluation: LoadEvaluation
) -> None:
    post = [SOFTMAX, ARGMAX]

    assert rules(load_train(training([], post, outputs=3))) == {
        "class-numbers": ["train.post_transforms[1]", "validate.post_transforms[1]"]
    }
    assert rules(load_train(training([], post, outputs=2))) == {}
    assert rules(load_train(training([], [SOFTMAX, one_hot(3)], outputs=3))) == {}
    counted = training([], post, outputs=3)
    for part in counted.values():
        part["key_metric"] = dice(num_classes=3)  # MeanDice takes numbers of classes by that
    assert rules(load_train(counted)) == {}


def test_a_file_of_weights_has_the_outputs_of_the_training(
    load_train: LoadTrain, load_evaluation: LoadEvaluation
) -> None:
    document = evaluation([], [SOFTMAX, ARGMAX])
    assert noticed(load_evaluation(document)) == ["class-numbers"]

    load_train(training([], outputs=3))
    assert rules(load_evaluation(document)) == {"class-numbers": ["post_transforms[1]"]}

    load_train(training([], outputs=2))
    assert rules(load_evaluation(document)) == {}


@pytest.mark.parametrize(
    ("post", "outputs", "loss", "place"),
    [
        ([SIGMOID, SIGMOID, THRESHOLD], 1, "sigmoid", "post_transforms[1]"),
        ([SOFTMAX, THRESHOLD], 1, "sigmoid", "post_transforms[0]"),
        ([SIGMOID, ARGMAX], 1, "sigmoid", "post_transforms[1]"),
        ([SIGMOID, THRESHOLD], 2, "softmax", "post_transforms[0]"),
        ([SOFTMAX, THRESHOLD], 3, "sigmoid", "post_transforms[0]"),
        ([SOFTMAX, one_hot(2)], 3, "softmax", "post_transforms[1].args.to_onehot"),
    ],
)
def test_activations_fit_outputs_loss_and_each_other(
    load_train: LoadTrain, post: list[Any], outputs: int, loss: str, place: str
) -> None:
    places = [
        each for found in rules(load_train(_of(post, outputs, loss))).values() for each in found
    ]

    assert places == [f"train.{place}", f"validate.{place}"]


@pytest.mark.parametrize(
    ("post", "outputs", "loss"),
    [
        ([SIGMOID, THRESHOLD], 1, "sigmoid"),
        ([SIGMOID, THRESHOLD], 3, "sigmoid"),
        ([SOFTMAX, one_hot(3)], 3, "softmax"),
        ([SOFTMAX, ARGMAX], 2, "softmax"),
    ],
)
def test_activations_that_fit(
    load_train: LoadTrain, post: list[Any], outputs: int, loss: str
) -> None:
    config = load_train(_of(post, outputs, loss))

    assert rules(config) == {}
    assert noticed(config) == []


def _of(post: list[Any], outputs: int, loss: str) -> dict[str, Any]:
    return training([], post, outputs=outputs, **{loss: True})


def test_a_softmax_of_one_output_learns_nothing(load_train: LoadTrain) -> None:
    document = training([], [SIGMOID, THRESHOLD], outputs=1)

    assert rules(load_train(document)) == {"activation": ["train.loss"]}


def test_what_may_be_meant_is_told(load_train: LoadTrain) -> None:
    sigmoid_loss = load_train(_of([SOFTMAX, one_hot(3)], 3, "sigmoid"))
    no_activation = load_train(_of([THRESHOLD], 1, "sigmoid"))
    document = _of([SIGMOID, THRESHOLD], 1, "sigmoid")
    document["validate"]["key_metric"] = dice(include_background=False)

    for config, rule in (
        (sigmoid_loss, "activation"),
        (no_activation, "activation"),
        (load_train(document), "background"),
    ):
        assert rules(config) == {}
        assert set(noticed(config)) == {rule}


@pytest.mark.parametrize(("outputs", "certain"), [(3, True), (2, False)])
def test_an_inversion_meets_no_classes(load_train: LoadTrain, outputs: int, certain: bool) -> None:
    near = transform("Spacingd", pixdim=[1, 1, 1], mode=["bilinear", "nearest"])
    smooth = invert(["pred", "label"])
    smooth["args"]["nearest_interp"] = False
    rule = {"classes-interpolated"}

    after = load_train(training([near], [SOFTMAX, ARGMAX, smooth], outputs=outputs))
    assert rule & {*(rules(after) if certain else noticed(after))}
    before = load_train(training([near], [SOFTMAX, smooth, one_hot(outputs)], outputs=outputs))
    assert not rule & {*rules(before), *noticed(before)}


def test_an_evaluation_that_leaves_nothing_is_told(load_evaluation: LoadEvaluation) -> None:
    nothing = evaluation([], [SOFTMAX])
    del nothing["key_metric"], nothing["evaluator"]["args"]["key_metric"]

    assert noticed(load_evaluation(nothing)) == ["no-result"]
    nothing["post_transforms"].append(transform("SaveImaged", "pred"))
    assert noticed(load_evaluation(nothing)) == []


# --- Beside the training -------------------------------------------------------------------------


RANGE = {"a_min": -57, "a_max": 164, "b_min": 0.0, "b_max": 1.0}


def test_images_that_are_prepared_otherwise(
    load_train: LoadTrain, load_evaluation: LoadEvaluation
) -> None:
    load_train(training([transform("ScaleIntensityRanged", "image", **RANGE)]))
    post = [SOFTMAX, one_hot()]

    other = transform("ScaleIntensityRanged", "image", **{**RANGE, "a_max": 1000})
    [notice] = fit_notices(load_evaluation(evaluation([other], post)))
    assert str(notice) == (
        "images are prepared otherwise than in training (config_train.json: "
        "validate.pre_transforms[1]): ScaleIntensityRanged with a_max 1000 in place of 164. Write "
        "equal transforms, unless that is meant. (config_validation.json: pre_transforms[1])"
    )
    [notice] = fit_notices(load_evaluation(evaluation([], post)))
    assert "ScaleIntensityRanged only there" in notice.message
    same = transform("ScaleIntensityRanged", ["image"], **{**RANGE, "a_min": -57.0})
    assert noticed(load_evaluation(evaluation([same], post))) == []


def test_one_name_for_two_measures(load_train: LoadTrain, load_evaluation: LoadEvaluation) -> None:
    crop = transform("CropForegroundd", source_key="image")
    load_train(training([crop]))
    crop_alone = transform("CropForegroundd", "image", source_key="image")

    [notice] = fit_notices(
        load_evaluation(evaluation([crop_alone], [SOFTMAX, invert(), one_hot()]))
    )
    assert notice.message.startswith(
        "val_mean_dice: measured on another grid than in training (config_train.json: "
        "validate.key_metric): CropForegroundd there only"
    )
    other = evaluation([crop], [SOFTMAX, one_hot()], key_metric=dice(include_background=False))
    assert noticed(load_evaluation(other)) == ["label-cut", "measure"]


def test_networks_are_one_network(load_train: LoadTrain, load_evaluation: LoadEvaluation) -> None:
    load_train(training([]))
    post = [SOFTMAX, one_hot()]

    [problem] = fit_check(load_evaluation(evaluation([], post, model=unet(2, in_channels=4))))
    assert str(problem) == (
        "config_validation.json: model: another network than in training (config_train.json: "
        "train.model): in_channels 4 in place of 1\n    Copy 'model' of the train section here."
    )
    assert rules(load_evaluation(evaluation([], post, model=unet(2)))) == {}


def test_another_network_with_weights_of_its_own_may_be_meant(
    load_train: LoadTrain, load_evaluation: LoadEvaluation
) -> None:
    load_train(training([]))
    model = unet(2, in_channels=4)

    def loader(path: str) -> list[dict[str, Any]]:
        return [{"name": "CheckpointLoader", "args": {"load_path": path}}]

    def loaded(path: str) -> EvaluationConfig:
        document = evaluation([], [SOFTMAX, one_hot()], model=model, handlers=loader(path))
        document["evaluator"] = engine("SupervisedEvaluator", "model", "handlers")
        return load_evaluation(document)

    assert rules(loaded("{MMAR_CKPT}")) == {"network": ["model"]}
    assert rules(loaded("/elsewhere/other.pt")) == {}
    assert noticed(loaded("/elsewhere/other.pt")) == ["network"]


# --- The check itself ----------------------------------------------------------------------------


def test_a_long_document_is_checked_in_time(load_train: LoadTrain) -> None:
    steps = [transform("RandFlipd", BOTH, prob=0.5), transform("RandZoomd", BOTH)] * 400
    config = load_train(training(steps))

    started = time.process_time()
    assert len(list(fit_check(config))) == 100
    assert time.process_time() - started < 2.0


REPOSITORY = Path(__file__).resolve().parents[3]
OWN_MMARS = [
    REPOSITORY / "jobs/spleen_ct_segmentation/app",
    *sorted(path.parent for path in (REPOSITORY / "tests/mmars").glob("*/config")),
]
RULES = {"activation", "class-numbers", "classes", "grids", "label-interpolated", "label-values"}


@pytest.mark.parametrize("mmar", OWN_MMARS, ids=lambda path: path.name)
def test_the_repository_s_own_mmars_fit(mmar: Path) -> None:
    assert not {*RULES, "network"} & {problem.rule for problem in check_mmar(mmar).problems}
