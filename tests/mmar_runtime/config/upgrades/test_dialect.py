"""The 4.0 dialect: each rule as before and after, and beside it what has to stay as it is.

Two changes that authors made when they moved from 4.0 to 4.1 are no rules: literal list keys and
channel counts stay literals, and a saver of the best model gets no ``train_conf`` that its author
did not ask for. Federated documents of 4.0 are no workflows; they are not read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mmar_runtime.config.upgrades import Upgrade, upgrade_document
from mmar_runtime.config.upgrades.dialect import FIRST_RULES, RULES, WIRED_HANDLERS

PRED = "#monai.handlers.from_engine(['pred'])"
PRED_AND_LABEL = "#monai.handlers.from_engine(['pred', 'label'])"
LOSS = "#monai.handlers.from_engine(['loss'], first=True)"
INVERT_ARGS = {
    "keys": "pred",
    "transform": "@pre_transforms",
    "orig_keys": "image",
    "meta_keys": "pred_meta_dict",
    "nearest_interp": True,
    "to_tensor": True,
    "device": "cuda",
}
SAVE_ARGS = {
    "keys": "pred",
    "meta_keys": "pred_meta_dict",
    "output_postfix": "seg",
    "resample": False,
    "squeeze_end_dims": True,
}

MESSAGES = {
    "batch-axes": "an axis in 4.0's post transforms counts from the channel: batches are taken "
    "apart before",
    "engine-loss": "a lambda that takes the loss of an engine takes it from the first item: "
    "output is a list",
    "computed-output": "a lambda that calls MONAI's transforms runs as post transforms on a copy "
    "of the entry",
    "output-transform": "a lambda over the engine's output runs as from_engine: "
    "the output is a list now",
    "load-dict": "4.0's list 'load_dict' is now a mapping to objects",
    "save-dict": "4.0's list 'save_dict' is now a mapping to objects",
    "channel-order": "channels come before Spacingd, which needs them first",
    "metrics": "4.0's list 'metrics' is now key_metric and additional_metrics",
    "saver": "the handler SegmentationSaver runs as the post transform SaveImaged",
    "inverter": "the handler TransformInverter runs as the post transform Invertd",
    "wiring": "4.0 connected components by itself; the references are now written down",
}


def spec(name: str, /, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args}


def upgrade(document: dict[str, Any]) -> Upgrade:
    return upgrade_document(document, "a.json")


def told(found: Upgrade) -> list[str]:
    """Each notice's rule with its first place; its text is that of the rule."""
    for notice in found.notices:
        places = len(notice.places)
        more = f" and {places - 1} more" if places > 1 else ""
        assert str(notice) == f"{MESSAGES[notice.rule]} ({notice.places[0]}{more})"
    return [f"{notice.rule}: {notice.places[0].place}" for notice in found.notices]


def train(**entries: Any) -> tuple[dict[str, Any], list[str]]:
    """The upgraded train section of these entries, and what is told of it."""
    found = upgrade({"train": entries})
    section: dict[str, Any] = found.document["train"]
    return section, told(found)


def same(**entries: Any) -> bool:
    """Whether a train section of these entries is left alone."""
    document = {"train": entries}
    found = upgrade(document)
    return found.document == document and not found.notices


def names(items: Sequence[dict[str, Any]]) -> list[str]:
    return [item.get("name") or f"ref {item['ref']}" for item in items]


def test_every_rule_has_its_sentence() -> None:
    assert {rule.name: rule.message for rule in (*FIRST_RULES, *RULES)} == MESSAGES


# --- Version -------------------------------------------------------------------------------------


OLD_LISTS = {"train": {"handlers": [spec("CheckpointLoader", load_dict=["model"])]}}


@pytest.mark.parametrize(
    ("given", "version"),
    [({}, "4.1.0"), ({"CLARA_TRAIN_VERSION": "4.0"}, "4.1.0"), ({"CLARA_TRAIN_VERSION": "5"}, "5")],
)
def test_a_translated_document_says_which_dialect_it_is(given: Any, version: str) -> None:
    found = upgrade({**given, **OLD_LISTS}).document

    assert found["CLARA_TRAIN_VERSION"] == version
    assert next(iter(found)) == "CLARA_TRAIN_VERSION"


def test_what_only_monai_has_changed_gives_no_version() -> None:
    found = upgrade({"train": {"pre_transforms": [spec("ToTensord", keys="image")]}})

    assert list(found.document) == ["train"]


