"""A site's approval of code: what is in a ``custom`` folder, how it differs, and the policy's list.

An approved folder is copied to ``local/approved/<hash>``, so that the next one can be shown as a
difference to it.
"""

from __future__ import annotations

import difflib
import getpass
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmar_runtime.audit import AUDIT_FILE, AuditLog
from mmar_runtime.audit_keys import LogKey
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.files import write_json
from mmar_runtime.names import visible_line
from mmar_runtime.policy.custom_check import code_hash, custom_faults
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES, tree_files
from mmar_runtime.policy.site_policy import POLICY_VERSION, Byoc, SitePolicy, read_site_policy

COPIES = "approved"
"""Below the site's ``local``: a copy of each folder that was approved, called by its hash."""

AUTHORIZATION_FILE = "authorization.json"
CUSTOM = "custom"
APP = "app"

Texts = Mapping[str, list[str]]
"""Name of a file -> its lines."""

NOTHING_YET = ({"mode": "by_hash"}, {"mode": "by_hash", "approved": []})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A folder of code as it was copied for a decision; what is shown is what is approved.

    Attributes:
        copy: the copy; the original may change meanwhile.
        digest: its hash.
        known: whether this hash is approved already.
        files: their names.
        difference: lines of a unified diff to the last approval, or all lines if there is none.
        last: hash of that approval; None for none.
    """

    copy: Path
    digest: str
    known: bool
    files: tuple[str, ...]
    difference: tuple[str, ...]
    last: str | None


def custom_folder(path: Path) -> Path:
    """Return the folder of code in a job, in an MMAR, or given itself.

    Raises:
        ConfigError: there is none.
    """
    for place in (path / APP / CUSTOM, path / CUSTOM):
        if place.is_dir():
            return place
    is_other = any((path / name).exists() for name in ("meta.json", "config", APP))
    if path.is_dir() and not is_other:
        return path
    message = f"{str(path)!r} holds no folder {CUSTOM!r}"
    advice = "Name the folder of a job or an MMAR; a zip has to be unpacked first."
    raise ConfigError([Problem(Location("PATH"), message, advice, "code")])


class Approvals:
    """The approvals in one site's policy file.

    Args:
        policy_file: need not exist; its folder has to.

    Raises:
        ConfigError: there is no such folder, or the policy has a fault.
    """

    def __init__(self, policy_file: Path) -> None:
        self.file = policy_file
        self.local = policy_file.parent
        if not self.local.is_dir():
            message = f"there is no folder {str(self.local)!r}"
            advice = "Run this in the folder of the site's kit, or name the file by --policy."
            raise ConfigError([Problem(Location("--policy"), message, advice, "policy")])
        self._document: Any = {"policy_version": POLICY_VERSION}
        if os.path.lexists(policy_file):
            self._document = read_json(policy_file)
        self.policy = self._judged(self._document)

    @property
    def approved(self) -> tuple[str, ...]:
        """The hashes, the last approval last."""
        return self.policy.byoc.approved

    def copy_of(self, digest: str) -> Path | None:
        """Return the copy of an approved folder; None if it is gone or is not what it was."""
        copy = self.local / COPIES / digest
        return copy if copy.is_dir() and code_hash(copy) == digest else None

    @contextmanager
    def candidate(self, custom: Path) -> Iterator[Candidate]:
        """Copy a folder for a decision; the copy is removed unless it is approved.

        Raises:
            ConfigError: the policy takes all code anyway, or nobody could approve this folder.
        """
        if self.policy.byoc.mode == "on":
            message = "'on' takes all code of signed jobs, so there is nothing to approve"
            advice = "Write by_hash there, and approve what may go on."
            raise ConfigError([Problem(Location(self.file.name) / "byoc", message, advice, "code")])
        faults = list(custom_faults(custom))
        if faults:
            raise ConfigError(faults)
        with self.copied(custom, CUSTOM) as copy:
            faults = list(custom_faults(copy))
            if faults:
                raise ConfigError(faults)
            last = next(filter(self.copy_of, reversed(self.approved)), None)
            before = self.copy_of(last) if last else None
            lines = difference(code_texts(copy), code_texts(before) if before else {}, CUSTOM)
            yield Candidate(
                copy=copy,
                digest=code_hash(copy),
                known=code_hash(copy) in self.approved,
                files=tuple(
                    printable_line(file.relative_to(copy).as_posix()) for file in tree_files(copy)
                ),
                difference=tuple(lines),
                last=last,
            )

    @contextmanager
    def copied(self, folder: Path, name: str) -> Iterator[Path]:
        """Copy a folder, by another name and without signatures; the copy is removed afterwards."""
        copies = self.local.resolve() / COPIES  # a check of the copy runs in another folder
        copies.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copies, prefix=".") as place:
            copy = Path(place) / name
            without = shutil.ignore_patterns(*SIGNATURE_FILES)
            shutil.copytree(folder, copy, symlinks=True, ignore=without)
            yield copy

    def approve(self, candidate: Candidate) -> bool:
        """Put a candidate on the list; returns whether NVFlare's own rights had to change."""
        kept = self.local / COPIES / candidate.digest
        if self.copy_of(candidate.digest) is None:
            shutil.rmtree(kept, ignore_errors=True)
            os.rename(candidate.copy, kept)
        changed = set_byoc_right(self.local, "any")
        others = [digest for digest in self.approved if digest != candidate.digest]
        byoc = {"mode": "by_hash", "approved": [*others, candidate.digest]}
        self.write("code-approved", {"byoc": byoc}, code=candidate.digest)
        return changed

    def revoke(self, digest: str) -> bool:
        """Take a hash from the list; returns whether NVFlare's own rights had to change.

        With the last one, code is off. The copy stays, for the diff to a later approval.

        Raises:
            ConfigError: it is not on the list.
        """
        if digest not in self.approved:
            message = f"{digest!r} is not approved"
            raise ConfigError([Problem(Location("--revoke"), message, "See --list.", "code")])
        others = [other for other in self.approved if other != digest]
        mode = self.policy.byoc.mode if others or self.policy.byoc.mode == "on" else "off"
        byoc = {"mode": mode, "approved": others}
        self.write("code-revoked", {"byoc": byoc}, code=digest)
        return set_byoc_right(self.local, "none") if mode == "off" else False

    def write(self, event: str, changes: Mapping[str, Any], **facts: Any) -> None:
        """Change keys of the policy, and note that in the audit log.

        Args:
            event: what happened.
            changes: the new values of keys.
            **facts: for the log.

        Raises:
            ConfigError: the policy would have a fault; then nothing is written.
        """
        document = {**self._document, **changes}
        self.policy = self._judged(document)
        self._document = document
        write_json(self.file, document, private=True)
        root = self.local.resolve().parent
        AuditLog(root / AUDIT_FILE, LogKey.of_kit(root)).append(
            event, **facts, policy=self.policy.digest, by=getpass.getuser()
        )

    def _judged(self, document: Any) -> SitePolicy:
        """Return the policy that a document is, read as a site reads it."""
        if isinstance(document, dict) and document.get("byoc") in NOTHING_YET:
            # A site would not start so; this is how it gets there.
            rest = {key: value for key, value in document.items() if key != "byoc"}
            return replace(self._judged(rest), byoc=Byoc(mode="by_hash"))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / self.file.name
            write_json(file, document, private=True)
            if self.file.exists():
                file.chmod(stat.S_IMODE(self.file.stat().st_mode))
            return read_site_policy(file)


