"""Whether a site has approved a job as a whole: its documents, weights and code, unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES, tree_hash
from mmar_runtime.policy.site_policy import SitePolicy


def job_digest(app: Path) -> str | None:
    """Return the digest of a job's app, the same at each site; None where a file has no digest.

    NVFlare names the folder of the app after the site and adds its signatures. Neither counts.
    """
    try:
        return tree_hash(app, leave_out=SIGNATURE_FILES)
    except ConfigError:
        return None  # a link or a device


def job_approval_faults(policy: SitePolicy, digest: Callable[[], str | None]) -> Iterator[Problem]:
    """Refuse a job that a site has not approved, where the site asks for that.

    Args:
        policy: of the site.
        digest: gives the ``job_digest``; called if the policy asks for approvals.
    """
    if policy.jobs == "signed":
        return
    sha256 = digest()
    if sha256 not in policy.approved_jobs:
        message = (
            f"this site runs the jobs that it has approved, and not this one ({sha256}); its "
            "administrator runs 'mmar site approve JOB'"
        )
        yield Problem(Location(""), message, "", "approval")
