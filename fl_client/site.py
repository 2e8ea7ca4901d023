"""A site: its name, the MMAR it was sent, and its own values for it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mmar_runtime.config.data_list import data_check
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
from mmar_runtime.config.sections import Config, EvaluationConfig, TrainConfig
from mmar_runtime.config.sources import SITE
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.mmar import Mmar
from mmar_runtime.policy.extras_check import extras_check
from mmar_runtime.policy.fit_check import fit_check
from mmar_runtime.policy.limits_check import image_limits_check
from mmar_runtime.policy.mmar_check import policy_checks
from mmar_runtime.policy.output_check import output_check
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SitePolicy
from mmar_runtime.policy.volume_check import volume_check

logger = logging.getLogger(__name__)

PROCESSES_VARIABLE = "NUM_PROCESSES"
"""A site's own value: how many processes do its work together, each with a GPU of its own."""

LOCAL_EPOCHS = "LOCAL_EPOCHS"
"""A site's own value: epochs that it trains in a round, in place of the job's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One site of a federation.

    Attributes:
        name: the site's name in the federation.
        mmar: the MMAR of the job.
        values: the site's own variables, which win over those of the MMAR.
        policy: what the site allows a job.
    """

    name: str
    mmar: Mmar
    values: Mapping[str, Scalar]
    policy: SitePolicy = DEFAULT_POLICY

    @property
    def allow_code(self) -> bool:
        """Whether components may come from the job's own code."""
        return self.policy.byoc.mode != "off"

    @property
    def processes(self) -> int:
        """How many processes do this site's work together.

        Raises:
            ConfigError: the site's own value is no positive whole number.
        """
        return self._number(PROCESSES_VARIABLE, 1)

    @property
    def alone(self) -> Site:
        """The same site in a single process; what it evaluates has the same metrics."""
        return replace(self, values={**self.values, PROCESSES_VARIABLE: 1})

    @property
    def workflow_values(self) -> Mapping[str, Scalar]:
        """What this site says to each workflow: its values, and whether several processes run it.

        That is the site's to say. A job's own ``multi_gpu`` counts for nothing.

        Raises:
            ConfigError: see ``processes``.
        """
        return {**self.values, "multi_gpu": self.processes > 1}

    def train_config(self, *, file: str = TRAIN_FILE) -> TrainConfig:
        """Return the training workflow as it runs here.

        A CheckpointLoader among the train handlers is left out: the weights come from the server,
        and the handler would replace them by a file's at the start of every round.

        Raises:
            ConfigError: with every problem, missing data among them.
            UnfitDataError: with every problem of the site's images and labels.
        """
        config = load_train_config(
            self.mmar,
            file=file,
            environment=ENVIRONMENT_FILE,
            site=self.workflow_values,
            checks=self._checks(),
        )
        return self._data_checked(
            config.with_train(config.train.without_handlers("CheckpointLoader"))
        )

    def cross_validation_config(self, *, file: str = CROSS_VALIDATION_FILE) -> EvaluationConfig:
        """Return the workflow by which any model is evaluated here.

        Raises:
            ConfigError: with every problem, missing data among them.
            UnfitDataError: with every problem of the site's images and labels.
        """
        config = load_evaluation_config(
            self.mmar,
            file=file,
            environment=ENVIRONMENT_FILE,
            site=self.workflow_values,
            checks=self._checks(),
        )
        return self._data_checked(
            config.with_section(config.section.without_handlers("CheckpointLoader"))
        )

    def _data_checked(self, config: Config) -> Config:
        """Return the config with notices about the site's data, which this process logs."""
        # numpy and nibabel take a moment to import, and most of a site's checks need neither.
        from mmar_runtime.datatools.run_check import with_data_checked

        checked = with_data_checked(config)
        for notice in checked.notices[len(config.notices) :]:
            logger.info("%s: %s", self.name, notice)
        return checked

    def _checks(self) -> list[Check]:
        return [
            *policy_checks(self.mmar, self.policy),
            fit_check,
            extras_check,
            data_check,
            image_limits_check(self.policy.limits),
            volume_check,
            output_check,
        ]

    def local_epochs(self, asked: int) -> int:
        """Return the epochs that this site trains in a round: its own number, or else the job's.

        Args:
            asked: the job's number.

        Raises:
            ConfigError: the site's number is no positive whole number.
        """
        return self._number(LOCAL_EPOCHS, asked)

    def _number(self, name: str, otherwise: int) -> int:
        """Return a value of the site's own that is a positive whole number."""
        value = self.values.get(name, otherwise)
        if type(value) is not int or value < 1:
            message = f"has to be a positive whole number, found {value!r}"
            raise ConfigError([Problem(Location(SITE) / name, message, "", "type")])
        return value

    def round_seed(self, job_seed: int, round_number: int) -> int:
        """Return the seed of every random source of this site in one round.

        It depends on nothing but the job's seed, the site's name and the round, so a site draws the
        same numbers whichever process runs it and however often that was restarted.
        """
        text = f"{job_seed}/{self.name}/{round_number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
