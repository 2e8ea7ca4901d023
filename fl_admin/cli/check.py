"""``mmar check``: may this MMAR or job run at a site? Judged as data; nothing of it is run.

Without --policy the default site policy holds: no code of a job's own, nothing sent elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from mmar_runtime.cli.common import add_set_argument
from mmar_runtime.policy.verdict import Verdict

HELP = "say whether a site would run an MMAR or a job, and why not"
EXAMPLES = """examples:
  mmar check path/to/mmar                                  (a folder with config/)
  mmar check jobs/spleen_ct_segmentation job.zip --json    (one JSON line for each)
  mmar check path/to/mmar/config/config_train.json
  mmar check job.zip --policy local/mmar_site_policy.json --set learning_rate=1e-4

exit code: 0 all are accepted, 3 one is rejected, 2 it cannot be asked so
"""

REJECTED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="folder of an MMAR or a job, zip of a job, or one workflow's JSON",
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="the site's policy")
    add_set_argument(parser)
    parser.add_argument("--json", action="store_true", help="one JSON line for each path")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def run(options: argparse.Namespace) -> int:
    """Judge each path and print the verdicts."""
    from fl_client.jobs.limited_check import limited_check
    from mmar_runtime.cli.given_values import given_values
    from mmar_runtime.config.location import Location
    from mmar_runtime.errors import ConfigError, Problem
    from mmar_runtime.policy.site_policy import DEFAULT_POLICY, read_site_policy

    policy = DEFAULT_POLICY if options.policy is None else read_site_policy(options.policy)
    overrides = given_values(options)
    advice = "Name the folder of an MMAR or of a job, or a job's zip."
    missing = [
        Problem(Location("PATH"), f"there is nothing at {path!r}", advice, "missing-file")
        for path in options.paths
        if not os.path.lexists(path)
    ]
    if missing:
        raise ConfigError(missing)
    rejected = 0
    for path in options.paths:
        verdict = limited_check(path, policy, overrides=overrides, debug=options.debug)
        rejected += not verdict.accepted
        text = json.dumps(verdict.as_dict()) if options.json else _text(verdict)
        print(text, flush=True)
    if not options.json:
        print(f"{len(options.paths) - rejected} accepted, {rejected} rejected")
    return REJECTED if rejected else 0


def _text(verdict: Verdict) -> str:
    """Return the verdict for a person: a line for each reason, with advice below it."""
    lines = [f"{verdict.path}: {'accepted' if verdict.accepted else 'rejected'}"]
    for problem in verdict.problems:
        lines.append(f"  {problem.rule}  {problem.location}: {problem.message}")
        lines += [f"      {problem.advice}"] if problem.advice else []
    lines += [f"  note: {notice}" for notice in verdict.notices]
    return "\n".join(lines)
