"""What a site's policy asks of a training before it begins: enough cases, a bearable network."""

from __future__ import annotations

from fl_client.local_training import LocalTrainer
from mmar_runtime.config.data_list import labels_are_files, read_data_list
from mmar_runtime.config.sections import TrainConfig
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
    sources = [one.data_list for one in config.train.specs("dataset") if one.data_list is not None]
    if not sources:
        raise PolicyError(
            f"the training names no data list, and the policy of this site asks for {least} cases "
            "at least (min_dataset_size)"
        )
    count = len(read_data_list(sources[0], labels_are_files=labels_are_files(config)).items)
    if count < least:
        raise PolicyError(
            f"{count} training cases; the policy of this site takes part with {least} or more "
            "(min_dataset_size)"
        )


def require_within_limits(trainer: LocalTrainer, policy: SitePolicy) -> None:
    """Judge what only shows once the training is built.

    Raises:
        PolicyError: too many parameters, or more steps in a round than its epochs may have.
    """
    parameters = sum(one.numel() for one in trainer.network.parameters())
    if parameters > policy.limits.parameters:
        raise PolicyError(
            f"the network has {parameters} parameters; limits.parameters of this site is "
            f"{policy.limits.parameters}"
        )
    most = policy.limits.epochs_per_round * trainer.steps_per_epoch
    if trainer.work.steps > most:
        raise PolicyError(
            f"{trainer.work.steps} steps a round; limits.epochs_per_round of this site is "
            f"{policy.limits.epochs_per_round}, which are {most} steps here"
        )