# --- Transforms of outputs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("lambda x: x['loss']", LOSS),
        ('lambda y: y["loss"]', LOSS),
        (" lambda x: x['loss']", LOSS),
        ("#lambda x: x['loss']", LOSS),
        ("lambda x: x['pred']", PRED),
        ("lambda x: (x['pred'], x['label'])", PRED_AND_LABEL),
        ("lambda x: [x['pred'], x['label']]", PRED_AND_LABEL),
        ("lambda x: x['image_meta_dict']", "#monai.handlers.from_engine(['image_meta_dict'])"),
    ],
)
@pytest.mark.parametrize("argument", ["output_transform", "batch_transform"])
def test_a_lambda_over_the_output(argument: str, before: str, after: str) -> None:
    section, notices = train(handlers=[spec("StatsHandler", **{argument: before})])

    assert section["handlers"] == [spec("StatsHandler", **{argument: after})]
    assert notices == [f"output-transform: train.handlers[0].args.{argument}"]


@pytest.mark.parametrize(
    "text",
    [
        "lambda x: None",
        "lambda x: x",
        "lambda x: x[0]['loss']",
        "lambda x: x[0]",
        "lambda x: (x['pred'], x[0])",
        "lambda x: (x['pred'],)",
        "lambda x: {'a': x['pred'], 'b': x['label']}",
        "lambda x: x['pred'] + 1",
        "lambda x: x.pop()",
        "lambda_scale",
        PRED,
        5,
        None,
    ],
)
def test_another_lambda_stays(text: Any) -> None:
    assert same(handlers=[spec("StatsHandler", output_transform=text)])


def test_a_handler_of_the_mmars_own_sees_the_same_output() -> None:
    before = {"path": "own.Handler", "args": {"output_transform": "lambda x: x['loss']"}}

    section, _ = train(handlers=[before])

    assert section["handlers"] == [{"path": "own.Handler", "args": {"output_transform": LOSS}}]


@pytest.mark.parametrize(
    "trainer",
    [
        {"name": "GanTrainer"},
        spec("AdversarialTrainer", device="cuda"),
        spec("SupervisedTrainer", decollate=False),
        {"path": "own.Trainer", "args": {"decollate": False}},
    ],
)
def test_a_lambda_stays_where_the_output_is_still_that_of_a_batch(trainer: Any) -> None:
    handlers = [spec("StatsHandler", output_transform="lambda x: x['g_loss']")]

    assert same(trainer=trainer, handlers=handlers)


@pytest.mark.parametrize(
    "trainer",
    [{"name": "GanTrainer"}, spec("SupervisedTrainer", network="@model", decollate=False)],
)
def test_an_engine_that_keeps_batches_whole_still_has_one_output(trainer: Any) -> None:
    assert same(
        trainer=trainer, handlers=[spec("StatsHandler", output_transform="lambda x: x['loss']")]
    )


# --- Names of objects ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "argument", "rule"),
    [
        ("CheckpointLoader", "load_dict", "load-dict"),
        ("CheckpointSaver", "save_dict", "save-dict"),
    ],
)
def test_a_list_of_names_becomes_a_mapping(handler: str, argument: str, rule: str) -> None:
    listed = ["model", "lr_scheduler", "train_conf"]

    section, notices = train(handlers=[spec("StatsHandler"), spec(handler, **{argument: listed})])

    assert section["handlers"][1] == spec(
        handler,
        **{argument: {"model": "@model", "lr_scheduler": "@lr_scheduler", "train_conf": "@conf"}},
    )
    assert notices == [f"{rule}: train.handlers[1].args.{argument}"]


@pytest.mark.parametrize("names", [{"model": "@model"}, ["@model"], [1], "model", None])
def test_what_is_no_list_of_names_stays(names: Any) -> None:
    assert same(handlers=[spec("CheckpointLoader", load_dict=names)])
    assert same(handlers=[spec("CheckpointSaver", save_dict=names)])
    assert same(handlers=[{"path": "own.Saver", "args": {"save_dict": ["model"]}}])


# --- Order of transforms -------------------------------------------------------------------------

LOAD = spec("LoadImaged", keys=["image", "label"], image_only=False)
BOTH = ["image", "label"]


