"""Whole documents: what loads, and that every fault is told, all at once and with its place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.config.data_list import data_check
from mmar_runtime.config.loader import (
    CROSS_VALIDATION_FILE,
    MAX_REPEATED,
    load_evaluation_config,
    load_train_config,
)
from mmar_runtime.config.nodes import ComponentSpec, WeightsFile, plain
from mmar_runtime.config.parser import MAX_PROBLEMS
from mmar_runtime.config.sections import EvaluationConfig, RuntimeSettings, TrainConfig
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_check import component_check

Faults = Callable[..., list[str]]
LoadTrain = Callable[..., TrainConfig]
LoadEvaluation = Callable[..., EvaluationConfig]

REPOSITORY = Path(__file__).resolve().parents[3]
CHECKS = (component_check(allow_code=False), data_check)

TRAINER = {"name": "SupervisedTrainer"}
EVALUATOR = {"name": "SupervisedEvaluator"}


def training(**entries: Any) -> dict[str, Any]:
    return {"train": {"trainer": TRAINER, **entries}}


def evaluation(**entries: Any) -> dict[str, Any]:
    return {"model": {"name": "UNet"}, "evaluator": EVALUATOR, **entries}


# --- Documents that load -------------------------------------------------------------------------


def test_a_whole_training_loads(tiny_mmar: Path) -> None:
    config = load_train_config(Mmar.open(tiny_mmar), checks=CHECKS)

    assert (config.file, config.mmar_root) == ("config_train.json", tiny_mmar)
    assert list(config.train.entries) == [
        *("loss", "optimizer", "lr_scheduler", "model", "pre_transforms", "dataset", "dataloader"),
        *("inferer", "handlers", "post_transforms", "trainer"),
    ]
    assert config.settings == RuntimeSettings(random_seed=0)
    assert {"epochs", "learning_rate", "amp"} <= config.own_names
    assert "DATA_ROOT" not in config.own_names
    assert [notice.rule for notice in config.notices] == ["image-meta", "best-name", "final-name"]


def test_whole_evaluations_load(tiny_mmar: Path) -> None:
    mmar = Mmar.open(tiny_mmar)

    validation = load_evaluation_config(mmar, checks=CHECKS)
    across_sites = load_evaluation_config(mmar, file=CROSS_VALIDATION_FILE, checks=CHECKS)

    assert isinstance(validation.model, WeightsFile)
    assert validation.model.path == str(tiny_mmar / "models/model.pt")
    assert isinstance(across_sites.model, ComponentSpec)
    assert [notice.rule for notice in validation.notices] == ["image-meta"]


@pytest.mark.parametrize("app", sorted((REPOSITORY / "jobs").glob("*/app")), ids=str)
def test_every_example_mmar_loads(app: Path) -> None:
    mmar, checks = Mmar.open(app), [component_check(allow_code=False)]

    load_train_config(mmar, checks=checks)
    for file in ("config_validation.json", "config_inference.json", "config_cross_validation.json"):
        if mmar.document(file).exists():
            load_evaluation_config(mmar, file=file, checks=checks)


def test_a_training_may_do_without_validation(load_train: LoadTrain) -> None:
    assert load_train(training()).validate is None
    assert load_train({**training(), "validate": None}).validate is None
    assert load_train({**training(), "validate": {}}).validate is None


def test_variables_come_from_every_layer(load_train: LoadTrain) -> None:
    loss = {
        "name": "A",
        "args": {name: f"{{{name}}}" for name in ("workflow", "environment", "site", "set")},
    }
    document = {**training(loss=loss), "workflow": 1, "environment": 1, "site": 1, "set": 1}

    config = load_train(
        document,
        {"environment": 2, "site": 2, "set": 2},
        site={"site": 3, "set": 3},
        overrides={"set": 4},
    )

    [spec] = config.train.specs("loss")
    assert plain(spec.args) == {"workflow": 1, "environment": 2, "site": 3, "set": 4}


def test_other_documents_can_be_named(tiny_mmar: Path) -> None:
    config = tiny_mmar / "config"
    (config / "config_train.json").rename(config / "config_finetune.json")
    (config / "environment.json").rename(tiny_mmar / "site.json")

    found = load_train_config(
        Mmar.open(tiny_mmar), file="config_finetune.json", environment="site.json"
    )

    assert found.file == "config_finetune.json"
    assert str(found.variables["DATA_ROOT"].source) == "site.json"


def test_disabled_entries_are_left_out_and_remembered(load_train: LoadTrain) -> None:
    config = load_train({"off": True, **training(loss={"name": "DiceLoss", "disabled": "{off}"})})

    assert "loss" not in config.train.entries
    assert config.train.disabled == {"loss"}


def test_a_component_may_have_an_entry_of_its_own(load_train: LoadTrain) -> None:
    config = load_train(training(sampler={"path": "own.Sampler"}))

    assert [spec.path for spec in config.train.specs("sampler")] == ["own.Sampler"]


@pytest.mark.parametrize("search", [[{"domain": "lr"}], {"domain": "lr"}])
def test_a_search_of_automl_is_refused(train_faults: Faults, search: object) -> None:
    advice = "    AutoML is not there. Take it out, to train once with the values that are written."

    assert train_faults({**training(), "search": search}) == [
        f"config_train.json: search: unknown section 'search'\n{advice}"
    ]
    optimizer = {"name": "Adam", "search": search, "apply": {}}
    assert train_faults(training(optimizer=optimizer, search=search)) == [
        f"config_train.json: train.optimizer.search: unknown key 'search'\n{advice}",
        f"config_train.json: train.optimizer.apply: unknown key 'apply'\n{advice}",
        f"config_train.json: train.search: unknown entry 'search'\n{advice}",
    ]


def test_a_list_of_alternatives_belongs_to_automl(train_faults: Faults) -> None:
    assert train_faults(training(loss=[{"name": "DiceLoss"}, {"name": "FocalLoss"}])) == [
        "config_train.json: train.loss: has to be a component, an object with 'name' or 'path', "
        "found an array\n    AutoML chose among several; keep one."
    ]


@pytest.mark.parametrize(
    "metrics",
    [
        "MeanDice",
        [1],
        [{"name": "A", "is_key_metric": True}, {"name": "B", "is_key_metric": True}],
        [{"name": "A", "is_key_metric": "yes"}],
    ],
)
def test_metrics_of_the_old_dialect_that_cannot_be_translated(
    train_faults: Faults, metrics: object
) -> None:
    assert train_faults(training(metrics=metrics)) == [
        "config_train.json: train.metrics: unknown entry 'metrics'\n"
        '    A list of components, at most one of them with "is_key_metric": true, would have been '
        "translated. Write key_metric and additional_metrics."
    ]


# --- Settings of a whole run ---------------------------------------------------------------------


def test_without_a_word_pytorchs_own_settings_stay(load_train: LoadTrain) -> None:
    assert load_train(training()).settings == RuntimeSettings(
        amp=False,
        multi_gpu=False,
        use_gpu=True,
        print_conf=False,
        random_seed=None,
        cudnn_benchmark=None,
        tf32=None,
        input_size=None,
    )


def test_settings_come_from_variables_and_from_two_objects(load_train: LoadTrain) -> None:
    document = {
        **training(),
        "amp": True,
        "multi_gpu": True,
        "use_gpu": False,
        "cudnn_benchmark": False,
        "determinism": {"random_seed": "{seed}"},
        "network_summary": {"network": "@model", "input_size": [2, 1, 32, 32, 32]},
    }

    settings = load_train(document, {"seed": 7}, overrides={"tf32": True, "print_conf": True})

    assert settings.settings == RuntimeSettings(
        amp=True,
        multi_gpu=True,
        use_gpu=False,
        print_conf=True,
        random_seed=7,
        cudnn_benchmark=False,
        tf32=True,
        input_size=(2, 1, 32, 32, 32),
    )


def test_a_flag_that_is_no_flag_names_who_set_it(train_faults: Faults) -> None:
    document = {**training(), "amp": "yes"}
    environment = {"use_gpu": 1, "tf32": None}

    assert train_faults(document, environment, overrides={"multi_gpu": 2}) == [
        "config_train.json: amp: amp has to be true or false, found 'yes'",
        "--set: multi_gpu: multi_gpu has to be true or false, found 2",
        "environment.json: use_gpu: use_gpu has to be true or false, found 1",
        "environment.json: tf32: tf32 has to be true or false, found None",
    ]


@pytest.mark.parametrize("raw", [5, False, [], {"random_seed": 1, "seed": 2}])
def test_determinism_has_one_entry(train_faults: Faults, raw: object) -> None:
    assert train_faults({**training(), "determinism": raw}) == [
        "config_train.json: determinism: has to be an object with one entry, random_seed"
    ]


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({}, "None"),
        ({"random_seed": -1}, "-1"),
        ({"random_seed": 2**32}, "4294967296"),
        ({"random_seed": True}, "True"),
        ({"random_seed": 0.5}, "0.5"),
        ({"random_seed": "0"}, "'0'"),
    ],
)
def test_a_seed_is_a_whole_number(train_faults: Faults, raw: object, found: str) -> None:
    assert train_faults({**training(), "determinism": raw}) == [
        "config_train.json: determinism.random_seed: has to be a whole number from 0 to "
        f"2**32 - 1, found {found}"
    ]


def test_a_seed_that_is_not_defined_is_told_once(train_faults: Faults) -> None:
    [fault] = train_faults({**training(), "determinism": {"random_seed": "{SEED}"}})

    assert fault.startswith(
        "config_train.json: determinism.random_seed: the variable {SEED} is not defined"
    )


@pytest.mark.parametrize("raw", [5, {}, {"network": "@model"}, {"network": 1, "size": 2}])
def test_a_network_summary_has_two_entries(train_faults: Faults, raw: object) -> None:
    assert train_faults({**training(), "network_summary": raw}) == [
        "config_train.json: network_summary: has to be an object with network and input_size"
    ]


@pytest.mark.parametrize("size", [[], 5, [1, 0], [1, -1], [1, 2.5], [True], ["1"]])
def test_a_network_summary_is_of_the_model_and_for_a_shape(
    train_faults: Faults, size: object
) -> None:
    document = {**training(), "network_summary": {"network": "model", "input_size": size}}

    assert train_faults(document) == [
        'config_train.json: network_summary.network: has to be "@model"',
        "config_train.json: network_summary.input_size: has to be an array of positive whole "
        "numbers: batch, channels, voxels",
    ]


# --- Documents that cannot be read ---------------------------------------------------------------


def test_faults_of_both_documents_are_told_together(train_faults: Faults) -> None:
    assert train_faults('{"epochs": NaN}', "[1]") == [
        "config_train.json: epochs: NaN is not JSON\n    Write a finite number or null.",
        "environment.json: has to be a JSON object",
    ]


def test_a_missing_document_comes_with_those_that_are_there(tiny_mmar: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_train_config(Mmar.open(tiny_mmar), file="config_trian.json")

    [problem] = caught.value.problems
    assert problem.location.file == "config_trian.json"
    assert problem.advice == (
        "In that folder: config_cross_validation.json, config_train.json, "
        "config_validation.json, environment.json."
    )


# --- Sections and entries ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "found"),
    [({}, "is missing"), ({"train": None}, "is missing"), ({"train": []}, "has to be an object")],
)
def test_a_training_needs_its_section(train_faults: Faults, document: Any, found: str) -> None:
    assert train_faults(document) == [f"config_train.json: train: the section 'train' {found}"]


def test_the_other_section_is_an_object(train_faults: Faults) -> None:
    assert train_faults({**training(), "validate": [1]}) == [
        "config_train.json: validate: the section 'validate' has to be an object"
    ]


def test_an_unknown_section_is_a_mistake(train_faults: Faults) -> None:
    assert train_faults({**training(), "valdiate": {}, "determinisim": {}, "sizes": [1]}) == [
        "config_train.json: valdiate: unknown section 'valdiate'\n    Did you mean 'validate'?",
        "config_train.json: determinisim: unknown section 'determinisim'\n"
        "    Did you mean 'determinism'?",
        "config_train.json: sizes: unknown section 'sizes'\n"
        "    Allowed: 'determinism', 'network_summary', 'train', 'validate'.",
    ]


def test_an_unknown_entry_is_a_mistake(train_faults: Faults) -> None:
    [misspelled, no_component] = train_faults(training(handlres=[], note="text"))

    assert misspelled == (
        "config_train.json: train.handlres: unknown entry 'handlres'\n    Did you mean 'handlers'?"
    )
    assert no_component == "config_train.json: train.note: unknown entry 'note'"


def test_an_entry_may_stand_in_the_wrong_section(
    train_faults: Faults, evaluation_faults: Faults
) -> None:
    message = "does not belong into this section"

    assert train_faults(
        {
            "train": {"trainer": TRAINER, "evaluator": EVALUATOR},
            "validate": {"evaluator": EVALUATOR, "loss": {"name": "DiceLoss"}},
        }
    ) == [
        f"config_train.json: train.evaluator: the entry 'evaluator' {message}",
        f"config_train.json: validate.loss: the entry 'loss' {message}",
    ]
    assert evaluation_faults(evaluation(optimizer={"name": "Adam"})) == [
        f"config_validation.json: optimizer: the entry 'optimizer' {message}"
    ]


@pytest.mark.parametrize(
    ("raw", "found"), [("@dice", "'@dice'"), ("DiceLoss", "'DiceLoss'"), ([], "an array")]
)
def test_an_entry_is_a_component(train_faults: Faults, raw: object, found: str) -> None:
    assert train_faults(training(loss=raw)) == [
        "config_train.json: train.loss: has to be a component, an object with 'name' or 'path', "
        f"found {found}"
    ]


def test_a_list_of_components_holds_components(train_faults: Faults) -> None:
    [fault] = train_faults(training(handlers=[{"name": "StatsHandler"}, "@stats"]))

    assert fault.startswith("config_train.json: train.handlers[1]: has to be a component")


def test_a_list_of_components_is_an_array(train_faults: Faults) -> None:
    trainer = {"name": "SupervisedTrainer", "args": {"train_handlers": "@handlers"}}

    assert train_faults({"train": {"handlers": {"name": "StatsHandler"}, "trainer": trainer}}) == [
        "config_train.json: train.handlers: has to be an array of components"
    ]


# --- Refs ----------------------------------------------------------------------------------------


def validating(*transforms: Any, train: Any = ()) -> dict[str, Any]:
    return {
        "train": {"trainer": TRAINER, "pre_transforms": list(train)},
        "validate": {"evaluator": EVALUATOR, "pre_transforms": list(transforms)},
    }


def transform(name: str, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args}


def test_a_ref_is_the_transform_of_that_name_or_alias(load_train: LoadTrain) -> None:
    train = [transform("Spacingd#first", pixdim=1), transform("Flipd", axis=0)]

    config = load_train(validating({"ref": "first"}, {"ref": "Flipd"}, train=train))

    assert config.validate is not None
    found = config.validate.specs("pre_transforms")
    assert [plain(spec) for spec in found] == [transform("Spacingd", pixdim=1), train[1]]
    assert [spec.location.place for spec in found] == [
        "train.pre_transforms[0]",
        "train.pre_transforms[1]",
    ]


def test_a_ref_may_enable_what_is_disabled_and_disable_what_is_not(load_train: LoadTrain) -> None:
    train = [{**transform("Flipd"), "disabled": True}, transform("Spacingd")]

    config = load_train(
        validating({"ref": "Flipd"}, {"ref": "Spacingd", "disabled": True}, train=train)
    )

    assert config.validate is not None
    assert [spec.title for spec in config.train.specs("pre_transforms")] == ["Spacingd"]
    assert [spec.title for spec in config.validate.specs("pre_transforms")] == ["Flipd"]


def test_a_ref_to_nothing(train_faults: Faults) -> None:
    assert train_faults(validating({"ref": "Spacignd"}, train=[transform("Spacingd")])) == [
        "config_train.json: validate.pre_transforms[0].ref: no transform of the train section is "
        "called 'Spacignd'\n    Did you mean 'Spacingd'?"
    ]


def test_of_very_many_faults_the_first_are_told(train_faults: Faults) -> None:
    unknown = [{"ref": f"Nothing{index}"} for index in range(2 * MAX_PROBLEMS)]

    assert len(train_faults(validating(*unknown, train=[]))) == MAX_PROBLEMS


def test_a_ref_to_two_different_transforms(train_faults: Faults) -> None:
    train = [transform("Flipd", axis=0), transform("Flipd", axis=1)]

    assert train_faults(validating({"ref": "Flipd"}, train=train)) == [
        "config_train.json: validate.pre_transforms[0].ref: 'Flipd' could mean several transforms: "
        "train.pre_transforms[0], train.pre_transforms[1]\n"
        '    Give each an alias in the train section, such as "Flipd#first".'
    ]


def test_a_ref_to_two_equal_transforms_is_no_question(load_train: LoadTrain) -> None:
    load_train(validating({"ref": "Flipd"}, train=[transform("Flipd"), transform("Flipd")]))


def test_refs_repeat_only_so_much(load_train: LoadTrain, train_faults: Faults) -> None:
    long = transform("Flipd", note=["x" * 4000] * 30)  # 120,000 characters
    load_train(validating({"ref": "Flipd"}, {"ref": "Flipd"}, train=[long]))

    [found] = train_faults(validating(*[{"ref": "Flipd"}] * 3, train=[long]))
    assert found.startswith("config_train.json: its refs repeat 36")
    assert found.endswith(f" characters of transforms; {MAX_REPEATED} is the most")


def test_an_evaluation_may_refer_to_its_own_transforms(load_evaluation: LoadEvaluation) -> None:
    config = load_evaluation(
        evaluation(pre_transforms=[transform("Flipd")], post_transforms=[{"ref": "Flipd"}])
    )

    assert config.section.specs("post_transforms")[0].title == "Flipd"


def test_a_ref_stands_among_transforms_only(train_faults: Faults) -> None:
    document = training(
        loss={"ref": "Flipd"},
        handlers=[{"ref": "Flipd", "disabled": True}],
        pre_transforms=[transform("Flipd"), transform("Compose", transforms=[{"ref": "Flipd"}])],
    )

    message = "a 'ref' is only allowed in pre_transforms or post_transforms themselves"
    assert train_faults(document) == [
        f"config_train.json: train.{place}: {message}"
        for place in ("loss", "handlers[0]", "pre_transforms[1].args.transforms[0]")
    ]


# --- The model of an evaluation ------------------------------------------------------------------


ALTERNATIVES = [
    {"ts_path": "model.ts", "disabled": "{no_ts}"},
    {"ckpt_path": "model.pt", "disabled": "{no_ckpt}"},
]


def test_of_two_models_the_enabled_one_counts(load_evaluation: LoadEvaluation) -> None:
    document = {"no_ts": True, "no_ckpt": False, **evaluation(model=ALTERNATIVES)}

    assert plain(load_evaluation(document).model) == {"ckpt_path": "model.pt"}


@pytest.mark.parametrize(("off", "count"), [(True, 0), (False, 2)])
def test_exactly_one_model_is_enabled(evaluation_faults: Faults, off: bool, count: int) -> None:
    document = {"no_ts": off, "no_ckpt": off, **evaluation(model=ALTERNATIVES)}

    assert evaluation_faults(document) == [
        "config_validation.json: model: exactly one entry has to be enabled, found "
        f"{count} of 2\n"
        "    Set dont_load_ts_model and dont_load_ckpt_model so that one of them is false."
    ]


@pytest.mark.parametrize("model", [[], {"name": "UNet", "disabled": True}])
def test_a_model_that_is_not_there(evaluation_faults: Faults, model: object) -> None:
    [fault] = evaluation_faults(evaluation(model=model))

    assert "model: exactly one entry has to be enabled, found 0 of " in fault


def test_an_evaluation_needs_a_model(evaluation_faults: Faults) -> None:
    assert evaluation_faults({"evaluator": EVALUATOR}) == [
        "config_validation.json: model: the entry 'model' is missing"
    ]


def test_a_fault_inside_a_model_is_told_alone(evaluation_faults: Faults) -> None:
    assert evaluation_faults(
        evaluation(model=[{"ckpt_path": 5}, {"ts_path": "a", "disabled": 1}])
    ) == [
        "config_validation.json: model[0].ckpt_path: has to be a string, found 5",
        "config_validation.json: model[1].disabled: has to be true or false, found 1",
    ]


def test_a_file_of_weights_is_no_network_to_train(train_faults: Faults) -> None:
    off = {"ckpt_path": "model.pt", "disabled": True}

    assert train_faults(training(model={"ts_path": "model.ts"}, handlers=[off])) == [
        "config_train.json: train.model: 'ts_path' has a meaning only in the model of an "
        "evaluation",
        "config_train.json: train.handlers[0]: 'ckpt_path' has a meaning only in the model of an "
        "evaluation",
    ]


@pytest.mark.parametrize("name", ["train", "validate"])
def test_a_training_is_no_evaluation(evaluation_faults: Faults, name: str) -> None:
    assert evaluation_faults({name: {"loss": {"name": "DiceLoss"}}}) == [
        f"config_validation.json: {name}: an evaluation document has no section {name!r}\n"
        "    Is this a training document? Use 'mmar train' for it."
    ]


def test_an_unknown_entry_of_an_evaluation(evaluation_faults: Faults) -> None:
    assert evaluation_faults(evaluation(datset={"batch": 1})) == [
        "config_validation.json: datset: unknown entry 'datset'\n    Did you mean 'dataset'?"
    ]


# --- All at once ---------------------------------------------------------------------------------


def test_all_faults_of_a_config_are_told_together(train_faults: Faults, tmp_path: Path) -> None:
    """One of nearly every kind, from the parser to the data, in the order of the stages."""
    (tmp_path / "data").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps({"training": ["missing.nii"]}))
    document = {
        "amp": "yes",
        "extra": {},
        "train": {
            "loss": {"name": "DiceLos"},
            "optimizer": {"name": "StepLR", "args": {"lr": "{lerning_rate}"}},
            "model": {"name": "UNet", "args": {"chanels": [4]}, "disabled": "no"},
            "lr_scheduler": {"name": "StepLR", "args": {"optimizer": "@optimiser", "step_size": 1}},
            "inferer": {"name": "SimpleInferer", "rank": "first"},
            "pre_transforms": [{"ref": "Flipd"}],
            "dataset": {
                "name": "Dataset",
                "data_list_file_path": "{DATASET_JSON}",
                "data_file_base_dir": "{DATA_ROOT}",
                "data_list_key": "training",
            },
            "key_metric": {
                "name": "MeanDice",
                "log_label": "dice",
                "args": {"output_transform": "#monai.handlers.from_engine(['prediction'])"},
            },
            "handlers": [{"name": "MetricsSaver", "args": {"save_dir": "x", "metrics": ["acc"]}}],
            "a": {"name": "Compose", "args": {"transforms": "@b"}},
            "b": {"name": "Compose", "args": {"transforms": "@a"}},
            "trainer": {"path": "own.Trainer", "args": {"inferer": {"name": "A", "args": {}}}},
        },
    }
    environment = {
        "learning_rate": 0.1,
        "DATA_ROOT": str(tmp_path / "data"),
        "DATASET_JSON": str(tmp_path / "dataset.json"),
    }

    found = train_faults(document, environment, checks=CHECKS)

    train = "config_train.json: train"
    assert [fault.splitlines()[0] for fault in found] == [
        f"{train}.optimizer.args.lr: the variable {{lerning_rate}} is not defined",
        f"{train}.model.disabled: has to be true or false, found 'no'",
        f"{train}.inferer.rank: has to be a process number from 0, found 'first'",
        f"{train}.trainer.args.inferer: a component inside another component's arguments; only the "
        "transforms of Compose, OneOf, RandomOrder and SomeOf may be given so",
        "config_train.json: extra: unknown section 'extra'",
        f"{train}.pre_transforms[0].ref: no transform of the train section is called 'Flipd'",
        "config_train.json: amp: amp has to be true or false, found 'yes'",
        f"{train}.lr_scheduler.args.optimizer: @optimiser refers to an entry that does not exist",
        f"{train}.a: references go in a circle: @a -> @b -> @a",
        f"{train}.handlers[0].args.metrics[0]: no metric of this section is called 'acc'",
        f"{train}.loss.name: unknown loss 'DiceLos'",
        f"{train}.optimizer.name: 'StepLR' is a lr scheduler; this entry takes an optimizer",
        f"{train}.model.args.chanels: UNet: unknown argument 'chanels'",
        *(
            f"{train}.model.args: UNet: the required argument {name!r} is missing"
            for name in ("spatial_dims", "in_channels", "out_channels", "channels", "strides")
        ),
        f"{train}.trainer.path: 'own.Trainer' is code that this site has not allowed",
        "dataset.json: training[0].image: there is no file "
        f"{str(tmp_path / 'data' / 'missing.nii')!r}",
    ]


def test_a_fault_that_a_ref_repeats_is_told_once(train_faults: Faults) -> None:
    document = validating({"ref": "Flipd"}, train=[transform("Flipd", kyes="image", keys="image")])
    document["train"]["trainer"] = document["validate"]["evaluator"] = {"path": "own.Engine"}

    assert train_faults(document, checks=[component_check(allow_code=True)]) == [
        "config_train.json: train.pre_transforms[0].args.kyes: Flipd: unknown argument 'kyes'\n"
        "    Allowed: 'allow_missing_keys', 'lazy', 'spatial_axis'."
    ]


def test_further_checks_see_the_config(load_train: LoadTrain) -> None:
    def check(config: Any) -> list[Problem]:
        return [Problem(config.train.location, "seen", rule="mine")]

    with pytest.raises(ConfigError) as caught:
        load_train(training(), checks=[check])

    assert [problem.as_dict() for problem in caught.value.problems] == [
        {
            "rule": "mine",
            "file": "config_train.json",
            "place": "train",
            "message": "seen",
            "advice": "",
        }
    ]


# --- Without a framework -------------------------------------------------------------------------


def test_reading_a_config_imports_neither_torch_nor_monai() -> None:
    program = """
