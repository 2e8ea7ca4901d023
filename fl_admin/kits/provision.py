"""Start-up kits for a federation: NVFlare's own provisioning, with our files in each kit."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from nvflare.lighter.constants import DEFINED_ROLES, CtxKey
from nvflare.lighter.prov_utils import prepare_builders
from nvflare.lighter.provision import prepare_project
from nvflare.lighter.provisioner import Provisioner

from fl_admin.kits.dated_certificates import AUTHORITY_DAYS, VALID_DAYS, forget
from fl_admin.kits.setup.certificates import good_until, load_certificate
from fl_admin.kits.setup.kit import Kit, open_kit
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, FederationError, Problem, did_you_mean
from mmar_runtime.exchange.encryption_extra import MISSING_EXTRA, extra_is_installed
from mmar_runtime.files import write_text_atomically

BUILDERS: tuple[dict[str, Any], ...] = (
    {"path": "nvflare.lighter.impl.workspace.WorkspaceBuilder"},
    {
        "path": "nvflare.lighter.impl.static_file.StaticFileBuilder",
        "args": {"config_folder": "config", "scheme": "grpc", "require_signed_jobs": True},
    },
    {"path": "fl_admin.kits.dated_certificates.DatedCertificates"},
)
"""NVFlare's own, and ours for its certificates; our files come behind them."""

LOCAL_FILES = "fl_admin.kits.local_files.MmarLocalFiles"

ENCRYPTION_BUILDERS: tuple[dict[str, Any], ...] = (
    {"path": "fl_admin.kits.he_builder.FederationKeys"},
    {"path": "fl_admin.kits.he_builder.StartupSignatures"},
)
"""Behind all others, where the project asks for homomorphic encryption."""

PROJECT_KEYS = ("api_version", "name", "description", "he", "participants", VALID_DAYS)
TYPES = ("server", "client", "admin")
NEEDED: Mapping[str, tuple[str, ...]] = {
    "server": ("name", "type", "org", "fed_learn_port", "admin_port"),
    "client": ("name", "type", "org"),
    "admin": ("name", "type", "org", "role"),
}
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "server": ("default_host", "host_names"),
    "client": ("capacity",),
    "admin": (),
}
SUBMITTERS = ("lead", "project_admin")

HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)"
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
NAMES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "server": (re.compile(rf"{HOST}(?:\.{HOST})*"), "is not a host name"),
    "client": (
        re.compile(rf"(?!server$|all$|SRV_){NAME}", re.IGNORECASE),
        "is not a name for a site: letters, digits, '_' and '-', at most 63; not 'server' or "
        "'all', and nothing that begins with 'SRV_'",
    ),
    "admin": (
        re.compile(rf"[A-Za-z0-9._%+-]{{1,63}}@(?:{HOST}\.)+[A-Za-z]{{2,}}"),
        "is not an e-mail address as NVFlare takes it; its domain has no '_'",
    ),
}
"""By type: what a name looks like, and what to say if it does not."""

ORG = re.compile(r"[A-Za-z0-9_]{1,63}")
KITS_FOLDER = re.compile(r"prod_(\d+)")

log = logging.getLogger(__name__)


