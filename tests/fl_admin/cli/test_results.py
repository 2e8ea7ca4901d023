"""``mmar results merge``: from the folders of runs to one matrix, on disk and on the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fl_admin.cli.main import main
from fl_server.record.cross_site import (
    CrossSiteMatrix,
    read_cross_site_matrix,
    write_cross_site_json,
)
from tests.conftest import metric

DICE = "val_mean_dice"


def run(folder: Path, *, site: str, value: float, weights: str = "a", model: str = "m") -> Path:
    """A run's results in a folder: one model at one site."""
    matrix = CrossSiteMatrix(
        cells={model: {site: {DICE: metric(value)}}},
        key_metric=DICE,
        models=(model,),
        sites=(site,),
        weights_sha256={model: weights * 64},
        evaluation_sha256="e" * 64,
    )
    write_cross_site_json(folder / "cross_site.json", matrix)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """A simulation, a downloaded job, and a file alone."""
    simulated = run(tmp_path / "run-001/results", site="site-1", value=0.5).parent
    fetched = run(tmp_path / "3f6b/workspace/results", site="site-2", value=0.25).parents[1]
    alone = run(tmp_path / "late", site="site-3", value=0.125) / "cross_site.json"
    return [str(simulated), str(fetched), str(alone)]


def test_the_merged_matrix_is_written_in_every_form(
    runs: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"

    assert main(["results", "merge", *runs, "--out", str(out)]) == 0

    matrix = read_cross_site_matrix(out / "cross_site.json")
    values = [matrix.value("m", site, DICE) for site in matrix.sites]
    assert (matrix.sites, values) == (("site-1", "site-2", "site-3"), [0.5, 0.25, 0.125])
    assert f"m,site-3,{DICE},,0.125,,,1,0,,," in (out / "cross_site.csv").read_text().splitlines()
    assert "Merged from 3 matrices" in (out / "report.html").read_text()
    printed = capfd.readouterr().out
    assert "1 models at 3 sites" in printed
    assert printed.splitlines()[-1] == str(out)


def test_what_is_missing_is_told(
    runs: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = run(tmp_path / "other", site="site-3", value=0.5, model="n", weights="b")

    assert main(["results", "merge", *runs, str(other), "--out", str(tmp_path / "out")]) == 0
    assert "2 models at 3 sites; 2 of its values are missing" in capfd.readouterr().out


def test_with_json_it_is_one_document(
    runs: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    assert main(["results", "merge", *runs, "--out", str(out), "--json"]) == 0

    printed = json.loads(capfd.readouterr().out)
    assert printed["folder"] == str(out)
    assert printed["cross_site"] == json.loads((out / "cross_site.json").read_text())


def test_what_contradicts_is_refused_and_nothing_is_written(
    runs: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = run(tmp_path / "other", site="site-4", value=0.5, weights="b")
    out = tmp_path / "merged"

    assert main(["results", "merge", *runs, str(other), "--out", str(out)]) == 2
    told = capfd.readouterr().err
    assert "m is not the same model" in told
    assert f"bbbbbbbbbbbb... in {other}" in told
    assert not out.exists()


def test_nothing_is_written_over(
    runs: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["results", "merge", *runs, "--out", str(tmp_path / "run-001")]) == 2
    assert "is there already" in capfd.readouterr().err


def test_a_folder_without_a_matrix_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["results", "merge", str(tmp_path), "--out", str(tmp_path / "merged")]

    assert main(words) == 2
    assert "there is no 'cross_site.json'" in capfd.readouterr().err
