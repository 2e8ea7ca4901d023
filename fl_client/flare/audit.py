"""The audit log of the site that a job runs at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nvflare.apis.fl_context import FLContext

from mmar_runtime.audit import AUDIT_FILE, AuditLog


def note(fl_ctx: FLContext, event: str, **facts: Any) -> None:
    """Append an event of this job to the site's log.

    Args:
        fl_ctx: of the job.
        event: what happened, such as ``task-in``.
        facts: plain values without names of files or texts of data.

    Raises:
        OSError: the log cannot be written.
    """
    root = Path(fl_ctx.get_engine().get_workspace().get_root_dir())
    AuditLog(root / AUDIT_FILE).append(event, job=fl_ctx.get_job_id(), **facts)
