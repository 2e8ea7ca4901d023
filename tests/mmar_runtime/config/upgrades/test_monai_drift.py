"""What MONAI has changed since Clara Train: each rule as before and after."""

from __future__ import annotations

from typing import Any

import pytest

from mmar_runtime.config.upgrades import Notice, upgrade_document
from mmar_runtime.config.upgrades.argument_changes import CHANGES
from mmar_runtime.config.upgrades.monai_drift import RULES
from mmar_runtime.policy.component_table import check_arguments, load_component_table


def upgraded(raw: Any) -> tuple[Any, tuple[Notice, ...]]:
    """One entry of a train section, whatever its kind."""
    upgrade = upgrade_document({"train": {"part": raw}}, "config_train.json")
    return upgrade.document["train"]["part"], upgrade.notices


def spec(name: str, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args}


def deepgrow(name: str, **args: Any) -> dict[str, Any]:
    return {"path": f"monai.apps.deepgrow.transforms.{name}", "args": args}


EXAMPLES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("to-tensor", spec("ToTensord", keys="image"), spec("EnsureTyped", keys="image")),
    ("to-tensor", spec("ToTensorD", keys="image"), spec("EnsureTyped", keys="image")),
    ("to-tensor", spec("ToTensorDict", keys="image"), spec("EnsureTyped", keys="image")),
    ("to-tensor", {"name": "ToTensord#tt"}, {"name": "EnsureTyped#tt"}),
    (
        "image-meta",
        spec("LoadImaged", keys="image"),
        spec("LoadImaged", keys="image", image_only=False),
    ),
    ("image-meta", {"name": "LoadImageD"}, spec("LoadImageD", image_only=False)),
    (
        "dicom-reader",
        spec("LoadImaged", keys="image", reader="PydicomReader", image_only=True),
        spec("LoadImaged", keys="image", reader="ITKReader", image_only=True),
    ),
    (
        "add-channel",
        spec("AddChanneld", keys="pred"),
        spec("EnsureChannelFirstd", keys="pred", channel_dim="no_channel"),
    ),
    (
        "channel-last",
        spec("AsChannelFirstd", keys="image"),
        spec("EnsureChannelFirstd", keys="image", channel_dim=-1),
    ),
    (
        "channel-last",
        spec("AsChannelFirstD", keys="image", channel_dim=2),
        spec("EnsureChannelFirstd", keys="image", channel_dim=2),
    ),
    (
        "threshold",
        spec("AsDiscreted", keys="pred", threshold_values=True),
        spec("AsDiscreted", keys="pred", threshold=0.5),
    ),
    (
        "threshold",
        spec("AsDiscreted", keys="pred", threshold_values=True, logit_thresh=0.3),
        spec("AsDiscreted", keys="pred", threshold=0.3),
    ),
    (
        "threshold",
        spec("AsDiscreted", keys="pred", threshold_values=True, logit_thresh="{level}"),
        spec("AsDiscreted", keys="pred", threshold="{level}"),
    ),
    (
        "threshold",
        spec("AsDiscreted", keys="pred", threshold_values=False, logit_thresh=0.3),
        spec("AsDiscreted", keys="pred"),
    ),
    (
        "threshold",
        spec("AsDiscreted", keys="pred", threshold_values=False, threshold=0.3),
        spec("AsDiscreted", keys="pred", threshold=0.3),
    ),
    (
        "threshold",
        spec("AsDiscreted", keys=["pred", "label"], threshold_values=[True, False]),
        spec("AsDiscreted", keys=["pred", "label"], threshold=[0.5, None]),
    ),
    (
        "threshold",
        spec("AsDiscreted", keys=["a", "b"], threshold_values=True, logit_thresh=[0.3, 0.7]),
        spec("AsDiscreted", keys=["a", "b"], threshold=[0.3, 0.7]),
    ),
    (
        "one-hot",
        spec("AsDiscreted", keys="pred", to_onehot=True, n_classes=3),
        spec("AsDiscreted", keys="pred", to_onehot=3),
    ),
    (
        "one-hot",
        spec("AsDiscreted", keys="pred", to_onehot=True, n_classes="{OUTPUT_CHANNELS}"),
        spec("AsDiscreted", keys="pred", to_onehot="{OUTPUT_CHANNELS}"),
    ),
    (
        "one-hot",
        spec("AsDiscreted", keys="pred", to_onehot=3, n_classes=3),
        spec("AsDiscreted", keys="pred", to_onehot=3),
    ),
    (
        "one-hot",
        spec("AsDiscreted", keys="pred", argmax=True, n_classes=3),
        spec("AsDiscreted", keys="pred", argmax=True),
    ),
    (
        "one-hot",
        spec("AsDiscreted", keys="pred", to_onehot=False),
        spec("AsDiscreted", keys="pred"),
    ),
    (
        "one-hot",
        spec("AsDiscreted", keys=["a", "b"], to_onehot=[True, False], n_classes=[3, 3]),
        spec("AsDiscreted", keys=["a", "b"], to_onehot=[3, None]),
    ),
    (
        "one-hot",
        spec("AsDiscreted", keys=["a", "b"], to_onehot=True, num_classes=[2, 3]),
        spec("AsDiscreted", keys=["a", "b"], to_onehot=[2, 3]),
    ),
    (
        "spatial-dims",
        spec("UNet", dimensions=3, in_channels=1),
        spec("UNet", spatial_dims=3, in_channels=1),
    ),
    (
        "spatial-dims",
        spec("BasicUnet", dimensions="{dims}"),
        spec("BasicUnet", spatial_dims="{dims}"),
    ),
    (
        "spatial-dims",
        deepgrow("AddGuidanceFromPointsd", dimensions=3),
        deepgrow("AddGuidanceFromPointsd", spatial_dims=3),
    ),
    (
        "split-channel",
        spec("SplitChanneld", keys="image", channel_dim=1),
        spec("SplitDimd", keys="image", dim=1),
    ),
    ("split-channel", spec("SplitChannelD", keys="image"), spec("SplitDimd", keys="image")),
    (
        "intervals",
        spec("TensorBoardStatsHandler", log_dir="e", iteration_interval=5),
        spec("TensorBoardStatsHandler", log_dir="e", iteration_log=5),
    ),
    (
        "intervals",
        spec("TensorBoardStatsHandler", log_dir="e", epoch_log=False, epoch_interval=2),
        spec("TensorBoardStatsHandler", log_dir="e", epoch_log=False),
    ),
    *(
        ("renamed", spec(name, **{old: value}), spec(name, **{new: value}))
        for name, old, new, value in (
            ("AutoencoderKL", "num_channels", "channels", [4, 8]),
            ("AutoencoderKL", "use_checkpointing", "use_checkpoint", True),
            ("DiceCELoss", "ce_weight", "weight", [0.1, 0.9]),
            ("AddCoordinateChannelsD", "spatial_channels", "spatial_dims", [0, 1]),
            ("UNETR", "pos_embed", "proj_type", "conv"),
            ("ViT", "pos_embed", "proj_type", "conv"),
            ("ViTAutoEnc", "pos_embed", "proj_type", "conv"),
            ("ResNet", "n_classes", "num_classes", 3),
            ("NetAdapter", "n_classes", "num_classes", 3),
            ("TorchVisionFCModel", "n_classes", "num_classes", 3),
            ("LocalNormalizedCrossCorrelationLoss", "ndim", "spatial_dims", 2),
            ("GanTrainer", "post_transform", "postprocessing", "@post_transforms"),
        )
    ),
    *(
        ("dropped", spec(name, **{argument: value}), spec(name))
        for name, argument, value in (
            ("SwinUNETR", "img_size", [96, 96, 96]),
            ("MeanDice", "device", "cuda"),
            ("Spacingd", "meta_keys", ["image_meta_dict", "label_meta_dict"]),
            ("SpatialResampleD", "meta_key_postfix", "meta_dict"),
            ("RandCropByPosNegLabeld", "meta_keys", "image_meta_dict"),
            ("RandAffineDict", "as_tensor_output", False),
            ("SaveImaged", "save_batch", True),
        )
    ),
    (
        "metric-class",
        {"name": "MeanIoU", "log_label": "iou", "args": {"include_background": False}},
        {"name": "MeanIoUHandler", "log_label": "iou", "args": {"include_background": False}},
    ),
    ("old-name", spec("unet", spatial_dims=3), spec("UNet", spatial_dims=3)),
    ("old-name", spec("se_resnet50", spatial_dims=2), spec("SEResNet50", spatial_dims=2)),
    (
        "loader",
        spec("LoadNiftiD", keys="image", image_only=True),
        spec("LoadImaged", keys="image", image_only=True, reader="NibabelReader"),
    ),
    (
        "progress",
        spec("densenet121", pretrained=False, progress=True),
        spec("densenet121", pretrained=False),
    ),
    (
        "dropout",
        spec("VNet", dropout_prob=0.3),
        spec("VNet", dropout_prob_down=0.3, dropout_prob_up=[0.3, 0.5]),
    ),
    (
        "table",
        spec("CSVDataset", src="cases.csv", transform="@pre_transforms"),
        {
            **spec("Dataset", transform="@pre_transforms"),
            "data_list_file_path": "{DATA_ROOT}/cases.csv",
            "data_file_base_dir": "{DATA_ROOT}",
            "data_list_key": "all",
        },
    ),
    (
        "early-stop",
        spec("EarlyStopHandler", patience=2, trainer="@trainer"),
        spec("EarlyStopHandler", patience=2),
    ),
    (
        "default",
        spec("OrientationD", keys="image", axcodes="RAS"),
        spec("OrientationD", keys="image", axcodes="RAS", labels=None),
    ),
    (
        "resnet",
        spec("resnet18", pretrained=False, spatial_dims=3, n_input_channels=1, num_classes=2),
        spec(
            "ResNet",
            **{"block": "basic", "layers": [2, 2, 2, 2], "block_inplanes": [64, 128, 256, 512]},
            **{"spatial_dims": 3, "n_input_channels": 1, "num_classes": 2},
        ),
    ),
    (
        "fully-convolutional",
        spec("TorchVisionFullyConvModel", model_name="resnet18", n_classes=2),
        spec(
            "TorchVisionFCModel",
            use_conv=True,
            pool=["avg", {"kernel_size": 7, "stride": 1}],
            model_name="resnet18",
            num_classes=2,
        ),
    ),
    (
        "fully-convolutional",
        spec("TorchVisionFullyConvModel", pool_size=[5, 5], pool_stride=2),
        spec(
            "TorchVisionFCModel",
            use_conv=True,
            pool=["avg", {"kernel_size": [5, 5], "stride": 2}],
        ),
    ),
    (
        "batched",
        deepgrow("AddGuidanceSignald", image="image", batched=True),
        deepgrow("AddGuidanceSignald", image="image"),
    ),
    (
        "best-name",
        spec("CheckpointSaver", save_dir="m", save_key_metric=True),
        spec("CheckpointSaver", save_dir="m", save_key_metric=True, key_metric_filename="model.pt"),
    ),
    (
        "best-name",
        spec("CheckpointSaver", save_key_metric="{save_best}"),
        spec("CheckpointSaver", save_key_metric="{save_best}", key_metric_filename="model.pt"),
    ),
    (
        "final-name",
        spec("CheckpointSaver", save_dir="m", save_final=True),
        spec("CheckpointSaver", save_dir="m", save_final=True, final_filename="final_model.pt"),
    ),
]

