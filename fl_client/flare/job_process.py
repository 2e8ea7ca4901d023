"""The process of a job at a site: ``python -P -m fl_client.flare.job_process ...``.

``ConfinedJobLauncher`` starts it with the arguments of NVFlare's own module. The kernel confines it
before NVFlare is imported, and so before anything of the job is read.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fl_client.jobs.wall import job_confinement
from fl_client.site import PROCESSES_VARIABLE
from mmar_runtime.audit import AUDIT_FILE, SHARED_FILES, AuditLog
from mmar_runtime.audit_keys import LogKey
from mmar_runtime.config.sources import read_site_values
from mmar_runtime.confinement.places import remove_scratch
from mmar_runtime.confinement.wall import Confinement, confine_as
from mmar_runtime.policy.site_policy import site_policy

MODULE = "nvflare.private.fed.app.client.worker_process"

SCRATCH = "scratch"
"""Home folder, caches and temporary files of a job, in its run folder."""


def confine_job(root: Path, *, site: str, job: str, parent: str) -> str:
    """Confine this process by the site's policy, and note in the site's log what the kernel gave.

    Args:
        root: the site's kit.
        site: its name.
        job: the job's id.
        parent: the address at which the site's own process listens.

    Returns:
        What was done, in words.

    Raises:
        ConfinementError: the policy demands more than this kernel gives.
        ConfigError: the site's policy or values have a fault.
    """
    run, local = root / job, root / "local"
    policy, values = site_policy(local), read_site_values(local, site)
    several = values.get(PROCESSES_VARIABLE, 1) != 1
    key = LogKey.of_run(run, job)
    # NVFlare looks there every second whether the site's own process is still alive.
    parent_process = Path(f"/proc/{os.getppid()}")
    rights = Confinement(
        # NVFlare loads the kit's private key in this process too, though it connects to no server.
        read=(local, root / "startup", parent_process),
        names=(root,),  # NVFlare looks for its documents below
        write=(run,),
        append=tuple(root / name for name in SHARED_FILES),
        connect_ports=None if several else (urlsplit(parent).port or 0,),
        programs=several,
    )
    done = confine_as(policy.confinement, job_confinement(rights, policy, [values]))
    AuditLog(root / AUDIT_FILE, key).append("job-confined", job=job, confinement=done)
    return done


def main(arguments: Sequence[str] | None = None) -> None:
    """Confine this process, and be what NVFlare starts for a job."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-m", dest="root", type=Path, required=True)
    parser.add_argument("-n", dest="job", required=True)
    parser.add_argument("-c", dest="site", required=True)
    parser.add_argument("-p", dest="parent", required=True)
    options, _ = parser.parse_known_args(arguments)
    confine_job(options.root, site=options.site, job=options.job, parent=options.parent)
    try:
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
    finally:
        remove_scratch(options.root / options.job / SCRATCH)


if __name__ == "__main__":
    main(sys.argv[1:])
