"""What a site's policy asks of a task, and of the training or the evaluation that it needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fl_client.local_work import LocalWork
from fl_client.persons import count_persons
from fl_client.site import Site
from mmar_runtime.config.data_list import read_data_list
from mmar_runtime.config.file_keys import file_keys
from mmar_runtime.config.sections import EvaluationConfig, Section, TrainConfig, WorkflowConfig
from mmar_runtime.errors import ConfigError, DataError, PolicyError, Problem
from mmar_runtime.exchange.messages import Submit, Task, Train, Validate
from mmar_runtime.files import bytes_below
from mmar_runtime.policy.mmar_check import check_mmar
from mmar_runtime.policy.site_policy import SitePolicy

if TYPE_CHECKING:
    from fl_client.local_training import LocalTrainer


def mmar_problems(site: Site) -> tuple[Problem, ...]:
    """Return what a site's policy has against its MMAR, judged with the site's own values."""
    try:
        values = site.workflow_values
    except ConfigError as error:
        return error.problems
    return check_mmar(site.mmar.root, site.policy, site_values=values).problems


def over_limit(what: str) -> PolicyError:
    """Return the error of a job that has passed a limit of the site; see ``RunWatch``."""
    return PolicyError(f"this job {what}")


def require_allowed(
    task: Task, work: LocalWork, site: Site, *, evaluations: int, run: Path
) -> None:
    """Judge a task, whichever process or engine does it.

    Args:
        task: what the server asks for.
        work: how much a round of the job trains at the site.
        site: the site.
        evaluations: how many tasks with metrics, other than the rounds, the site has done.
        run: the folder in which the run of the job writes.

    Raises:
        PolicyError: the site's policy does not allow the task.
    """
    limits, cross_site = site.policy.limits, site.policy.cross_site
    if not work.steps and work.epochs > limits.epochs_per_round:
        raise PolicyError(
            f"{work.epochs} epochs a round; limits.epochs_per_round of this site is "
            f"{limits.epochs_per_round}"
        )
    if isinstance(task, Train) and task.round_number > limits.rounds:
        raise PolicyError(
            f"round {task.round_number}; limits.rounds of this site is {limits.rounds}"
        )
    if isinstance(task, Submit) and not cross_site.share_model:
        raise PolicyError("cross_site.share_model of this site is off")
    is_anothers = isinstance(task, Validate) and not task.is_global and task.owner != site.name
    if is_anothers and not cross_site.evaluate_others:
        raise PolicyError("cross_site.evaluate_others of this site is off")
    most = site.policy.outgoing.max_evaluations
    if not isinstance(task, Train) and evaluations >= most:
        raise PolicyError(
            f"{evaluations} evaluations of this job; outgoing.max_evaluations of this site is "
            f"{most}"
        )
    used, allowed = bytes_below(run), limits.disk_gib * 2**30
    if used > allowed:
        raise PolicyError(f"this run has written {used} bytes; limits.disk_gib allows {allowed}")


def require_enough_cases(config: TrainConfig, policy: SitePolicy) -> None:
    """Count the persons of the training list.

    Its losses and metrics leave the site too, so it has to be of enough persons for these.

    Raises:
        PolicyError: fewer persons than the policy asks for, or no list that says how many.
        ConfigError, DataError: the list or one of its images cannot be read.
    """
    least, key = policy.min_dataset_size, "min_dataset_size"
    if policy.cross_site.min_cases > least:
        least, key = policy.cross_site.min_cases, "cross_site.min_cases"
    _require_persons(config, config.train, policy, least, f"training list ({key})")


def require_enough_to_report(config: EvaluationConfig, policy: SitePolicy) -> None:
    """Count the persons of the list by which models from anywhere are evaluated.

    Raises:
        As ``require_enough_cases``.
    """
    _require_persons(config, config.section, policy, policy.cross_site.min_cases, _REPORTED)


def require_metrics_may_leave(config: TrainConfig, policy: SitePolicy) -> None:
    """Judge whether this site may report the metric by which the federation compares models.

    A contribution without it is of no use to the server, so a site that keeps it back does not
    train in vain.

    Raises:
        PolicyError: the key metric is withheld, or would be of fewer persons than the policy asks.
        ConfigError, DataError: the list of the validation or one of its images cannot be read.
    """
    if config.validate is None:
        return  # the trainer says so
    labels = [spec.log_label for spec in config.validate.specs("key_metric")]
    allowed = policy.outgoing.metrics
    if allowed is not None and not all(label in allowed for label in labels):
        raise PolicyError(
            f"outgoing.metrics of this site does not list the key metric {labels[0]!r}"
        )
    _require_persons(config, config.validate, policy, policy.cross_site.min_cases, _REPORTED)


_REPORTED = "validation list (cross_site.min_cases)"


def _require_persons(
    config: WorkflowConfig, section: Section, policy: SitePolicy, least: int, what: str
) -> None:
    count = _persons(config, section, policy) if least > 1 else least
    if count < least:
        raise PolicyError(f"persons in the {what}: {count}; this site's policy asks for {least}")


def _persons(config: WorkflowConfig, section: Section, policy: SitePolicy) -> int:
    """Return the number of persons in a section's data list; 0 if the section names no list."""
    for spec in section.specs("dataset"):
        if spec.data_list is not None:
            data_list = read_data_list(spec.data_list, file_keys=file_keys(config))
            try:
                return count_persons(data_list.items, policy.patient_key)
            except OSError as error:
                message = f"an image of {data_list.file.name} cannot be read: {error.strerror}"
                raise DataError(message) from error
    return 0


def require_within_limits(trainer: LocalTrainer, policy: SitePolicy) -> None:
    """Judge what only shows once the training is built.

    Raises:
        PolicyError: more steps in a round than its epochs may have, or an epoch over fewer cases
            than the policy asks for, as of a data set that caches a part of its list at a time.
    """
    least = max(policy.min_dataset_size, policy.cross_site.min_cases)
    if least > 1 and trainer.cases_per_epoch < least:
        raise PolicyError(
            f"an epoch is over {trainer.cases_per_epoch} cases; the policy of this site asks for "
            f"{least}"
        )
    most = policy.limits.epochs_per_round * trainer.steps_per_epoch
    if trainer.work.steps > most:
        raise PolicyError(
            f"{trainer.work.steps} steps a round; limits.epochs_per_round of this site is "
            f"{policy.limits.epochs_per_round}, which are {most} steps here"
        )
