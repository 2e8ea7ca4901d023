"""The site's own judgement on each job, in NVFlare's hook for it.

NVFlare calls this in the parent process of a site or server after it has verified the signatures of
a job's app, before anything of it is imported; what it answers goes to the researcher. So an answer
names rules and places in the job, and nothing of the site but that its versions or its data do not
fit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nvflare.apis.app_validation import AppValidator
from nvflare.lighter.utils import verify_folder_signature_and_get_signers

from fl_client.flare.encryption_keys import ability_faults
from fl_client.jobs.approved import job_approval_faults, job_digest
from fl_client.jobs.limited_check import limited_check
from fl_client.jobs.wall import other_launchers
from fl_client.privacy.filter_plan import FilterPlan
from fl_client.privacy.filters import filter_faults
from fl_client.site_data import data_faults, unset_variables
from fl_client.versions import differences, federation_versions
from mmar_runtime.audit import AUDIT_FILE, LEDGER_FILE, AuditLog, ledger_heads, verify_audit
from mmar_runtime.audit_keys import LogKey
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json, read_site_values
from mmar_runtime.confinement.wall import kernel_wall
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES
from mmar_runtime.policy.site_policy import SitePolicy, site_policy
from mmar_runtime.policy.verdict import Verdict, printable, verdict

MAX_TOLD = 3
"""Problems that the answer names; the rest are counted."""

SITE_KIT = Path("startup") / "fed_client.json"
"""A site has it and a server has not."""

RESOURCES = "resources.json"

HERE = Location("")
"""The place of what is wrong with the site itself and not with the job."""

UNSET = "this site's environment.json is not filled in; 'mmar site setup' there does that"
UNREAD = "this site's data list has a fault; 'mmar site setup' there says which"

UNTRUSTED = "this site's privacy ledger has a fault; 'mmar audit verify' there reports it"

log = logging.getLogger(__name__)


class MmarAppValidator(AppValidator):
    """Judges jobs by the policy in this site's ``local/``."""

    def validate(self, app_folder: str) -> tuple[str, dict[str, object]]:
        """Answer NVFlare: the reason to refuse, empty for none, and properties of the app."""
        app = Path(app_folder).resolve()
        root = app.parents[1]  # <root>/<job>/app_<site>
        try:
            policy, key = site_policy(root / "local"), LogKey.of_kit(root)
            digest = job_digest(app)
            judged, signers = _judged(app, root, policy, digest)
            AuditLog(root / AUDIT_FILE, key).append(
                "job-judged",
                job=app.parent.name,
                job_digest=digest,
                signers=signers,
                policy=policy.digest,
                verdict="accept" if judged.accepted else "reject",
                problems=[f"{fault.rule} {fault.location}"[:200] for fault in judged.problems[:20]],
            )
            # The server's job process reads the key of its kit: researchers get its run folder.
            if key is not None and judged.accepted and (root / SITE_KIT).is_file():
                key.give(app.parent, app.parent.name)
        except ConfigError as error:
            log.error("the policy of this site cannot be used: %s", error)
            return "refused: policy: this site's policy has a fault; its administrator knows", {}
        except OSError as error:
            log.error("the audit log of this site cannot be written: %s", error)
            return "refused: audit: this site cannot keep its audit log", {}
        return told(judged), {}


def told(judged: Verdict) -> str:
    """Return a verdict in one line for the researcher; empty if the job is accepted."""
    if judged.accepted:
        return ""
    named = []
    for fault in judged.problems[:MAX_TOLD]:
        place = "" if fault.location == HERE else f"{fault.location}: "
        named.append(f"{fault.rule}: {place}{fault.message}")
    rest = len(judged.problems) - len(named)
    more = [f"and {rest} more"] if rest else []
    return printable("refused: " + "; ".join([*named, *more]).replace("\n", " "))


