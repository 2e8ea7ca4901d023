"""``mmar evaluate``: validate a model, or run inference, as Clara's ``medl.apps.evaluate`` did."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmar_runtime.cli.checked_run import checked_config
from mmar_runtime.cli.common import (
    add_mmar_arguments,
    add_output_arguments,
    is_first_process,
    print_json,
    stop_on_signals,
)
from mmar_runtime.cli.confine import add_confine_argument
from mmar_runtime.cli.given_values import add_data_argument
from mmar_runtime.config.loader import VALIDATION_FILE, load_evaluation_config
from mmar_runtime.metrics import metric_lines
from mmar_runtime.policy.site_policy import OWN_MMAR_POLICY, read_site_policy

if TYPE_CHECKING:
    from mmar_runtime.config.sections import EvaluationConfig
    from mmar_runtime.results import EvaluationResult

HELP = "validate a model of an MMAR, or run it on new images"
EXAMPLES = """examples:
  mmar evaluate -m path/to/mmar --set dont_load_ts_model=True dont_load_ckpt_model=False
  mmar evaluate -m path/to/mmar --set MMAR_CKPT=/path/to/FL_global_model.pt
  mmar evaluate -m path/to/mmar -c config/config_inference.json
  mmar evaluate -m path/to/mmar --policy local/mmar_site_policy.json

With --policy, the metrics are those that the site would send to a federation, rounded as there.
"""


MOST_FINDINGS = 20
"""Cases that the summary lists."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_mmar_arguments(parser, config=VALIDATION_FILE)
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="a site's policy: metrics as they leave it"
    )
    add_data_argument(parser)
    add_confine_argument(parser)
    add_output_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Check everything, evaluate, print the metrics."""
    policy = OWN_MMAR_POLICY if options.policy is None else read_site_policy(options.policy)
    config = checked_config(options, load_evaluation_config)
    first, started = is_first_process(), time.monotonic()
    # MONAI logs to stdout, which belongs to the result; its loggers take hold of it on import.
    with stop_on_signals() as stop, contextlib.redirect_stdout(sys.stderr):
        # torch and MONAI take seconds to import; a config with a fault is refused before that.
        from mmar_runtime.workflows.evaluation import evaluate

        result = evaluate(config, allow_code=True, should_stop=stop)
    result = replace(result, metrics=policy.rounded(result.metrics))
    if options.policy is not None:
        result = replace(result, findings=())  # they name files, which no policy lets out
    if not first:
        return 0  # each process has the same result
    if options.json:
        print_json(result.as_dict())
    else:
        print(summary(result, config, time.monotonic() - started))
    return 0


def summary(result: EvaluationResult, config: EvaluationConfig, seconds: float) -> str:
    """Return the lines that a person wants to read at the end."""
    lines = list(metric_lines(result.metrics))
    lines += [f"    {one.label} {one.fault}: {one.case}" for one in result.findings[:MOST_FINDINGS]]
    if (rest := len(result.findings) - MOST_FINDINGS) > 0:
        lines.append(f"    ... and {rest} more; --json has all of them")
    lines.append(f"{result.cases} cases in {seconds:.1f} s")
    lines.append(f"output: {config.value('MMAR_EVAL_OUTPUT_PATH')}")
    return "\n".join(lines)
