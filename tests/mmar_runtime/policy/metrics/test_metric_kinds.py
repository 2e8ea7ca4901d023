"""Which way a metric is better: by its class, or as the configuration says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.config.loader import load_train_config
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_table import load_component_table
from mmar_runtime.policy.metrics.metric_check import USES
from mmar_runtime.policy.metrics.metric_kinds import HIGHER, LOWER, direction_check, metric_kinds
from mmar_runtime.policy.mmar_check import check_mmar, own_mmar_checks
from mmar_runtime.policy.site_policy import DEFAULT_POLICY

Edited = Callable[[Path, Callable[[Any], object]], Path]
Key = Callable[..., dict[str, str]]

OWN = {"path": "own.Error", "log_label": "val_key", "args": {}}
LOSS = "#monai.handlers.from_engine(['loss'], first=True)"
NEITHER = {"Average", "ConfusionMatrix", "GeometricAverage", "RunningAverage"} | {
    "IgniteMetricHandler",
    "MetricsReloadedBinaryHandler",
    "MultiLabelConfusionMatrix",
}
"""Their direction depends on what they are given."""


def test_each_class_whose_numbers_may_leave_has_a_direction_or_is_known_to_have_none() -> None:
    table = load_component_table()
    names = {entry.name for path in USES if (entry := table.by_path(path)) is not None}
    assert names - HIGHER - LOWER == NEITHER
    assert not HIGHER & LOWER


@pytest.fixture
def direction(tiny_mmar: Path, edited: Edited) -> Callable[..., bool | None]:
    def of(spec: dict[str, Any], **saver: Any) -> bool | None:
        def change(config: Any) -> None:
            config["validate"]["key_metric"] = {"log_label": "val_key", **spec}
            config["validate"]["handlers"][1]["args"].update(saver)

        edited(tiny_mmar / "config/config_train.json", change)
        validate = load_train_config(Mmar.open(tiny_mmar)).validate
        assert validate is not None
        return metric_kinds(validate)["val_key"].higher_is_better

    return of


@pytest.mark.parametrize(
    ("spec", "higher"),
    [
        ({"name": "MeanDice"}, True),
        ({"name": "HausdorffDistance"}, False),
        ({"name": "ConfusionMatrix", "args": {"metric_name": "precision"}}, True),
        ({"name": "ConfusionMatrix", "args": {"metric_name": "false positive rate"}}, False),
        ({"name": "ConfusionMatrix", "args": {"metric_name": ["fnr", "recall"]}}, False),
        (OWN, True),
        ({**OWN, "negate": True}, False),
        ({"name": "RunningAverage", "negate": True}, False),
        ({"name": "Average", "args": {"output_transform": LOSS}}, False),
        (
            {"name": "IgniteMetricHandler", "args": {"loss_fn": "@loss"}},
            False,
        ),
    ],
)
def test_the_direction_of_a_key_metric(
    direction: Callable[..., bool | None], spec: dict[str, Any], higher: bool
) -> None:
    assert direction(spec) is higher


def test_a_saver_that_turns_the_sign_says_which_way_an_own_metric_goes(
    direction: Callable[..., bool | None],
) -> None:
    assert direction(OWN, key_metric_negative_sign=True) is False
    assert direction(OWN, key_metric_negative_sign=False) is True


def test_a_comparison_of_the_engine_says_it_too(
    direction: Callable[..., bool | None], tiny_mmar: Path, edited: Edited
) -> None:
    assert direction(OWN) is True
    compare = {"metric_cmp_fn": "lambda new, best: new < best"}
    edited(
        tiny_mmar / "config/config_train.json",
        lambda config: config["validate"]["evaluator"]["args"].update(compare),
    )
    assert direction(OWN) is False


@pytest.fixture
def problems(tiny_mmar: Path, edited: Edited) -> Key:
    def after(change: Callable[[Any], object], own: bool = True) -> dict[str, str]:
        edited(tiny_mmar / "config/config_train.json", change)
        if own:
            config = load_train_config(Mmar.open(tiny_mmar))
            found = [problem for check in own_mmar_checks() for problem in check(config)]
        else:
            found = list(check_mmar(tiny_mmar, DEFAULT_POLICY).problems)
        return {one.location.place: one.message for one in found}

    return after


@pytest.mark.parametrize("own", [True, False])
def test_what_would_keep_the_worst_model_is_a_problem(problems: Key, own: bool) -> None:
    def turned(config: Any) -> None:
        config["validate"]["handlers"][1]["args"]["key_metric_negative_sign"] = True
        config["validate"]["key_metric"]["negate"] = True
        compare = {"metric_cmp_fn": "lambda new, best: best > new"}
        config["validate"]["evaluator"]["args"].update(compare)

    places = (
        "validate.key_metric.negate",
        "validate.handlers[1].args.key_metric_negative_sign",
        "validate.evaluator.args.metric_cmp_fn",
    )
    message = "a higher MeanDice is better; this would keep the worst model"
    assert problems(turned, own) == dict.fromkeys(places, message)


def test_a_key_metric_of_several_numbers_is_a_problem_and_another_metric_is_not(
    problems: Key,
) -> None:
    def several(config: Any) -> None:
        section = config["validate"]
        dice = {**section["key_metric"], "log_label": "by_class"}
        dice["args"] = {**dice["args"], "reduction": "mean_batch"}
        section["additional_metrics"].append(dice)

    assert problems(several) == {}

    def key(config: Any) -> None:
        config["validate"]["key_metric"]["args"]["reduction"] = "mean_batch"

    told = "leaves several numbers, and models are compared by one"
    assert problems(key) == {"validate.key_metric.args.reduction": f"'mean_batch' {told}"}

    def other(config: Any) -> None:
        metric = config["validate"]["key_metric"]
        metric.update(name="PanopticQuality", args={"num_classes": 2})

    assert problems(other) == {"validate.key_metric.args.reduction": f"'mean_batch' {told}"}

    def group(config: Any) -> None:
        config["validate"]["key_metric"].update(name="MetricGroup", args={"metrics": {}})

    message = "MetricGroup holds several metrics, and models are compared by one"
    assert problems(group) == {"validate.key_metric.name": message}

    def rates(config: Any) -> None:
        config["validate"]["key_metric"].update(name="ROCAUC", args={"average": "none"})

    assert problems(rates) == {"validate.key_metric.args.average": f"'none' {told}"}


@pytest.mark.parametrize(
    ("metric", "score", "told"),
    [
        ("MeanDice", "lambda x: x.state.metrics['val_mean_dice']", ""),
        ("MeanDice", "lambda x: -x.state.metrics['val_mean_dice']", "without a minus"),
        ("SurfaceDistance", "lambda x: x.state.metrics['val_mean_dice']", "with a minus"),
        ("SurfaceDistance", "lambda x: -1 * x.state.metrics['val_mean_dice']", ""),
    ],
)
def test_an_early_stop_waits_for_the_metric_to_get_worse(
    tiny_mmar: Path, edited: Edited, metric: str, score: str, told: str
) -> None:
    def stop(config: Any) -> None:
        arguments = {"patience": 2, "score_function": score}
        config["validate"]["handlers"].append({"name": "EarlyStopHandler", "args": arguments})
        config["validate"]["key_metric"]["name"] = metric

    edited(tiny_mmar / "config/config_train.json", stop)
    found = list(direction_check(load_train_config(Mmar.open(tiny_mmar))))
    assert [problem.location.place for problem in found] == (
        ["validate.handlers[2].args.score_function"] if told else []
    )
    assert all(told in problem.advice for problem in found)
