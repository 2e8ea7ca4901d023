"""The files of a job: where they may lie, what they may be called, and how large they may be."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmar_runtime.config.loader import CROSS_VALIDATION_FILE
from mmar_runtime.config.location import Location
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.exchange.job_documents import CLIENT_CONFIG, SERVER_CONFIG
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES
from mmar_runtime.policy.mmar_check import approval_fault, unlisted_torchscript
from mmar_runtime.policy.site_policy import SitePolicy

META = "meta.json"

FOLDERS: Mapping[str, tuple[str, ...]] = {
    "config": (".json",),
    "models": (".pt", ".pth", ".safetensors", ".ts", ".json"),
    "resources": (".config", ".json", ".txt", ".md"),
    "docs": (".md", ".txt", ".png", ".jpg", ".pdf"),
    "commands": (".sh",),
    "eval": (),
}
"""The folders of an app -> what files in them may be; ``custom`` is judged by itself."""

CONFIGS = (f"config/{SERVER_CONFIG}", f"config/{CLIENT_CONFIG}")
CONFIG_STARTS = ("config_fed_", "config_exchange")
"""Names by which NVFlare finds a config: it looks in every folder."""

TORCHSCRIPT = ".ts"
CODE = (".py", ".pyc", ".pyo", ".pyd", ".pyx", ".pyz", ".so", ".dll", ".dylib", ".egg", ".whl")

MAX_FILES = 2000
MAX_NAME = 240
MAX_FILE_BYTES = 2 * 2**30
MAX_TOTAL_BYTES = 4 * 2**30

NOT_IN_A_NAME = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|$~]')


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a job: its name below the job's folder, and its bytes."""

    name: PurePosixPath
    size: int


def files_of(root: Path) -> list[Entry]:
    """Return every file below a folder.

    Raises:
        ConfigError: a link, a device, an odd name, too many or too large.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    for folder, folders, files in os.walk(root, onerror=_raise):
        for name in sorted((*folders, *files)):
            path = Path(folder, name)
            relative, status = path.relative_to(root).as_posix(), path.lstat()
            fault = name_fault(relative) or mode_fault(status.st_mode)
            if fault:
                problems.append(job_problem(relative, *fault))
            elif stat.S_ISREG(status.st_mode):
                entries.append(Entry(PurePosixPath(relative), status.st_size))
        if len(entries) > MAX_FILES or len(problems) > MAX_FILES:
            break
    problems += size_faults(entries)
    if problems:
        raise ConfigError(problems)
    return entries


def _raise(error: OSError) -> None:
    # os.walk would pass over a folder that it cannot read; what is not seen is not judged.
    raise error


def file_faults(files: Iterable[Entry], policy: SitePolicy) -> Iterator[Problem]:
    """Yield each file of an app that has no place in an MMAR."""
    for file in files:
        folder, name = file.name.parts[0], file.name.name
        if name in (*SIGNATURE_FILES, ".gitkeep"):
            continue
        if folder == "custom" and len(file.name.parts) > 1:
            if policy.byoc.mode == "off":
                advice = "The site can allow code by its hash, or without one; see byoc."
                message = "is code that this site has not allowed"
                yield job_problem(str(file.name), message, "code", advice)
        elif file.name.suffix.lower() in CODE:
            message = "is code outside of custom/"
            yield job_problem(str(file.name), message, "code", "Code has its place in custom/.")
        elif len(file.name.parts) != 2 or file.name.suffix not in FOLDERS.get(folder, ()):
            yield job_problem(
                str(file.name), "does not belong into an MMAR", "job-file", _MMAR_FILES
            )
        elif name.lower().startswith(CONFIG_STARTS) and str(file.name) not in CONFIGS:
            message = "is a further config of NVFlare's"
            advice = f"A job has {SERVER_CONFIG} and {CLIENT_CONFIG}."
            yield job_problem(str(file.name), message, "job-file", advice)


def torchscript_faults(root: Path, files: Iterable[Entry], policy: SitePolicy) -> Iterator[Problem]:
    """Yield TorchScript, which is code whether or not a workflow names the file."""
    for file in files:
        is_script = file.name.suffix.lower() == TORCHSCRIPT
        if is_script and unlisted_torchscript(root / file.name, policy):
            message = "is TorchScript, which is code; this site has not allowed this file"
            advice = "Leave it out, or see torchscript_sha256 of the site's policy."
            yield job_problem(str(file.name), message, "torchscript", advice)


def code_approval_faults(root: Path, files: list[Entry], policy: SitePolicy) -> Iterator[Problem]:
    """Yield code that lacks the approval that the site asks for, named or not."""
    has_code = any(file.name.parts[0] == "custom" for file in files)
    if policy.byoc.mode != "by_hash" or not has_code:
        return
    if fault := approval_fault(root / "custom", policy):
        message = f"is code that this site has not allowed: {fault}"
        yield job_problem("custom", message, "code", "See 'mmar site approve'.")


_MMAR_FILES = "Allowed are " + ", ".join(
    f"{folder}/*({'|'.join(suffixes)})" for folder, suffixes in FOLDERS.items() if suffixes
)


def name_fault(name: str) -> tuple[str, str] | None:
    """Return what is wrong with a name below the job's folder, and the rule."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in name.split("/") or NOT_IN_A_NAME.search(name):
        return "has a name that may lead elsewhere", "archive"
    if len(name) > MAX_NAME or not name.isprintable() or str(path) != name.rstrip("/"):
        return "has a name that is too long or not plain", "archive"
    return None


def mode_fault(mode: int) -> tuple[str, str] | None:
    """Return what is wrong with the kind of a file, and the rule."""
    if stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR):
        return None
    return ("is a link" if stat.S_ISLNK(mode) else "is no ordinary file"), "archive"


def size_faults(entries: list[Entry]) -> Iterator[Problem]:
    """Yield too many files, and too many bytes."""
    if len(entries) > MAX_FILES:
        yield job_problem("job", f"has more than {MAX_FILES} files", "archive")
    if sum(entry.size for entry in entries) > MAX_TOTAL_BYTES:
        yield job_problem("job", f"has more than {MAX_TOTAL_BYTES} bytes", "archive")
    for entry in entries:
        if entry.size > MAX_FILE_BYTES:
            message = f"has {entry.size} bytes; {MAX_FILE_BYTES} is the most"
            yield job_problem(str(entry.name), message, "archive")


def job_problem(file: str, message: str, rule: str, advice: str = "") -> Problem:
    """Return the problem of a whole file of a job."""
    return Problem(Location(file), message, advice, rule)


def missing_documents(app: Path) -> Iterator[Problem]:
    """Yield the document by which sites evaluate models, if an app lacks it."""
    if not os.path.lexists(app / CROSS_VALIDATION_FILE):
        message = "is missing, and by it sites evaluate models"
        advice = "'mmar job create' derives it from the MMAR; or write it."
        yield Problem(Location(Path(CROSS_VALIDATION_FILE).name), message, advice, "missing-file")