@pytest.mark.parametrize("name", ["EnsureChannelFirstd", "EnsureChannelFirstD"])
def test_channels_come_before_spacing(name: str) -> None:
    spacing, channel = spec("Spacingd", keys=BOTH), spec(name, keys=BOTH)
    flip = spec("Flipd", keys=BOTH)

    section, notices = train(pre_transforms=[LOAD, spacing, flip, channel])

    assert section["pre_transforms"] == [LOAD, channel, spacing, flip]
    assert notices == ["channel-order: train.pre_transforms[3]"]


def test_channels_of_several_keys_come_before_their_own_spacing() -> None:
    def channel(key: str) -> dict[str, Any]:
        return spec("EnsureChannelFirstd", keys=key)

    spacing = [spec("Spacingd", keys=[key]) for key in BOTH]

    section, notices = train(
        pre_transforms=[LOAD, *spacing, channel("image"), channel("label"), channel("mask")]
    )

    assert section["pre_transforms"] == [
        *(LOAD, channel("image"), spacing[0], channel("label"), spacing[1], channel("mask")),
    ]
    assert notices == ["channel-order: train.pre_transforms[3]"]


def test_refs_are_put_in_order_too() -> None:
    channel, spacing = spec("EnsureChannelFirstd#c", keys=BOTH), spec("Spacingd", keys="image")
    document = {
        "train": {"pre_transforms": [channel, spacing]},
        "validate": {"pre_transforms": [{"ref": "Spacingd"}, {"ref": "c"}]},
    }

    found = upgrade(document)

    assert names(found.document["validate"]["pre_transforms"]) == ["ref c", "ref Spacingd"]
    assert told(found) == ["channel-order: validate.pre_transforms[1]"]


@pytest.mark.parametrize(
    "transforms",
    [
        [LOAD, spec("EnsureChannelFirstd", keys=BOTH), spec("Spacingd", keys=BOTH)],
        # Another key: the mask may only be made on the way.
        [LOAD, spec("Spacingd", keys="image"), spec("EnsureChannelFirstd", keys="mask")],
        # Channels first twice.
        [
            *(LOAD, spec("EnsureChannelFirstd", keys="image")),
            *(spec("Spacingd", keys="image"), spec("EnsureChannelFirstd", keys="image")),
        ],
        [
            spec("LoadImaged", keys="image", image_only=False, ensure_channel_first=True),
            *(spec("Spacingd", keys="image"), spec("EnsureChannelFirstd", keys="image")),
        ],
        [LOAD, spec("Spacingd", keys="image"), {"ref": "nothing"}, 5, "text"],
        [{"path": "own.Spacingd"}, spec("EnsureChannelFirstd", keys="image")],
    ],
)
def test_an_order_that_works_stays(transforms: Any) -> None:
    assert same(pre_transforms=transforms)


# --- Metrics -------------------------------------------------------------------------------------


def test_metrics_are_key_and_additional_ones() -> None:
    dice, accuracy = spec("MeanDice", include_background=False), spec("Accuracy")

    section, notices = train(
        metrics=[{**accuracy, "log_label": "acc"}, {**dice, "is_key_metric": True}]
    )

    assert section == {
        "key_metric": dice,
        "additional_metrics": [{**accuracy, "log_label": "acc"}],
    }
    assert notices == ["metrics: train.metrics"]


@pytest.mark.parametrize(
    ("metrics", "section"),
    [
        ([], {}),
        ([{"name": "A", "is_key_metric": True}], {"key_metric": {"name": "A"}}),
        ([{"name": "A", "is_key_metric": False}], {"additional_metrics": [{"name": "A"}]}),
        ([{"name": "A"}], {"additional_metrics": [{"name": "A"}]}),
    ],
)
def test_entries_without_metrics_are_left_out(metrics: Any, section: Any) -> None:
    assert train(metrics=metrics)[0] == section


@pytest.mark.parametrize(
    "entries",
    [
        {"metrics": {"name": "A"}},
        {"metrics": ["A"]},
        {"metrics": [{"name": "A", "is_key_metric": "yes"}]},
        {"metrics": [{"name": "A", "is_key_metric": True}, {"name": "B", "is_key_metric": True}]},
        {"metrics": [{"name": "A"}], "key_metric": {"name": "B"}},
        {"metrics": [{"name": "A"}], "additional_metrics": []},
    ],
)
def test_metrics_that_mean_nothing_sure_stay_for_the_loader_to_refuse(entries: Any) -> None:
    assert same(**entries)


