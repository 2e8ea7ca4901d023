"""What a site's policy says to a task at this moment, whichever process or engine does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fl_client.site import Site
from mmar_runtime.errors import ConfigError, PolicyError, Problem
from mmar_runtime.exchange.messages import SCORE, SUBMIT, VALIDATE
from mmar_runtime.files import bytes_below
from mmar_runtime.policy.mmar_check import check_mmar

EVALUATIONS = (SCORE, VALIDATE, SUBMIT)
"""The tasks, other than the rounds, whose replies have metrics."""


def mmar_problems(site: Site) -> tuple[Problem, ...]:
    """What a site's policy has against its MMAR, judged with the site's own values."""
    try:
        values = site.workflow_values
    except ConfigError as error:
        return error.problems
    return check_mmar(site.mmar.root, site.policy, site_values=values).problems


def over_limit(what: str) -> PolicyError:
    """The error of a job that has gone past a limit of the site; see ``RunWatch``."""
    return PolicyError(f"this job {what}")


def too_long(site: Site) -> PolicyError:
    """The error of a job that has run for longer than the site allows."""
    return over_limit(
        f"has run for limits.wall_minutes of this site, {site.policy.limits.wall_minutes}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedTask:
    """A task that a site is asked for.

    Attributes:
        name: of the task.
        epochs: epochs of a round; 0 where a round counts optimizer steps.
        round_number: of a training; 0 for the other tasks.
        evaluations: how many of ``EVALUATIONS`` this site has done in the job.
        is_anothers: whether its model is neither this site's nor of a training that it takes part
            in; called only where that makes a difference.
    """

    name: str
    epochs: int
    round_number: int = 0
    evaluations: int = 0
    is_anothers: Callable[[], bool] = lambda: False

    def require_allowed(self, site: Site, run: Path) -> None:
        """Judge the task.

        Args:
            site: that is asked.
            run: the folder in which its run writes.

        Raises:
            PolicyError: the site's policy does not allow it.
        """
        limits, cross_site = site.policy.limits, site.policy.cross_site
        if self.epochs > limits.epochs_per_round:
            raise PolicyError(
                f"{self.epochs} epochs a round; limits.epochs_per_round of this site is "
                f"{limits.epochs_per_round}"
            )
        if self.round_number > limits.rounds:
            raise PolicyError(
                f"round {self.round_number}; limits.rounds of this site is {limits.rounds}"
            )
        if self.name == SUBMIT and not cross_site.share_model:
            raise PolicyError("cross_site.share_model of this site is off")
        if self.name == VALIDATE and not cross_site.evaluate_others and self.is_anothers():
            raise PolicyError("cross_site.evaluate_others of this site is off")
        outgoing = site.policy.outgoing
        if self.name in EVALUATIONS and self.evaluations >= outgoing.max_evaluations:
            raise PolicyError(
                f"{self.evaluations} evaluations of this job; outgoing.max_evaluations of this "
                f"site is {outgoing.max_evaluations}"
            )
        used, most = bytes_below(run), limits.disk_gib * 2**30
        if used > most:
            raise PolicyError(f"this run has written {used} bytes; limits.disk_gib allows {most}")
