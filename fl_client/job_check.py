"""A job against a site's policy: its files, the classes it asks NVFlare for, and its MMAR.

A job arrives as a folder or as a zip. A zip is judged from its table of contents first; only then
are the documents that a check reads written to a private folder, which is gone afterwards.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fl_client.encryption import DECRYPT, ENCRYPT, encryption_faults
from fl_client.filter_plan import chain_faults, job_filters
from fl_client.transfer import COMPACT, transfer_faults
from mmar_runtime.config.location import Location
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.config.sources import SCALARS
from mmar_runtime.errors import ConfigError, Problem, did_you_mean
from mmar_runtime.policy.custom_check import own_class_fault, own_module, undefined_fault
from mmar_runtime.policy.document_check import DocumentLimits, read_document
from mmar_runtime.policy.mmar_check import approval_fault, check_mmar, guarded, unlisted_torchscript
from mmar_runtime.policy.site_policy import DEFAULT_POLICY, SitePolicy
from mmar_runtime.policy.tree_hash import SIGNATURE_FILES
from mmar_runtime.policy.verdict import Verdict, verdict

ALLOWED_CLASSES = (
    "fl_client.flare.executor.MmarExecutor",
    "fl_client.flare.privacy.ExcludeVars",
    "fl_client.flare.privacy.PercentilePrivacy",
    "fl_client.flare.privacy.SVTPrivacy",
    "fl_client.flare.wake.WakeListener",
    "fl_server.flare.aggregator.MmarAggregator",
    "fl_server.flare.given_models.GivenModels",
    "fl_server.flare.last_model.ScoreLastModel",
    "fl_server.flare.model_locator.MmarModelLocator",
    "fl_server.flare.persistor.MmarModelPersistor",
    "fl_server.flare.publish.PublishResults",
    "fl_server.flare.run_recorder.RunRecordKeeper",
    "fl_server.flare.wake.WakingCrossSiteModelEval",
    "fl_server.flare.wake.WakingScatterAndGather",
    "nvflare.app_common.shareablegenerators.full_model_shareable_generator"
    ".FullModelShareableGenerator",
    COMPACT,
    DECRYPT,
    ENCRYPT,
)
"""The classes that a site allows a job's NVFlare configs to name: exact, no prefixes."""

META = "meta.json"
SERVER_CONFIG = "config_fed_server.json"
CLIENT_CONFIG = "config_fed_client.json"
META_KEYS = ("name", "resource_spec", "min_clients", "mandatory_clients", "deploy_map")
CLASS_KEYS = ("path", "name", "class_path", "ref", "_target_")
"""Keys by which one library or another takes an object for a component."""

SIGNATURES = SIGNATURE_FILES
"""What NVFlare puts into each folder of a signed job."""

FOLDERS: Mapping[str, tuple[str, ...]] = {
    "config": (".json",),
    "models": (".pt", ".pth", ".safetensors", ".ts", ".json"),
    "resources": (".config", ".json", ".txt", ".md"),
    "docs": (".md", ".txt", ".png", ".jpg", ".pdf"),
    "commands": (".sh",),
    "eval": (),
}
"""The folders of an app -> what files in them may be; ``custom`` is judged by itself."""

TORCHSCRIPT = ".ts"
CODE = (".py", ".pyc", ".pyo", ".pyd", ".pyx", ".pyz", ".so", ".dll", ".dylib", ".egg", ".whl")

MAX_FILES = 2000
MAX_NAME = 240
MAX_FILE_BYTES = 2 * 2**30
MAX_TOTAL_BYTES = 4 * 2**30
MAX_RATIO = 200
"""Unpacked bytes for each packed one; zeros pack about a thousand times."""

MIN_JUDGED_RATIO = 2**20
"""Bytes below which a file may pack as well as it likes."""

MAX_READ_BYTES = 32 * 2**20
"""Of the documents and the code of a job, which are unpacked for the check."""

JOB_JSON = DocumentLimits(size=256 * 1024, values=5_000, depth=32, text=4096)
END_RECORD = struct.Struct("<4s4H2LH")
ZIP_READ_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError,
)  # fmt: skip
"""What Python's reader raises over a damaged zip, and what writing a strange one raises."""

