"""What a site's own values and policy leave to the process of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmar_runtime.config.overrides import Scalar
from mmar_runtime.confinement.wall import Confinement
from mmar_runtime.policy.site_policy import SitePolicy

GIB = 2**30


def readable_paths(values: Mapping[str, Scalar], policy: SitePolicy) -> Iterator[Path]:
    """The data of a site: its data roots, and every path among its own values."""
    yield from policy.data_roots
    for value in values.values():
        if isinstance(value, str) and os.path.isabs(value):
            yield Path(value)


def job_confinement(
    policy: SitePolicy,
    *,
    read: tuple[Path, ...],
    write: tuple[Path, ...],
    connect_ports: tuple[int, ...],
    programs: bool = False,
) -> Confinement:
    """The confinement of a process that runs a job at a site.

    A site that lets handlers send to other machines cannot list their ports.

    Args:
        policy: of the site.
        read: the job, the data and what else may be read.
        write: the folder of the run.
        connect_ports: where the process reports to.
        programs: see ``Confinement``.
    """
    return Confinement(
        read=read,
        write=write,
        connect_ports=None if policy.egress else connect_ports,
        programs=programs,
        memory=policy.limits.memory_gib * GIB,
        file_bytes=policy.limits.disk_gib * GIB,
    )
