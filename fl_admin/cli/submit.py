"""``mmar submit``: send a job to a federation, as the admin of a kit."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fl_admin.cli.kit import JobLines, add_kit_argument, kit_of
from mmar_runtime.cli.common import (
    add_output_arguments,
    print_json,
    set_up_logging,
    stop_on_signals,
)
from mmar_runtime.errors import FederationError, RunAborted

if TYPE_CHECKING:
    from fl_admin.console import Console

HELP = "send a job to a federation"
EXAMPLES = """examples:
  mmar submit jobs/spleen_ct_segmentation --kit kits/lead@hospital.org
  mmar submit JOB --kit KIT --wait --out results      (follow it, then fetch its results)

With --wait, Ctrl-C ends the waiting, not the job. The exit code is 0 if the job was taken, and with
--wait if it completed; 1 if it did not; 2 if something here has to be mended first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("job", type=Path, metavar="JOB", help="the job's folder")
    add_kit_argument(parser)
    parser.add_argument("--wait", action="store_true", help="follow the job to its end")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="fetch the results into DIR/<id> (with --wait)"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="leave the judgement to the sites alone"
    )
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Judge the job as a site would, send it, and follow it if asked to."""
    from fl_admin.console import Console
    from fl_admin.job import Job

    set_up_logging(verbose=options.verbose)
    job = Job.open(options.job)
    if not options.no_check:
        _judge(job.folder)
    with Console.connect(kit_of(options)) as console:
        job_id = console.submit(job)
        print(f"submitted: {job_id}", file=sys.stderr, flush=True)
        if options.wait:
            return follow(console, job_id, out=options.out, as_json=options.json)
    print_json({"id": job_id}) if options.json else print(job_id)
    return 0


def _judge(folder: Path) -> None:
    """Tell beforehand what every site would refuse by default; a site may allow more."""
    from fl_client.job_check import check_job

    verdict = check_job(folder)
    for problem in verdict.problems:
        print(f"a site may refuse this: {problem}", file=sys.stderr)


def follow(console: Console, job_id: str, *, out: Path | None, as_json: bool) -> int:
    """Follow a job to its end; raises if it did not complete.

    Returns:
        0, or 1 where the failure stands in the JSON.

    Raises:
        FederationError: the job ended otherwise.
        RunAborted: the waiting was interrupted; the job goes on.
    """
    from fl_admin.console import explained_end

    try:
        with stop_on_signals():
            state = console.follow(job_id, JobLines())
    except (KeyboardInterrupt, RunAborted):
        raise RunAborted(
            f"no longer waiting; the job goes on\n    'mmar watch {job_id}' waits again, "
            f"'mmar abort {job_id}' ends it."
        ) from None
    folder = console.download(job_id, out) if out is not None else None
    failure = None if state.completed else explained_end(state)
    if as_json:
        where = None if folder is None else str(folder)
        print_json({**state.as_dict(), "folder": where, "failure": failure})
        return 0 if failure is None else FederationError.exit_code
    if folder is not None:
        print(folder)
    if failure is not None:
        raise FederationError(failure)
    return 0