MESSAGES = {
    "to-tensor": "ToTensord runs as EnsureTyped: ToTensord would drop what Invertd needs",
    "image-meta": "LoadImaged runs with image_only=false, so that *_meta_dict stays in the batch",
    "dicom-reader": "PydicomReader runs as ITKReader, which places slices and frames by their "
    "positions",
    "add-channel": "AddChanneld is gone from MONAI; runs as "
    "EnsureChannelFirstd(channel_dim='no_channel')",
    "channel-last": "AsChannelFirstd is gone from MONAI; runs as EnsureChannelFirstd",
    "threshold": "AsDiscreted's threshold_values and logit_thresh run as threshold; "
    "MONAI ignores them",
    "one-hot": "AsDiscreted's n_classes runs as to_onehot",
    "spatial-dims": "the argument 'dimensions' is now 'spatial_dims'",
    "split-channel": "SplitChanneld is gone from MONAI; runs as SplitDimd",
    "resnet": "MONAI's function for a residual network runs as the class ResNet, with its layers",
    "default": "Orientationd's labels is kept as null; its default changes",
    "metric-class": "a metric of monai.metrics runs as the class of monai.handlers that an engine "
    "takes",
    "old-name": "a name that MONAI had for a network in 2021 runs as its class",
    "loader": "LoadNiftid and LoadPNGd run as LoadImaged with their reader",
    "progress": "'progress' of a network is dropped: it shows a download, and nothing is "
    "downloaded",
    "dropout": "VNet's dropout_prob runs as dropout_prob_down and dropout_prob_up",
    "table": "CSVDataset runs as Dataset over that data list, in which paths are below DATA_ROOT",
    "early-stop": "an EarlyStopHandler gets the trainer when it is built",
    "intervals": "TensorBoardStatsHandler's intervals run as iteration_log and epoch_log",
    "fully-convolutional": "TorchVisionFullyConvModel is now TorchVisionFCModel with use_conv=true",
    "batched": "deepgrow's argument 'batched' is gone: MONAI takes batches apart before transforms",
    "best-name": "CheckpointSaver writes the best model as model.pt, as Clara did",
    "final-name": "CheckpointSaver writes the last model as final_model.pt, as Clara did",
}


