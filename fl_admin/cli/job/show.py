"""``mmar job show``: show what a job will do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmar_runtime.cli.common import add_output_arguments, print_json

if TYPE_CHECKING:
    from fl_admin.jobs.summary import JobSummary

HELP = "show what a job will do"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("job", type=Path, metavar="JOB", help="the job's folder")
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the summary of the job."""
    from fl_admin.jobs.job import Job
    from fl_admin.jobs.summary import summary_of

    summary = summary_of(Job.open(options.job))
    print_json(summary.as_dict()) if options.json else print(summary_text(summary))
    return 0


def summary_text(summary: JobSummary) -> str:
    """Return the summary for a person, a line for each thing."""
    factors = [f"{site} x {weight:g}" for site, weight in summary.aggregation_weights.items()]
    weights = [f"by {summary.weigh_by}"] if summary.rounds and summary.weigh_by else []
    work = f"{summary.local_epochs} epoch{'' if summary.local_epochs == 1 else 's'}"
    if summary.steps_aggregation:
        work = f"{summary.steps_aggregation} optimizer steps"
    lines = {
        "job": summary.name,
        "digest": summary.digest,
        "sites": f"at least {summary.min_sites}",
        "mandatory": ", ".join(summary.mandatory_sites),
        "rounds": f"{summary.rounds}, each {work} at a site" if summary.rounds else "",
        "evaluates": "\n".join(summary.models),
        "weights": ", ".join([*weights, *factors]),
        "encrypted": ", ".join(summary.encrypt_layers),
        "updates": f"large tensors as {summary.transfer}" if summary.transfer else "",
        "network": summary.network,
        "compared by": summary.key_metric,
        "workflows": ", ".join(summary.workflows),
        "classes": "\n".join(summary.classes),
        "files": f"{summary.files}, {summary.bytes / 1e6:.1f} MB",
        "checkpoints": "\n".join(summary.weights),
        "own code": "\n".join(summary.code),
        "default policy": "\n".join(["refused:", *summary.refusals])
        if summary.refusals
        else "accepted",
    }
    width = max(map(len, lines)) + 1
    return "\n".join(
        f"{f'{title}:':<{width}} " + text.replace("\n", "\n" + " " * (width + 1))
        for title, text in lines.items()
        if text
    )
