"""``mmar submit``: send a job to a federation, as the admin of a kit."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fl_admin.cli.job.making import show_refusals
from fl_admin.cli.job.settings import add_settings_arguments
from fl_admin.cli.named_job import named_job
from fl_admin.cli.server.kit import add_kit_argument, kit_of
from mmar_runtime.cli.common import (
    add_output_arguments,
    add_set_argument,
    print_json,
    print_note,
    set_up_logging,
    stop_on_signals,
)
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import parse_overrides
from mmar_runtime.errors import ConfigError, FederationError, Problem, RunAborted

if TYPE_CHECKING:
    from fl_admin.at_server.console import Console, JobState
    from fl_admin.at_server.job_results import JobResults
    from fl_admin.jobs.job import Job

HELP = "send a job, or a plain MMAR, to a federation"
EXAMPLES = """examples:
  mmar submit jobs/spleen_ct_segmentation --kit kits/lead@hospital.org
  mmar submit JOB --kit KIT --wait --out results      (follow it, then fetch its results)
  mmar submit path/to/mmar --kit KIT --min-sites 3 --rounds 20 --local-epochs 2 --wait

Of a plain MMAR a job is made on the way, as 'mmar job create' does; its options are for that alone.

A job that asks for more sites than are connected is taken, and starts when they are there. With
--wait, Ctrl-C ends the waiting, not the job. The exit code is 0 if the job was taken, and with
--wait if it completed; 1 if it did not; 2 if something here has to be mended first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("job", type=Path, metavar="JOB", help="folder of a job or an MMAR")
    add_kit_argument(parser)
    parser.add_argument("--wait", action="store_true", help="follow the job to its end")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="fetch the results into DIR/<id> (with --wait)"
    )
    judgement = parser.add_mutually_exclusive_group()
    judgement.add_argument(
        "--policy", type=Path, metavar="FILE", help="judge the job as a site with this policy does"
    )
    judgement.add_argument(
        "--no-check", action="store_true", help="leave the judgement to the sites alone"
    )
    add_start_argument(parser)
    parser.add_argument(
        "--min-sites", type=int, metavar="N", help="of a plain MMAR: sites of a round (2)"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="R", help="of a plain MMAR: rounds of training (50)"
    )
    parser.add_argument(
        "--with-code", action="store_true", help="of a plain MMAR: take its custom/ along"
    )
    add_settings_arguments(parser)
    add_set_argument(parser)
    add_output_arguments(parser)


def add_start_argument(parser: argparse.ArgumentParser) -> None:
    """``--start-within``: how long to wait for sites."""
    parser.add_argument(
        "--start-within", type=float, default=300.0, metavar="S",
        help="seconds that the job may lack sites before the waiting ends (%(default).0f)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Judge the job as a site would, send it, and follow it if asked to."""
    from fl_admin.at_server.console import Console

    set_up_logging(verbose=options.verbose)
    if options.out is not None and not options.wait:
        message = "there are no results to fetch before the job has ended"
        advice = "Add --wait, or fetch them later: 'mmar watch ID --out DIR'."
        raise ConfigError([Problem(Location("--out"), message, advice, "option")])
    with _named_job(options) as job:
        if not options.no_check:
            _judge(job, options.policy)
        with Console.connect(kit_of(options)) as console:
            lacks = job.shortage(console.sites())
            job_id = console.submit(job)
            print(f"submitted: {job_id}", file=sys.stderr, flush=True)
            if lacks:
                print(f"note: {lacks}; it starts when they are there", file=sys.stderr, flush=True)
            if options.wait:
                return follow(console, job_id, options)
    print_json({"id": job_id, "lacks": lacks}) if options.json else print(job_id)
    return 0


def _named_job(options: argparse.Namespace) -> AbstractContextManager[Job]:
    return named_job(
        options.job,
        options,
        min_sites=2 if options.min_sites is None else options.min_sites,
        with_code=options.with_code,
        values=parse_overrides(options.overrides),
        for_mmars={
            "--min-sites": options.min_sites is not None,
            "--rounds": options.rounds is not None,
            "--with-code": options.with_code,
            "--set": options.overrides,
        },
    )


def _judge(job: Job, file: Path | None) -> None:
    """Refuse what no site's policy can allow; warn of what a site has to allow first.

    Args:
        job: as it will be signed and sent.
        file: a site's own policy, which then has the last word; None for the defaults.

    Raises:
        ConfigError: every site refuses the job, or the site with that policy does.
    """
    from fl_admin.jobs.refusals import can_be_lifted
    from fl_client.jobs.approved import job_approval_faults, job_digest
    from fl_client.jobs.limited_check import limited_check
    from mmar_runtime.policy.site_policy import DEFAULT_POLICY, read_site_policy

    policy = DEFAULT_POLICY if file is None else read_site_policy(file)
    refusals = (
        *limited_check(job.folder, policy).problems,
        *job_approval_faults(policy, lambda: job_digest(job.mmar.root)),
    )
    if refusals and not (file is None and all(map(can_be_lifted, refusals))):
        raise ConfigError(refusals)
    show_refusals(refusals)
    if policy.signers is not None:
        print_note(f"that site takes only jobs signed by {' or '.join(policy.signers)}")


def follow(console: Console, job_id: str, options: argparse.Namespace) -> int:
    """Follow a job to its end; raises if it did not complete.

    Returns:
        0, or 1 where the failure stands in the JSON.

    Raises:
        FederationError: the job ended otherwise, or does not start.
        RunAborted: the waiting was interrupted; the job goes on.
    """
    from fl_admin.at_server.job_end import explained_end
    from fl_admin.at_server.job_results import read_job_results
    from fl_admin.cli.server.job_view import job_view

    try:
        with stop_on_signals(), job_view() as view:
            state = console.follow(job_id, view, start_within=options.start_within)
    except (KeyboardInterrupt, RunAborted):
        raise RunAborted(
            f"no longer waiting; the job goes on\n    'mmar watch {job_id}' waits again, "
            f"'mmar abort {job_id}' ends it."
        ) from None
    results = fetch(console, job_id, options.out) if options.out is not None else None
    failure = None
    if not state.completed:
        kept = results
        if kept is None:  # for the explanation alone
            scratch = tempfile.TemporaryDirectory(prefix="mmar-job-")
            with scratch as folder, suppress(FederationError):
                kept = read_job_results(console.download(job_id, Path(folder)))
        failure = explained_end(state, kept)
    if options.json:
        where = None if results is None else str(results.folder)
        print_json({**state.as_dict(), "folder": where, "failure": failure})
        return 0 if failure is None else FederationError.exit_code
    if results is not None:
        print(results.folder)
    if failure is not None:
        raise FederationError(failure)
    _tell(state, results)
    return 0


def fetch(console: Console, job_id: str, out: Path) -> JobResults:
    """Fetch a job's results and write the report among them."""
    from fl_admin.at_server.job_results import read_job_results, write_job_report

    results = read_job_results(console.download(job_id, out))
    if write_job_report(results):
        print(f"report: {results.report}", file=sys.stderr)
    return results


def _tell(state: JobState, results: JobResults | None) -> None:
    """Print the end of a job that completed, for the person at the terminal."""
    print(f"{state.name} completed in {state.duration.partition('.')[0]}", file=sys.stderr)
    if results is None or results.record is None:
        print(f"'mmar download {state.job_id}' fetches its results", file=sys.stderr)
        return
    from rich.console import Console as Terminal

    from fl_admin.report.text import render_text

    Terminal(stderr=True).print(render_text(results.record, results.matrix))
