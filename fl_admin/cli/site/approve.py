"""``mmar site approve``: show a job or its code, ask, and let it run at this site.

All the code of a job is shown as a difference to the last approval. On yes, the SHA-256 of its
files goes into the site's policy: this code, unchanged, may run, and no other code. With
"jobs": "approved" in the policy the command shows and approves the whole job, with or without code.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fl_admin.cli.commands import add_json_arguments
from mmar_runtime.cli.common import print_json

if TYPE_CHECKING:
    from fl_admin.kits.approval import Approvals
    from fl_admin.kits.job_approval import JobApprovals

HELP = "show a job or its code, ask, and let it run here"
NOT_APPROVED = 3
POLICY = Path("local/mmar_site_policy.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "path", nargs="?", type=Path, metavar="PATH", help="folder of a job, an MMAR, or its code"
    )
    parser.add_argument(
        "--policy",
        type=Path,
        default=POLICY,
        metavar="FILE",
        help="the site's policy (%(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="list what is approved")
    parser.add_argument("--revoke", metavar="HASH", help="take an approval back")
    parser.add_argument("--yes", action="store_true", help="approve without a question")
    add_json_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """List, revoke or approve."""
    from fl_admin.kits.approval import Approvals
    from fl_admin.kits.job_approval import JobApprovals
    from mmar_runtime.config.location import Location
    from mmar_runtime.errors import ConfigError, Problem

    if [options.path is not None, options.list, options.revoke is not None].count(True) != 1:
        message = "takes one of PATH, --list and --revoke HASH"
        raise ConfigError([Problem(Location("mmar site approve"), message, "", "usage")])
    approvals = Approvals(options.policy)
    jobs = JobApprovals(approvals)
    if options.list:
        return _list(approvals, jobs, options)
    if options.revoke in jobs.approved:
        jobs.revoke(options.revoke)
        return _told(approvals, options, "revoked", options.revoke)
    if options.revoke is not None:
        _restart_if(approvals.revoke(options.revoke))
        return _told(approvals, options, "revoked", options.revoke)
    if approvals.policy.jobs == "approved":
        return _approve_job(approvals, jobs, options)
    return _approve(approvals, options)


def _list(approvals: Approvals, jobs: JobApprovals, options: argparse.Namespace) -> int:
    rows = [
        {"hash": digest, "copy": str(copy) if copy is not None else None}
        for digest, copy in ((digest, approvals.copy_of(digest)) for digest in approvals.approved)
    ]
    whole = [{"hash": digest, "name": jobs.name_of(digest)} for digest in jobs.approved]
    policy = approvals.policy
    if options.json:
        listed = {"mode": policy.byoc.mode, "approved": rows}
        print_json({**listed, "jobs": policy.jobs, "approved_jobs": whole})
        return 0
    print(f"byoc.mode is {policy.byoc.mode}; {len(rows)} approved")
    for row in rows:
        print(f"  {row['hash']}  {row['copy'] or 'no copy is kept'}")
    print(f"jobs is {policy.jobs}; {len(whole)} approved")
    for job in whole:
        print(f"  {job['hash']}  {job['name'] or 'nothing of it is kept'}")
    return 0


def _approve_job(approvals: Approvals, jobs: JobApprovals, options: argparse.Namespace) -> int:
    with jobs.candidate(options.path) as candidate:
        if candidate.known:
            return _told(approvals, options, "approved", candidate.digest)
        last, judged = candidate.last, candidate.verdict
        lines = [
            f"job {candidate.name}, {len(candidate.texts)} files",
            f"SHA-256 {candidate.digest}",
            f"as a difference to {last}" if last else "nothing of this name was approved before",
            "",
            *candidate.difference,
            "",
            f"the check by this site's policy: {'accepted' if judged.accepted else 'refused'}",
            *(f"  {fault.rule}  {fault.location}: {fault.message}" for fault in judged.problems),
        ]
        print("\n".join(lines), file=sys.stderr if options.json else sys.stdout, flush=True)
        question = "May this job run at this site, and its code, if it brings any?"
        if not (candidate.verdict.accepted and (options.yes or _asked(question))):
            return _told(approvals, options, "not approved", candidate.digest)
        _restart_if(jobs.approve(candidate))
        return _told(approvals, options, "approved", candidate.digest)


def _approve(approvals: Approvals, options: argparse.Namespace) -> int:
    from fl_admin.kits.approval import custom_folder

    with approvals.candidate(custom_folder(options.path)) as candidate:
        if candidate.known:
            return _told(approvals, options, "approved", candidate.digest)
        last = candidate.last
        lines = [
            f"{len(candidate.files)} files: {', '.join(candidate.files)}",
            f"SHA-256 {candidate.digest}",
            f"as a difference to {last}" if last else "nothing was approved before",
            "",
            *candidate.difference,
            "",
        ]
        # With --json, stdout holds one JSON document and nothing else.
        print("\n".join(lines), file=sys.stderr if options.json else sys.stdout, flush=True)
        if not (
            options.yes or _asked("May this code run at this site, with the rights of its process?")
        ):
            return _told(approvals, options, "not approved", candidate.digest)
        _restart_if(approvals.approve(candidate))
        return _told(approvals, options, "approved", candidate.digest)


def _asked(question: str) -> bool:
    """Return whether a person says yes; an input that is not a terminal says no."""
    if not sys.stdin.isatty():
        print("there is nobody to ask: read it, then give --yes", file=sys.stderr)
        return False
    print(f"{question} [y/N] ", end="")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _told(approvals: Approvals, options: argparse.Namespace, what: str, digest: str) -> int:
    policy = approvals.policy
    if options.json:
        byoc = policy.byoc
        content = {"result": what, "hash": digest, "mode": byoc.mode, "approved": byoc.approved}
        print_json({**content, "jobs": policy.jobs, "approved_jobs": policy.approved_jobs})
    else:
        print(f"{what}: {digest}")
        print(f"byoc.mode is {policy.byoc.mode} and jobs is {policy.jobs} in {approvals.file}")
    return NOT_APPROVED if what == "not approved" else 0


def _restart_if(changed: bool) -> None:
    if changed:
        text = "changed the right 'byoc' in authorization.json; restart this site so that it counts"
        print(text, file=sys.stderr)
