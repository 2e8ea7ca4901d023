"""What is wrong between parts that are each right: names that lead nowhere, or in a circle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmar_runtime.config.consistency import metric_labels
from mmar_runtime.config.sections import TrainConfig

Faults = Callable[..., list[str]]

TRAINER = {"name": "SupervisedTrainer"}
EVALUATOR = {"name": "SupervisedEvaluator"}
FROM_ENGINE = "#monai.handlers.from_engine"


def training(**entries: Any) -> dict[str, Any]:
    return {"train": {"trainer": TRAINER, **entries}}


def entry(*references: str, **more: Any) -> dict[str, Any]:
    """A component that refers to others."""
    return {"name": "A", "args": {"of": [f"@{name}" for name in references]}, **more}


def metric(label: str, keys: str = "['pred', 'label']") -> dict[str, Any]:
    args = {"output_transform": f"{FROM_ENGINE}({keys})"}
    return {"name": "MeanDice", "log_label": label, "args": args}


# --- Entries that must be there ------------------------------------------------------------------


def test_a_section_needs_its_engine(train_faults: Faults, evaluation_faults: Faults) -> None:
    loss = {"name": "DiceLoss"}

    assert train_faults({"train": {"loss": loss}, "validate": {"inferer": loss}}) == [
        "config_train.json: train.trainer: the entry 'trainer' is missing",
        "config_train.json: validate.evaluator: the entry 'evaluator' is missing",
    ]
    assert evaluation_faults({"model": {"name": "UNet"}, "dataset": {"name": "Dataset"}}) == [
        "config_validation.json: evaluator: the entry 'evaluator' is missing"
    ]


def test_an_engine_that_is_disabled_is_missing_too(train_faults: Faults) -> None:
    document = {"train": {"loss": {"name": "A"}, "trainer": {**TRAINER, "disabled": True}}}

    assert train_faults(document) == [
        "config_train.json: train.trainer: the entry 'trainer' is disabled"
    ]


def test_a_model_alone_needs_no_engine(train_faults: Faults, evaluation_faults: Faults) -> None:
    assert train_faults({"train": {"model": {"name": "UNet"}}}) == []
    assert evaluation_faults({"model": {"name": "UNet"}}) == []


def test_a_trainer_of_the_mmars_own_needs_nothing_else(train_faults: Faults) -> None:
    assert train_faults({"train": {"trainer": {"path": "own.trainer.Trainer"}}}) == []


# --- References ----------------------------------------------------------------------------------


def test_an_unresolved_reference_names_its_place(train_faults: Faults) -> None:
    document = training(
        optimizer={"name": "Adam", "args": {"params": "#@modle.parameters()"}},
        model={"name": "UNet"},
        handlers=[{"name": "A", "args": {"save_dict": {"x": ["@nothing"]}}}],
    )

    assert train_faults(document) == [
        "config_train.json: train.optimizer.args.params: @modle refers to an entry that does not "
        "exist\n    Did you mean 'model'?",
        "config_train.json: train.handlers[0].args.save_dict.x[0]: @nothing refers to an entry "
        "that does not exist\n    Allowed: 'conf', 'handlers', 'model', 'optimizer', 'trainer'.",
    ]


def test_a_reference_may_lead_into_the_other_section(train_faults: Faults) -> None:
    document = {
        "train": {"trainer": TRAINER, "model": {"name": "UNet"}, "mine": entry("evaluator")},
        "validate": {"evaluator": {"name": "SupervisedEvaluator", "args": {"network": "@model"}}},
    }

    assert train_faults(document) == []


def test_the_whole_configuration_is_always_there(train_faults: Faults) -> None:
    assert train_faults(training(mine=entry("conf"))) == []


def test_a_reference_to_a_disabled_entry_says_so(train_faults: Faults) -> None:
    document = {
        "off": True,
        **training(lr_scheduler=entry(disabled="{off}"), mine=entry("lr_scheduler")),
    }

    assert train_faults(document) == [
        "config_train.json: train.mine.args.of[0]: @lr_scheduler refers to an entry that is "
        "disabled, config_train.json: train.lr_scheduler\n"
        "    Enable it, or take this reference out."
    ]


def test_a_disabled_entry_is_not_replaced_by_the_other_sections(train_faults: Faults) -> None:
    document = {
        "train": {"trainer": TRAINER, "inferer": entry()},
        "validate": {
            "inferer": entry(disabled=True),
            "evaluator": {"name": "SupervisedEvaluator", "args": {"inferer": "@inferer"}},
        },
    }

    [fault] = train_faults(document)

    assert "@inferer refers to an entry that is disabled, config_train.json: validate" in fault


def test_what_is_disabled_may_refer_to_what_is_not_there(train_faults: Faults) -> None:
    handler = entry("lr_scheduler", disabled=True)

    assert train_faults(training(handlers=[handler], mine=handler)) == []


# --- Circles -------------------------------------------------------------------------------------


def test_references_in_a_circle_are_told_step_by_step(train_faults: Faults) -> None:
    document = training(a=entry("b"), b=entry("c"), c=entry("b"))

    assert train_faults(document) == [
        "config_train.json: train.b: references go in a circle: @b -> @c -> @b\n"
        "    Nothing can be built first here; take one of these references out."
    ]


def test_an_entry_that_refers_to_itself_is_a_circle(train_faults: Faults) -> None:
    [fault] = train_faults(training(a=entry("a", "a")))

    assert fault.startswith("config_train.json: train.a: references go in a circle: @a -> @a\n")


def test_a_circle_may_run_through_both_sections_and_through_expressions(
    train_faults: Faults,
) -> None:
    document = {
        "train": {"trainer": TRAINER, "mine": {"name": "A", "args": {"a": "#@evaluator"}}},
        "validate": {"evaluator": {"name": "SupervisedEvaluator", "args": {"a": "@mine"}}},
    }

    [fault] = train_faults(document)

    assert "train.mine: references go in a circle: @mine -> @evaluator -> @mine" in fault


def test_two_circles_are_two_faults(train_faults: Faults) -> None:
    document = training(a=entry("b", "c"), b=entry("a"), c=entry("c"), d=entry("a"))

    places = [fault.split(": ")[1] for fault in train_faults(document)]

    assert places == ["train.a", "train.c"]


def test_many_ways_to_one_entry_are_no_circle(train_faults: Faults) -> None:
    assert train_faults(training(a=entry("b", "c"), b=entry("d"), c=entry("d"), d=entry())) == []


CHAIN = 3000
"""Longer than Python's stack is deep."""


