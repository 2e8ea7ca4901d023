"""The job that a command is given: a job's folder, or an MMAR of which a job is made meanwhile."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fl_admin.cli.job.settings import settings_of
from mmar_runtime.cli.common import print_note
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.errors import ConfigError, Problem

if TYPE_CHECKING:
    from fl_admin.jobs.job import Job


@contextmanager
def named_job(
    folder: Path,
    options: argparse.Namespace,
    *,
    min_sites: int,
    with_code: bool,
    values: Mapping[str, Scalar] | None = None,
    for_mmars: Mapping[str, object] | None = None,
) -> Iterator[Job]:
    """Give the job in a folder; a job made of a plain MMAR exists only within.

    Args:
        folder: of a job or of an MMAR.
        options: with those of ``add_settings_arguments``, and ``rounds``.
        min_sites: sites that each round needs, where the job is made here.
        with_code: whether an MMAR's own code goes along.
        values: variables for the ``environment.json`` of a job that is made here.
        for_mmars: further options that a job does not take, each with its value.

    Raises:
        ConfigError: the folder is neither, or a job was given what only an MMAR takes.
    """
    from fl_admin.jobs.create import (
        JobRequest,
        is_plain_mmar,
        mmar_to_federate,
        replaced_configs,
        temporary_job,
    )
    from fl_admin.jobs.job import Job

    if not is_plain_mmar(folder):
        _require_none(options, for_mmars or {})
        yield Job.open(folder)
        return
    request = JobRequest(
        mmar=mmar_to_federate(folder),
        settings=settings_of(options, min_sites=min_sites),
        with_code=with_code,
        values=values or {},
    )
    with temporary_job(request) as created:
        for notice in (*replaced_configs(request.mmar), *created.notices):
            print_note(notice)
        yield created.job


def _require_none(options: argparse.Namespace, for_mmars: Mapping[str, object]) -> None:
    given = {
        "--local-epochs": options.local_epochs,
        "--weigh-by": options.weigh_by,
        "--aggregation-weights": options.aggregation_weights,
        "--he": options.he,
        "--encrypt-layers": options.encrypt_layers,
        "--transfer": options.transfer,
        **for_mmars,
    }
    problems = [
        Problem(Location(name), "is for a plain MMAR; a job says it itself", "", "job")
        for name, value in given.items()
        if value
    ]
    if problems:
        raise ConfigError(problems)