# --- Handlers that are transforms now ------------------------------------------------------------

INVERTER = spec("TransformInverter", output_keys="pred", batch_keys="image")
SAVER = spec(
    "SegmentationSaver",
    output_dir="{MMAR_EVAL_OUTPUT_PATH}",
    batch_transform="lambda x: x['image_meta_dict']",
    output_transform="lambda x: x['pred']",
)
ACTIVATIONS = spec("Activationsd", keys="pred", softmax=True)
DISCRETE = spec("AsDiscreted", keys="pred", argmax=True)


def evaluation(**entries: Any) -> tuple[dict[str, Any], list[str]]:
    found = upgrade(entries)
    return dict(found.document), told(found)


def test_an_inference_inverts_and_saves_the_prediction() -> None:
    stats = spec("StatsHandler")

    found, notices = evaluation(
        handlers=[stats, INVERTER, SAVER], post_transforms=[ACTIVATIONS, DISCRETE]
    )

    save = {**SAVE_ARGS, "output_dir": "{MMAR_EVAL_OUTPUT_PATH}"}
    assert found["handlers"] == [stats]
    assert found["post_transforms"] == [
        *(ACTIVATIONS, spec("Invertd", **INVERT_ARGS), DISCRETE, spec("SaveImaged", **save)),
    ]
    assert notices[1:] == ["saver: handlers[2]", "inverter: handlers[1]"]


def test_a_validation_inverts_a_copy_so_that_metrics_see_the_prediction_as_before() -> None:
    found, _ = evaluation(
        handlers=[INVERTER, SAVER],
        post_transforms=[ACTIVATIONS, DISCRETE],
        metrics=[{"name": "MeanDice", "is_key_metric": True}],
    )

    copy, invert, save = found["post_transforms"][2:]
    assert found["post_transforms"][:2] == [ACTIVATIONS, DISCRETE]
    assert copy == spec("CopyItemsd", keys="pred", names="pred_inverted", times=1)
    assert invert["args"]["keys"] == save["args"]["keys"] == "pred_inverted"
    assert invert["args"]["orig_keys"] == "image"
    assert invert["args"]["meta_keys"] == save["args"]["meta_keys"] == "pred_inverted_meta_dict"


def test_an_inverter_by_itself_inverts_a_copy_at_the_end() -> None:
    found, _ = evaluation(
        handlers=[INVERTER], post_transforms=[DISCRETE], key_metric={"name": "MeanDice"}
    )

    assert names(found["post_transforms"]) == ["AsDiscreted", "CopyItemsd", "Invertd"]


def test_a_saver_by_itself_resamples_as_it_did() -> None:
    found, notices = evaluation(handlers=[SAVER])
    [save] = found["post_transforms"]

    assert save["args"]["resample"] is True
    assert notices[1:] == ["saver: handlers[0]"]
    assert evaluation(handlers=[spec("SegmentationSaver", resample=False)])[0][
        "post_transforms"
    ] == [spec("SaveImaged", **SAVE_ARGS)]


def test_a_saver_behind_an_inverting_transform_does_not_resample() -> None:
    transforms = [spec("Invertd#i", keys="pred"), {"ref": "i"}]
    for given in (transforms[:1], transforms):
        found, _ = evaluation(handlers=[SAVER], post_transforms=given)
        assert found["post_transforms"][-1]["args"]["resample"] is False


def test_the_savers_own_arguments_are_kept() -> None:
    own = {"output_postfix": "mask", "output_ext": ".nii", "scale": 255, "mode": "nearest"}

    found, _ = evaluation(handlers=[spec("SegmentationSaver", name="saver", **own)])

    [save] = found["post_transforms"]
    assert own.items() <= save["args"].items()
    assert "name" not in save["args"]


@pytest.mark.parametrize(
    "text", ["lambda x: x['pred_inverted']", "lambda x: x['pred']", PRED, None]
)
def test_the_key_that_a_saver_writes(text: str | None) -> None:
    args = {} if text is None else {"output_transform": text}

    found, _ = evaluation(handlers=[INVERTER, spec("SegmentationSaver", **args)])

    assert [item["args"]["keys"] for item in found["post_transforms"]] == ["pred", "pred"]


