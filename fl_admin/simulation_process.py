"""The process in which NVFlare's SimEnv runs: ``python -m fl_admin.simulation_process JOB ...``.

A process of its own, because NVFlare's simulator prints, changes folders and starts further
processes; whoever started this one keeps the terminal and can end all of them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from nvflare.job_config.api import FedJob
from nvflare.job_config.fed_job_config import FedJobConfig
from nvflare.recipe.sim_env import SimEnv


class FolderJobConfig(FedJobConfig):
    """A job whose configuration is a folder already, so there is nothing to generate."""

    def __init__(self, folder: Path, name: str, min_sites: int) -> None:
        super().__init__(name, min_sites)
        self._folder = folder

    def generate_job_config(self, job_root: str) -> None:
        """Copy the folder to where NVFlare wants it."""
        shutil.copytree(self._folder, Path(job_root) / self.job_name)


class FolderJob(FedJob):
    """NVFlare's job object for a job folder."""

    def __init__(self, folder: Path, name: str, sites: Sequence[str]) -> None:
        super().__init__(name=name, min_clients=len(sites))
        self.job = FolderJobConfig(folder, name, len(sites))

    def simulator_run(
        self,
        workspace: str,
        n_clients: int | None = None,
        clients: list[str] | None = None,
        threads: int | None = None,
        gpu: str | None = None,
        log_config: str | None = None,
    ) -> int:
        """Run the folder as it is; the apps need not be put together first."""
        code: int = self.job.simulator_run(
            workspace,
            clients=",".join(clients or ()),
            n_clients=len(clients or ()),
            threads=threads,
            gpu=gpu,
            log_config=log_config,
        )
        return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one simulation; returns 0 if NVFlare calls it a success."""
    parser = argparse.ArgumentParser(description="Run a job folder in NVFlare's SimEnv.")
    parser.add_argument("job", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--sites", required=True, help="names, separated by commas")
    parser.add_argument("--workspace-root", required=True)
    parser.add_argument("--gpu")
    options = parser.parse_args(arguments)
    sites = options.sites.split(",")
    environment = SimEnv(
        clients=sites,
        num_threads=len(sites),
        gpu_config=options.gpu,
        workspace_root=options.workspace_root,
    )
    environment.deploy(FolderJob(options.job, options.name, sites))
    return 0


if __name__ == "__main__":
    sys.exit(main())
