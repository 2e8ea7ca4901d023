"""What the commands share that make a job: where it goes, and what is said of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmar_runtime.cli.common import print_json, print_note
from mmar_runtime.errors import Problem

if TYPE_CHECKING:
    from fl_admin.jobs.clara.reading import FieldReport
    from fl_admin.jobs.create import CreatedJob
    from fl_admin.jobs.given_models import ValidationSettings
    from fl_admin.jobs.settings import JobSettings

MAX_SHOWN = 5
"""Refusals that are shown; the rest are counted."""


def add_mmar_arguments(parser: argparse.ArgumentParser, *, min_sites: str) -> None:
    """Add the MMAR and ``--min-sites``, of which ``min_sites`` says what needs the sites."""
    parser.add_argument("mmar", type=Path, metavar="MMAR", help="the MMAR's folder")
    text = f"sites {min_sites} (%(default)s)"
    parser.add_argument("--min-sites", type=int, default=2, metavar="N", help=text)


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the job goes, its name and its code."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="JOB", help="becomes the job's folder"
    )
    parser.add_argument("--name", default="", metavar="N", help="the job's name (the MMAR's)")
    parser.add_argument("--with-code", action="store_true", help="take the MMAR's custom/ along")
    parser.add_argument("--overwrite", action="store_true", help="replace a job that is there")


def make(
    options: argparse.Namespace,
    settings: JobSettings | ValidationSettings,
    models: Mapping[str, Path] | None = None,
) -> None:
    """Make the job that the options ask for, and report it."""
    from fl_admin.jobs.create import JobRequest, create_job, mmar_to_federate, replaced_configs
    from mmar_runtime.config.overrides import parse_overrides

    request = JobRequest(
        mmar=mmar_to_federate(options.mmar),
        settings=settings,
        name=options.name,
        with_code=options.with_code,
        values=parse_overrides(options.overrides),
        models=models or {},
    )
    created = create_job(request, options.out, overwrite=options.overwrite)
    notices = (*replaced_configs(request.mmar), *created.notices)
    report(replace(created, notices=notices), as_json=options.json)


def report(created: CreatedJob, *, as_json: bool, fields: Iterable[FieldReport] = ()) -> None:
    """Print where the job is on stdout, and what to know about the job on stderr."""
    for notice in created.notices:
        print_note(notice)
    show_refusals(created.refusals)
    folder = str(created.job.folder)
    if not as_json:
        print(folder)
        return
    print_json(
        {
            "folder": folder,
            "name": created.job.name,
            "notices": created.notices,
            "refusals": [refusal.as_dict() for refusal in created.refusals],
            "fields": [field.as_dict() for field in fields],
        }
    )


def show_refusals(refusals: tuple[Problem, ...]) -> None:
    """Warn of what a site with the default policy would refuse."""
    from fl_admin.jobs.refusals import refusal_text

    for problem in refusals[:MAX_SHOWN]:
        print(refusal_text(problem), file=sys.stderr)
    if len(refusals) > MAX_SHOWN:
        more = f"and {len(refusals) - MAX_SHOWN} more; 'mmar check' lists them"
        print(f"a site may refuse this: {more}", file=sys.stderr)
