"""A planned simulation, and what every engine that runs it can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from fl_admin.jobs.job import Job
from fl_admin.simulation.follow import RunFollower
from fl_admin.simulation.run_folder import RunFolder
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.upgrades import Notice
from mmar_runtime.errors import Problem
from mmar_runtime.policy.site_policy import SitePolicy

EngineName = Literal["inline", "nvflare"]


class Engine(Protocol):
    """A program that runs planned simulations, each in a process of its own.

    Every engine runs a job to the same bits.
    """

    @property
    def name(self) -> EngineName:
        """What ``--engine`` calls it."""

    def new_folder(self, workspace: Path) -> RunFolder:
        """Make the next free folder of a workspace.

        Raises:
            ConfigError: the engine cannot work below that path.
        """
        return RunFolder.create(workspace)

    def prepare(self, plan: SimulationPlan, folder: RunFolder) -> None:
        """Write what the process reads besides the job and the folders of the sites."""

    def command(self, plan: SimulationPlan, folder: RunFolder) -> list[str]:
        """Return the command of the process."""

    def environment(self, given: Mapping[str, str], folder: RunFolder) -> dict[str, str]:
        """Return the environment of the process: the given variables, and the engine's own."""
        return dict(given)

    def follower(self, plan: SimulationPlan, folder: RunFolder) -> RunFollower:
        """Return an object that reports how far the run is."""

    def collect(self, plan: SimulationPlan, folder: RunFolder) -> None:
        """Bring the server's results into the run folder, unless they are there already."""
        return

    def site_errors(self, plan: SimulationPlan, folder: RunFolder) -> list[str]:
        """Return the errors that sites have written, each with its site's name in front."""

    def failure(self, plan: SimulationPlan, folder: RunFolder, code: int) -> str:
        """Return why the process ended with an exit code: the errors of the sites, or the log."""

    def kit(self, plan: SimulationPlan, folder: RunFolder, site: str) -> Path:
        """Return the folder that a site has in place of a kit, as ``mmar site`` takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPlan:
    """A simulation that has been checked and can start.

    Attributes:
        job: the job as given.
        rounds: rounds of training; 0 for a job that only validates.
        sites: site name -> the site's own values.
        notices: what the loader translates in the job's configs.
        engine: runs the job.
        min_sites: updates that a round needs.
        policy: of every site and of the server.
        not_inline: what the inline engine does not know, if NVFlare's runs the job for that reason.
    """

    job: Job
    rounds: int
    sites: Mapping[str, Mapping[str, Scalar]]
    notices: tuple[Notice, ...]
    engine: Engine
    min_sites: int
    policy: SitePolicy
    not_inline: tuple[Problem, ...] = ()