import importlib, pkgutil, sys
import mmar_runtime.config, mmar_runtime.policy
for package in (mmar_runtime.config, mmar_runtime.policy):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    for framework in ("torch", "monai", "ignite", "nvflare", "numpy"):
        assert repr(framework) not in found.stdout
    assert "'mmar_runtime'" in found.stdout


# --- Values that nothing uses --------------------------------------------------------------------


def test_a_value_that_nothing_uses_is_announced(tiny_mmar: Path) -> None:
    config = load_train_config(Mmar.open(tiny_mmar), overrides={"epohcs": 5, "epochs": 1})

    [notice] = [one for one in config.notices if one.rule == "unused-variable"]
    assert notice.message == "nothing here uses the variable 'epohcs'. Did you mean 'epochs'?"
    assert str(notice.places[0]) == "--set: epohcs"


def test_settings_and_variables_that_a_text_asks_for_are_used(tiny_mmar: Path) -> None:
    path = tiny_mmar / "config/config_train.json"
    document = json.loads(path.read_text())
    document["train"].setdefault("handlers", []).append(
        {"name": "TensorBoardStatsHandler", "args": {"log_dir": "runs/{fold}"}}
    )
    path.write_text(json.dumps(document))

    config = load_train_config(Mmar.open(tiny_mmar), overrides={"tf32": False, "fold": 0})

    assert not [one for one in config.notices if one.rule == "unused-variable"]
