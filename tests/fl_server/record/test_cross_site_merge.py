"""Several matrices as one: what is joined, what is refused, and that the order does not matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_server.record.cross_site import CrossSiteMatrix
from fl_server.record.cross_site_merge import merged
from mmar_runtime.errors import FederationError
from mmar_runtime.metrics import Metrics, MetricValue
from tests.conftest import metric

DICE, LOSS = "val_mean_dice", "loss"
HOW = "e" * 64
WEIGHTS = {"FL_global_model": "a" * 64, "best_FL_global_model": "b" * 64, "site-1": "c" * 64}


def matrix(cells: Mapping[str, Mapping[str, Any]], **changes: Any) -> CrossSiteMatrix:
    """``cells``: model -> site -> Dice, or metrics; as numbers, or whole."""
    named: dict[str, dict[str, Metrics]] = {model: {} for model in cells}
    for model, row in cells.items():
        for site, found in row.items():
            values = found if isinstance(found, Mapping) else {DICE: found}
            named[model][site] = {
                label: value if isinstance(value, MetricValue) else metric(value)
                for label, value in values.items()
            }
    given = {
        "key_metric": DICE,
        "models": list(cells),
        "sites": sorted({site for row in cells.values() for site in row}),
        "weights_sha256": {model: WEIGHTS[model] for model in cells},
        "evaluation_sha256": HOW,
        **changes,
    }
    return CrossSiteMatrix(cells=named, **given)


RUN = matrix({"FL_global_model": {"site-1": 0.5, "site-2": 0.75}, "site-1": {"site-1": 0.25}})
LATER = matrix({"FL_global_model": {"site-3": 0.125, "site-1": 0.5}})


def test_a_site_that_joined_later_becomes_a_column() -> None:
    found = merged({"run": RUN, "later": LATER})

    assert found.models == ("FL_global_model", "site-1")
    assert found.sites == ("site-1", "site-2", "site-3")
    assert [found.value("FL_global_model", site, DICE) for site in found.sites] == [
        0.5,
        0.75,
        0.125,
    ]
    assert found.missing == (("site-1", "site-2"), ("site-1", "site-3"))
    assert (dict(found.weights_sha256), found.evaluation_sha256) == (
        {model: WEIGHTS[model] for model in found.models},
        HOW,
    )


def test_global_models_come_first_whatever_the_order_was() -> None:
    one = matrix({"site-1": {"site-1": 0.5}, "best_FL_global_model": {"site-1": 0.5}})
    other = matrix({"FL_global_model": {"site-1": 0.5}})

    assert merged({"a": one, "b": other}).models == (
        "FL_global_model",
        "best_FL_global_model",
        "site-1",
    )


def test_metrics_that_only_one_of_them_has_are_kept() -> None:
    one = matrix({"site-1": {"site-1": {DICE: 0.5}}})
    other = matrix({"site-1": {"site-1": {DICE: 0.5, LOSS: 2.0}}})

    assert merged({"a": one, "b": other}).cells["site-1"]["site-1"] == {
        DICE: metric(0.5),
        LOSS: metric(2.0),
    }


def test_a_model_that_reached_nobody_is_left_out() -> None:
    """A site that keeps its best model at home has a row without cells and without a digest."""
    kept = matrix(
        {"site-1": {"site-1": 0.5}}, models=["site-1", "site-2"], sites=["site-1", "site-2"]
    )

    assert merged({"a": kept, "b": LATER}).models == ("FL_global_model", "site-1")


def refusal(**matrices: CrossSiteMatrix) -> str:
    with pytest.raises(FederationError) as caught:
        merged(matrices)
    return str(caught.value)


def test_one_name_for_different_weights_is_refused() -> None:
    other = matrix(
        {"FL_global_model": {"site-3": 0.5}}, weights_sha256={"FL_global_model": "d" * 64}
    )

    told = refusal(run=RUN, other=other)
    assert "FL_global_model is not the same model: its weights are" in told
    assert "dddddddddddd... in other, aaaaaaaaaaaa... in run" in told


def test_one_cell_with_different_values_is_refused() -> None:
    other = matrix({"FL_global_model": {"site-1": 0.5000001}})

    told = refusal(run=RUN, other=other)
    assert f"{DICE} of FL_global_model at site-1 is 0.5000001 in other, 0.5 in run" in told


def test_one_value_of_different_cases_is_refused() -> None:
    other = matrix({"FL_global_model": {"site-1": metric(0.5, 2)}})

    assert f"{DICE} of FL_global_model at site-1 is 0.5 in other, 0.5 in run" in refusal(
        run=RUN, other=other
    )


def test_another_way_of_evaluating_is_refused() -> None:
    other = matrix({"FL_global_model": {"site-3": 0.5}}, evaluation_sha256="f" * 64)

    assert "the digest of config_cross_validation.json" in refusal(run=RUN, other=other)


def test_another_key_metric_is_refused() -> None:
    other = matrix({"FL_global_model": {"site-3": {LOSS: 1.0}}}, key_metric=LOSS)

    told = refusal(run=RUN, other=other)
    assert f"the key metric differs: {LOSS!r} in other, {DICE!r} in run" in told


def test_a_row_of_unknown_weights_is_refused() -> None:
    assert "run does not say which weights site-1 stands for" in refusal(
        run=matrix({"site-1": {"site-1": 0.5}}, weights_sha256={})
    )


def test_all_reasons_are_told_at_once() -> None:
    other = matrix(
        {"FL_global_model": {"site-1": 0.25}},
        weights_sha256={"FL_global_model": "d" * 64},
        evaluation_sha256="f" * 64,
    )

    assert len(refusal(run=RUN, other=other).splitlines()) == 1 + 3


def test_nothing_to_merge_is_refused() -> None:
    assert "no matrix is given" in refusal()


# --- laws

SITES = ("site-1", "site-2", "site-3")
TRUTH = {(model, site): len(model) / (1 + SITES.index(site)) for model in WEIGHTS for site in SITES}
"""What each model really does at each site; every matrix below tells a part of it."""


@st.composite
def parts(draw: st.DrawFn) -> CrossSiteMatrix:
    known = draw(st.sets(st.sampled_from(sorted(TRUTH)), min_size=1))
    cells: dict[str, dict[str, float]] = {}
    for model, site in draw(st.permutations(sorted(known))):
        cells.setdefault(model, {})[site] = TRUTH[model, site]
    return matrix(cells)


def together(*matrices: CrossSiteMatrix) -> CrossSiteMatrix:
    return merged({f"matrix {index}": one for index, one in enumerate(matrices)})


@given(parts(), parts(), parts())
def test_neither_order_nor_grouping_nor_repetition_matters(
    a: CrossSiteMatrix, b: CrossSiteMatrix, c: CrossSiteMatrix
) -> None:
    whole = together(a, b, c)

    assert together(c, a, b) == whole
    assert together(together(a, b), c) == whole == together(a, together(b, c))
    assert together(whole, a) == together(whole) == whole
    assert whole.as_csv() == together(b, c, a).as_csv()


@given(parts(), parts())
def test_every_cell_of_each_is_in_the_whole_and_no_other(
    a: CrossSiteMatrix, b: CrossSiteMatrix
) -> None:
    whole = together(a, b)

    for model in WEIGHTS:
        for site in SITES:
            there = a.has_value(model, site, DICE) or b.has_value(model, site, DICE)
            assert whole.has_value(model, site, DICE) == there
            if there:
                assert whole.value(model, site, DICE) == TRUTH[model, site]
