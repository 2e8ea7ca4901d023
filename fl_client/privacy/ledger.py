"""What a site has spent of its privacy budget, over all jobs: a log that is only ever added to.

Each line is one contribution, written before it leaves. The file is chained and authenticated like
the audit log. A ledger with a finding counts as spent: nothing leaves until somebody has looked.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmar_runtime.audit import LEDGER_FILE, LEDGER_LOCK, AuditError, AuditLog, verified_lines
from mmar_runtime.audit_keys import LogKey
from mmar_runtime.config.overrides import Scalar
from mmar_runtime.errors import PolicyError

SPENT = "privacy-spent"
NO_DATA = "unknown"
SLACK = 1e-9
"""Sums of decimal numbers are not exact: ten times 0.1 is allowed by 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """One contribution that has left, or was about to.

    Attributes:
        time: in UTC.
        job: id of the job.
        round_number: counted from 1.
        filter: name of the filter.
        epsilon: what it cost.
        data: the data set; see ``data_digest``.
    """

    time: str
    job: str
    round_number: int
    filter: str
    epsilon: float
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All that a site has spent.

    Attributes:
        spendings: in their order.
    """

    spendings: tuple[Spending, ...]

    @property
    def spent(self) -> float:
        """The sum: by the basic composition theorem, the whole site's epsilon (with delta 0)."""
        return sum(spending.epsilon for spending in self.spendings)

    def count(self, job: str) -> int:
        """Return how many spendings are of a job."""
        return sum(spending.job == job for spending in self.spendings)

    def by(self, attribute: str) -> dict[str, float]:
        """Return the sums by ``job`` or ``data``, the first ones first."""
        sums: dict[str, float] = defaultdict(float)
        for spending in self.spendings:
            sums[getattr(spending, attribute)] += spending.epsilon
        return dict(sums)


class PrivacyLedger:
    """The ledger of one site; several jobs may share it at the same time.

    Args:
        root: the site's own folder.
        key: of whoever reads or spends; None where there is no kit.
    """

    def __init__(self, root: Path, key: LogKey | None = None) -> None:
        self.path = root / LEDGER_FILE
        self.key = key

    def account(self) -> Account:
        """Return what is spent so far; nothing where there is no file yet.

        Raises:
            PolicyError: the file cannot be read, or is not as it was written.
        """
        if not os.path.lexists(self.path):
            return Account(spendings=())
        try:
            lines = verified_lines(self.path, self.key)
            return Account(spendings=tuple(_spending(line) for line in lines))
        except (AuditError, KeyError, TypeError, ValueError) as error:
            raise PolicyError(
                f"the privacy ledger of this site cannot be trusted: {error}. A line that a crash "
                "has cut short may be removed; then the chain holds again. After a renewal of the "
                "kit, the key before belongs into startup/ as former.key."
            ) from error

    def require(self, epsilon: float, most: float | None) -> float:
        """Return what is spent so far, if so much may still be spent.

        Raises:
            PolicyError: it is more than is left, or the ledger cannot be trusted.
        """
        spent = self.account().spent
        if most is not None and spent + epsilon > most + SLACK:
            raise PolicyError(
                f"{spent:g} of privacy.epsilon_max of this site, {most:g}, are spent; a round "
                f"costs {epsilon:g} more"
            )
        return spent

    def spend(self, epsilon: float, most: float | None, **facts: Any) -> float:
        """Write a contribution down, or refuse it; returns the new sum.

        Args:
            epsilon: what it costs.
            most: the bound of the site's policy; None for none.
            **facts: the other fields of ``Spending`` but the time, as ``job`` and ``round``.

        Raises:
            PolicyError: as for ``require``; then nothing is written.
            OSError: the ledger cannot be written.
        """
        with self._alone():
            spent = self.require(epsilon, most)
            AuditLog(self.path, self.key).append(SPENT, epsilon=float(epsilon), **facts)
        return spent + epsilon

    def head(self) -> str | None:
        """Number and digest of the last line, for the audit log; None if nothing is spent.

        Raises:
            OSError: the ledger cannot be read.
        """
        return AuditLog(self.path).head()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Between the look at the sum and the new line, no other process may spend."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path.with_name(LEDGER_LOCK.name), os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # held until the file is closed
            yield


def data_digest(values: Mapping[str, Scalar]) -> str:
    """Return a short name of a site's data set: 12 digits of the SHA-256 of its data list.

    Args:
        values: the site's own variables.
    """
    try:
        return hashlib.sha256(Path(str(values["DATASET_JSON"])).read_bytes()).hexdigest()[:12]
    except (KeyError, OSError, ValueError):
        return NO_DATA


def _spending(line: Mapping[str, Any]) -> Spending:
    if line["event"] != SPENT or type(line["epsilon"]) is not float or line["epsilon"] < 0:
        raise ValueError("a line is no spending")
    return Spending(
        time=str(line["time"]),
        job=str(line["job"]),
        round_number=int(line["round"]),
        filter=str(line["filter"]),
        epsilon=line["epsilon"],
        data=str(line["data"]),
    )
