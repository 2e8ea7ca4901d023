"""The process in which NVFlare's SimEnv runs.

    python -m fl_admin.simulation.nvflare_process JOB ...

A process of its own, because NVFlare's simulator prints, changes folders and starts further
processes; whoever started this one keeps the terminal and can end all of them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from fl_client.jobs.wall import job_confinement
from mmar_runtime.config.sources import read_json
from mmar_runtime.confinement.wall import Confinement, confine_as
from mmar_runtime.policy.site_policy import site_policy

logger = logging.getLogger(__name__)


def confine_simulation(run: Path, local: Path) -> str:
    """Confine this process, and with it the clients that NVFlare starts from it.

    NVFlare starts each client as a program, takes ports as they come, and copies files with their
    permissions and times. All of that stays allowed.

    Args:
        run: the folder of the simulation.
        local: what all sites read in ``local/``.

    Returns:
        What was done, in words.

    Raises:
        ConfinementError: the policy demands more than this kernel gives.
    """
    policy, sites = site_policy(local), read_json(local / "environment.json")["sites"]
    rights = Confinement(write=(run,), connect_ports=None, programs=True, permissions=True)
    return confine_as(policy.confinement, job_confinement(rights, policy, sites.values()))


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
    root = Path(options.workspace_root)
    logger.warning(
        "confinement: %s", confine_simulation(root.parent, root / options.name / "local")
    )
    # Only now: a library that starts a thread on import would keep it outside of the wall.
    from nvflare.recipe.sim_env import SimEnv

    from fl_admin.recipes.folder_job import FolderJob

    environment = SimEnv(
        clients=sites,
        num_threads=len(sites),
        gpu_config=options.gpu,
        workspace_root=options.workspace_root,
    )
    environment.deploy(FolderJob(options.job, options.name, len(sites)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
