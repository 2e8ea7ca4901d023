"""``mmar job import``: make a job of an old federation's configs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fl_admin.cli.commands import add_words
from fl_admin.cli.job.making import add_target_arguments, report
from mmar_runtime.cli.common import add_output_arguments, add_set_argument
from mmar_runtime.names import visible_line

HELP = "make a job of an old federation's configs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="holds config_fed_server.json and _client.json"
    )
    parser.add_argument(
        "--mmar", type=Path, metavar="MMAR", help="the MMAR to train, if it lies elsewhere"
    )
    add_target_arguments(parser)
    add_words(
        parser,
        "--allow-dropped",
        "FIELD",
        "go on without this field or class, though the result may be another",
    )
    add_set_argument(parser)
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Translate the configs, report each field, and make the job."""
    from fl_admin.jobs.clara.reading import import_job, read_old_federation
    from mmar_runtime.config.overrides import parse_overrides

    values = parse_overrides(options.overrides)
    old = read_old_federation(options.folder, mmar=options.mmar, values=values)
    for field in old.fields:
        print(visible_line(str(field)), file=sys.stderr)
    created = import_job(
        old,
        options.out,
        name=options.name,
        with_code=options.with_code,
        overwrite=options.overwrite,
        allow_dropped=options.allow_dropped,
    )
    report(created, as_json=options.json, fields=old.fields)
    return 0
