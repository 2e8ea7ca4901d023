"""Who holds which key of the logs.

The key of a kit is made from its private key and a secret next to the logs. A user who reads both
writes and verifies all lines: the parent process of a site, the server, and the commands of their
administrators. NVFlare loads the private key in the process of a job too; the wall around that
process keeps it from the secret. It holds another key, which the parent has derived for this job
and put into its run folder. So it can forge lines of its own job and no others.

Without a kit, as in a simulation, nobody holds a key.
"""

from __future__ import annotations

import hmac
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mmar_runtime.files import flush_to_disk, write_text_atomically

KIT_KEYS = ("client.key", "server.key")
"""The private key of a kit, below its ``startup``."""

FORMER_KEYS = "former*.key"
"""Keys that the kit had before it was renewed, below its ``startup``; they only verify."""

SECRET = "mmar_logs.secret"
"""The secret of a kit's logs, in the same folder. It is made when a kit first needs a key."""

SECRET_BYTES = 32

JOB_KEY = "audit.key"
"""The key of a job, in its run folder."""

KIT, JOB = "kit", "job"
"""The writers that a line may name."""


@dataclass(frozen=True, slots=True)
class LogKey:
    """A key that authenticates lines of logs.

    Attributes:
        secret: 32 bytes.
        job: id of the job that the key was derived for; None for the key of a kit.
        former: secrets of the keys that the kit had before.
    """

    secret: bytes = field(repr=False)
    job: str | None = None
    former: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of_kit(cls, root: Path) -> Self | None:
        """Return the key of the kit in a folder; None if there is no kit.

        Raises:
            OSError: the kit's key or secret cannot be read.
        """
        startup, logs = root / "startup", root / "audit"
        files = [startup / name for name in KIT_KEYS if (startup / name).is_file()]
        if not files:
            return None
        if not (logs / SECRET).is_file():
            _make_secret(logs)
        return cls.of_files([*files, *sorted(startup.glob(FORMER_KEYS))], logs)

    @classmethod
    def of_files(cls, files: Iterable[Path], logs: Path) -> Self:
        """Return the key of a kit from files of private keys: the present key, and former keys.

        Args:
            files: the private keys.
            logs: the folder of the logs, with their secret.

        Raises:
            OSError: a file cannot be read.
        """
        own = (logs / SECRET).read_bytes()
        secret, *former = (_mac(file.read_bytes(), f"mmar-fl logs {own.hex()}") for file in files)
        return cls(secret, former=tuple(former))

    @classmethod
    def of_run(cls, run: Path, job: str) -> Self | None:
        """Return the key that a job's process was given; None if it was given none.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no key.
        """
        file = run / JOB_KEY
        return cls(bytes.fromhex(file.read_text("ascii")), job) if file.is_file() else None

    def give(self, run: Path, job: str) -> None:
        """Put the key of a job into its run folder.

        Raises:
            OSError: the file cannot be written.
        """
        write_text_atomically(run / JOB_KEY, self.for_job(job).secret.hex(), private=True)

    def for_job(self, job: str) -> LogKey:
        """Return the key of a job, from that of the kit."""
        return LogKey(_job_secret(self.secret, job), job)

    def sign(self, log: str, digest: str) -> str:
        """Return the authentication code of the name of a log and the digest of a line."""
        return _code(self.secret, log, digest)

    def may_judge(self, line: Mapping[str, Any]) -> bool:
        """Return whether this key knows who wrote a line; a job's key knows its own lines."""
        return self.job is None or (line.get("writer"), line.get("job")) == (JOB, self.job)

    def has_signed(self, log: str, line: Mapping[str, Any]) -> bool:
        """Return whether a line was written by whom it names, into the log of this name.

        Args:
            log: name of the log's file.
            line: that ``may_judge`` accepts.
        """
        writer, job, secrets = line.get("writer"), line.get("job"), (self.secret, *self.former)
        if self.job is None and writer == JOB and isinstance(job, str):
            secrets = tuple(_job_secret(secret, job) for secret in secrets)
        elif self.job is None and writer != KIT:
            return False
        given = _bytes(str(line.get("mac")))
        codes = [_bytes(_code(secret, log, line["digest"])) for secret in secrets]
        return any(hmac.compare_digest(code, given) for code in codes)


def _make_secret(logs: Path) -> None:
    """Make the secret of logs, unless another process makes it at this moment."""
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=logs) as stream:  # its owner's alone
        stream.write(os.urandom(SECRET_BYTES))
        stream.flush()
        os.fsync(stream.fileno())
        with suppress(FileExistsError):
            os.link(stream.name, logs / SECRET)
    flush_to_disk(logs)


def _job_secret(secret: bytes, job: str) -> bytes:
    return _mac(secret, f"job {job}")


def _code(secret: bytes, log: str, digest: str) -> str:
    # A digest has 64 characters, so that no two pairs make the same text.
    return _mac(secret, f"line {digest} {log}").hex()


def _mac(secret: bytes, text: str) -> bytes:
    return hmac.digest(secret, _bytes(text), "sha256")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a damaged line may hold half a character