def _judged(
    app: Path, root: Path, policy: SitePolicy, digest: str | None
) -> tuple[Verdict, list[str]]:
    """Return the verdict, and who has signed."""
    # Without the site's own values and folders, so that none of them can stand in an answer. The
    # same check with them follows in the job's process.
    judged = limited_check(app, replace(policy, data_roots=()), subject="app")
    signers = _signers(app, root)
    faults = [*_version_faults(root), *judged.problems]
    faults += job_approval_faults(policy, lambda: digest)
    if policy.signers is not None:
        allowed = set(policy.signers)
        unknown = [name for name in signers if name not in allowed]
        if not signers or unknown:
            who = ", ".join(unknown) or "nobody"
            message = f"signed by {who}; this site takes jobs of certain signers only"
            faults.append(Problem(Location(app.name), message, "", "signer"))
    local = root / "local"
    # A refused job may hold anything; only of one that was judged the documents are read once more.
    if judged.accepted:
        faults += FilterPlan.read(local, app).faults(policy)
        faults += ability_faults(app, root / "startup")
    else:
        faults += filter_faults(local, policy)
    faults += _ledger_faults(root, policy)
    faults += _wall_faults(root, policy)
    if not faults and (root / SITE_KIT).is_file():
        faults += _data_faults(app, local, policy)
    return verdict(judged.path, faults, judged.notices), signers


def _wall_faults(root: Path, policy: SitePolicy) -> Iterator[Problem]:
    """Yield why this site cannot confine a job as the policy demands."""
    if policy.confinement != "required":
        return
    wall, lacks = kernel_wall(), []
    if not wall.stands:
        lacks.append(str(wall))
    if (root / SITE_KIT).is_file():
        own = root / "local" / RESOURCES  # NVFlare reads the default where the site has none
        resources = read_json(own if own.is_file() else own.with_name(f"{RESOURCES}.default"))
        if others := other_launchers(resources):
            lacks.append(f"the site's resources name another launcher: {', '.join(others)}")
    if lacks:
        log.error("this site cannot confine jobs: %s", "; ".join(lacks))
        yield Problem(HERE, "this site requires a confinement that it lacks", "", "confinement")


def _version_faults(root: Path) -> Iterator[Problem]:
    """Yield what is installed here against what the federation was provisioned with."""
    who = "site" if (root / SITE_KIT).is_file() else "server"
    try:
        wanted = federation_versions(root) or {}
    except ConfigError as error:
        log.error("the versions of the federation cannot be read: %s", error)
        yield Problem(
            HERE, f"this {who}'s kit has a fault; its administrator knows", "", "versions"
        )
        return
    for other in differences(wanted):
        if not other.fits:
            message = f"this {who} has {other}: install {other.package} {other.federation} there"
            yield Problem(HERE, message, "", "versions")


def _ledger_faults(root: Path, policy: SitePolicy) -> Iterator[Problem]:
    """Yield the fault of a changed privacy ledger; this process can judge all its lines."""
    key = LogKey.of_kit(root)
    if policy.privacy.epsilon_max is None or key is None:
        return
    log_file = root / AUDIT_FILE
    heads = ledger_heads(log_file, key) if log_file.is_file() else []
    if not heads and not (root / LEDGER_FILE).exists():
        return
    findings = verify_audit(root / LEDGER_FILE, key, heads).findings
    for finding in findings:
        log.error("the privacy ledger of this site: %s", finding)
    if findings:
        yield Problem(HERE, UNTRUSTED, "", "privacy")


def _data_faults(app: Path, local: Path, policy: SitePolicy) -> Iterator[Problem]:
    """Yield what an accepted job would read and this site lacks; the details stay here."""
    name = app.name.removeprefix("app_")
    try:
        values = read_site_values(local, name)
    except ConfigError as error:
        log.error("the values of this site cannot be read: %s", error)
        message = "this site's environment.json has a fault; 'mmar site setup' there says which"
        yield Problem(HERE, message, "", "environment")
        return
    if unset := unset_variables(values):
        log.error("environment.json of this site has no value for %s", " and ".join(unset))
        yield Problem(HERE, UNSET, "", "environment")
    elif faults := data_faults(app, values, policy):
        for fault in faults:
            log.error("this site's data: %s: %s", fault.location, fault.rule)
            log.debug("%s", fault)  # it names files
        yield Problem(HERE, UNREAD, "", "data")


def _signers(app: Path, root: Path) -> list[str]:
    """Return the names in the verified certificates of whoever signed the app."""
    authority = root / "startup" / "rootCA.pem"
    if not authority.is_file() or not (app / SIGNATURE_FILES[0]).is_file():
        return []
    verified, signers = verify_folder_signature_and_get_signers(str(app), str(authority))
    return sorted({str(name) for name, _, _ in signers}) if verified else []
