"""A site's approval of whole jobs: what is in a job, what has changed, and the policy's list.

What was shown of an approved job is kept in ``local/approved/<digest>.json``. So the next job of
the same name can be shown as a difference to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fl_admin.jobs.job import Job
from fl_admin.kits.approval import (
    APP,
    COPIES,
    CUSTOM,
    Approvals,
    Candidate,
    Texts,
    difference,
    printable_line,
)
from fl_client.jobs.approved import job_digest
from fl_client.jobs.files import META
from fl_client.jobs.limited_check import limited_check
from mmar_runtime.config.location import Location
from mmar_runtime.config.sources import read_json
from mmar_runtime.errors import ConfigError, Problem
from mmar_runtime.files import write_json
from mmar_runtime.policy.files.tree_hash import SIGNATURE_FILES, file_hash, tree_files
from mmar_runtime.policy.site_policy import Byoc, SitePolicy
from mmar_runtime.policy.verdict import Verdict

MAX_TEXT_BYTES = 4 * 2**20
"""A file that is larger is shown by its digest, as weights are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCandidate:
    """A job as it was copied for a decision; what is shown is what is approved.

    Attributes:
        name: of the job.
        digest: of its app.
        known: whether this digest is approved already.
        texts: what is shown of each file.
        difference: lines of a unified diff to the last approved job of this name, or all lines.
        last: digest of that job; None for none.
        verdict: of the check, by the site's policy as it will be.
        code: the job's code; None where it brings none, or the policy takes all code anyway.
    """

    name: str
    digest: str
    known: bool
    texts: Texts
    difference: tuple[str, ...]
    last: str | None
    verdict: Verdict
    code: Candidate | None


class JobApprovals:
    """The approvals of whole jobs in one site's policy file.

    Args:
        approvals: of the same file.
    """

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals

    @property
    def approved(self) -> tuple[str, ...]:
        """The digests, the last approval last."""
        return self._approvals.policy.approved_jobs

    def name_of(self, digest: str) -> str | None:
        """Return the name of an approved job; None if nothing is kept of the job."""
        kept = self._kept(digest)
        return None if kept is None else str(kept["name"])

    @contextmanager
    def candidate(self, path: Path) -> Iterator[JobCandidate]:
        """Copy a job for a decision; the copy is removed afterwards.

        Args:
            path: the folder of the job, or of its app.

        Raises:
            ConfigError: there is no job, it holds a link or a device, or nobody could approve
                its code.
        """
        app, name = _app_of(path)
        tree_files(app, leave_out=SIGNATURE_FILES)  # refuses what cannot be copied
        with ExitStack() as stack:
            copy = stack.enter_context(self._approvals.copied(app, APP))
            texts = job_texts(copy)
            digest = job_digest(copy)
            assert digest is not None  # else there would be no texts
            code = None
            if (copy / CUSTOM).is_dir() and self._approvals.policy.byoc.mode != "on":
                code = stack.enter_context(self._approvals.candidate(copy / CUSTOM))
            last = next(
                (digest for digest in reversed(self.approved) if self.name_of(digest) == name), None
            )
            yield JobCandidate(
                name=name,
                digest=digest,
                known=digest in self.approved and (code is None or code.known),
                texts=texts,
                difference=tuple(difference(texts, self._texts(last) if last else {}, "job")),
                last=last,
                verdict=limited_check(copy, self._policy_with(code), subject="app"),
                code=code,
            )

    def _policy_with(self, code: Candidate | None) -> SitePolicy:
        """Return the policy as it will be with approved code, without the site's own folders."""
        policy = replace(self._approvals.policy, data_roots=())
        if code is None:
            return policy
        approved = (*policy.byoc.approved, code.digest)
        return replace(policy, byoc=Byoc(mode="by_hash", approved=approved))

    def approve(self, candidate: JobCandidate) -> bool:
        """Put a job on the list, and its code; returns whether NVFlare's own rights had to change.

        Raises:
            ConfigError: the site would refuse the job all the same.
        """
        if not candidate.verdict.accepted:
            raise ConfigError(candidate.verdict.problems)
        content = {"name": candidate.name, "files": candidate.texts}
        write_json(self._file(candidate.digest), content, private=True)
        changed = candidate.code is not None and self._approvals.approve(candidate.code)
        others = [digest for digest in self.approved if digest != candidate.digest]
        self._approvals.write(
            "job-approved",
            {"approved_jobs": [*others, candidate.digest]},
            job_digest=candidate.digest,
            name=candidate.name,
        )
        return changed

    def revoke(self, digest: str) -> None:
        """Take an approved job from the list; its code stays approved."""
        others = [other for other in self.approved if other != digest]
        self._approvals.write("job-revoked", {"approved_jobs": others}, job_digest=digest)

    def _file(self, digest: str) -> Path:
        return self._approvals.local / COPIES / f"{digest}.json"

    def _texts(self, digest: str) -> Texts:
        kept = self._kept(digest)
        return {} if kept is None else kept["files"]

    def _kept(self, digest: str) -> dict[str, Any] | None:
        """Return what was shown of an approved job; None if that is gone."""
        file = self._file(digest)
        if not file.is_file():
            return None
        kept = read_json(file)
        if not isinstance(kept, dict) or set(kept) != {"name", "files"}:
            message = "is not what 'mmar site approve' has written"
            raise ConfigError([Problem(Location(file.name), message, "Remove it.", "approval")])
        return kept


def _app_of(path: Path) -> tuple[Path, str]:
    """Return the app of a job, and the job's name.

    Raises:
        ConfigError: there is no job.
    """
    if (path / META).is_file():
        job = Job.open(path)
        return job.mmar.root, printable_line(job.name)
    if (path / "config").is_dir():
        return path, printable_line(path.resolve().name)
    message = f"{str(path)!r} is not the folder of a job"
    advice = "Name the folder with meta.json, or the app in it; a zip has to be unpacked first."
    raise ConfigError([Problem(Location("PATH"), message, advice, "approval")])


def job_texts(app: Path) -> dict[str, list[str]]:
    """Return what is shown of each file of a job: its size and digest, and its lines if it is text.

    Each byte of a file counts in its digest, so a change that its lines do not show is seen there.

    Raises:
        ConfigError: a file is a link or a device.
    """
    return {
        printable_line(file.relative_to(app).as_posix()): [
            f"{file.stat().st_size} bytes, SHA-256 {file_hash(file)}",
            *map(printable_line, _lines(file)),
        ]
        for file in tree_files(app)
    }


def _lines(file: Path) -> list[str]:
    """Return the lines of a text, JSON in one form; none for weights and images."""
    if file.stat().st_size > MAX_TEXT_BYTES:
        return []
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return []
    if "\0" in text:
        return []
    if file.suffix == ".json":
        with suppress(ValueError, RecursionError):  # then as it stands there
            text = json.dumps(json.loads(text, object_pairs_hook=_without_twins), indent=2)
    return text.removesuffix("\n").split("\n")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys are unique; of two equal keys only one would be shown."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice")
    return content
