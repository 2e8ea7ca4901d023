"""The cross-site matrix: two models at two sites, with and without one of the four evaluations."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from fl_server.record.cross_site import (
    BEST_GLOBAL_MODEL,
    GLOBAL_MODEL,
    CrossSiteMatrix,
    expected_models,
    read_cross_site_matrix,
    write_cross_site_csv,
    write_cross_site_json,
)
from mmar_runtime.errors import FederationError
from mmar_runtime.metrics import ClassValue, MetricValue
from tests.conftest import metric, plain_metric

DICE = "val_mean_dice"
FULL = {
    GLOBAL_MODEL: {"site-1": {DICE: metric(0.75)}, "site-2": {DICE: metric(0.25)}},
    "site-1": {"site-1": {DICE: metric(0.875)}, "site-2": {DICE: metric(0.125)}},
}
PARTIAL = {GLOBAL_MODEL: FULL[GLOBAL_MODEL], "site-1": {"site-1": {DICE: metric(0.875)}}}
LIVER = ClassValue(value=0.5, counted=4, missed=1)
SPLEEN = ClassValue(value=None, counted=0, missed=2, absent=4, spurious=1)
CSV_HEAD = "model,site,metric,class,value,note,unit,counted,undefined,missed,absent,spurious"
HOW = "e" * 64


def matrix_of(cells: Any) -> CrossSiteMatrix:
    return CrossSiteMatrix(
        cells=cells,
        key_metric=DICE,
        models=(GLOBAL_MODEL, "site-1"),
        sites=("site-2", "site-1"),
        weights_sha256={},
        evaluation_sha256=HOW,
    )


def test_a_full_matrix_is_complete() -> None:
    matrix = matrix_of(FULL)

    assert matrix.complete
    assert matrix.missing == ()
    assert matrix.value(GLOBAL_MODEL, "site-2", DICE) == 0.25
    assert matrix.row_mean(GLOBAL_MODEL, DICE) == (0.75 + 0.25) / 2


def test_a_missing_cell_is_named_and_has_no_value_and_no_mean() -> None:
    matrix = matrix_of(PARTIAL)

    assert not matrix.complete
    assert matrix.missing == (("site-1", "site-2"),)
    with pytest.raises(FederationError, match="'site-1' was not evaluated at site 'site-2'"):
        matrix.value("site-1", "site-2", DICE)
    with pytest.raises(FederationError, match="was not evaluated"):
        matrix.row_mean("site-1", DICE)


def test_a_model_without_any_cell_is_missing_at_every_site() -> None:
    matrix = matrix_of({GLOBAL_MODEL: FULL[GLOBAL_MODEL], "site-1": {}})

    assert matrix.missing == (("site-1", "site-1"), ("site-1", "site-2"))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(FederationError, match=r"unknown site 'site1'\. Did you mean 'site-1'"):
        matrix_of(FULL).value(GLOBAL_MODEL, "site1", DICE)
    with pytest.raises(FederationError, match=r"unknown metric 'hd95'\. Allowed: 'val_mean_dice'"):
        matrix_of(FULL).value(GLOBAL_MODEL, "site-1", "hd95")


def test_a_metric_that_one_site_does_not_report_has_no_value_there() -> None:
    cells = {
        GLOBAL_MODEL: {
            "site-1": {DICE: metric(0.5), "hd95": metric(4.0)},
            "site-2": {DICE: metric(0.5)},
        }
    }
    matrix = matrix_of(cells)

    assert matrix.metrics == (DICE, "hd95")
    assert matrix.value(GLOBAL_MODEL, "site-1", "hd95") == 4.0
    with pytest.raises(FederationError, match="site 'site-2' did not report 'hd95'"):
        matrix.value(GLOBAL_MODEL, "site-2", "hd95")


@pytest.mark.parametrize("cells", [{}, {GLOBAL_MODEL: {}}])
def test_an_empty_matrix_is_an_error(cells: Any) -> None:
    with pytest.raises(FederationError, match="no model was evaluated at any site"):
        matrix_of(cells)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"site-7": {"site-1": {DICE: metric(0.5)}}}, "unknown cells: model 'site-7'"),
        ({GLOBAL_MODEL: {"site-7": {DICE: metric(0.5)}}}, "site 'site-7'"),
        ({GLOBAL_MODEL: {"site-1": {DICE: math.nan}}}, "expected a metric, found nan"),
        (
            {GLOBAL_MODEL: {"site-1": {"loss": metric(0.5)}}},
            "the key metric 'val_mean_dice' is missing",
        ),
        ({GLOBAL_MODEL: [0.5]}, "expected an object"),
    ],
)
def test_an_unfit_cell_is_refused(cells: Any, message: str) -> None:
    with pytest.raises(FederationError, match=message):
        matrix_of(cells)


def test_expected_models() -> None:
    assert expected_models(["b", "a"]) == (GLOBAL_MODEL, BEST_GLOBAL_MODEL, "a", "b")


def test_a_site_cannot_be_called_like_the_global_model() -> None:
    with pytest.raises(FederationError, match="expected each name once"):
        expected_models([GLOBAL_MODEL])


def test_the_json_has_the_documented_keys() -> None:
    assert matrix_of(PARTIAL).as_dict() == {
        "format_version": 2,
        "key_metric": DICE,
        "models": [GLOBAL_MODEL, "site-1"],
        "sites": ["site-1", "site-2"],
        "cells": {
            GLOBAL_MODEL: {
                "site-1": {DICE: plain_metric(0.75)},
                "site-2": {DICE: plain_metric(0.25)},
            },
            "site-1": {"site-1": {DICE: plain_metric(0.875)}},
        },
        "complete": False,
        "missing": [["site-1", "site-2"]],
        "weights_sha256": {},
        "evaluation_sha256": HOW,
    }


def test_a_matrix_survives_the_way_through_its_file(tmp_path: Path) -> None:
    path = tmp_path / "cross_site.json"
    write_cross_site_json(path, matrix_of(PARTIAL))

    assert read_cross_site_matrix(path) == matrix_of(PARTIAL)
    assert os.listdir(tmp_path) == ["cross_site.json"]


def test_a_document_that_contradicts_its_cells_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cross_site.json"
    path.write_text(json.dumps(matrix_of(PARTIAL).as_dict() | {"complete": True}), encoding="utf-8")

    with pytest.raises(FederationError, match=r"\.json: complete: the document states True"):
        read_cross_site_matrix(path)


def test_the_csv_has_every_digit_and_an_empty_value_where_one_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "cross_site.csv"
    cells = {GLOBAL_MODEL: {"site-1": {DICE: metric(0.1 + 0.2)}, "site-2": {DICE: metric(-0.5, 3)}}}
    write_cross_site_csv(path, matrix_of(cells))

    assert path.read_text(encoding="utf-8") == (
        f"{CSV_HEAD}\n"
        "FL_global_model,site-1,val_mean_dice,,0.30000000000000004,,,1,0,,,\n"
        "FL_global_model,site-2,val_mean_dice,,-0.5,,,3,0,,,\n"
        "site-1,site-1,val_mean_dice,,,not reported,,,,,,\n"
        "site-1,site-2,val_mean_dice,,,not reported,,,,,,\n"
    )


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (metric(2.5, 3, undefined=1, unit="mm"), [",2.5,,mm,3,1,,,"]),
        (metric(None, 4, unit="mm"), [",,undefined,mm,0,4,,,"]),
        (metric(None, 2, withheld=True), [",,withheld,,2,0,,,"]),
        (
            metric(0.5, 4, classes={"liver": LIVER, "spleen": SPLEEN}),
            [
                ",0.5,,,4,0,3,,",  # missed of both classes
                "liver,0.5,,,4,,1,0,0",
                "spleen,,undefined,,0,,2,4,1",
            ],
        ),
    ],
    ids=["some undefined", "undefined", "withheld", "by class"],
)
def test_the_csv_says_why_there_is_no_value_and_has_a_line_for_each_class(
    found: MetricValue, lines: list[str]
) -> None:
    written = matrix_of({GLOBAL_MODEL: {"site-1": {DICE: found}}}).as_csv().splitlines()

    place = "FL_global_model,site-1,val_mean_dice,"
    assert [line for line in written if line.startswith(place)] == [place + line for line in lines]


@pytest.mark.parametrize(
    ("at_one", "at_other", "mean"),
    [
        (metric(4.0, unit="mm"), metric(2.0, unit="mm"), 3.0),
        (metric(4.0, unit="mm"), metric(None, unit="mm"), None),
        (metric(4.0, unit="mm"), metric(None, unit="mm", withheld=True), None),
        (metric(4.0, unit="mm"), metric(2.0, unit="voxels"), None),
    ],
    ids=["defined", "undefined", "withheld", "two units"],
)
def test_a_row_has_a_mean_of_values_at_every_site_in_one_unit(
    at_one: MetricValue, at_other: MetricValue, mean: float | None
) -> None:
    matrix = matrix_of({GLOBAL_MODEL: {"site-1": {DICE: at_one}, "site-2": {DICE: at_other}}})

    assert matrix.row_mean(GLOBAL_MODEL, DICE) == mean


@pytest.mark.parametrize("higher_is_better", [True, False, None])
def test_a_matrix_knows_the_direction_and_survives_its_document(
    higher_is_better: bool | None,
) -> None:
    one = metric(0.5, 4, higher_is_better=higher_is_better, classes={"liver": LIVER})
    matrix = matrix_of({GLOBAL_MODEL: {"site-1": {DICE: one}}})

    assert matrix.higher_is_better(DICE) is higher_is_better
    assert matrix.metric(GLOBAL_MODEL, "site-1", DICE) == one
    assert CrossSiteMatrix.from_dict(json.loads(json.dumps(matrix.as_dict()))) == matrix


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\uff1d1", '=a,"b']
)
def test_a_name_is_never_a_formula_in_a_spreadsheet(name: str) -> None:
    for model, site, label in ((name, "a", "b"), ("a", name, "b"), ("a", "b", name)):
        with pytest.raises(FederationError, match="expected a name of letters"):
            CrossSiteMatrix(
                cells={model: {site: {label: metric(0.5)}}},
                key_metric=label,
                models=(model,),
                sites=(site,),
                weights_sha256={},
                evaluation_sha256=HOW,
            )


# --- digests


def test_digests_survive_the_way_through_json() -> None:
    whole = CrossSiteMatrix(
        cells=PARTIAL,
        key_metric=DICE,
        models=(GLOBAL_MODEL, "site-1"),
        sites=("site-1", "site-2"),
        weights_sha256={"site-1": "b" * 64, GLOBAL_MODEL: "a" * 64},
        evaluation_sha256=HOW,
    )

    assert list(whole.weights_sha256) == [GLOBAL_MODEL, "site-1"]
    assert CrossSiteMatrix.from_dict(whole.as_dict()) == whole


@pytest.mark.parametrize("key", ["weights_sha256", "evaluation_sha256", "cells"])
def test_a_document_without_them_is_refused_as_one_without_anything_else(key: str) -> None:
    document = matrix_of(PARTIAL).as_dict()
    del document[key]

    with pytest.raises(FederationError, match=f"missing: {key}"):
        CrossSiteMatrix.from_dict(document)


@pytest.mark.parametrize(
    ("digests", "told"),
    [
        ({"weights_sha256": {"nobody": "a" * 64}}, "unknown weights_sha256: model 'nobody'"),
        ({"weights_sha256": {"site-1": "abc"}}, "expected 64 hexadecimal digits"),
        ({"weights_sha256": None}, "weights_sha256: expected an object, found None"),
        ({"evaluation_sha256": None}, "evaluation_sha256: expected a text, found None"),
        ({"evaluation_sha256": "abc"}, "evaluation_sha256: expected 64 hexadecimal digits"),
    ],
)
def test_a_digest_that_is_none_is_refused(digests: dict[str, Any], told: str) -> None:
    with pytest.raises(FederationError, match=told):
        CrossSiteMatrix.from_dict({**matrix_of(PARTIAL).as_dict(), **digests})
