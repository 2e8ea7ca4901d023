"""What a site's policy asks of a training before it begins: enough persons, a bearable round."""

from __future__ import annotations

from fl_client.local_training import LocalTrainer
from fl_client.persons import count_persons
from mmar_runtime.config.data_list import read_data_list
from mmar_runtime.config.file_keys import file_keys
from mmar_runtime.config.sections import EvaluationConfig, Section, TrainConfig, WorkflowConfig
from mmar_runtime.errors import DataError, PolicyError
from mmar_runtime.policy.site_policy import SitePolicy


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
    least = policy.cross_site.min_cases
    _require_persons(config, config.section, policy, least, _REPORTED)


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
    labels = [one.log_label for one in config.validate.specs("key_metric")]
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
    """Persons in a section's data list; 0 where it names none, so nobody knows how many."""
    for spec in section.specs("dataset"):
        if spec.data_list is not None:
            found = read_data_list(spec.data_list, file_keys=file_keys(config))
            try:
                return count_persons(found.items, policy.patient_key)
            except OSError as error:
                message = f"an image of {found.file.name} cannot be read: {error.strerror}"
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
