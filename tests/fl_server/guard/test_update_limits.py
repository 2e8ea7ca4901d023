"""The limits that a job writes for the update guard: the defaults, its own, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fl_server.guard.update_limits import update_limits
from fl_server.update_guard import UpdateLimits
from mmar_runtime.errors import ConfigError

KNOWN = {"dice": (0.0, 1.0)}


def test_nothing_means_the_defaults_and_what_the_metrics_are() -> None:
    assert update_limits({}, KNOWN) == UpdateLimits(metric_ranges=KNOWN)


def test_a_job_sets_its_own() -> None:
    job = {
        "max_bytes": 10**9,
        "max_norm": 50,
        "norm_ratio": 4.5,
        "max_steps": 1000,
        "metadata_bytes": 8192,
        "metric_ranges": {"hd95": [0, 300], "dice": [0.0, 0.99]},
    }

    found = update_limits(job, KNOWN)

    assert (found.max_norm, found.norm_ratio, found.max_steps) == (50, 4.5, 1000)
    assert found.metric_ranges == {"dice": (0.0, 0.99), "hd95": (0.0, 300.0)}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_norms", 1, "unknown limit"),
        ("metadata_keys", ["files"], "unknown limit"),
        ("max_norm", -1.0, "has to be a number from 0 to inf"),
        ("max_norm", math.nan, "has to be a number"),
        ("max_norm", "5", "has to be a number"),
        ("norm_ratio", 0.5, "has to be a number from 1 to inf"),
        ("max_steps", 0, "has to be a whole number from 1 to 1e+09"),
        ("max_steps", 10**18, "has to be a whole number"),
        ("max_steps", 1.5, "has to be a whole number"),
        ("max_bytes", True, "has to be a whole number"),
        ("metadata_bytes", 2**30, "has to be a whole number"),
        ("metric_ranges", [0, 1], "has to map names of metrics"),
        ("metric_ranges", {"dice": 1}, "has to be [least, greatest]"),
        ("metric_ranges", {"dice": [1, 0]}, "has to be [least, greatest]"),
        ("metric_ranges", {"dice": [0, math.inf]}, "has to be [least, greatest]"),
        ("metric_ranges", {"dice": [0, "1"]}, "has to be [least, greatest]"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_with_its_place(
    key: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        update_limits({key: value}, KNOWN)

    [problem] = caught.value.problems
    assert message in problem.message
    assert problem.rule == "limit"
    assert problem.location.place.startswith(f"workflows[0].args.limits.{key}")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        update_limits({"max_norm": -1, "max_step": 2, "metric_ranges": {"a": 1, "b": 2}}, KNOWN)

    assert len(caught.value.problems) == 4
