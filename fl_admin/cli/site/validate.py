"""``mmar site validate``: a model on this site's own data, as the federation's matrix has it.

By the job's ``config_cross_validation.json``, with the values and the policy of the site's kit: the
numbers are those that the site would tell a federation, to the last digit. Nothing leaves the site.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fl_admin.cli.commands import add_kit_of_site
from mmar_runtime.cli.common import (
    add_output_arguments,
    json_text,
    print_json,
    print_note,
    set_up_logging,
    stop_on_signals,
)
from mmar_runtime.config.loader import CROSS_VALIDATION_FILE
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.files import write_text_atomically
from mmar_runtime.metrics import metric_lines

if TYPE_CHECKING:
    from fl_client.site import Site
    from fl_client.site_validation import SiteValidation

HELP = "how well a model does on this site's own data; nothing leaves the site"
EXAMPLES = """examples:
  mmar site validate --model FL_global_model.pt                (in the kit; by its newest job)
  mmar site validate --kit KIT --model best.safetensors --job 3f6b... --json
  mmar site validate --kit KIT --model model.pt --mmar path/to/mmar --out validated
"""

OUTPUT_FOLDER = "MMAR_EVAL_OUTPUT_PATH"
"""The variable that says where the handlers of an evaluation write."""

DOCUMENT = "validation.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_kit_of_site(parser)
    parser.add_argument(
        "--model", type=Path, required=True, metavar="FILE", help="weights, .pt or .safetensors"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--mmar", type=Path, metavar="DIR", help="the MMAR to evaluate it by")
    source.add_argument(
        "--job", metavar="ID", help="a job that this kit has run, for its MMAR (the newest)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"keep {DOCUMENT} and what the handlers write, such as values of single cases",
    )
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Check everything, evaluate, print what a federation would be told."""
    from fl_admin.kits.site_kit import SiteKit
    from mmar_runtime.mmar import Mmar

    set_up_logging(verbose=options.verbose)
    kit = SiteKit.open(options.kit)
    if options.mmar is not None:
        mmar = Mmar.open(options.mmar)
        source = str(mmar.root)
    else:
        job = kit.job(options.job)
        mmar, source = job.mmar, f"job {job}"
    print_note(f"by {Path(CROSS_VALIDATION_FILE).name} of {source}")
    with _output_folder(options.out) as out:
        site = kit.site(mmar, {OUTPUT_FOLDER: str(out)})
        started = time.monotonic()
        validation = _validated(site, options.model)
        document = {
            "site": site.name,
            "model": str(options.model),
            "by": source,
            **validation.told.as_dict(),
            "cases": validation.cases,
        }
        if options.out is not None:
            write_text_atomically(out / DOCUMENT, json_text(document) + "\n")
    if options.json:
        print_json(document)
        return 0
    for line in metric_lines(validation.told.metrics):
        print(line)
    if not validation.told.metrics:
        print("the policy of this site lets none of its metrics out")
    print(f"{validation.cases} cases at {site.name} in {time.monotonic() - started:.1f} s")
    return 0


@contextlib.contextmanager
def _output_folder(named: Path | None) -> Iterator[Path]:
    """Give the folder that handlers write to: the named one, or one that is removed afterwards.

    Raises:
        ConfigError: the named one holds something.
    """
    if named is None:
        with tempfile.TemporaryDirectory(prefix="mmar-validate-") as folder:
            yield Path(folder)
        return
    out = named.expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"{str(out)!r} is there already"
        raise ConfigError([Problem(Location("--out"), message, "Name another one.", "folder")])
    out.mkdir(parents=True, exist_ok=True)
    yield out


def _validated(site: Site, model: Path) -> SiteValidation:
    # MONAI logs to stdout, which belongs to the result; its loggers take hold of it on import.
    with stop_on_signals() as stop, contextlib.redirect_stdout(sys.stderr):
        from fl_client.site_validation import validate_here
        from mmar_runtime.weights import read_checkpoint

        weights = read_checkpoint(model).weights
        return validate_here(site, weights, source=str(model), should_stop=stop)
