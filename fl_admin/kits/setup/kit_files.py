"""The files of a kit: all there, and no weaker than they were provisioned."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fl_admin.kits.local_files import GATE, JSON_ONLY, LOG_SENDERS, STOCK_LAUNCHER, VALIDATOR
from fl_admin.kits.setup.finding import Finding, fault, ok, warning
from fl_admin.kits.setup.kit import CONFIGS, Kind, Kit
from fl_admin.kits.split_paths import SPLIT_AT, is_split
from fl_client.jobs.classes import ALLOWED_CLASSES
from fl_client.jobs.wall import other_launchers
from fl_client.privacy.filters import PRIVACY_FILE, filter_faults
from fl_client.versions import differences, federation_versions
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.files.writers import other_writers
from mmar_runtime.policy.site_policy import SITE_POLICY_FILE, SitePolicy, site_policy

RESOURCES = "resources.json"
NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "site": (f"local/{RESOURCES}", f"local/{PRIVACY_FILE}", "local/authorization.json"),
    "server": (f"local/{RESOURCES}", "local/authorization.json"),
    "admin": (),
}
SCRIPTS = (
    "startup/sub_start.sh",
    *(f"startup/{JSON_ONLY}/{name}.py" for name in ("pyhocon", "omegaconf")),
)
PREPARED = ("startup/start_docker.sh", "helm_chart/Chart.yaml")
"""How NVFlare starts a kit that ``nvflare deploy prepare`` made, in place of a kit's own script."""

FROM_KIT = "take it from the kit as it was sent"
NEWER = (
    "ask whoever provisions for the kit that 'mmar provision' makes today, with the same "
    "certificate, and take its {files}"
)


def check_files(kit: Kit) -> Finding:
    """Check that everything is there that such a kit needs, and that nobody else can change it."""
    prepared = any((kit.folder / name).is_file() for name in PREPARED)
    scripts = () if kit.kind == "admin" or prepared else SCRIPTS
    own = [kit.certificate, kit.key, kit.authority, kit.startup / CONFIGS[kit.kind]]
    wanted = [*own, *(kit.folder / name for name in (*NEEDED[kit.kind], *scripts))]
    missing = [
        str(path.relative_to(kit.folder)) for path in wanted if not _in_force(path).is_file()
    ]
    if missing:
        return fault("files", f"missing: {', '.join(missing)}", FROM_KIT)
    if scripts and is_split(kit.folder):
        message = f"NVFlare cannot start a job below a path with {SPLIT_AT}: {str(kit.folder)!r}"
        return fault("files", message, "move the kit to a path without them")
    if not os.access(kit.folder, os.W_OK):
        message = f"{kit.folder} cannot be written to, where runs and logs are kept"
        return fault("files", message, "let the user of this process own the kit's folder")
    decisive = [kit.folder]
    for part in (kit.startup, kit.local):
        # A dead link counts as missing.
        decisive += [path for path in (part, *sorted(part.rglob("*"))) if path.exists()]
    if changed := {path: who for path in decisive if (who := other_writers(path))}:
        first, writers = next(iter(changed.items()))
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        message = f"{first}{more} can be written by {writers}"
        return fault("files", message, f"run 'chmod -R go-w {kit.folder}'")
    return ok("files", "all there")


def check_versions(kit: Kit) -> Finding:
    """Check whether what is installed here is what the federation was provisioned with."""
    try:
        wanted = federation_versions(kit.folder)
    except ConfigError as error:
        return fault("versions", _words(error), FROM_KIT)
    if wanted is None:
        message = "the kit does not say which ones the federation has; an older mmar-fl made it"
        return warning("versions", message, NEWER.format(files="startup/"))
    gaps = list(differences(wanted))
    told = "; ".join(map(str, gaps))
    install = "pip install " + " ".join(f"'{gap.package}=={gap.federation}'" for gap in gaps)
    if not all(gap.fits for gap in gaps):
        return fault("versions", f"installed: {told}", f"{install}, and start again")
    if gaps:
        return warning("versions", f"installed: {told}; they work together", install)
    return ok("versions", ", ".join(f"{name} {version}" for name, version in wanted.items()))


