"""The plan of a simulation, which its process reads from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fl_admin.simulation.run_folder import JOB_FOLDER
from fl_client.jobs.wall import job_confinement
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.confinement.wall import Confinement, confine_as
from mmar_runtime.exchange.plain import from_plain, to_plain
from mmar_runtime.files import write_json
from mmar_runtime.policy.site_policy import SitePolicy

ERROR_FILE = "error.txt"
"""Beside the plan: what ended the process early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InlinePlan:
    """The sites, folders and policy of a simulation.

    Attributes:
        job: the job's folder.
        results: where results go.
        sites: site name -> its own values.
        folders: site name -> where its run writes, with its copy of the MMAR.
        policy: of every site and of the server.
        workers: processes in which the sites take turns.
        common: the values that all sites share; those are the server's too.
    """

    job: Path
    results: Path
    sites: Mapping[str, Mapping[str, Scalar]]
    folders: Mapping[str, Path]
    policy: SitePolicy
    common: Mapping[str, Scalar]
    workers: int = 1

    @property
    def confined(self) -> bool:
        """Whether the policy lets the kernel confine the processes of the simulation."""
        return self.policy.confinement != "off"

    def confine(self) -> str:
        """Confine this process by the policy; it may read what any of its sites may read.

        Returns:
            What was done, in words.

        Raises:
            ConfinementError: the policy demands more than this kernel gives.
        """
        rights = Confinement(read=(self.job,), write=(self.job.parent,), programs=self.workers > 1)
        confinement = job_confinement(rights, self.policy, self.sites.values())
        return confine_as(self.policy.confinement, confinement)

    def app(self, site: str) -> Path:
        """Return a site's copy of the MMAR, where ``mmar site`` looks for it."""
        return self.folders[site] / JOB_FOLDER / f"app_{site}"

    def write(self, path: Path) -> None:
        """Write the plan as JSON."""
        write_json(path, to_plain(self))

    @classmethod
    def read(cls, path: Path) -> InlinePlan:
        """Read a plan from its file."""
        return from_plain(cls, json.loads(path.read_text(encoding="utf-8")))