@pytest.mark.parametrize(
    ("name", "argument", "today"),
    [
        ("SqueezeDimd", "dim", spec("SqueezeDimd", keys="pred", dim=0)),
        ("ConcatItemsD", "dim", spec("ConcatItemsD", keys="pred", dim=0)),
        ("SplitChanneld", "channel_dim", spec("SplitDimd", keys="pred", dim=0)),
    ],
)
def test_an_axis_of_a_batch_becomes_that_of_an_image(name: str, argument: str, today: Any) -> None:
    old = {"name": name, "args": {"keys": "pred", argument: 1}}
    wired = spec("SupervisedEvaluator", network="@model")

    def after(evaluator: dict[str, Any]) -> dict[str, Any]:
        document = {"dataloader": spec("DataLoader"), "evaluator": evaluator}
        transforms: Any = upgrade({**document, "post_transforms": [old]}).document
        return dict(transforms["post_transforms"][0])

    assert after(spec("SupervisedEvaluator")) == today
    assert 1 in after(wired)["args"].values()  # 4.1 takes batches apart itself


def test_the_loss_of_an_engine_is_that_of_its_first_item() -> None:
    handler = spec("LrScheduleHandler", step_transform="lambda x: x.state.output['loss']")

    found, _ = train(handlers=[handler])

    step = found["handlers"][0]["args"]["step_transform"]
    assert step == "lambda x: x.state.output[0]['loss']"


def test_another_key_than_the_inverted_one_is_saved_as_it_is() -> None:
    args = {"output_transform": "lambda x: x['image']"}

    found, _ = evaluation(
        handlers=[INVERTER, spec("SegmentationSaver", **args)], key_metric={"name": "MeanDice"}
    )

    save = found["post_transforms"][0]
    assert names(found["post_transforms"]) == ["SaveImaged", "CopyItemsd", "Invertd"]
    assert (save["args"]["keys"], save["args"]["resample"]) == ("image", True)


IMPORTED = "__import__('monai').transforms.AsDiscrete(argmax=True{})(x['pred_inverted'][0][None])"


def test_a_lambda_that_discretizes_the_inverted_prediction_runs_as_transforms_after_inverting() -> (
    None
):
    saver = spec("SegmentationSaver", output_transform=f"lambda x: {IMPORTED.format('')}")

    found = upgrade({"handlers": [INVERTER, saver], "post_transforms": [ACTIVATIONS]}).document

    activations, copy, invert, again, discrete, save = found["post_transforms"]
    assert activations == ACTIVATIONS
    assert copy == spec("CopyItemsd", keys="pred", names="pred_inverted", times=1)
    assert (invert["name"], invert["args"]["keys"]) == ("Invertd", "pred_inverted")
    assert again == spec(
        "CopyItemsd", keys="pred_inverted", names="pred_inverted_discrete", times=1
    )
    assert discrete == spec("AsDiscreted", keys="pred_inverted_discrete", argmax=True)
    assert (save["name"], save["args"]["keys"]) == ("SaveImaged", "pred_inverted_discrete")
    assert found["handlers"] == []


def test_a_metric_and_a_saver_that_discretize_otherwise_get_copies_of_their_own() -> None:
    one_hot = IMPORTED.format(", to_onehot=True, n_classes=2")
    pair = f"lambda x: ({one_hot}, x['label'].detach().cpu())"
    metrics = [
        {"name": "MeanDice", "is_key_metric": True, "args": {"output_transform": pair}},
        {"name": "Accuracy", "args": {"output_transform": pair}},
    ]
    saver = spec("SegmentationSaver", output_transform=f"lambda x: {IMPORTED.format('')}")

    found = upgrade({"handlers": [INVERTER, saver], "metrics": metrics}).document

    discrete = [item["args"] for item in found["post_transforms"] if item["name"] == "AsDiscreted"]
    assert discrete == [
        {"keys": "pred_inverted_discrete", "argmax": True},
        {"keys": "pred_inverted_discrete_2", "argmax": True, "to_onehot": 2},
    ]
    asked = "#monai.handlers.from_engine(['pred_inverted_discrete_2', 'label'])"
    assert found["key_metric"]["args"]["output_transform"] == asked
    assert found["additional_metrics"][0]["args"]["output_transform"] == asked


