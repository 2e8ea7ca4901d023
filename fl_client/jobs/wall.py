"""What a site's own values and policy leave to the process of a job."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmar_runtime.config.overrides import Scalar
from mmar_runtime.confinement.wall import Confinement
from mmar_runtime.policy.site_policy import SitePolicy

GIB = 2**30
LAUNCHER = "fl_client.flare.job_launcher.ConfinedJobLauncher"


def other_launchers(resources: Mapping[str, Any]) -> list[str]:
    """Return the launchers in a site's ``resources.json`` that start a job without confining it."""
    components = (entry for entry in resources.get("components", []) if isinstance(entry, dict))
    paths = [str(entry.get("path")) for entry in components]
    return [path for path in paths if path.endswith("JobLauncher") and path != LAUNCHER]


def job_confinement(
    rights: Confinement, policy: SitePolicy, sites: Iterable[Mapping[str, Scalar]]
) -> Confinement:
    """Return the confinement of a process that runs a job at some sites.

    The data of a site are below its data roots, and at every path among its own values.

    Args:
        rights: what the process may do besides reading the data of the sites.
        policy: of the sites. If it lets handlers send to other machines, nobody can list the ports.
        sites: the own values of each site.
    """
    own = (value for values in sites for value in values.values())
    named = {Path(value) for value in own if isinstance(value, str) and os.path.isabs(value)}
    return replace(
        rights,
        read=(*rights.read, *sorted({*policy.data_roots, *named})),
        connect_ports=None if policy.egress else rights.connect_ports,
        memory=policy.limits.memory_gib * GIB,
        file_bytes=policy.limits.disk_gib * GIB,
    )
