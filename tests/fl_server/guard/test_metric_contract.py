"""What a job tells of its metrics before anybody reports one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fl_server.guard.metric_contract import RANGES, ROUNDING
from fl_server.initial_model import initial_model
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.component_table import load_component_table


def contract(root: Path) -> Any:
    return initial_model(Mmar.open(root), values={}).metrics


def test_names_and_ranges_follow_from_what_the_metrics_are(tiny_mmar: Path) -> None:
    found = contract(tiny_mmar)

    assert found.key_metric == "val_mean_dice"
    assert found.names == {"val_mean_dice", "val_acc"}
    assert found.ranges["val_mean_dice"] == (0.0, 1.0 + ROUNDING)


@pytest.mark.parametrize(
    "metric",
    [
        {"name": "Loss", "args": {"loss_fn": "@loss"}},
        {"name": "MeanDice", "args": {"reduction": "sum"}},
        {"name": "MeanDice", "args": {"return_with_label": True}},
    ],
    ids=lambda metric: str(metric),
)
def test_a_metric_that_may_give_other_numbers_leaves_the_names_open(
    tiny_mmar: Path, edited: Any, metric: dict[str, Any]
) -> None:
    def change(conf: Any) -> None:
        conf["validate"]["additional_metrics"] = [{**metric, "log_label": "other"}]

    edited(tiny_mmar / "config/config_train.json", change)

    found = contract(tiny_mmar)

    assert found.names is None
    assert set(found.ranges) == {"val_mean_dice"}


@pytest.mark.parametrize(
    ("key_metric", "higher_is_better"),
    [
        ({"name": "MeanDice"}, True),
        ({"name": "HausdorffDistance"}, False),
        ({"name": "MeanAbsoluteError"}, False),
    ],
    ids=lambda value: str(value),
)
def test_the_direction_follows_from_what_the_key_metric_is(
    tiny_mmar: Path, edited: Any, key_metric: dict[str, Any], higher_is_better: bool
) -> None:
    def change(conf: Any) -> None:
        conf["validate"]["key_metric"] = {**key_metric, "log_label": "val_mean_dice"}

    edited(tiny_mmar / "config/config_train.json", change)

    found = contract(tiny_mmar)

    assert found.higher_is_better is higher_is_better
    assert found.directions == {"val_mean_dice": higher_is_better, "val_acc": True}


def test_every_metric_with_a_range_is_one_that_a_configuration_may_name() -> None:
    table = load_component_table()

    for name in RANGES:
        assert table.lookup("metric", name) is not None


def test_a_job_without_cross_site_validation_tells_its_key_metric_only(tiny_mmar: Path) -> None:
    (tiny_mmar / "config/config_cross_validation.json").unlink(missing_ok=True)

    found = initial_model(Mmar.open(tiny_mmar), values={}).cross_site_metrics

    assert (found.key_metric, found.names, dict(found.ranges)) == ("val_mean_dice", None, {})