def set_byoc_right(local: Path, condition: str) -> bool:
    """Let NVFlare take, or not take, jobs with code from those who may submit jobs at all.

    NVFlare refuses each job that has a ``custom`` folder by this right of its own, whatever our
    policy says of it. It reads the file when the site starts.

    Args:
        local: the site's folder; without NVFlare's file in it nothing is done.
        condition: ``any`` or ``none``.

    Returns:
        Whether the file had to be changed.

    Raises:
        ConfigError: the file is not as NVFlare wants it.
    """
    file = local / AUTHORIZATION_FILE
    if not file.is_file():
        return False
    document = read_json(file)
    roles = document.get("permissions") if isinstance(document, dict) else None
    if not isinstance(roles, dict):
        message = "has to be a JSON object with an object 'permissions'"
        raise ConfigError([Problem(Location(file.name), message, "", "policy")])
    changed = False
    for rights in roles.values():
        may_submit = isinstance(rights, dict) and rights.get("submit_job", "none") != "none"
        if may_submit and rights.get("byoc") != condition:
            rights["byoc"] = condition
            changed = True
    if changed:
        write_json(file, document, private=True)
    return changed


def difference(new: Texts, old: Texts, what: str) -> Iterator[str]:
    """Yield a unified diff, file by file; every line can be printed safely.

    Args:
        new: what is to be approved.
        old: what was approved before.
        what: in front of the names of new files.
    """
    for name in sorted({*old, *new}):
        yield from map(
            printable_line,
            difflib.unified_diff(
                old.get(name, []),
                new.get(name, []),
                fromfile=f"approved/{name}" if name in old else "/dev/null",
                tofile=f"{what}/{name}" if name in new else "/dev/null",
                lineterm="",
            ),
        )
        if name not in old and not new[name]:
            yield f"+++ {what}/{printable_line(name)} (empty)"


def code_texts(folder: Path) -> dict[str, list[str]]:
    """Return the lines of each file; a carriage return within a line stays there, to be seen."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        .decode("utf-8")
        .removesuffix("\n")
        .split("\n")
        if path.stat().st_size
        else []
        for path in tree_files(folder)
    }


def printable_line(line: str) -> str:
    r"""Return a line with escapes for what a terminal would not show as it is.

    >>> printable_line("a\x1b[2J\tb\u202e")
    'a\\x1b[2J\tb\\u202e'
    """
    return "\t".join(map(visible_line, line.split("\t")))