def check_policy(kit: Kit) -> tuple[Finding, SitePolicy | None]:
    """Check whether the site's policy can be read, and what it says."""
    try:
        policy = site_policy(kit.local)
        lacking = list(filter_faults(kit.local, policy))
    except ConfigError as error:
        advice = " ".join(problem.advice for problem in error.problems if problem.advice)
        return fault("policy", _words(error), advice or f"mend local/{SITE_POLICY_FILE}"), None
    if lacking:
        message = "; ".join(problem.message for problem in lacking)
        return fault("policy", message, f"set them up in local/{PRIVACY_FILE}"), policy
    if not (kit.local / SITE_POLICY_FILE).is_file():
        message = f"there is no local/{SITE_POLICY_FILE}; the built-in defaults hold"
        return ok("policy", message), policy
    return ok("policy", f"code of jobs: {policy.byoc.mode}"), policy


def check_resources(kit: Kit, policy: SitePolicy | None) -> Finding:
    """Check that ``local/resources.json`` still asks for our judgement and our classes alone."""
    document, problem = _document(_in_force(kit.local / RESOURCES))
    if problem is not None:
        return fault("resources", problem, FROM_KIT)
    weaker = list(_weaker(document))
    if weaker:
        advice = f"put it back from local/{RESOURCES}.default, or say why it has to differ"
        return fault("resources", f"local/{RESOURCES} {'; '.join(weaker)}", advice)
    listed = set(map(str, document["class_allow_list"]))
    others = other_launchers(document) if kit.kind == "site" else []
    if others and policy is not None and policy.confinement == "required":
        message = f"local/{RESOURCES} starts jobs without the confinement: {_some(set(others))}"
        advice = f"the policy requires it; take the launcher of local/{RESOURCES}.default"
        return fault("resources", message, advice)
    if STOCK_LAUNCHER in others:
        message = f"local/{RESOURCES} starts jobs by NVFlare's own launcher, which confines none"
        return warning("resources", message, NEWER.format(files=f"local/{RESOURCES}"))
    if more := listed - set(ALLOWED_CLASSES):
        message = f"local/{RESOURCES} allows classes that are not mmar-fl's: {_some(more)}"
        return fault("resources", message, "take them out; a job could name them")
    if less := set(ALLOWED_CLASSES) - listed:
        message = f"local/{RESOURCES} was made by an older mmar-fl; not allowed: {_some(less)}"
        return warning("resources", message, NEWER.format(files=f"local/{RESOURCES}"))
    return ok("resources", f"{len(ALLOWED_CLASSES)} classes, each job judged, no log sent")


def check_privacy(kit: Kit) -> Finding:
    """Check that the last gate comes after every filter."""
    document, problem = _document(kit.local / PRIVACY_FILE)
    if problem is not None:
        return fault("privacy", problem, FROM_KIT)
    components = document.get("components")
    paths = [component.get("path") for component in components or () if isinstance(component, dict)]
    if GATE not in paths:
        message = f"local/{PRIVACY_FILE} has lost the last gate, {GATE}"
        return fault("privacy", message, "put it back among its components")
    return ok("privacy", "the last gate stands")


def _in_force(path: Path) -> Path:
    """Return the file that NVFlare reads: ``<name>.default`` if there is no file of the name."""
    return path if path.is_file() else path.with_name(f"{path.name}.default")


def _document(path: Path) -> tuple[dict[str, Any], str | None]:
    """Return a JSON object, or why there is none."""
    try:
        document = read_json(path)
    except ConfigError as error:
        return {}, _words(error)
    if not isinstance(document, dict):
        return {}, f"{path.name} has to be a JSON object"
    return document, None


def _weaker(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a site's settings no longer ask for."""
    validator = document.get("app_validator")
    if not isinstance(validator, dict) or validator.get("path") != VALIDATOR:
        yield "has no judgement on jobs (app_validator)"
    if document.get("class_list_enforcement_mode") != "enforce":
        yield "does not enforce the list of classes (class_list_enforcement_mode)"
    if not isinstance(document.get("class_allow_list"), list):
        yield "has no list of classes (class_allow_list)"
    if document.get("allow_log_streaming") is not False:
        yield "lets logs be sent (allow_log_streaming)"
    components = document.get("components", [])
    ids = [component.get("id") for component in components if isinstance(component, dict)]
    if any(name in ids for name in LOG_SENDERS):
        yield f"has a component that sends logs ({', '.join(LOG_SENDERS)})"
    if "client" in document and "site_config" not in (document.get("client") or {}):
        yield "tells the server all of its settings (client.site_config)"


def _some(names: set[str]) -> str:
    shown = sorted(name.rpartition(".")[2] for name in names)
    rest = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return ", ".join(shown[:3]) + rest


def _words(error: ConfigError) -> str:
    return "; ".join(f"{problem.location}: {problem.message}" for problem in error.problems)