@pytest.mark.parametrize(("rule", "before", "after"), EXAMPLES)
def test_an_old_construct_runs_as_its_successor(rule: str, before: Any, after: Any) -> None:
    found, [notice] = upgraded(before)

    assert found == after
    assert notice.rule == rule
    assert str(notice.message) == MESSAGES.get(rule) or rule in ("renamed", "dropped")
    assert str(notice.places[0]).startswith("config_train.json: train.part")


def test_a_notice_names_the_argument_that_it_is_about() -> None:
    _, [renamed, dropped] = upgraded(
        [spec("UNETR", pos_embed="conv"), spec("SwinUNETR", img_size=96)]
    )

    assert str(renamed.places[0]) == "config_train.json: train.part[0].args.pos_embed"
    assert str(renamed.message) == "MONAI has renamed pos_embed to proj_type"
    assert str(dropped.places[0]) == "config_train.json: train.part[1].args.img_size"
    assert "dropped the argument img_size; it has no effect" in dropped.message


def test_a_document_of_claras_keeps_the_defaults_of_its_time() -> None:
    crop = spec("RandSpatialCropd", keys="image", roi_size=[8, 8, 8])
    train = {"train": {"pre_transforms": [crop]}}

    clara = upgrade_document({"CLARA_TRAIN_VERSION": "4.1.0", **train}, "config_train.json")
    today = upgrade_document(train, "config_train.json")

    assert clara.document["train"]["pre_transforms"][0]["args"]["random_size"] is True
    assert "random_size=true, the default in Clara's time" in str(clara.notices[0])
    assert today.document["train"]["pre_transforms"] == [crop]
    assert upgrade_document(clara.document, "config_train.json").notices == ()


