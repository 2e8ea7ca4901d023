"""What a site's own values and policy leave to the process of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmar_runtime.config.overrides import Scalar
from mmar_runtime.confinement.wall import Confinement
from mmar_runtime.policy.site_policy import SitePolicy

GIB = 2**30
LAUNCHER = "fl_client.flare.job_launcher.ConfinedJobLauncher"


def other_launchers(resources: Mapping[str, Any]) -> list[str]:
    """The launchers in a site's ``resources.json`` that start a job without confining it."""
    components = (one for one in resources.get("components", []) if isinstance(one, dict))
    paths = [str(one.get("path")) for one in components]
    return [one for one in paths if one.endswith("JobLauncher") and one != LAUNCHER]


def readable_paths(values: Mapping[str, Scalar], policy: SitePolicy) -> Iterator[Path]:
    """The data of a site: its data roots, and every path among its own values."""
    yield from policy.data_roots
    for value in values.values():
        if isinstance(value, str) and os.path.isabs(value):
            yield Path(value)


def job_confinement(
    policy: SitePolicy, *, connect_ports: tuple[int, ...] | None, **rights: Any
) -> Confinement:
    """The confinement of a process that runs a job at a site, with the limits of its policy.

    Args:
        policy: of the site. If it lets handlers send to other machines, nobody can list the ports.
        connect_ports: where the process reports to; None for any port.
        rights: further attributes of ``Confinement``.
    """
    return Confinement(
        connect_ports=None if policy.egress else connect_ports,
        memory=policy.limits.memory_gib * GIB,
        file_bytes=policy.limits.disk_gib * GIB,
        **rights,
    )
