"""Entries of a config become objects: each once, when first asked for, on the machine at hand."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.handlers
import pytest
import torch
from monai.transforms import Activationsd, Compose, LoadImaged

from mmar_runtime.components.builder import BuildContext, ComponentBuilder
from mmar_runtime.components.conf import TrainConf
from mmar_runtime.components.launch import Processes
from mmar_runtime.config.loader import load_evaluation_config, load_train_config
from mmar_runtime.config.sections import TrainConfig
from mmar_runtime.errors import ComponentError
from mmar_runtime.mmar import Mmar

Edited = Callable[[Path, Callable[[Any], object]], Path]

CPU = BuildContext(device=torch.device("cpu"))


@pytest.fixture
def train_json(tiny_mmar: Path) -> Path:
    return tiny_mmar / "config" / "config_train.json"


def config_of(train_json: Path) -> TrainConfig:
    return load_train_config(Mmar.open(train_json.parent.parent))


def builder_of(train_json: Path, context: BuildContext = CPU) -> ComponentBuilder:
    return ComponentBuilder(config_of(train_json), context)


def titles(handlers: list[object]) -> list[str]:
    return [type(handler).__name__ for handler in handlers]


# --- Once, and shared ----------------------------------------------------------------------------


def test_each_entry_is_built_once(train_json: Path) -> None:
    counts: Counter[str] = Counter()
    config = config_of(train_json)
    builder = ComponentBuilder(config, CPU, counts=counts)
    trainer = builder.get("train", "trainer")
    assert builder.get("train", "trainer") is trainer
    entries = [
        f"{scope}.{name}" for scope in config.scopes for name in config.scopes[scope].entries
    ]
    assert counts == dict.fromkeys(entries, 1)


def test_nothing_is_built_before_it_is_asked_for(train_json: Path) -> None:
    builder = builder_of(train_json)
    builder.get("train", "optimizer")
    assert builder.counts == {"train.model": 1, "train.optimizer": 1}


def test_model_in_validate_is_the_one_that_is_trained(train_json: Path) -> None:
    builder = builder_of(train_json)
    model = builder.get("train", "model")
    assert builder.get("train", "trainer").network is model
    assert builder.get("validate", "evaluator").network is model


def test_a_name_means_the_own_section_first(train_json: Path) -> None:
    builder = builder_of(train_json)
    assert builder.get("train", "trainer").data_loader is builder.get("train", "dataloader")
    assert builder.get("validate", "evaluator").data_loader is builder.get("validate", "dataloader")
    assert builder.get("train", "dataloader") is not builder.get("validate", "dataloader")


def test_ref_gives_an_instance_of_its_own(train_json: Path) -> None:
    builder = builder_of(train_json)
    train, validate = (
        builder.get(scope, "pre_transforms").transforms[0] for scope in ("train", "validate")
    )
    assert isinstance(train, LoadImaged)
    assert isinstance(validate, LoadImaged)
    assert train is not validate
    assert train.keys == validate.keys


def test_fork_shares_what_is_built_and_builds_the_rest_anew(train_json: Path) -> None:
    builder = builder_of(train_json)
    evaluator = builder.get("validate", "evaluator")
    fork = builder.fork("validate", anew=["evaluator", "key_metric"], given={"handlers": []})
    other = fork.get("validate", "evaluator")
    assert other is not evaluator
    assert other.network is evaluator.network
    assert other.data_loader is evaluator.data_loader
    assert builder.counts["validate.evaluator"] == 2
    assert builder.counts["train.model"] == 1
    assert fork.get("validate", "handlers") == []
    assert builder.get("validate", "evaluator") is evaluator


def test_given_objects_stand_in_for_entries(train_json: Path) -> None:
    network = torch.nn.Linear(1, 1)
    builder = ComponentBuilder(config_of(train_json), CPU, given={("train", "model"): network})
    optimizer = builder.get("train", "optimizer")
    assert optimizer.param_groups[0]["params"] == [network.weight, network.bias]
    assert "train.model" not in builder.counts


# --- Left out ------------------------------------------------------------------------------------


def test_disabled_handlers_are_left_out(train_json: Path, edited: Edited) -> None:
    assert "WholeCheckpointLoader" not in titles(builder_of(train_json).get("train", "handlers"))
    edited(train_json, lambda conf: conf.update(dont_load_ckpt_model=False))
    assert "WholeCheckpointLoader" in titles(builder_of(train_json).get("train", "handlers"))


def test_handlers_of_another_rank_are_left_out(train_json: Path, edited: Edited) -> None:
    def share(lists: Any) -> None:
        lists["validation"] = lists["training"]  # one case for each of the two processes

    edited(train_json.parent.parent / "data/dataset.json", share)
    second = BuildContext(device=torch.device("cpu"), processes=Processes(rank=1, count=2))
    assert titles(builder_of(train_json).get("train", "handlers")) == [
        "LrScheduleHandler",
        "ValidationHandler",
        "AtomicCheckpointSaver",
        "StatsHandler",
    ]
    assert titles(builder_of(train_json, second).get("train", "handlers")) == [
        "LrScheduleHandler",
        "ValidationHandler",
    ]


def test_disabled_transforms_and_metrics_are_left_out(train_json: Path, edited: Edited) -> None:
    def change(conf: Any) -> None:
        conf["train"]["post_transforms"][1]["disabled"] = True
        conf["validate"]["post_transforms"] = [{"ref": "Activationsd"}]
        conf["validate"]["additional_metrics"][0]["disabled"] = True

    builder = builder_of(edited(train_json, change))
    assert titles(builder.get("train", "post_transforms").transforms) == ["Activationsd"]
    assert builder.get("validate", "additional_metrics") == {}


# --- What stands where ---------------------------------------------------------------------------


def test_transforms_are_composed_in_their_order(train_json: Path) -> None:
    transforms = builder_of(train_json).get("train", "post_transforms")
    assert isinstance(transforms, Compose)
    assert titles(list(transforms.transforms)) == ["Activationsd", "AsDiscreted"]


def test_transforms_may_hold_transforms(train_json: Path, edited: Edited) -> None:
    nested = {
        "name": "OneOf",
        "args": {
            "transforms": [
                {"name": "Activationsd", "args": {"keys": "pred", "softmax": True}},
                {"name": "Activationsd", "args": {"keys": "pred"}, "disabled": True},
            ]
        },
    }
    edited(train_json, lambda conf: conf["train"]["post_transforms"].insert(0, nested))
    [one] = builder_of(train_json).get("train", "post_transforms").transforms[0].transforms
    assert isinstance(one, Activationsd)


def test_metrics_stand_under_their_labels(train_json: Path) -> None:
    builder = builder_of(train_json)
    [(label, metric)] = builder.get("validate", "key_metric").items()
    assert label == "val_mean_dice"
    assert isinstance(metric, monai.handlers.MeanDice)
    assert list(builder.get("validate", "additional_metrics")) == ["val_acc"]


def test_a_dataset_gets_the_items_of_its_list(train_json: Path) -> None:
    builder = builder_of(train_json)
    dataset = builder.get("train", "dataset")
    data = train_json.parent.parent / "data"
    assert dataset.data == [
        {
            "image": str(data / f"case_{n}_image.nii.gz"),
            "label": str(data / f"case_{n}_label.nii.gz"),
        }
        for n in (1, 2)
    ]
    assert dataset.transform is builder.get("train", "pre_transforms")


def test_conf_is_the_configuration_as_it_runs(train_json: Path, edited: Edited) -> None:
    edited(train_json, lambda conf: conf["train"]["optimizer"]["args"].update(lr="{learning_rate}"))
    builder = builder_of(train_json)
    saver = builder.get("train", "handlers")[2]
    conf = saver.save_dict["train_conf"]
    assert isinstance(conf, TrainConf)
    assert conf.state_dict()["train"]["optimizer"]["args"]["lr"] == 0.01
    conf.load_state_dict({})
    assert conf.state_dict()["epochs"] == 2


# --- The machine at hand -------------------------------------------------------------------------


def test_cuda_runs_on_the_device_that_is_there_and_says_so_once(
    train_json: Path, edited: Edited, caplog: pytest.LogCaptureFixture
) -> None:
    invert = {
        "name": "Invertd",
        "args": {
            "keys": "pred", "transform": "@pre_transforms", "orig_keys": "image", "device": "cuda",
        },
    }  # fmt: skip

    def change(conf: Any) -> None:
        conf["train"]["trainer"]["args"]["device"] = "cuda"
        conf["validate"]["evaluator"]["args"]["device"] = "cuda"
        conf["validate"]["post_transforms"].append(invert)
        conf["validate"]["inferer"] = {
            "name": "SlidingWindowInferer", "args": {"roi_size": [16, 16], "sw_device": "cuda"},
        }  # fmt: skip

    caplog.set_level(logging.INFO, logger="mmar_runtime")
    builder = builder_of(edited(train_json, change))
    trainer = builder.get("train", "trainer")
    assert trainer.state.device == torch.device("cpu")
    assert builder.get("validate", "evaluator").state.device == torch.device("cpu")
    assert builder.get("validate", "post_transforms").transforms[-1].device == (
        torch.device("cpu"),
    )
    assert builder.get("validate", "inferer").sw_device == torch.device("cpu")
    assert [record.getMessage() for record in caplog.records] == [
        "config_train.json: device 'cuda' runs on cpu here"
    ]


def test_an_engine_that_names_no_device_gets_the_one_that_is_there(
    train_json: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="mmar_runtime")
    assert builder_of(train_json).get("train", "trainer").state.device == torch.device("cpu")
    assert caplog.records == []


def test_networks_go_to_the_device(train_json: Path) -> None:
    builder = builder_of(train_json, BuildContext(device=torch.device("meta")))
    model = builder.get("train", "model")
    assert {tensor.device.type for tensor in model.parameters()} == {"meta"}


def test_amp_is_off_where_it_cannot_run_and_says_so_once(
    train_json: Path, edited: Edited, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="mmar_runtime")
    edited(train_json, lambda conf: conf.update(amp=True))
    builder = builder_of(train_json)
    assert builder.get("train", "trainer").amp is False
    assert builder.get("validate", "evaluator").amp is False
    assert [record.getMessage() for record in caplog.records] == [
        "config_train.json: amp is off: automatic mixed precision needs a GPU"
    ]


@pytest.mark.gpu
def test_amp_is_on_where_it_can_run(train_json: Path, edited: Edited) -> None:
    edited(train_json, lambda conf: conf.update(amp=True))
    context = BuildContext(device=torch.device("cuda"), amp=True)
    assert builder_of(train_json, context).get("train", "trainer").amp is True


# --- Refused -------------------------------------------------------------------------------------


def test_a_component_that_refuses_its_arguments_is_named_with_its_place(
    train_json: Path, edited: Edited
) -> None:
    edited(train_json, lambda conf: conf["train"]["model"]["args"].update(strides=[]))
    with pytest.raises(ComponentError) as raised:
        builder_of(train_json).get("train", "trainer")
    assert str(raised.value).startswith(
        "config_train.json: train.model: UNet could not be built: ValueError: the length of"
    )
    cause = raised.value.__cause__
    assert isinstance(cause, ValueError)
    assert cause.__notes__ == ["while building UNet at config_train.json: train.model"]


def test_an_expression_that_does_not_fit_is_named_with_its_place(
    train_json: Path, edited: Edited
) -> None:
    edited(
        train_json,
        lambda conf: conf["train"]["optimizer"]["args"].update(params="#@inferer.parameters()"),
    )
    with pytest.raises(ComponentError, match=r"train\.optimizer\.args\.params: @inferer\.param"):
        builder_of(train_json).get("train", "optimizer")


def test_what_an_expression_refers_to_tells_its_own_place(train_json: Path, edited: Edited) -> None:
    edited(train_json, lambda conf: conf["train"]["model"]["args"].update(strides=[]))
    with pytest.raises(ComponentError) as raised:
        builder_of(train_json).get("train", "optimizer")
    assert str(raised.value).startswith("config_train.json: train.model: UNet")


def test_a_weights_file_is_no_component(tiny_mmar: Path) -> None:
    config = load_evaluation_config(Mmar.open(tiny_mmar))
    with pytest.raises(TypeError, match=r"model\[1\]: the workflow resolves this"):
        ComponentBuilder(config, CPU).get("", "model")


# --- Where results go ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "component",
    [
        {"name": "ClassificationSaver"},
        {"name": "ClassificationSaver", "args": {"output_dir": None}},
        {"name": "ClassificationSaver", "args": {"output_dir": ""}},
        {"name": "ClassificationSaver", "args": {"output_dir": "#None"}},
    ],
)
def test_a_saver_without_a_folder_writes_into_that_of_the_run(
    train_json: Path, edited: Edited, component: dict[str, Any]
) -> None:
    edited(train_json, lambda document: document["train"].update(saver=component))

    saver = builder_of(train_json).get("train", "saver")

    assert Path(saver.output_dir) == train_json.parents[1] / "eval"


def test_a_file_without_a_name_is_in_the_run_as_well(train_json: Path, edited: Edited) -> None:
    mapping = {"name": "WriteFileMappingd", "args": {"keys": "pred"}}
    edited(train_json, lambda document: document["train"].update(mapping=mapping))

    built = builder_of(train_json).get("train", "mapping")

    file = built.mapping.mapping_file_path
    assert Path(file) == train_json.parents[1] / "eval/mapping.json"


def test_a_folder_that_is_named_stays(train_json: Path, edited: Edited) -> None:
    saver = {"name": "MetricsSaver", "args": {"save_dir": "{MMAR_CKPT_DIR}/here"}}
    edited(train_json, lambda document: document["train"].update(saver=saver))

    built = builder_of(train_json).get("train", "saver")

    assert Path(built.save_dir) == train_json.parents[1] / "models/here"
