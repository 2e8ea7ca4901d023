"""A whole workflow as values: sections, the scope of a name, and back to JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from mmar_runtime.config.location import Location
from mmar_runtime.config.nodes import Literal
from mmar_runtime.config.sections import EvaluationConfig, Section, TrainConfig
from mmar_runtime.config.upgrades import Notice

TRAIN: dict[str, Any] = {
    "epochs": 5,
    "determinism": {"random_seed": 3},
    "train": {
        "loss": {"name": "DiceLoss"},
        "model": {"name": "UNet"},
        "inferer": {"name": "SimpleInferer"},
        "handlers": [
            {"name": "CheckpointLoader"},
            {"name": "StatsHandler", "disabled": True},
            {"path": "own.Handler"},
        ],
        "trainer": {"name": "SupervisedTrainer", "args": {"max_epochs": "{epochs}"}},
    },
    "validate": {
        "inferer": {"name": "SlidingWindowInferer"},
        "evaluator": {"name": "SupervisedEvaluator"},
    },
}


@pytest.fixture
def config(load_train: Callable[..., TrainConfig]) -> TrainConfig:
    return load_train(TRAIN, {"DATA_ROOT": "/data"})


@pytest.fixture
def evaluation(load_evaluation: Callable[..., EvaluationConfig]) -> EvaluationConfig:
    document = {"a": 1, "model": {"ts_path": "m.ts"}, "evaluator": {"name": "SupervisedEvaluator"}}
    return load_evaluation(document)


def test_a_config_cannot_be_changed(config: TrainConfig) -> None:
    with pytest.raises(FrozenInstanceError):
        config.file = "other.json"  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.train.entries["loss"] = config.train.entries["model"]  # type: ignore[index]


def test_the_components_of_an_entry_are_the_enabled_ones(config: TrainConfig) -> None:
    titles = [spec.title for spec in config.train.specs("handlers")]

    assert titles == ["CheckpointLoader", "Handler"]
    assert [spec.title for spec in config.train.specs("loss")] == ["DiceLoss"]
    assert config.train.specs("optimizer") == ()


def test_handlers_can_be_left_out_by_class(config: TrainConfig) -> None:
    train = config.train.without_handlers("CheckpointLoader", "Handler")

    assert train.specs("handlers") == ()
    assert train.specs("loss") == config.train.specs("loss")
    assert len(config.train.specs("handlers")) == 2


def test_a_section_without_handlers_stays_as_it_is(config: TrainConfig) -> None:
    assert config.validate is not None
    assert config.validate.without_handlers("CheckpointLoader") is config.validate


def test_a_section_can_be_given_other_entries(config: TrainConfig) -> None:
    train = config.train.replaced(inferer=config.train.entries["loss"])

    assert train.entries["inferer"] is config.train.entries["loss"]
    assert config.with_train(train).train is train
    assert config.train.specs("inferer")[0].title == "SimpleInferer"


def test_a_name_means_the_own_sections_entry_first(config: TrainConfig) -> None:
    assert config.find("train", "inferer") == ("train", "inferer")
    assert config.find("validate", "inferer") == ("validate", "inferer")
    assert config.find("validate", "model") == ("train", "model")
    assert config.find("train", "evaluator") == ("validate", "evaluator")
    assert config.find("train", "dataset") is None


def test_a_disabled_entry_is_not_replaced_by_another_sections(config: TrainConfig) -> None:
    assert config.validate is not None
    entries = {key: node for key, node in config.validate.entries.items() if key != "inferer"}
    validate = replace(config.validate, entries=entries, disabled=frozenset({"inferer"}))
    config = replace(config, validate=validate)

    assert config.find("validate", "inferer") is None
    assert config.find("train", "inferer") == ("train", "inferer")


def test_a_training_without_validation_has_one_scope(config: TrainConfig) -> None:
    assert list(config.scopes) == ["train", "validate"]
    assert list(replace(config, validate=None).scopes) == ["train"]


def test_variables_are_asked_by_name(config: TrainConfig) -> None:
    assert config.value("epochs") == 5
    assert config.value("DATA_ROOT") == "/data"
    assert config.value("nothing") is None


def test_a_training_as_json_is_what_runs(config: TrainConfig) -> None:
    assert config.as_json() == {
        "epochs": 5,
        "determinism": {"random_seed": 3},
        "train": {
            "loss": {"name": "DiceLoss"},
            "model": {"name": "UNet"},
            "inferer": {"name": "SimpleInferer"},
            "handlers": [{"name": "CheckpointLoader"}, {"path": "own.Handler"}],
            "trainer": {"name": "SupervisedTrainer", "args": {"max_epochs": 5}},
        },
        "validate": {
            "inferer": {"name": "SlidingWindowInferer"},
            "evaluator": {"name": "SupervisedEvaluator"},
        },
    }


def test_what_runs_can_be_loaded_again(
    config: TrainConfig, load_train: Callable[..., TrainConfig]
) -> None:
    assert load_train(config.as_json()).as_json() == config.as_json()


def test_without_a_seed_there_is_no_determinism(load_train: Callable[..., TrainConfig]) -> None:
    assert "determinism" not in load_train({"train": TRAIN["train"], "epochs": 1}).as_json()


def test_an_evaluation_is_one_nameless_section(evaluation: EvaluationConfig) -> None:
    assert list(evaluation.scopes) == [""]
    assert evaluation.find("", "evaluator") == ("", "evaluator")
    assert evaluation.as_json() == {
        "a": 1,
        "evaluator": {"name": "SupervisedEvaluator"},
        "model": {"ts_path": "m.ts"},
    }


def test_an_evaluations_model_is_a_component_or_a_file(evaluation: EvaluationConfig) -> None:
    nothing = Literal(location=Location("a.json"), value=None)

    assert evaluation.model is evaluation.section.entries["model"]
    with pytest.raises(TypeError, match="no Literal through as a model"):
        _ = evaluation.with_section(
            Section(location=nothing.location, entries={"model": nothing})
        ).model


def test_a_notice_names_the_first_place_and_counts_the_others() -> None:
    places = tuple(Location("train.json") / "handlers" / index for index in range(3))

    def text(count: int) -> str:
        return str(Notice(rule="r", message="X runs as Y", places=places[:count]))

    assert text(1) == "X runs as Y (train.json: handlers[0])"
    assert text(3) == "X runs as Y (train.json: handlers[0] and 2 more)"