def test_a_long_chain_is_followed_to_its_end(train_faults: Faults) -> None:
    chain = {f"e{index}": entry(f"e{index + 1}") for index in range(CHAIN)}

    assert train_faults(training(**chain, **{f"e{CHAIN}": entry()})) == []
    [fault] = train_faults(training(**chain, **{f"e{CHAIN}": entry("e0")}))
    assert fault.startswith("config_train.json: train.e0: references go in a circle: @e0 -> @e1 ->")


def test_a_dense_graph_is_followed_once(train_faults: Faults) -> None:
    """Each of 30 layers refers to both entries of the next: a billion ways, sixty entries."""
    graph = {
        f"{side}{layer}": entry(f"a{layer + 1}", f"b{layer + 1}")
        for layer in range(30)
        for side in "ab"
    }
    started = time.monotonic()

    assert train_faults(training(**graph, a30=entry(), b30=entry())) == []
    assert time.monotonic() - started < 5


COUNT = 8
edges = st.sets(st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)), max_size=20)
order = st.permutations(range(COUNT))
fresh = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def graph(edges: set[tuple[int, int]], order: list[int]) -> dict[str, Any]:
    """Entries in some order; each refers to the ends of its edges."""
    return training(
        **{
            f"e{one}": entry(*(f"e{end}" for start, end in sorted(edges) if start == one))
            for one in order
        }
    )


def acyclic(edges: set[tuple[int, int]]) -> set[tuple[int, int]]:
    return {(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]}


@fresh
@given(edges=edges, order=order)
def test_references_without_a_circle_load(
    train_faults: Faults, edges: set[tuple[int, int]], order: list[int]
) -> None:
    assert train_faults(graph(acyclic(edges), order)) == []


@fresh
@given(edges=edges, order=order, back=st.data())
def test_one_reference_back_makes_a_circle(
    train_faults: Faults, edges: set[tuple[int, int]], order: list[int], back: Any
) -> None:
    forward = acyclic(edges) | {(0, 1)}
    start, end = back.draw(st.sampled_from(sorted(forward)))

    found = train_faults(graph(forward | {(end, start)}, order))

    assert found
    assert all("references go in a circle: " in fault for fault in found)
    assert all(is_a_circle(fault, forward | {(end, start)}) for fault in found)


