"""``mmar job``: make a job of an MMAR or of an old federation's configs, and look at a job."""

from __future__ import annotations

import argparse

from fl_admin.cli.commands import add_commands
from fl_admin.cli.job import create, from_clara, show, validate

HELP = "make a job of an MMAR, import an old federation's configs, show a job"
EXAMPLES = """examples:
  mmar job create path/to/mmar --out jobs/spleen --min-sites 3 --rounds 50 --local-epochs 2
  mmar job create path/to/mmar --out jobs/spleen --aggregation-weights site-2=2 site-3=0.5
  mmar job validate path/to/mmar --out jobs/check --model ours=model.pt --models-of runs/run-001
  mmar job create path/to/mmar --out jobs/spleen --encrypt-layers 'model.*.conv.*'
  mmar job create path/to/mmar --out jobs/spleen --transfer int8
  mmar job create path/to/mmar --out jobs/spleen --exclude-vars "*.running_*"
  mmar job create path/to/mmar --out jobs/spleen --result-filter PercentilePrivacy gamma=0.01
  mmar job import path/to/old_mmar --out jobs/old --allow-dropped EarlyStopping
  mmar job show jobs/spleen --json
"""

COMMANDS = {"create": create, "validate": validate, "import": from_clara, "show": show}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands, each with its own arguments."""
    add_commands(parser, COMMANDS, examples=EXAMPLES)
