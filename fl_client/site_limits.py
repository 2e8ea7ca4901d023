"""What a site's policy asks of a training before it begins: enough cases, a bearable round."""

from __future__ import annotations

from fl_client.local_training import LocalTrainer
from mmar_runtime.config.data_list import labels_are_files, read_data_list
from mmar_runtime.config.sections import Section, TrainConfig
from mmar_runtime.errors import PolicyError
from mmar_runtime.policy.site_policy import SitePolicy


def require_enough_cases(config: TrainConfig, policy: SitePolicy) -> None:
    """Read the training list and count.

    Raises:
        PolicyError: fewer training cases than the policy asks for, or no list that says how many.
        ConfigError: the list cannot be read.
    """
    least = policy.min_dataset_size
    if least <= 1:
        return
    count = _cases(config, config.train)
    if count < least:
        raise PolicyError(
            f"{count} training cases in a data list; the policy of this site takes part with "
            f"{least} or more (min_dataset_size)"
        )


def require_metrics_may_leave(config: TrainConfig, policy: SitePolicy) -> None:
    """Judge whether this site may tell the metric by which the federation compares models.

    A contribution without it is of no use to the server, so a site that keeps it back does not
    train in vain.

    Raises:
        PolicyError: the key metric is withheld, or would be of fewer cases than the policy asks.
        ConfigError: the list of the validation cannot be read.
    """
    if config.validate is None:
        return  # the trainer says so
    labels = [one.log_label for one in config.validate.specs("key_metric")]
    allowed = policy.outgoing.metrics
    if allowed is not None and not all(label in allowed for label in labels):
        raise PolicyError(
            f"outgoing.metrics of this site does not list the key metric {labels[0]!r}"
        )
    least = policy.cross_site.min_cases
    count = _cases(config, config.validate) if least > 1 else least
    if count < least:
        raise PolicyError(
            f"{count} validation cases in a data list; the policy of this site reports no metric "
            f"of fewer than {least} (cross_site.min_cases)"
        )


def _cases(config: TrainConfig, section: Section) -> int:
    """Cases in a section's data list; 0 where it names none, so nobody knows how many there are."""
    for spec in section.specs("dataset"):
        if spec.data_list is not None:
            return len(
                read_data_list(spec.data_list, labels_are_files=labels_are_files(config)).items
            )
    return 0


def require_within_limits(trainer: LocalTrainer, policy: SitePolicy) -> None:
    """Judge what only shows once the training is built.

    Raises:
        PolicyError: more steps in a round than its epochs may have.
    """
    most = policy.limits.epochs_per_round * trainer.steps_per_epoch
    if trainer.work.steps > most:
        raise PolicyError(
            f"{trainer.work.steps} steps a round; limits.epochs_per_round of this site is "
            f"{policy.limits.epochs_per_round}, which are {most} steps here"
        )