def test_the_inverters_own_arguments_are_kept() -> None:
    inverter = spec(
        "TransformInverter",
        output_keys=["pred", "score"],
        batch_key="volume",
        nearest_interp=False,
        device="cpu",
        num_workers=4,
        postfix="inverted",
    )

    found, _ = evaluation(handlers=[inverter])

    assert found["post_transforms"] == [
        spec(
            "Invertd",
            **{
                **INVERT_ARGS,
                "keys": ["pred", "score"],
                "orig_keys": "volume",
                "meta_keys": ["pred_meta_dict", "score_meta_dict"],
                "nearest_interp": False,
                "device": "cpu",
            },
        )
    ]


def test_a_ref_to_activations_counts_as_activations() -> None:
    document = {
        "train": {"post_transforms": [spec("Activationsd#act", keys="pred")]},
        "validate": {"post_transforms": [{"ref": "act"}, DISCRETE], "handlers": [INVERTER]},
    }

    found = upgrade(document).document["validate"]["post_transforms"]

    assert names(found) == ["ref act", "Invertd", "AsDiscreted"]


def test_a_handler_that_is_switched_off_is_switched_off_as_a_transform() -> None:
    off = {"disabled": "{dont_save}"}

    found, _ = evaluation(handlers=[{**INVERTER, **off}, {**SAVER, **off}])

    assert [item["disabled"] for item in found["post_transforms"]] == ["{dont_save}"] * 2


@pytest.mark.parametrize("name", ["TransformInverter", "SegmentationSaver"])
@pytest.mark.parametrize(
    "entries",
    [
        {"handlers": [{"name": "NAME", "disabled": True}]},
        {"handlers": [{"path": "own.Handler", "name": "NAME"}]},
        {"handlers": [{"name": "NAME", "args": {"of_ones_own": 1}}]},
        {"handlers": [{"name": "NAME"}], "post_transforms": "none"},
        {"handlers": {"name": "NAME"}},
        {"handlers": [{"name": "NAME", "args": 5}]},
    ],
)
def test_what_cannot_be_put_elsewhere_stays(name: str, entries: dict[str, Any]) -> None:
    handlers = entries["handlers"]
    if isinstance(handlers, list):
        handlers = [{**item, "name": name} for item in handlers]

    assert same(**{**entries, "handlers": handlers})


@pytest.mark.parametrize("text", ["lambda x: x[0]", "#from_engine(['pred', 'label'])", 5])
def test_a_saver_of_who_knows_what_stays(text: Any) -> None:
    assert same(handlers=[spec("SegmentationSaver", output_transform=text)])


def test_an_inverter_of_who_knows_what_stays() -> None:
    assert same(handlers=[spec("TransformInverter", output_keys=5)])


# --- Wiring --------------------------------------------------------------------------------------


def test_a_training_is_wired() -> None:
    parts = {
        "loss": {"name": "DiceLoss"},
        "optimizer": spec("Adam", lr=0.1),
        "lr_scheduler": spec("StepLR", step_size=1),
        "model": {"name": "UNet"},
        "pre_transforms": [],
        "post_transforms": [],
        "dataset": {"name": "Dataset", "data_list_key": "training"},
        "dataloader": spec("DataLoader", batch_size=2),
        "inferer": {"name": "SimpleInferer"},
        "handlers": [{"name": name} for name in WIRED_HANDLERS],
        "metrics": [{"name": "Accuracy", "is_key_metric": True}, {"name": "MeanDice"}],
        "iteration": {"path": "own.Iteration"},
        "prepare_batch": {"name": "PrepareBatchDefault"},
        "trainer": {"name": "SupervisedTrainer"},
    }

    section, notices = train(**parts)

    assert notices == ["metrics: train.metrics", "wiring: train"]
    assert section["optimizer"] == spec("Adam", params="#@model.parameters()", lr=0.1)
    assert section["lr_scheduler"] == spec("StepLR", optimizer="@optimizer", step_size=1)
    assert section["dataset"] == {
        "name": "Dataset",
        "data_list_key": "training",
        "args": {"transform": "@pre_transforms"},
    }
    assert section["dataloader"] == spec("DataLoader", dataset="@dataset", batch_size=2)
    assert section["handlers"] == [
        spec("LrScheduleHandler", lr_scheduler="@lr_scheduler"),
        spec("ValidationHandler", validator="@evaluator"),
        spec("SmartCacheHandler", smartcacher="@dataset"),
    ]
    assert section["trainer"] == spec(
        "SupervisedTrainer",
        max_epochs="{epochs}",
        device="cuda",
        train_data_loader="@dataloader",
        network="@model",
        loss_function="@loss",
        optimizer="@optimizer",
        inferer="@inferer",
        postprocessing="@post_transforms",
        key_train_metric="@key_metric",
        additional_metrics="@additional_metrics",
        train_handlers="@handlers",
        iteration_update="@iteration",
        prepare_batch="@prepare_batch",
        amp="{amp}",
    )
    assert section["loss"] == {"name": "DiceLoss"}
    assert section["model"] == {"name": "UNet"}


