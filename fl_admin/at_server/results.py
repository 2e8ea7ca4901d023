"""Where the results of a run lie, whatever folder of it was named; and several matrices as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fl_admin.report.html import write_matrix_report
from fl_server.record.cross_site import (
    CrossSiteMatrix,
    read_cross_site_matrix,
    write_cross_site_csv,
    write_cross_site_json,
)
from fl_server.record.cross_site_merge import merged
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, FederationError, MmarError, Problem

MATRIX = "cross_site.json"
PLACES = ("", "results", "workspace/results")
"""Below the folder of results itself, of a simulation, and of a job that was downloaded."""


def results_folder(run: Path, *, holds: str) -> Path:
    """Return the folder of a run's results.

    Args:
        run: that folder, or the one of a simulation or of a downloaded job.
        holds: what has to be in it.

    Raises:
        ConfigError: none of the places has that.
    """
    folder = run.expanduser().resolve()
    for place in PLACES:
        if (folder / place / holds).exists():
            return folder / place
    message = f"there is no {holds!r} in {str(run)!r}"
    advice = "Name the folder of a simulation (run-001), of a downloaded job, or their results."
    raise ConfigError([Problem(Location("results"), message, advice, "missing-file")])


def merge_results(runs: Sequence[Path], out: Path) -> CrossSiteMatrix:
    """Merge the matrices of runs into one, and write it as JSON, as CSV and as a page.

    Args:
        runs: folders of runs or of their results, or files of matrices.
        out: gets the files; must hold nothing yet.

    Raises:
        ConfigError: a run has no matrix, or ``out`` is taken.
        MmarError: a file is not a matrix, or they cannot be merged, with every reason.
    """
    target = out.expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        message = f"{str(out)!r} is there already"
        raise ConfigError([Problem(Location("--out"), message, "Name another one.", "folder")])
    files = {
        str(run): run if run.is_file() else results_folder(run, holds=MATRIX) / MATRIX
        for run in runs
    }
    try:
        matrix = merged({name: read_cross_site_matrix(file) for name, file in files.items()})
    except FederationError as error:  # no run has failed: what was given has to be mended
        raise MmarError(str(error)) from error
    write_cross_site_json(target / MATRIX, matrix)
    write_cross_site_csv(target / "cross_site.csv", matrix)
    write_matrix_report(target / "report.html", matrix, tuple(files))
    return matrix