@fresh
@given(edges=edges, order=order)
def test_the_search_for_circles_ends_and_tells_only_true_ones(
    train_faults: Faults, edges: set[tuple[int, int]], order: list[int]
) -> None:
    assert all(is_a_circle(fault, edges) for fault in train_faults(graph(edges, order)))


def is_a_circle(fault: str, edges: set[tuple[int, int]]) -> bool:
    """Whether the steps that a fault tells are references of the graph and end where they began."""
    steps = fault.split("circle: ")[1].splitlines()[0].split(" -> ")
    numbers = [int(step.removeprefix("@e")) for step in steps]
    return numbers[0] == numbers[-1] and set(pairwise(numbers)) <= edges


# --- Ranks ---------------------------------------------------------------------------------------


def test_a_handler_may_be_kept_to_one_process(train_faults: Faults) -> None:
    assert train_faults(training(handlers=[{"name": "StatsHandler", "rank": 0}])) == []


def test_anything_else_is_built_in_every_process(train_faults: Faults) -> None:
    ranked = {"name": "A", "rank": 0}
    document = training(
        model=ranked,
        pre_transforms=[ranked, {"name": "Compose", "args": {"transforms": [ranked]}}],
        mine=ranked,
    )

    advice = "only a handler may be kept to one process by 'rank'\n    Take 'rank' out here."
    assert train_faults(document) == [
        f"config_train.json: train.model.rank: {advice}",
        f"config_train.json: train.pre_transforms[0].rank: {advice}",
        f"config_train.json: train.pre_transforms[1].args.transforms[0].rank: {advice}",
        f"config_train.json: train.mine.rank: {advice}",
    ]


# --- Clara 4.0's implicit wiring -----------------------------------------------------------------


# --- Metrics -------------------------------------------------------------------------------------


def test_the_key_metric_is_the_first_of_the_labels(load_train: Callable[..., TrainConfig]) -> None:
    config = load_train(
        training(additional_metrics=[metric("acc"), metric("hd")], key_metric=metric("dice"))
    )

    assert metric_labels(config.train) == ("dice", "acc", "hd")


def test_a_metric_needs_a_label(train_faults: Faults) -> None:
    nameless = {"name": "MeanDice"}

    assert train_faults(training(key_metric=nameless, additional_metrics=[nameless])) == [
        f"config_train.json: train.{place}: a metric needs a 'log_label', the name of its value "
        "in results"
        for place in ("key_metric", "additional_metrics[0]")
    ]


def test_two_metrics_cannot_share_a_label(train_faults: Faults) -> None:
    document = training(
        key_metric=metric("dice"),
        additional_metrics=[metric("acc"), metric("dice"), {**metric("acc"), "disabled": True}],
    )

    assert train_faults(document) == [
        "config_train.json: train.additional_metrics[1].log_label: another metric of this section "
        "is called 'dice' too\n    Rename one."
    ]


def saver(**args: Any) -> list[dict[str, Any]]:
    return [{"name": "StatsHandler"}, {"name": "MetricsSaver", "args": {"save_dir": "x", **args}}]


def evaluation(**entries: Any) -> dict[str, Any]:
    return {
        "model": {"name": "UNet"},
        "key_metric": metric("val_dice"),
        "evaluator": EVALUATOR,
        **entries,
    }


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"metrics": "*", "metric_details": ["val_dice"]},
        {"metrics": ["val_dice", "loss"], "metric_details": "*"},
        {"metrics": None},
        {"metrics": "@conf"},
    ],
)
def test_a_report_of_metrics_that_are_computed(evaluation_faults: Faults, args: Any) -> None:
    assert evaluation_faults(evaluation(handlers=saver(**args))) == []


def test_a_report_of_a_metric_that_nothing_computes(evaluation_faults: Faults) -> None:
    handlers = saver(metrics=["val_dice", "val_dcie"], metric_details="val_accuracy")

    assert evaluation_faults(evaluation(handlers=handlers)) == [
        "config_validation.json: handlers[1].args.metrics[1]: no metric of this section is called "
        "'val_dcie'\n    Did you mean 'val_dice'?",
        "config_validation.json: handlers[1].args.metric_details: no metric of this section is "
        "called 'val_accuracy'\n    Allowed: 'val_dice'.",
    ]


# --- Keys of an engine's output ------------------------------------------------------------------


