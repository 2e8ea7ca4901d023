"""A federation on this machine as an execution environment, for as long as a recipe runs.

It is for what NVFlare's ``PocEnv`` is for. That one makes its kits anew for each run, and their
sites allow none of our classes; here server and sites have the kits of ``mmar provision``: our
classes alone, our validator, signed jobs, mutual TLS, and 127.0.0.1 as their only address.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nvflare.job_config.api import FedJob

from fl_admin.recipe import SiteValues, arguments_kept
from fl_admin.simulation.local_federation import LEAD, LocalFederation
from fl_admin.simulation.nvflare_engine import NvflareEngine
from mmar_runtime.errors import FederationError

with arguments_kept():
    from nvflare.recipe.prod_env import ProdEnv

LOGIN_SECONDS = 15.0


class MmarPocEnv(ProdEnv):
    """A server and sites on this machine, each a process of its own.

    ``recipe.set_per_site_config`` says where each site's data lie. ``run.get_result()`` ends the
    processes, and removes the kits unless it is called with ``clean_up=False``; the results stay.
    If the program ends without it, the processes end as well.

    Args:
        workspace: holds the runs; each environment makes a folder of its own in it, ``run-001`` and
            so on.
        num_clients: sites, if ``clients`` does not name them.
        clients: names of the sites.

    Attributes:
        folder: of this run.
        federation: its kits and processes.
        site_values: site -> the values of its ``environment.json``; a recipe sets them.

    Raises:
        ConfigError: a site's name is none, or the workspace's path has a space.
    """

    def __init__(
        self, workspace: str | Path, *, num_clients: int = 2, clients: list[str] | None = None
    ) -> None:
        self.folder = NvflareEngine().new_folder(Path(workspace)).root
        sites = clients or [f"site-{number}" for number in range(1, num_clients + 1)]
        self.federation = LocalFederation.provisioned(self.folder, sites=sites)
        self.site_values: SiteValues = {}
        self._runs = False
        super().__init__(
            startup_kit_location=str(self.federation.lead),
            username=LEAD,
            login_timeout=LOGIN_SECONDS,
        )

    def deploy(self, job: FedJob) -> str:
        """Start the federation, if it does not run yet, and submit the job; returns its id."""
        if not self._runs:
            for site, values in self.site_values.items():
                self.federation.give(site, values)
            self._runs = True
            try:
                self.federation.start()
            except BaseException:
                self.stop()
                raise
        return str(super().deploy(job))

    def get_job_result(self, job_id: str, timeout: float = 0.0) -> str | None:
        """Wait for a job and fetch it; None if it is not done in time.

        Raises:
            FederationError: it was fetched already.
        """
        target = self.folder / "results" / job_id
        if target.exists():
            raise FederationError(f"{str(target)!r} is there already")
        result = super().get_job_result(job_id, timeout)
        if result is None:
            return None
        target.parent.mkdir(exist_ok=True)
        shutil.move(result, target)
        return str(target)

    def stop(self, clean_up: bool = False) -> None:
        """End every process; with ``clean_up`` the kits go as well."""
        self.federation.stop()
        self._runs = False
        if clean_up:
            shutil.rmtree(self.folder / "kits", ignore_errors=True)
