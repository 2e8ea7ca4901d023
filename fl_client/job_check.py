"""A job against a site's policy: its files, the classes it asks NVFlare for, and its MMAR.

A job arrives as a folder or as a zip, and at a site as its app alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fl_client.jobs.archive import zip_verdict
from fl_client.jobs.documents import JOB_JSON, document_faults, substitution_faults
from fl_client.jobs.files import (
    META,
    code_approval_faults,
    file_faults,
    files_of,
    job_problem,
    missing_documents,
    torchscript_faults,
)
from fl_client.jobs.meta import meta_faults
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.policy.document_check import read_document
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES
from mmar_runtime.policy.mmar_check import check_mmar, guarded
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SitePolicy
from mmar_runtime.policy.verdict import Verdict, verdict

JOB_FILES = "A job holds meta.json and one app folder, which is an MMAR."


def check_path(
    path: str | Path,
    policy: SitePolicy = DEFAULT_POLICY,
    overrides: Mapping[str, Scalar] | None = None,
) -> Verdict:
    """Return the verdict on whatever lies there: a job's folder or zip, an MMAR, or one workflow.

    Raises:
        ConfigError: there is nothing at that path.
    """
    place = Path(path)
    if not os.path.lexists(place):
        message = f"there is nothing at {str(path)!r}"
        raise ConfigError([Problem(Location("PATH"), message, "", "missing-file")])
    if os.path.lexists(place / META) or place.suffix == ".zip":
        return check_job(place, policy, overrides=overrides)
    return check_mmar(place, policy, overrides=overrides)


def check_job(
    path: str | Path,
    policy: SitePolicy = DEFAULT_POLICY,
    *,
    overrides: Mapping[str, Scalar] | None = None,
    site_values: Mapping[str, Scalar] | None = None,
) -> Verdict:
    """Return the verdict on a job's folder or zip; never raises.

    Args:
        path: the folder that holds ``meta.json``, or the zip.
        policy: what the site allows.
        overrides: values from ``--set``.
        site_values: the site's own variables.
    """
    place = Path(path)

    def judged(root: Path) -> Verdict:
        files, name = files_of(root), str(path)
        meta = read_document(root / META, JOB_JSON)
        if problems := [*substitution_faults(meta, Location(META), own=()), *meta_faults(meta)]:
            return verdict(name, problems)
        [app] = meta["deploy_map"]
        outside = [str(file.name) for file in files if file.name.parts[0] != app]
        problems += [
            job_problem(file, "does not belong into a job", "job-file", JOB_FILES)
            for file in outside
            if file not in (META, *SIGNATURE_FILES)
        ]
        inner = check_app(root / app, policy, overrides=overrides, site_values=site_values)
        return verdict(name, [*problems, *inner.problems], inner.notices)

    if place.is_file():
        return guarded(path, lambda: zip_verdict(place, str(path), judged))
    return guarded(path, lambda: judged(place))


def check_app(
    path: str | Path,
    policy: SitePolicy = DEFAULT_POLICY,
    *,
    overrides: Mapping[str, Scalar] | None = None,
    site_values: Mapping[str, Scalar] | None = None,
) -> Verdict:
    """Return the verdict on a job's app folder alone, as NVFlare hands it to a site; never raises.

    Arguments as for ``check_job``.
    """

    def judge() -> Verdict:
        root = Path(path)
        if not root.is_dir():
            return verdict(path, [job_problem(root.name, "is no folder of the job", "job-file")])
        files = files_of(root)
        problems = [
            *file_faults(files, policy),
            *torchscript_faults(root, files, policy),
            *code_approval_faults(root, files, policy),
            *document_faults(root, policy),
            *missing_documents(root),
        ]
        mmar = check_mmar(root, policy, overrides=overrides, site_values=site_values)
        return verdict(path, [*problems, *mmar.problems], mmar.notices)

    return guarded(path, judge)
