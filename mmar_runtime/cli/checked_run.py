"""The common start of ``mmar train`` and ``mmar evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

from mmar_runtime.cli.common import is_first_process, print_note, set_up_run_logging
from mmar_runtime.cli.confine import confine_command
from mmar_runtime.cli.given_values import given_values, require_used, results_below, with_data
from mmar_runtime.cli.progress import Progress, silent
from mmar_runtime.cli.quiet import hide_exceptions, show_exceptions
from mmar_runtime.config.data_list import data_check
from mmar_runtime.config.loader import Check
from mmar_runtime.config.sections import Config, WorkflowConfig, without_unused_validation
from mmar_runtime.errors import Problem
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.extras_check import extras_check
from mmar_runtime.policy.fit_check import fit_notices
from mmar_runtime.policy.mmar_check import own_mmar_checks
from mmar_runtime.policy.output_check import output_check
from mmar_runtime.policy.path_check import results_elsewhere
from mmar_runtime.policy.volume_check import volume_check


def checked_config(options: argparse.Namespace, load: Callable[..., Config]) -> Config:
    """Confine the process if asked to, and load a config that passes every check.

    Args:
        options: of the command line.
        load: the loader's function for the kind of config.
    """
    values = with_data(given_values(options), options.data)
    confine_command(options, values)
    set_up_run_logging(options)
    loaded = load(
        Mmar.open(options.mmar),
        file=options.config,
        environment=options.environment,
        overrides=values,
        checks=[
            *own_mmar_checks(),
            extras_check,
            *map(_of_used, (data_check, volume_check, output_check)),
        ],
    )
    require_used(options, loaded)
    config = without_unused_validation(loaded)
    classes = [
        spec.title
        for section in config.scopes.values()
        for entry in ("trainer", "evaluator")
        for spec in section.specs(entry)
    ]
    (show_exceptions if options.debug else hide_exceptions)(classes)
    first = is_first_process()
    # numpy and nibabel take a moment to import; a config with a fault is refused before that.
    from mmar_runtime.datatools.run_check import with_data_checked

    config = with_data_checked(config, told=Progress() if first else silent)
    notices = (*config.notices, *fit_notices(config), *results_elsewhere(config))
    for notice in (*notices, *results_below(options, config)) if first else ():
        print_note(notice)
    return config


def _of_used(check: Check) -> Check:
    """Return a check of data for the sections that run: a section that nothing uses needs none."""

    def used(config: WorkflowConfig) -> Iterator[Problem]:
        yield from check(without_unused_validation(config))

    return used
