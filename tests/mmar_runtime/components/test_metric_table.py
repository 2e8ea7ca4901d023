"""Each metric that a configuration may name, against NumPy, SciPy, scikit-learn and scikit-image.

``metric_table.py`` has the rows. Two processes measure them in ``workflows/test_processes.py``.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mmar_runtime.policy.component_table import load_component_table
from mmar_runtime.policy.metrics.value_check import UNTRUE
from tests.mmar_runtime.components.metric_table import COLUMNS, ROWS, UNMEASURED, Case, Row, table

DOCS = Path(__file__).parents[3] / "docs/look-up/metrics.csv"


def check(row: Row, cases: list[Case], size: int) -> None:
    value, counted = row.expected(cases)
    found = row.found(cases, size)
    assert (found.counted, found.undefined) == (counted, len(cases) - counted)
    assert found.value == (None if value is None else pytest.approx(value, rel=1e-5, abs=1e-6))


@pytest.mark.parametrize("metric", ROWS)
def test_a_metric_is_what_others_compute(metric: str) -> None:
    row = ROWS[metric]
    for cases in row.situations.values():
        check(row, list(cases), size=1)
    check(row, list(row.situations["all right"]), size=2)  # the last batch is smaller


def test_the_table_in_the_documents_is_what_the_metrics_give() -> None:
    """``python -m tests.mmar_runtime.components.metric_table`` writes it."""
    with DOCS.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == table()
    assert len(COLUMNS) == 8


def test_each_metric_of_the_component_table_has_a_row_or_a_reason() -> None:
    metrics = [one for one in load_component_table().components.values() if one.kind == "metric"]
    names = {entry.name for entry in metrics}
    paths = {f"{entry.namespace}.{entry.name}" for entry in metrics}
    listed = {name.split()[0] for name in (*ROWS, *UNMEASURED)}
    assert listed <= names | paths
    assert names <= {name.rpartition(".")[2] for name in listed}
    assert UNTRUE.keys() <= paths
