"""What is known of a finished job: its record and matrix as its server kept them, and its log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fl_server.record.cross_site import CrossSiteMatrix, read_cross_site_matrix
from fl_server.record.files import read_run_record
from fl_server.record.values import RunRecord

RESULTS = Path("workspace") / "results"
"""Where a downloaded job has what its server wrote."""

LOG = Path("workspace") / "log.txt"
REPORT = "report.html"
FATAL = "due to FATAL_SYSTEM_ERROR received:"
"""What NVFlare's log says before the reason of an aborted run."""

NO_REASON = "Exception in workflow"
"""How NVFlare begins such a reason if it only repeats the class of an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResults:
    """A downloaded job.

    Attributes:
        folder: as it was downloaded.
        record: None if no round began.
        matrix: None if there is none.
        fatal: why the server ended the run, by its log; empty if it did not.
    """

    folder: Path
    record: RunRecord | None
    matrix: CrossSiteMatrix | None
    fatal: tuple[str, ...]

    @property
    def results(self) -> Path:
        """Weights, record, matrix and report."""
        return self.folder / RESULTS

    @property
    def report(self) -> Path:
        """The report as a page; see ``write_job_report``."""
        return self.results / REPORT


def read_job_results(folder: Path) -> JobResults:
    """Return the results in the folder of a downloaded job.

    Raises:
        FederationError: a file of them is not as it was written.
    """
    record, matrix = folder / RESULTS / "run_record.json", folder / RESULTS / "cross_site.json"
    errors = fatal_errors(folder / LOG)
    return JobResults(
        folder=folder,
        record=read_run_record(record) if record.is_file() else None,
        matrix=read_cross_site_matrix(matrix) if matrix.is_file() else None,
        fatal=tuple(dict.fromkeys(error for error in errors if not error.startswith(NO_REASON))),
    )


def write_job_report(results: JobResults) -> bool:
    """Write the report beside the results; False if there is nothing to report."""
    if results.record is None:
        return False
    # Its plots need matplotlib, which whoever only asks for a job's status need not wait for.
    from fl_admin.report.html import write_report

    write_report(results.report, results.record, results.matrix)
    return True


def fatal_errors(log: Path) -> list[str]:
    """Return the reasons for which NVFlare ended a run, from its log; empty without a log."""
    if not log.is_file():
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.partition(FATAL)[2].strip() for line in lines if FATAL in line]