NOT_IN_A_NAME = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|$~]')
JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
SITE_NAME = re.compile(r"@ALL|[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
OWN_VALUE = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
"""All that an NVFlare config may fill in: the value of an entry at its own top level."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of a job: its name below the job's folder, and its bytes."""

    name: PurePosixPath
    size: int


def check_path(
    path: str | Path,
    policy: SitePolicy = DEFAULT_POLICY,
    overrides: Mapping[str, Scalar] | None = None,
) -> Verdict:
    """The verdict on whatever lies there: a job's folder or zip, an MMAR, or one workflow.

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
    """The verdict on a job's folder or zip; never raises.

    Args:
        path: the folder that holds ``meta.json``, or the zip.
        policy: what the site allows.
        overrides: values from ``--set``.
        site_values: the site's own variables.
    """
    place = Path(path)
    judge = _zip_verdict if place.is_file() else _job_verdict
    return guarded(path, lambda: judge(place, str(path), policy, overrides, site_values))


def check_app(
    path: str | Path,
    policy: SitePolicy = DEFAULT_POLICY,
    *,
    overrides: Mapping[str, Scalar] | None = None,
    site_values: Mapping[str, Scalar] | None = None,
) -> Verdict:
    """The verdict on a job's app folder alone, as NVFlare hands it to a site; never raises.

    Arguments as for ``check_job``.
    """

    def judge() -> Verdict:
        root = Path(path)
        if not root.is_dir():
            return verdict(path, [_problem(root.name, "is no folder of the job", "job-file")])
        files = _files_of(root)
        problems = [
            *_file_faults(files, policy),
            *_torchscript_faults(root, files, policy),
            *_approval_faults(root, files, policy),
            *_app_faults(root, policy),
        ]
        mmar = check_mmar(root, policy, overrides=overrides, site_values=site_values)
        return verdict(path, [*problems, *mmar.problems], mmar.notices)

    return guarded(path, judge)


# --- The job ---------------------------------------------------------------------------------


def _job_verdict(
    root: Path,
    name: str,
    policy: SitePolicy,
    overrides: Mapping[str, Scalar] | None,
    site_values: Mapping[str, Scalar] | None,
) -> Verdict:
    """The verdict on a job's folder, whose files are looked at where they lie."""
    files = _files_of(root)
    meta = read_document(root / META, JOB_JSON)
    problems = list(_meta_faults(meta))
    if problems:
        return verdict(name, problems)
    [app] = meta["deploy_map"]
    outside = [one for one in files if one.name.parts[0] != app]
    problems += [
        _problem(str(one.name), "does not belong into a job", "job-file", _JOB_FILES)
        for one in outside
        if str(one.name) not in (META, *SIGNATURES)
    ]
    judged = check_app(root / app, policy, overrides=overrides, site_values=site_values)
    return verdict(name, [*problems, *judged.problems], judged.notices)


_JOB_FILES = "A job holds meta.json and one app folder, which is an MMAR."


def _files_of(root: Path) -> list[_Entry]:
    """Every file below a folder.

    Raises:
        ConfigError: a link, a device, an odd name, too many or too large.
    """
    entries: list[_Entry] = []
    problems: list[Problem] = []
    for folder, folders, files in os.walk(root, onerror=_raise):
        for name in sorted((*folders, *files)):
            path = Path(folder, name)
            relative, status = path.relative_to(root).as_posix(), path.lstat()
            fault = _name_fault(relative) or _mode_fault(status.st_mode)
            if fault:
                problems.append(_problem(relative, *fault))
            elif stat.S_ISREG(status.st_mode):
                entries.append(_Entry(PurePosixPath(relative), status.st_size))
        if len(entries) > MAX_FILES or len(problems) > MAX_FILES:
            break
    problems += _size_faults(entries)
    if problems:
        raise ConfigError(problems)
    return entries


def _raise(error: OSError) -> None:
    # os.walk would pass over a folder that it cannot read; what is not seen is not judged.
    raise error


def _meta_faults(meta: Any) -> Iterator[Problem]:
    if not isinstance(meta, dict):
        yield _problem(META, "has to be a JSON object", "job-file")
        return
    location = Location(META)
    yield from _substitutions(meta, location, own=())
    for key in meta.keys() - set(META_KEYS):
        advice = did_you_mean(key, META_KEYS)
        yield Problem(location / key, f"unknown key {key!r}", advice, "job-file")
    if not _is_name(meta.get("name"), JOB_NAME):
        message = "has to be a name of letters, digits, blanks and ._- with at most 100 characters"
        yield Problem(location / "name", message, "", "job-file")
    if type(meta.get("min_clients", 1)) is not int or meta.get("min_clients", 1) < 1:
        message = "has to be a whole number from 1"
        yield Problem(location / "min_clients", message, "", "job-file")
    if not _are_sites(meta.get("mandatory_clients", [])):
        yield Problem(location / "mandatory_clients", "has to list sites", "", "job-file")
    if not isinstance(meta.get("resource_spec", {}), dict):
        yield Problem(location / "resource_spec", "has to be an object", "", "job-file")
    yield from _deploy_faults(meta.get("deploy_map"), location / "deploy_map")


def _deploy_faults(apps: Any, location: Location) -> Iterator[Problem]:
    if not isinstance(apps, dict) or len(apps) != 1:
        yield Problem(location, "has to name one app for all sites", "", "job-file")
    elif any("/" in app or app in ("", ".", "..") or _name_fault(app) for app in apps):
        yield Problem(location, "names no folder of the job", "", "job-file")
    elif not all(sites and _are_sites(sites) for sites in apps.values()):
        message = 'has to list the sites of the app, such as ["@ALL"]'
        yield Problem(location, message, "", "job-file")


def _are_sites(value: Any) -> bool:
    return isinstance(value, list) and all(_is_name(one, SITE_NAME) for one in value)


def _is_name(value: Any, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _app_faults(root: Path, policy: SitePolicy) -> Iterator[Problem]:
    """What NVFlare is asked for, in the two configs of the app."""
    documents: list[Any] = []
    for name in (SERVER_CONFIG, CLIENT_CONFIG):
        try:
            document = read_document(root / "config" / name, JOB_JSON)
        except ConfigError as error:
            yield from error.problems
            continue
        if not isinstance(document, dict):
            yield _problem(name, "has to be a JSON object", "job-file")
            continue
        yield from _substitutions(document, Location(name), own=_own_values(document))
        yield from _class_faults(document, Location(name), root / "custom", policy)
        if name == CLIENT_CONFIG:
            yield from _filter_faults(document)
        yield from _limit_faults(document, Location(name), policy)
        documents.append(document)
    if len(documents) == 2:
        server, client = documents
        yield from encryption_faults(server, client, (SERVER_CONFIG, CLIENT_CONFIG))
        yield from transfer_faults(server, client, (SERVER_CONFIG, CLIENT_CONFIG))


def _class_faults(
    value: Any, location: Location, custom: Path, policy: SitePolicy
) -> Iterator[Problem]:
    """Every class that is not on the list, however deep it is nested."""
    for item, place in _all_values(value, location):
        for key in CLASS_KEYS if isinstance(item, dict) else ():
            if key in item and not (key == "path" and item[key] in ALLOWED_CLASSES):
                yield from _unlisted(key, item[key], place / key, custom, policy)


def _unlisted(
    key: str, named: Any, place: Location, custom: Path, policy: SitePolicy
) -> Iterator[Problem]:
    """A class that is none of ours: one of the job's own code, where the site allows that."""
    if key == "path" and isinstance(named, str) and own_module(named, custom) is not None:
        fault = own_class_fault(named, custom) or undefined_fault(named, custom)
        if policy.byoc.mode == "off":
            advice = "The site can allow code by its hash, or without one; see byoc."
            message = f"{named!r} is code that this site has not allowed"
            yield Problem(place, message, advice, "code")
        elif fault:
            yield Problem(place, f"{named!r} {fault}", "", "code")
        return
    yield Problem(
        place,
        f"{named!r} is not among the classes that a site allows",
        'Name the components of mmar-fl and NVFlare\'s own workflow by "path".',
        "allow-list",
    )


def _filter_faults(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Chains for tasks that no site has, and arguments that our own filters would not take."""
    yield from chain_faults(document, Location(CLIENT_CONFIG))
    try:
        list(job_filters(document, Location(CLIENT_CONFIG)))
    except ConfigError as error:
        yield from error.problems


def _own_values(document: Mapping[str, Any]) -> frozenset[str]:
    """The plain values that a document has at its top level; other entries may use them."""
    return frozenset(name for name, value in document.items() if isinstance(value, SCALARS))


def _substitutions(value: Any, location: Location, own: Collection[str]) -> Iterator[Problem]:
    """Refuse every brace but those around one of the document's own values.

    NVFlare would fill in the site's environment, its folders and addresses, and hands the rest to
    ``str.format``, which walks attributes and makes a text as long as it is asked for.
    """
    for item, place in _all_values(value, location):
        texts = item if isinstance(item, dict) else [item]
        if any(_asks_for_more(one, own) for one in texts if isinstance(one, str)):
            message = "asks for a value that a job may not have"
            advice = "Write the value itself, or {name} of one at the top of this document."
            yield Problem(place, message, advice, "job-file")


def _asks_for_more(text: str, own: Collection[str]) -> bool:
    exact = OWN_VALUE.fullmatch(text)
    return "{" in text and not (exact and exact[1] in own)


def _limit_faults(
    document: Mapping[str, Any], location: Location, policy: SitePolicy
) -> Iterator[Problem]:
    limits = {"num_rounds": policy.limits.rounds, "local_epochs": policy.limits.epochs_per_round}
    for item, place in _all_values(document, location):
        for key, most in limits.items() if isinstance(item, dict) else ():
            value = item.get(key, 1)
            filled = document.get(key) if value == f"{{{key}}}" else value
            if type(filled) is not int or not 1 <= filled <= most:
                message = f"has to be a whole number from 1 to {most}, found {value!r}"
                yield Problem(place / key, message, "", "limit")


def _all_values(value: Any, location: Location) -> Iterator[tuple[Any, Location]]:
    yield value, location
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _all_values(item, location / key)


# --- Its files -------------------------------------------------------------------------------


def _file_faults(files: Iterable[_Entry], policy: SitePolicy) -> Iterator[Problem]:
    """Each file of an app that has no place in an MMAR."""
    for one in files:
        folder, name = one.name.parts[0], one.name.name
        if name in (*SIGNATURES, ".gitkeep"):
            continue
        if folder == "custom" and len(one.name.parts) > 1:
            if policy.byoc.mode == "off":
                advice = "The site can allow code by its hash, or without one; see byoc."
                message = "is code that this site has not allowed"
                yield _problem(str(one.name), message, "code", advice)
        elif one.name.suffix.lower() in CODE:
            message = "is code outside of custom/"
            yield _problem(str(one.name), message, "code", "Code has its place in custom/.")
        elif len(one.name.parts) != 2 or one.name.suffix not in FOLDERS.get(folder, ()):
            yield _problem(str(one.name), "does not belong into an MMAR", "job-file", _MMAR_FILES)
        elif _is_further_config(one.name):
            message = "is a further config of NVFlare's"
            advice = f"A job has {SERVER_CONFIG} and {CLIENT_CONFIG}."
            yield _problem(str(one.name), message, "job-file", advice)


def _torchscript_faults(
    root: Path, files: Iterable[_Entry], policy: SitePolicy
) -> Iterator[Problem]:
    """TorchScript is code, whether or not a workflow names it."""
    for one in files:
        is_script = one.name.suffix.lower() == TORCHSCRIPT
        if is_script and unlisted_torchscript(root / one.name, policy):
            message = "is TorchScript, which is code; this site has not allowed this file"
            advice = "Leave it out, or see torchscript_sha256 of the site's policy."
            yield _problem(str(one.name), message, "torchscript", advice)


def _approval_faults(root: Path, files: list[_Entry], policy: SitePolicy) -> Iterator[Problem]:
    """Code that travels along without the approval of a site that asks for one, named or not."""
    if policy.byoc.mode == "by_hash" and any(one.name.parts[0] == "custom" for one in files):
        fault = approval_fault(root / "custom", policy)
        if fault:
            advice = "See 'mmar site approve'."
            yield _problem(
                "custom", f"is code that this site has not allowed: {fault}", "code", advice
            )


_MMAR_FILES = "Allowed are " + ", ".join(
    f"{folder}/*({'|'.join(suffixes)})" for folder, suffixes in FOLDERS.items() if suffixes
)


def _is_further_config(name: PurePosixPath) -> bool:
    """Whether NVFlare, which looks for its configs by their names, could find it in any folder."""
    fed = name.name.lower().startswith(("config_fed_", "config_exchange"))
    return fed and str(name) not in (f"config/{SERVER_CONFIG}", f"config/{CLIENT_CONFIG}")


def _name_fault(name: str) -> tuple[str, str] | None:
    """What is wrong with a name below the job's folder, and the rule."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in name.split("/") or NOT_IN_A_NAME.search(name):
        return "has a name that may lead elsewhere", "archive"
    if len(name) > MAX_NAME or not name.isprintable() or str(path) != name.rstrip("/"):
        return "has a name that is too long or not plain", "archive"
    return None


def _mode_fault(mode: int) -> tuple[str, str] | None:
    if stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR):
        return None
    return ("is a link" if stat.S_ISLNK(mode) else "is no ordinary file"), "archive"


def _size_faults(entries: list[_Entry]) -> Iterator[Problem]:
    if len(entries) > MAX_FILES:
        yield _problem("job", f"has more than {MAX_FILES} files", "archive")
    if sum(one.size for one in entries) > MAX_TOTAL_BYTES:
        yield _problem("job", f"has more than {MAX_TOTAL_BYTES} bytes", "archive")
    for one in entries:
        if one.size > MAX_FILE_BYTES:
            message = f"has {one.size} bytes; {MAX_FILE_BYTES} is the most"
            yield _problem(str(one.name), message, "archive")


def _problem(file: str, message: str, rule: str, advice: str = "") -> Problem:
    return Problem(Location(file), message, advice, rule)


# --- The zip ---------------------------------------------------------------------------------


def _zip_verdict(
    path: Path,
    name: str,
    policy: SitePolicy,
    overrides: Mapping[str, Scalar] | None,
    site_values: Mapping[str, Scalar] | None,
) -> Verdict:
    """The verdict on a zip; its documents are unpacked once its table of contents is in order."""
    fault = _end_fault(path)
    if fault:
        return verdict(name, [_problem(path.name, fault, "archive")])
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            problems = list(_archive_faults(archive.infolist()))
            if len(archive.infolist()) != _count_told(path):
                message = "has another number of entries than it says"
                problems.append(_problem(path.name, message, "archive"))
            if problems:
                return verdict(name, problems)
            _unpack(archive, Path(folder))
            return _job_verdict(_job_root(Path(folder)), name, policy, overrides, site_values)
    except ZIP_READ_ERRORS as error:
        message = f"is no zip that can be read: {error}"
        return verdict(name, [_problem(path.name, message, "archive")])


def _end_fault(path: Path) -> str:
    """What is wrong with the end of a zip, before Python reads the table that it points to.

    Only the plain form is taken: one record at the very end, no comment, no 64-bit extension. Then
    no two readers can see different tables, and the table's length is known to be bearable.
    """
    size = path.stat().st_size
    if size > MAX_TOTAL_BYTES:
        return f"has {size} bytes; {MAX_TOTAL_BYTES} is the most"
    with path.open("rb") as stream:
        first = stream.read(4)
        stream.seek(max(0, size - END_RECORD.size - 20))
        tail = stream.read()
    if first != b"PK\x03\x04" or len(tail) < END_RECORD.size:
        return "is no zip"
    mark, _, _, _, count, length, start, comment = END_RECORD.unpack(tail[-END_RECORD.size :])
    if mark != b"PK\x05\x06" or comment:
        return "does not end as a plain zip does"
    if tail.startswith(b"PK\x06\x07") or count > MAX_FILES:
        return f"has more than {MAX_FILES} entries"
    if start + length + END_RECORD.size != size:
        return "has bytes that its table of contents does not account for"
    return ""


def _count_told(path: Path) -> int:
    """How many entries a zip says it has; Python reads as many as it finds, others this many."""
    with path.open("rb") as stream:
        stream.seek(-END_RECORD.size, os.SEEK_END)
        return int(END_RECORD.unpack(stream.read())[4])


def _archive_faults(infos: list[zipfile.ZipInfo]) -> Iterator[Problem]:
    seen: set[str] = set()
    for info in infos:
        plain = info.filename.rstrip("/").casefold()
        fault = _name_fault(info.orig_filename) or _mode_fault(info.external_attr >> 16)
        if plain in seen:
            fault = ("stands twice in the archive", "archive")
        seen.add(plain)
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            fault = ("is encrypted or packed in an unusual way", "archive")
        if info.file_size > max(MIN_JUDGED_RATIO, MAX_RATIO * info.compress_size):
            fault = (f"unpacks to more than {MAX_RATIO} times its size", "archive")
        if fault:
            yield _problem(info.filename, *fault)
    files = [info for info in infos if not info.filename.endswith("/")]
    yield from _size_faults([_Entry(PurePosixPath(i.filename), i.file_size) for i in files])
    read = sum(info.file_size for info in files if _is_read(info.filename))
    if read > MAX_READ_BYTES:
        yield _problem("job", f"has documents and code of {read} bytes", "archive")


def _is_read(name: str) -> bool:
    """Whether a check looks into the file; weights are not opened."""
    path = PurePosixPath(name)
    is_weights = path.parent.name == "models" and path.suffix.lower() != TORCHSCRIPT
    return not is_weights or "custom" in path.parts


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Every entry at its place; files that no check looks into are empty there."""
    for info in archive.infolist():
        target = folder / info.filename
        if info.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archive.read(info) if _is_read(info.filename) else b"")


def _job_root(folder: Path) -> Path:
    """The job in an unpacked zip: the folder itself, or the only one inside it."""
    inside = list(folder.iterdir())
    if len(inside) == 1 and inside[0].is_dir():
        return inside[0]
    return folder