def old_evaluation(**entries: Any) -> dict[str, Any]:
    """An evaluation that connects nothing, which only Clara 4.0 ran."""
    return {"dataloader": spec("DataLoader"), "evaluator": spec("SupervisedEvaluator"), **entries}


def test_a_document_of_clara_4_0_keeps_the_defaults_of_its_older_monai() -> None:
    network = spec("DynUNet", spatial_dims=3)

    old = upgrade_document(old_evaluation(model=network), "config_validation.json")
    newer = upgrade_document(
        {"CLARA_TRAIN_VERSION": "4.1.0", "model": network}, "config_validation.json"
    )

    assert old.document["model"]["args"]["norm_name"] == "instance"  # without weights of its own
    assert newer.document["model"] == network
    assert upgrade_document(old.document, "config_validation.json").notices == ()


@pytest.mark.parametrize(
    ("loader", "others", "rows_first"),
    [
        (spec("LoadImaged", keys="image"), [], True),
        (spec("LoadImaged", keys=["image"], reader="PILReader"), [], True),
        (spec("LoadImaged", keys="image", reader="NibabelReader"), [], False),
        (spec("LoadImaged", keys=["image", "label"]), [], False),  # a mask beside it
        (spec("LoadImaged", keys="image"), [spec("SegmentationSaver")], False),
    ],
)
def test_a_picture_that_is_classified_is_read_rows_first(
    loader: Any, others: list[Any], rows_first: bool
) -> None:
    raw = old_evaluation(pre_transforms=[loader], handlers=others)

    found = upgrade_document(raw, "config_validation.json").document

    arguments = found["pre_transforms"][0]["args"]
    assert arguments.get("reverse_indexing") is (False if rows_first else None)


