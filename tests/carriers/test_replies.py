"""Replies of every kind, by every carrier: what the record says is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_server.record.values import RunRecord
from tests.carriers.inline import run_inline
from tests.carriers.nvflare import run_nvflare
from tests.carriers.script import Script

Run = Callable[[Script, Path, Path], RunRecord]

C, R, M, F = "contributed", "rejected", "missing", "failed"
SCRIPTS: dict[str, tuple[Script, list[list[str]], str]] = {
    "good": (Script(), [[C, C, C], [C, C, C]], "complete"),
    "nan": (Script(updates={(1, "site-2"): "nan"}), [[C, R, C], [C, C, C]], "complete"),
    "failed": (Script(updates={(1, "site-2"): "failed"}), [[C, F, C], [C, C, C]], "complete"),
    "declined": (Script(updates={(2, "site-3"): "declined"}), [[C, C, C], [C, C, F]], "complete"),
    "silent": (Script(updates={(1, "site-1"): "silent"}), [[M, C, C], [C, C, C]], "complete"),
    "twice": (Script(updates={(1, "site-1"): "twice"}), [[C, C, C], [C, C, C]], "complete"),
    "late": (Script(updates={(1, "site-1"): "late"}), [[M, C, C], [C, C, C]], "complete"),
    "outlier": (
        Script(updates={(1, "site-3"): "large"}, terms={"limits": {"norm_ratio": 5.0}}),
        [[C, C, R], [C, C, C]],
        "complete",
    ),
    "too few fail": (
        Script(updates={(1, "site-1"): "failed", (1, "site-2"): "failed", (1, "site-3"): "silent"}),
        [[F, F]],
        "failed",
    ),
    "too few good": (
        Script(updates={(2, "site-1"): "nan", (2, "site-2"): "nan"}),
        [[C, C, C], [R, R, C]],
        "failed",
    ),
    "no score": (Script(scores={"site-1": "failed"}), [[C, C, C], [C, C, C]], "complete"),
    "score of NaN": (Script(scores={"site-1": "nan"}), [[C, C, C], [C, C, C]], "complete"),
    "no model": (Script(models={"site-2": "failed"}), [[C, C, C], [C, C, C]], "complete"),
    "model at home": (Script(models={"site-2": "declined"}), [[C, C, C], [C, C, C]], "complete"),
    "model of NaN": (Script(models={"site-2": "nan"}), [[C, C, C], [C, C, C]], "complete"),
    "missing cell": (
        Script(cells={("site-1", "site-2"): "failed"}),
        [[C, C, C], [C, C, C]],
        "complete",
    ),
    "cell of NaN": (
        Script(cells={("site-1", "site-2"): "nan"}),
        [[C, C, C], [C, C, C]],
        "complete",
    ),
    "all models are needed": (
        Script(models={"site-2": "failed"}, terms={"min_sites": 3}),
        [[C, C, C], [C, C, C]],
        "failed",
    ),
    "all are needed": (
        Script(cells={("site-1", "site-2"): "failed"}, terms={"min_sites": 3}),
        [[C, C, C], [C, C, C]],
        "failed",
    ),
}


@pytest.mark.parametrize("carrier", [run_inline, run_nvflare], ids=["inline", "nvflare"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_record_says_what_came_of_each_site(
    name: str, carrier: Run, tmp_path: Path, make_mmar: Callable[..., Path]
) -> None:
    script, statuses, status = SCRIPTS[name]

    record = carrier(script, make_mmar(tmp_path / "mmar"), tmp_path / "run")

    assert [
        [outcome.status for outcome in part.sites.values()] for part in record.rounds
    ] == statuses
    assert record.status == status, record.failure


UNEQUAL = ("engine", "started", "finished", "versions", "seconds")


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_carriers_give_the_same_record_and_matrix(
    name: str, tmp_path: Path, make_mmar: Callable[..., Path]
) -> None:
    script, _, _ = SCRIPTS[name]

    one = run_inline(script, make_mmar(tmp_path / "one/mmar"), tmp_path / "one/run")
    other = run_nvflare(script, make_mmar(tmp_path / "other/mmar"), tmp_path / "other/run")

    assert comparable(one.as_dict()) == comparable(other.as_dict())
    assert matrices(tmp_path / "one") == matrices(tmp_path / "other")


def matrices(folder: Path) -> list[str]:
    """The matrix of the run, if it has come so far."""
    return [path.read_text() for path in folder.rglob("cross_site.json")]


def comparable(document: Any) -> Any:
    """A record without times, and without what names the carrier."""
    if isinstance(document, dict):
        return {key: comparable(item) for key, item in document.items() if key not in UNEQUAL}
    return [comparable(item) for item in document] if isinstance(document, list) else document
