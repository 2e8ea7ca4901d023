"""The process in which NVFlare's SimEnv runs: ``python -m fl_admin.simulation_process JOB ...``.

A process of its own, because NVFlare's simulator prints, changes folders and starts further
processes; whoever started this one keeps the terminal and can end all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nvflare.recipe.sim_env import SimEnv

from fl_admin.folder_job import FolderJob


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
    environment.deploy(FolderJob(options.job, options.name, len(sites)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
