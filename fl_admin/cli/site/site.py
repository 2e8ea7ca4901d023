"""``mmar site``: for a site itself: set up its kit, approve jobs, validate and decrypt models.

``setup`` fills in a site's values and checks its kit, ``validate`` tells how well a model does
here; each has a ``--help`` of its own.

``approve`` shows all the code of a job as a difference to the last approval and asks. On yes, the
SHA-256 of its files goes into the site's policy: this code, unchanged, may run, and no other. With
"jobs": "approved" in the policy it shows and approves the whole job, with or without code.
``validate`` evaluates a model on the site's own data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from fl_admin.cli.site import privacy as site_privacy
from fl_admin.cli.site import setup as site_setup
from fl_admin.cli.site import validate as site_validate
from mmar_runtime.cli.common import examples_of, print_json

if TYPE_CHECKING:
    from fl_admin.kits.approval import Approvals, Candidate
    from fl_admin.kits.job_approval import JobApprovals, JobCandidate

HELP = "at a site: set it up, approve jobs, validate or decrypt a model, show the privacy budget"
EXAMPLES = """examples:
  mmar site setup path/to/kit --data-root DIR --datalist FILE
  mmar site approve path/to/job          (or an MMAR, or the folder custom itself)
  mmar site approve path/to/job --yes    (without the question, for code that was read elsewhere)
  mmar site approve --list
  mmar site approve --revoke 9f86d081...
  mmar site validate --model FL_global_model.pt
  mmar site privacy --kit KIT --json
  mmar site decrypt --kit . --model FL_global_model.encrypted.safetensors --out global.pt

Run it in the folder of the site's kit, or name the policy in there by --policy.
A server builds the network too: its administrator approves code in the server's kit likewise.

exit code: 0 done, approved or ready; 3 not approved or not ready; 2 it cannot be asked so
"""

NOT_APPROVED = 3
POLICY = Path("local/mmar_site_policy.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    approve = _action(actions, "approve", "show a job or its code, ask, and let it run here")
    approve.add_argument(
        "path", nargs="?", type=Path, metavar="PATH", help="folder of a job, an MMAR, or its code"
    )
    approve.add_argument(
        "--policy",
        type=Path,
        default=POLICY,
        metavar="FILE",
        help="the site's policy (%(default)s)",
    )
    approve.add_argument("--list", action="store_true", help="list what is approved")
    approve.add_argument("--revoke", metavar="HASH", help="take an approval back")
    approve.add_argument("--yes", action="store_true", help="approve without a question")
    approve.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    approve.add_argument("--debug", action="store_true", help="show tracebacks")
    approve.set_defaults(act=_act)
    setup = actions.add_parser(
        "setup",
        help=site_setup.HELP,
        description=site_setup.__doc__,
        epilog=site_setup.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    site_setup.add_arguments(setup)
    setup.set_defaults(act=site_setup.run)
    site_validate.add_action(actions)
    privacy = _action(actions, "privacy", site_privacy.HELP)
    site_privacy.add_arguments(privacy)
    privacy.set_defaults(act=site_privacy.run)
    decrypt = _action(actions, "decrypt", "make a checkpoint of an encrypted model")
    decrypt.add_argument(
        "--kit", type=Path, default=Path(), metavar="DIR", help="the site's kit (this folder)"
    )
    decrypt.add_argument("--model", type=Path, required=True, metavar="FILE", help="the model")
    decrypt.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="becomes the checkpoint, .pt"
    )
    decrypt.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    decrypt.add_argument("--debug", action="store_true", help="show tracebacks")
    decrypt.set_defaults(act=_decrypt)


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        help=text,
        description=text,
        epilog=examples_of(f"mmar site {name}", EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """What the action does."""
    return int(options.act(options))


def _act(options: argparse.Namespace) -> int:
    """List, revoke or approve."""
    from fl_admin.kits.approval import Approvals
    from fl_admin.kits.job_approval import JobApprovals

    _one_of(options)
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


def _decrypt(options: argparse.Namespace) -> int:
    from fl_admin.kits.encryption_keys import decrypt_model
    from fl_admin.kits.site_kit import SiteKit

    count = decrypt_model(SiteKit.open(options.kit).root, options.model, options.out)
    if options.json:
        print_json({"out": str(options.out), "tensors": count})
    else:
        print(f"{count} tensors in {options.out}")
    return 0


def _one_of(options: argparse.Namespace) -> None:
    from mmar_runtime.config.location import Location
    from mmar_runtime.errors import ConfigError, Problem

    given = [options.path is not None, options.list, options.revoke is not None]
    if sum(given) != 1:
        message = "takes one of PATH, --list and --revoke HASH"
        raise ConfigError([Problem(Location("mmar site approve"), message, "", "usage")])


def _list(approvals: Approvals, jobs: JobApprovals, options: argparse.Namespace) -> int:
    rows = [
        {"hash": digest, "copy": str(copy) if copy is not None else None}
        for digest, copy in ((one, approvals.copy_of(one)) for one in approvals.approved)
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
        _show_job(candidate, sys.stderr if options.json else sys.stdout)
        question = "May this job run at this site, and its code, if it brings any?"
        if not (candidate.verdict.accepted and (options.yes or _asked(question))):
            return _told(approvals, options, "not approved", candidate.digest)
        _restart_if(jobs.approve(candidate))
        return _told(approvals, options, "approved", candidate.digest)


def _show_job(candidate: JobCandidate, stream: TextIO) -> None:
    judged = candidate.verdict
    lines = [
        f"job {candidate.name}, {len(candidate.texts)} files",
        f"SHA-256 {candidate.digest}",
        f"as a difference to {candidate.last}"
        if candidate.last
        else "nothing of this name was approved before",
        "",
        *candidate.difference,
        "",
        f"the check by this site's policy: {'accepted' if judged.accepted else 'refused'}",
        *(f"  {one.rule}  {one.location}: {one.message}" for one in judged.problems),
    ]
    print("\n".join(lines), file=stream, flush=True)


def _approve(approvals: Approvals, options: argparse.Namespace) -> int:
    from fl_admin.kits.approval import custom_folder

    with approvals.candidate(custom_folder(options.path)) as candidate:
        if candidate.known:
            return _told(approvals, options, "approved", candidate.digest)
        # With --json, stdout holds one JSON document and nothing else.
        _show(candidate, sys.stderr if options.json else sys.stdout)
        if not (
            options.yes or _asked("May this code run at this site, with the rights of its process?")
        ):
            return _told(approvals, options, "not approved", candidate.digest)
        _restart_if(approvals.approve(candidate))
        return _told(approvals, options, "approved", candidate.digest)


def _show(candidate: Candidate, stream: TextIO) -> None:
    lines = [
        f"{len(candidate.files)} files: {', '.join(candidate.files)}",
        f"SHA-256 {candidate.digest}",
        f"as a difference to {candidate.last}" if candidate.last else "nothing was approved before",
        "",
        *candidate.difference,
        "",
    ]
    print("\n".join(lines), file=stream, flush=True)


def _asked(question: str) -> bool:
    """Whether a person says yes; an input that is no terminal says no."""
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