ALL = "all"
"""Stands for every participant where some are named; no site may be called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kits:
    """What was provisioned.

    Attributes:
        folder: holds one folder for each participant.
        participants: their names, the server first.
    """

    folder: Path
    participants: tuple[str, ...]

    def kit(self, name: str) -> Kit:
        """Return the kit of a participant."""
        return open_kit(self.folder / name)

    def valid_until(self, name: str) -> datetime:
        """Return when the certificate of a participant ends."""
        kit = self.kit(name)
        return good_until(load_certificate(kit.certificate), load_certificate(kit.authority))

    @property
    def authority_until(self) -> datetime:
        """When the authority ends, and with it everything that it has signed."""
        kit = self.kit(self.participants[0])
        return load_certificate(kit.authority).not_valid_after_utc


def provision(project_file: Path, out: Path, *, renew: Collection[str] = ()) -> Kits:
    """Make a kit for each participant of a project, in a new folder below ``out``.

    The authority of the first time is kept in ``out`` and signs the later ones too: whoever was in
    the project before can go on with the kit that they have. Whatever interrupts this, the
    authority and the earlier kits are what they were.

    Args:
        project_file: the participants.
        out: where kits and the authority are kept.
        renew: who gets a new key and a new certificate; ``all`` means everybody. The others keep
            theirs.

    Raises:
        ConfigError: the project has faults, or somebody is renewed who is not in it.
        FederationError: NVFlare's provisioning failed.
    """
    document = read_project(project_file)
    name = document["name"]
    # Before NVFlare takes the document apart.
    participants = [participant["name"] for participant in document["participants"]]
    renewed = _renewed(renew, participants)
    try:
        project, builders = prepare_project(document), prepare_builders(document)
    except ValueError as error:  # a fault that only NVFlare finds
        place = Location(project_file.name)
        raise ConfigError([Problem(place, str(error), "", "project")]) from error
    server = project.get_server().name
    home = out.expanduser().resolve() / name
    with (
        _alone_in(home.parent),
        tempfile.TemporaryDirectory(dir=home.parent, prefix=".provision-") as scratch,
    ):
        state = Path(scratch) / name / "state"
        if (home / "state").is_dir():
            shutil.copytree(home / "state", state)
            forget(state, renewed)
        kits = _built(project, builders, Path(scratch))
        # The keys first: kits whose authority is not kept would be worth nothing.
        for path in state.iterdir():
            write_text_atomically(home / "state" / path.name, path.read_text("utf-8"))
        earlier = [KITS_FOLDER.fullmatch(path.name) for path in home.iterdir()]
        number = max((int(match[1]) for match in earlier if match), default=-1) + 1
        folder = home / f"prod_{number:02d}"
        kits.rename(folder)
    return Kits(
        folder=folder, participants=tuple(sorted(participants, key=lambda name: name != server))
    )


def _renewed(names: Collection[str], participants: list[str]) -> Collection[str]:
    """Whose certificates are made anew.

    Raises:
        ConfigError: somebody is not in the project.
    """
    problems = [
        Problem(
            Location("--renew"),
            f"{name!r} is not in the project",
            did_you_mean(name, participants),
            "project",
        )
        for name in names
        if name not in (ALL, *participants)
    ]
    if problems:
        raise ConfigError(problems)
    return participants if ALL in names else names


def _built(project: Any, builders: list[Any], workspace: Path) -> Path:
    """Return the folder of kits that NVFlare has made in a workspace.

    Raises:
        FederationError: it has made none.
    """
    printed, messages = io.StringIO(), _Messages()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        context = Provisioner(str(workspace), builders).provision(project, logger=messages)
    if context.get(CtxKey.BUILD_ERROR):
        log.debug("%s", printed.getvalue())
        raise FederationError("NVFlare's provisioning failed: " + "; ".join(messages.errors))
    return Path(context[CtxKey.CURRENT_PROD_DIR])


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until nobody else provisions into a folder; the keys of one of the two would be lost.

    Whatever is written meanwhile, keys among it, is for whoever provisions alone.
    """
    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    finally:
        os.umask(before)