def test_a_key_that_nothing_produces(evaluation_faults: Faults) -> None:
    assert evaluation_faults(evaluation(key_metric=metric("dice", "['prde', 'label']"))) == [
        "config_validation.json: key_metric.args.output_transform: nothing produces 'prde', which "
        "from_engine asks for\n    Did you mean 'pred'?"
    ]


@pytest.mark.parametrize("key", ["image", "label", "pred", "loss", "pred_meta_dict", "mask"])
def test_keys_come_from_the_engine_and_from_the_transforms(
    evaluation_faults: Faults, key: str
) -> None:
    transforms = [{"name": "LoadImaged", "args": {"keys": ["image", "label", "mask"]}}]

    document = evaluation(key_metric=metric("dice", f"'{key}'"), pre_transforms=transforms)

    assert evaluation_faults(document) == []


@pytest.mark.parametrize(
    ("key", "postfixes"), [("pred_tumor", ["tumor", "organ"]), ("pred_1", None)]
)
def test_keys_of_channels_are_those_of_the_split(
    evaluation_faults: Faults, key: str, postfixes: list[str] | None
) -> None:
    args = (
        {"keys": "pred"} if postfixes is None else {"keys": "pred", "output_postfixes": postfixes}
    )
    split = {"name": "SplitDimd", "args": args}

    def faults(asked: str) -> list[str]:
        dice = metric("dice", f"['{asked}', 'label']")
        return evaluation_faults(evaluation(key_metric=dice, post_transforms=[split]))

    assert faults(key) == []
    assert len(faults("pred_edema")) == 1


@pytest.mark.parametrize(
    "own",
    [
        {"evaluator": {"path": "own.Evaluator"}},
        {"evaluator": {"name": "EnsembleEvaluator"}},
        {
            "evaluator": {"name": "SupervisedEvaluator", "args": {"iteration_update": "@mine"}},
            "mine": {"path": "own.Iteration"},
        },
        {"iteration": {"path": "own.Iteration"}},
        {"prepare_batch": {"name": "PrepareBatchExtraInput"}},
        {"post_transforms": [{"path": "own.Transform"}]},
    ],
)
def test_where_own_code_makes_the_output_any_key_may_be_there(
    evaluation_faults: Faults, own: dict[str, Any]
) -> None:
    document = evaluation(key_metric=metric("dice", "['uncertainty']"))

    assert len(evaluation_faults(document)) == 1
    assert evaluation_faults({**document, **own}) == []


def listed_data(folder: Path, *items: dict[str, Any]) -> dict[str, Any]:
    """A data set that reads these items from a list in ``folder``."""
    file = folder / "dataset.json"
    file.write_text(json.dumps({"training": list(items)}), encoding="utf-8")
    return {
        "name": "Dataset",
        "data_list_file_path": str(file),
        "data_file_base_dir": str(folder),
        "data_list_key": "training",
    }


def test_a_key_that_the_data_list_brings_along(evaluation_faults: Faults, tmp_path: Path) -> None:
    data = listed_data(tmp_path, {"image": "a.nii", "weight": 0.5})
    grades = metric("dice", "['pred', 'weight']")

    assert evaluation_faults(evaluation(key_metric=grades, dataset=data)) == []
    [fault] = evaluation_faults(
        evaluation(key_metric=metric("dice", "['pred', 'wieght']"), dataset=data)
    )
    assert "nothing produces 'wieght'" in fault
    assert "Did you mean 'weight'?" in fault


def test_without_the_data_list_nobody_knows_its_keys(
    evaluation_faults: Faults, tmp_path: Path
) -> None:
    data = {**listed_data(tmp_path, {"image": "a.nii"}), "data_list_key": "elsewhere"}

    assert (
        evaluation_faults(evaluation(key_metric=metric("dice", "['pred', 'x']"), dataset=data))
        == []
    )


# --- Handlers of several processes ---------------------------------------------------------------


@pytest.mark.parametrize(("several", "faults"), [(True, 1), (False, 0)])
def test_of_several_processes_each_needs_the_validation(
    train_faults: Faults, several: bool, faults: int
) -> None:
    handlers = [
        {"name": "ValidationHandler", "rank": 0, "args": {"interval": 1}},
        {"name": "StatsHandler", "rank": 0},
    ]

    found = train_faults({"multi_gpu": several, **training(handlers=handlers)})

    assert (
        found
        == [
            "config_train.json: train.handlers[0].rank: of several processes, each needs the "
            "ValidationHandler\n    Take 'rank' out here."
        ][:faults]
    )
