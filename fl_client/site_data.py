"""Whether a site has the data that a job will ask it for, within a time that a server waits.

A site judges a job in the seconds that the server gives it. So this looks whether files are there,
not what is in them, and a disk that does not answer is a fault and not a wait.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mmar_runtime.config.data_list import data_check, data_sources, raw_items
from mmar_runtime.config.loader import (
    CROSS_VALIDATION_FILE,
    ENVIRONMENT_FILE,
    TRAIN_FILE,
    Check,
    load_evaluation_config,
    load_train_config,
)
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sections import WorkflowConfig
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.path_check import DATA_VARIABLES, path_check
from mmar_runtime.policy.site_policy import SitePolicy

SECONDS_TO_ANSWER = 3.0
"""For a data list to be read; NVFlare's server waits 10 s for a site's judgement in all."""

SECONDS_TO_LOOK = 4.0
"""For all files to be looked for. If there are too many for that, the job's process looks again."""

WORKFLOWS: tuple[tuple[str, Callable[..., WorkflowConfig]], ...] = (
    (TRAIN_FILE, load_train_config),
    (CROSS_VALIDATION_FILE, load_evaluation_config),
)
"""What a job runs at a site."""

log = logging.getLogger(__name__)


def unset_variables(values: Mapping[str, Scalar]) -> tuple[str, ...]:
    """Return which of the variables are without a value that only the site itself can give."""
    return tuple(name for name in DATA_VARIABLES if not values.get(name))


def data_faults(app: Path, values: Mapping[str, Scalar], policy: SitePolicy) -> list[Problem]:
    """Return what is wrong with a site's data for a job; empty if the job can read all of them.

    The problems name files, so they are for the site alone.

    Args:
        app: the job's MMAR, which was accepted already.
        values: the site's own variables.
        policy: says where data may lie.
    """
    lists: list[Check] = [path_check(policy, cases=False), _answers]
    if not _within(SECONDS_TO_ANSWER, faults := _Faults(app, values, lists)):
        message = f"does not answer within {SECONDS_TO_ANSWER:.0f} s"
        return [Problem(Location("DATA_ROOT"), message, "Is its disk mounted?", "data")]
    if faults.found:
        return faults.found
    faults = _Faults(app, values, [path_check(policy), data_check])
    if not _within(SECONDS_TO_LOOK, faults):
        log.warning("too many files to look for in %.0f s; the job looks again", SECONDS_TO_LOOK)
    return faults.found


class _Faults:
    """Loads the workflows of a job as it will run here and keeps what the checks find."""

    def __init__(self, app: Path, values: Mapping[str, Scalar], checks: list[Check]) -> None:
        self.found: list[Problem] = []
        self._app, self._values, self._checks = app, values, checks

    def __call__(self) -> None:
        """Load and check."""
        mmar = Mmar(self._app)
        for file, load in WORKFLOWS:
            if not mmar.document(file).is_file():
                continue
            try:
                load(
                    mmar,
                    file=file,
                    environment=ENVIRONMENT_FILE,
                    site=self._values,
                    checks=self._checks,
                )
            except ConfigError as error:
                self.found += error.problems
            except Exception as error:  # what cannot be judged does not run
                log.debug("the data of this site cannot be judged", exc_info=True)
                message = f"cannot be judged: {type(error).__name__}"
                self.found.append(Problem(Location(Path(file).name), message, "", "check"))


def _answers(config: WorkflowConfig) -> Iterator[Problem]:
    """Read the data lists; what is wrong with them comes up in the check that follows."""
    for source in data_sources(config):
        os.path.isdir(source.base)
        try:
            raw_items(Path(source.file), source)
        except ConfigError as error:
            yield from error.problems


def _within(seconds: float, work: Callable[[], object]) -> bool:
    """Return whether some work was done in time; if not, nobody waits for the work."""
    # A thread, and not one of a pool: whoever waits for a dead disk must not hold up the exit.
    thread = threading.Thread(target=work, name="mmar_site_data", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