def test_each_change_is_one_of_a_class_that_is_there_today() -> None:
    table = load_component_table()
    entries = {entry.name: entry for entry in table.components.values()}
    for pair, classes in CHANGES["renamed"].items():
        old, new = pair.split()
        for name in classes:
            assert new in entries[name].accepted, name
            assert old not in entries[name].accepted, name
    for argument, classes in CHANGES["dropped"].items():
        assert all(argument not in entries[name].accepted for name in classes), argument
    stated = [place.split() for place in (*CHANGES["clara"], *CHANGES["clara 4.0"])]
    stated += [(name, argument) for name, values in CHANGES["today"].items() for argument in values]
    assert all(argument in entries[name].accepted for name, argument in stated)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(after, id=f"{rule}-{after['name']}")
        for rule, _, after in EXAMPLES
        if "name" in after
    ],
)
def test_what_a_rule_writes_is_known_today(after: dict[str, Any]) -> None:
    table, name = load_component_table(), after["name"].partition("#")[0]

    [entry] = [found for kind in table.kinds if (found := table.lookup(kind, name)) is not None]
    faults = check_arguments(entry, after.get("args", {}))

    assert [fault for fault in faults if fault.kind == "unknown"] == []


def test_every_rule_has_an_example() -> None:
    # The example of accumulation is a section; see below.
    assert {rule for rule, _, _ in EXAMPLES} == {rule.name for rule in RULES} - {"accumulation"}
    several = ("renamed", "dropped", "accumulation")
    single = {rule.name: rule.message for rule in RULES if rule.name not in several}
    assert single == MESSAGES


@pytest.mark.parametrize(
    "raw",
    [
        spec("EnsureTyped", keys="image"),
        spec("LoadImaged", keys="image", image_only=True),
        spec("LoadImage", reader="NibabelReader"),
        spec("EnsureChannelFirstd", keys="image"),
        spec("AsDiscreted", keys="pred", argmax=True, to_onehot=2, threshold=0.5),
        {"name": "AsDiscreted"},
        spec("UNet", spatial_dims=3),
        spec("DenseNet121", progress="yes"),  # for the check to refuse
        spec("CheckpointSaver", save_key_metric=False, save_final=False),
        spec("CheckpointSaver", save_key_metric=None),
        spec("CheckpointSaver", save_key_metric=True, key_metric_filename="best.pt"),
        spec("CheckpointSaver", save_key_metric=True, key_metric_n_saved=3),
        spec("CheckpointSaver", save_key_metric=True, save_final=True, file_prefix="fold_1"),
        spec("CheckpointSaver", save_final=True, final_filename="last.pt"),
        {"name": "LoadImaged", "args": None},
        {"ref": "ToTensord"},
        "@ToTensord",
    ],
)
def test_what_fits_todays_monai_stays_as_it_is(raw: Any) -> None:
    assert upgraded(raw) == (raw, ())


@pytest.mark.parametrize("old", [before for _, before, _ in EXAMPLES if "name" in before])
def test_a_class_of_the_mmars_own_is_left_alone(old: dict[str, Any]) -> None:
    for raw in (
        {"path": f"own.{old['name']}", "args": old.get("args", {})},
        {**old, "path": "own.Thing"},
    ):
        assert upgraded(raw) == (raw, ())


def test_deepgrow_of_the_mmars_own_is_left_alone() -> None:
    raw = {"path": "own.deepgrow.AddGuidanceSignald", "args": {"batched": True, "dimensions": 3}}

    assert upgraded(raw) == (raw, ())


