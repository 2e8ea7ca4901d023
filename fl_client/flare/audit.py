"""The logs of the site that a job runs at, and the key by which its process writes into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nvflare.apis.fl_context import FLContext

from fl_client.memory.done_tasks import DoneTasks
from fl_client.privacy.ledger import PrivacyLedger
from mmar_runtime.audit import AUDIT_FILE, AuditLog, lines_of_job, log_heads
from mmar_runtime.audit_keys import LogKey


def note(fl_ctx: FLContext, event: str, **facts: Any) -> None:
    """Append an event of this job to the site's log.

    Args:
        fl_ctx: of the job.
        event: what happened, such as ``task-in``.
        facts: plain values without names of files or texts of data.

    Raises:
        OSError: the log cannot be written.
    """
    log = AuditLog(_root(fl_ctx) / AUDIT_FILE, _key(fl_ctx))
    log.append(event, job=fl_ctx.get_job_id(), **facts)


def done_before(fl_ctx: FLContext, rounds: int | None) -> DoneTasks:
    """Return the tasks of this job that this site has done in earlier processes.

    Args:
        fl_ctx: of the job.
        rounds: that the job asks for; None where its documents name none.

    Raises:
        OSError: the log cannot be read.
    """
    return DoneTasks(lines_of_job(_root(fl_ctx) / AUDIT_FILE, fl_ctx.get_job_id()), rounds)


def ledger(fl_ctx: FLContext) -> PrivacyLedger:
    """Return the privacy ledger of the site, written by this job."""
    return PrivacyLedger(_root(fl_ctx), _key(fl_ctx))


def heads(fl_ctx: FLContext) -> dict[str, str]:
    """Return name -> head of the site's logs, for the server to keep.

    Raises:
        OSError: a log cannot be read.
    """
    return log_heads(_root(fl_ctx))


def _root(fl_ctx: FLContext) -> Path:
    return Path(fl_ctx.get_engine().get_workspace().get_root_dir())


def _key(fl_ctx: FLContext) -> LogKey | None:
    """Return the key that the site's parent process gave to this job; None outside of a kit."""
    job = fl_ctx.get_job_id()
    return LogKey.of_run(Path(fl_ctx.get_engine().get_workspace().get_run_dir(job)), job)