def test_a_validation_is_wired_with_what_its_section_has() -> None:
    document = {
        "train": {"model": {"name": "UNet"}},
        "validate": {
            "dataset": {"name": "Dataset"},
            "dataloader": {"name": "DataLoader"},
            "key_metric": {"name": "MeanDice"},
            "evaluator": {"name": "SupervisedEvaluator"},
        },
    }

    found = upgrade(document)

    assert told(found) == ["wiring: validate"]
    assert found.document["train"] == document["train"]
    assert found.document["validate"] == {
        "dataset": {"name": "Dataset"},
        "dataloader": spec("DataLoader", dataset="@dataset"),
        "key_metric": {"name": "MeanDice"},
        "evaluator": spec(
            "SupervisedEvaluator",
            device="cuda",
            val_data_loader="@dataloader",
            network="@model",
            key_val_metric="@key_metric",
            amp="{amp}",
        ),
    }


def test_an_inference_is_wired_without_metrics() -> None:
    found, notices = evaluation(
        model=[{"ts_path": "a.ts"}],
        dataset={"name": "Dataset"},
        pre_transforms=[],
        dataloader={"name": "DataLoader"},
        handlers=[],
        evaluator={"name": "SupervisedEvaluator", "args": {}},
    )

    assert found["evaluator"]["args"] == {
        "device": "cuda",
        "val_data_loader": "@dataloader",
        "network": "@model",
        "val_handlers": "@handlers",
        "amp": "{amp}",
    }
    assert found["dataset"] == spec("Dataset", transform="@pre_transforms")
    assert notices == ["wiring: "]


def test_what_is_written_wins_over_what_was_implied() -> None:
    section, _ = train(
        optimizer=spec("Adam", params="mine"),
        dataloader=spec("DataLoader", dataset="mine"),
        dataset={"name": "Dataset"},
        trainer=spec("SupervisedTrainer", max_epochs=7, amp=False, device="cpu"),
    )

    assert section["optimizer"] == spec("Adam", params="mine")
    assert section["dataloader"] == spec("DataLoader", dataset="mine")
    assert {"max_epochs": 7, "amp": False, "device": "cpu"}.items() <= section["trainer"][
        "args"
    ].items()


@pytest.mark.parametrize(
    "entries",
    [
        # Already 4.1, be it by a reference or by an expression.
        {"trainer": spec("SupervisedTrainer", network="@model")},
        {"trainer": spec("SupervisedTrainer", networks=[{"a": "#@model"}])},
        {"trainer": {"name": "SupervisedTrainer", "disabled": True}},
        # Engines of whose arguments nothing is known.
        {"trainer": {"path": "own.Trainer"}},
        {"trainer": {"name": "SupervisedTrainer", "path": "own.Trainer"}},
        {"trainer": {"name": "GanTrainer"}},
        {"trainer": "@trainer"},
        {},
    ],
)
def test_a_section_that_needs_no_wiring_stays(entries: dict[str, Any]) -> None:
    assert same(dataloader={"name": "DataLoader"}, optimizer={"name": "Adam"}, **entries)


def test_an_engine_without_data_stays() -> None:
    assert same(trainer={"name": "SupervisedTrainer"}, model={"name": "UNet"})


def test_odd_values_are_left_to_the_parser() -> None:
    section, _ = train(
        dataloader=5,
        optimizer=[{"name": "Adam"}],
        handlers="none",
        dataset={"name": "Dataset", "args": 5},
        trainer={"name": "SupervisedTrainer"},
    )

    assert section["dataloader"] == 5
    assert section["optimizer"] == [{"name": "Adam"}]
    assert section["handlers"] == "none"
    assert section["dataset"] == {"name": "Dataset", "args": 5}
