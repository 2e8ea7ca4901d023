"""Metrics whose number would not be what its name says are problems before a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmar_runtime.config.loader import load_train_config
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.fit_check import fit_notices
from mmar_runtime.policy.metrics.value_check import UNTRUE, value_check
from mmar_runtime.policy.mmar_check import check_mmar
from mmar_runtime.policy.site_policy import DEFAULT_POLICY

Edited = Callable[[Path, Callable[[Any], object]], Path]
ARGS = "validate.additional_metrics[0].args"
PAIR = "#monai.handlers.from_engine(['pred', 'label'])"


@pytest.fixture
def told(tiny_mmar: Path, edited: Edited) -> Callable[..., dict[str, str]]:
    def of(name: str, **arguments: Any) -> dict[str, str]:
        spec = {"name": name} if "." not in name else {"path": name}
        spec |= {"log_label": "more", "args": {"output_transform": PAIR, **arguments}}
        dice = {"name": "MeanDice", "args": {}}
        edited(
            tiny_mmar / "config/config_train.json",
            lambda config: config["validate"].update(additional_metrics=[spec], dice=dice),
        )
        config = load_train_config(Mmar.open(tiny_mmar))
        return {one.location.place: one.message for one in value_check(config)}

    return of


@pytest.mark.parametrize("path", UNTRUE)
def test_a_class_that_leaves_no_number_over_cases(
    told: Callable[..., dict[str, str]], path: str
) -> None:
    reason, _ = UNTRUE[path]
    name = path.rpartition(".")[2]
    assert told(path) == {"validate.additional_metrics[0].path": f"{name} {reason}"}


@pytest.mark.parametrize("name", ["ConfusionMatrix", "MeanSquaredError", "Precision", "PSNR"])
def test_its_namesake_of_monais_and_others_are_none(
    told: Callable[..., dict[str, str]], name: str
) -> None:
    assert told(name) == {}


@pytest.mark.parametrize(
    ("name", "arguments", "argument", "message"),
    [
        ("MeanDice", {"reduction": "none"}, "reduction", "'none' leaves a number for each case"),
        ("MeanDice", {"reduction": "sum"}, "reduction", "'sum' is no mean"),
        ("CalibrationError", {"metric_reduction": "mean_channel"}, "metric_reduction",
         "'mean_channel' leaves a number for each case"),
        ("Precision", {"average": "samples"}, "average", "'samples' counts a case without a class"),
        ("IgniteMetricHandler", {"metric_fn": "@dice"}, "metric_fn",
         "MeanDice is a handler itself"),
    ],
)  # fmt: skip
def test_an_argument_that_makes_another_number_of_it(
    told: Callable[..., dict[str, str]],
    name: str,
    arguments: dict[str, Any],
    argument: str,
    message: str,
) -> None:
    [(place, found)] = told(name, **arguments).items()
    assert place == f"{ARGS}.{argument}"
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("MeanDice", {"reduction": "mean_batch"}),
        ("ConfusionMatrix", {"reduction": "sum", "metric_name": ["f1"]}),
        ("Recall", {"average": "macro"}),
    ],
)
def test_an_argument_that_keeps_it_a_mean(
    told: Callable[..., dict[str, str]], name: str, arguments: dict[str, Any]
) -> None:
    assert told(name, **arguments) == {}


def test_names_after_the_first_are_told_as_not_reported(
    told: Callable[..., dict[str, str]], tiny_mmar: Path
) -> None:
    """MONAI records the first alone, and the run goes on."""
    assert told("ConfusionMatrix", metric_name=["fnr", "f1"]) == {}

    notices = [one.message for one in fit_notices(load_train_config(Mmar.open(tiny_mmar)))]
    assert any("ConfusionMatrix reports the first of its 2 names alone" in one for one in notices)


def test_a_running_average_is_of_a_training(told: Callable[..., dict[str, str]]) -> None:
    message = "RunningAverage gives late batches more weight, so their order counts"
    assert told("RunningAverage") == {"validate.additional_metrics[0].name": message}


def test_a_site_refuses_what_its_owner_is_told(
    told: Callable[..., dict[str, str]], tiny_mmar: Path
) -> None:
    """A number for each case would leave the site."""
    found = told("MeanDice", reduction="mean_channel")
    refused = check_mmar(tiny_mmar, DEFAULT_POLICY).problems
    assert found.items() <= {one.location.place: one.message for one in refused}.items()
