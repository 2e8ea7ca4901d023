"""All checks of a kit, in the order in which a person mends what they find."""

from __future__ import annotations

from collections.abc import Iterator

from fl_admin.kits.setup.certificates import UNREADABLE, check_certificate
from fl_admin.kits.setup.connection import CHECK, check_connection
from fl_admin.kits.setup.data import check_data
from fl_admin.kits.setup.finding import Finding, State, fault, skipped
from fl_admin.kits.setup.kit import Kit
from fl_admin.kits.setup.kit_files import (
    check_files,
    check_policy,
    check_privacy,
    check_resources,
    check_versions,
)
from fl_admin.kits.setup.machine import (
    check_confinement,
    check_disk,
    check_gpu,
    check_memory,
    check_port,
)


def check_kit(kit: Kit, *, network: bool = True, seconds: float = 5.0) -> Iterator[Finding]:
    """Yield each finding as soon as it is known.

    Args:
        kit: of a site, a server or an admin.
        network: whether the server is asked, or a server's port is looked at.
        seconds: the most that each step of that may take.
    """
    yield check_files(kit)
    yield from check_certificate(kit)
    yield check_versions(kit)
    if kit.kind == "admin":
        yield _network(kit, network, seconds)
        yield check_disk(kit)
        return
    finding, policy = check_policy(kit)
    yield finding
    yield check_resources(kit, policy)
    if kit.kind == "site":
        yield check_privacy(kit)
        yield from check_data(kit, policy)
    yield _network(kit, network, seconds)
    yield check_disk(kit)
    yield check_memory()
    if kit.kind == "site":
        yield check_confinement(policy)
        yield check_gpu(seconds)


def is_ready(findings: list[Finding]) -> bool:
    """Return whether nothing stands in the way; a warning does not."""
    return all(finding.state is not State.FAULT for finding in findings)


def _network(kit: Kit, network: bool, seconds: float) -> Finding:
    name = "port" if kit.kind == "server" else CHECK
    if not network:
        return skipped(name, "not asked for (--no-network)")
    try:
        return check_port(kit, seconds) if kit.kind == "server" else check_connection(kit, seconds)
    except UNREADABLE as error:
        return fault(name, f"cannot be looked at: {error}", "see the findings above")