class _Messages:
    """What the builders have to say, kept for an error."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def debug(self, text: str) -> None:
        """Not shown."""

    info = warning = debug

    def error(self, text: str) -> None:
        """Kept."""
        self.errors.append(str(text))


def read_project(path: Path) -> dict[str, Any]:
    """Read a project file, and add the builders that make the kits.

    Raises:
        ConfigError: with every fault.
    """
    location = Location(path.name)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ConfigError([Problem(location, message, _TEMPLATE, "missing-file")]) from None
    except yaml.YAMLError as error:
        message = "is not YAML: " + " ".join(str(error).split())
        raise ConfigError([Problem(location, message, "", "project")]) from None
    problems = list(_faults(document, location))
    if problems:
        raise ConfigError(problems)
    encrypts = document.pop("he", False)
    ours = {"path": LOCAL_FILES, "args": {"encrypts": encrypts}}
    extra = ENCRYPTION_BUILDERS if encrypts else ()
    return {"builders": [*BUILDERS, ours, *extra], **document}


_TEMPLATE = "provisioning/project.yml is one to copy."


def _faults(document: Any, location: Location) -> Iterator[Problem]:
    if not isinstance(document, dict):
        yield Problem(location, "has to be a mapping", _TEMPLATE, "project")
        return
    yield from _unknown(document, PROJECT_KEYS, location)
    if document.get("api_version") not in (3, 4):
        message = f"has to be 3 or 4, found {document.get('api_version')!r}"
        yield Problem(location / "api_version", message, "", "project")
    if not _is(re.compile(NAME), document.get("name")):
        message = (
            "has to be a name of letters, digits, '_' and '-', at most 63, found "
            f"{document.get('name')!r}"
        )
        yield Problem(location / "name", message, "", "project")
    if not isinstance(document.get("description", ""), str):
        yield Problem(location / "description", "has to be a text", "", "project")
    days = document.get(VALID_DAYS, 1)
    if type(days) is not int or not 1 <= days <= AUTHORITY_DAYS:
        message = f"has to be a whole number of days from 1 to {AUTHORITY_DAYS}, found {days!r}"
        yield Problem(location / VALID_DAYS, message, "", "project")
    if type(document.get("he", False)) is not bool:
        message = f"has to be true or false, found {document['he']!r}"
        yield Problem(location / "he", message, "", "project")
    elif document.get("he", False) and not extra_is_installed():
        yield Problem(location / "he", MISSING_EXTRA, "", "encryption")
    yield from _list_faults(document.get("participants"), location / "participants")


def _list_faults(participants: Any, location: Location) -> Iterator[Problem]:
    if not isinstance(participants, list) or not all(isinstance(p, dict) for p in participants):
        message = "has to be a list: one server, sites (type client) and admins"
        yield Problem(location, message, _TEMPLATE, "project")
        return
    for index, participant in enumerate(participants):
        yield from _participant_faults(participant, location / index)
    names = [str(participant.get("name")).casefold() for participant in participants]
    for index, name in enumerate(names):
        if name in names[:index]:
            message = f"{participants[index].get('name')!r} stands there twice"
            yield Problem(location / index / "name", message, "", "project")
    kinds = [participant.get("type") for participant in participants]
    if kinds.count("server") != 1:
        message = f"has to hold one server, found {kinds.count('server')}"
        yield Problem(location, message, "", "project")
    if "client" not in kinds:
        yield Problem(location, "has to hold a site, of type client", "", "project")
    if not any(participant.get("role") in SUBMITTERS for participant in participants):
        message = f"nobody may submit a job: no admin is {' or '.join(SUBMITTERS)}"
        yield Problem(location, message, "", "project")


def _participant_faults(participant: Mapping[str, Any], location: Location) -> Iterator[Problem]:
    kind = participant.get("type")
    if kind not in TYPES:
        advice = did_you_mean(str(kind), TYPES)
        yield Problem(location / "type", f"{kind!r} is not a type", advice, "project")
        return
    yield from _unknown(participant, (*NEEDED[kind], *OPTIONAL[kind]), location)
    for key in NEEDED[kind]:
        if key not in participant:
            yield Problem(location, f"{kind}: {key!r} is missing", "", "project")
    pattern, message = NAMES[kind]
    if "name" in participant and not _is(pattern, participant["name"]):
        yield Problem(location / "name", f"{participant['name']!r} {message}", "", "project")
    if "org" in participant and not _is(ORG, participant["org"]):
        message = f"has to be a name of letters, digits and '_', found {participant['org']!r}"
        yield Problem(location / "org", message, "", "project")
    if kind == "admin" and "role" in participant and participant["role"] not in DEFINED_ROLES:
        advice = did_you_mean(str(participant["role"]), DEFINED_ROLES)
        yield Problem(
            location / "role", f"{participant['role']!r} is not a role", advice, "project"
        )
    for key in ("fed_learn_port", "admin_port"):
        port = participant.get(key, 1)
        if type(port) is not int or not 0 < port < 65536:
            message = f"has to be a port from 1 to 65535, found {port!r}"
            yield Problem(location / key, message, "", "project")


def _unknown(given: Mapping[Any, Any], known: tuple[str, ...], location: Location) -> list[Problem]:
    return [
        Problem(
            location / str(key), f"unknown key {key!r}", did_you_mean(str(key), known), "project"
        )
        for key in given
        if key not in known
    ]


def _is(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