@pytest.mark.parametrize(
    "args",
    [
        {"to_onehot": True},
        {"to_onehot": [True, False]},
        {"to_onehot": True, "n_classes": None},
        {"to_onehot": True, "n_classes": []},
        {"to_onehot": True, "n_classes": "@conf"},
        {"to_onehot": [], "n_classes": 2},
        {"to_onehot": True, "n_classes": 2, "num_classes": 3},
        {"to_onehot": [True, False], "n_classes": [2, 3, 4]},
        {"threshold_values": "{flag}"},
        {"threshold_values": [], "logit_thresh": 0.5},
        {"threshold_values": True, "logit_thresh": None},
        {"threshold_values": [True, False], "logit_thresh": [0.1, 0.2, 0.3]},
        {"threshold_values": True, "threshold": 0.5},
    ],
)
def test_what_cannot_be_told_for_sure_is_left_to_the_check_of_arguments(args: Any) -> None:
    raw = spec("AsDiscreted", keys="pred", **args)

    assert upgraded(raw) == (raw, ())


def test_both_spellings_at_once_are_left_to_the_check_of_arguments() -> None:
    raw = spec("UNet", dimensions=3, spatial_dims=3)

    assert upgraded(raw) == (raw, ())


def test_components_inside_others_are_translated_too() -> None:
    raw = spec("Compose", transforms=[spec("OneOf", transforms=[spec("AddChanneld", keys="a")])])

    found, [notice] = upgraded(raw)

    inner = spec("EnsureChannelFirstd", keys="a", channel_dim="no_channel")
    assert found == spec("Compose", transforms=[spec("OneOf", transforms=[inner])])
    assert notice.places[0].place == "train.part.args.transforms[0].args.transforms[0]"


def test_a_notice_tells_how_often() -> None:
    _, [notice] = upgraded([spec("ToTensord", keys="a"), spec("ToTensord", keys="b")])

    assert str(notice) == (
        "ToTensord runs as EnsureTyped: ToTensord would drop what Invertd needs "
        "(config_train.json: train.part[0] and 1 more)"
    )


def test_notices_come_in_the_order_of_the_rules() -> None:
    _, notices = upgraded([before for _, before, _ in reversed(EXAMPLES)])

    names = list(dict.fromkeys(notice.rule for notice in notices))
    rules = list(dict.fromkeys(rule.name for rule in RULES))
    assert names == [name for name in rules if name != "accumulation"]


def test_gradients_are_accumulated_by_the_trainer() -> None:
    train = {
        "iteration": spec("GradientAccumulation", accumulation_steps=2),
        "trainer": spec("SupervisedTrainer", max_epochs=1, iteration_update="@iteration"),
    }

    upgrade = upgrade_document({"train": train}, "config_train.json")

    trainer = spec("SupervisedTrainer", max_epochs=1, accumulation_steps=2)
    assert upgrade.document["train"] == {"trainer": trainer}
    assert [notice.rule for notice in upgrade.notices] == ["accumulation"]


@pytest.mark.parametrize(
    "changed",
    [
        {"iteration": spec("GradientAccumulation", accumulation_steps=2, grad_clip=1.0)},
        {"iteration": spec("GradientAccumulation")},
        {"trainer": {"path": "own.Trainer"}},
    ],
)
def test_another_accumulation_is_left_for_the_check_to_refuse(changed: dict[str, Any]) -> None:
    iteration = spec("GradientAccumulation", accumulation_steps=2)
    train = {"iteration": iteration, "trainer": spec("SupervisedTrainer"), **changed}

    assert upgrade_document({"train": train}, "config_train.json").document["train"] == train


def test_a_translated_transform_is_still_found_by_ref() -> None:
    document = {
        "train": {"pre_transforms": [spec("AddChanneld", keys="image")]},
        "validate": {"pre_transforms": [{"ref": "AddChanneld"}]},
    }

    found = upgrade_document(document, "config_train.json").document

    assert found["train"]["pre_transforms"][0]["name"] == "EnsureChannelFirstd#AddChanneld"
    assert found["validate"] == document["validate"]
