"""The server's audit log: what came from each site, what went out, what was refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

from mmar_runtime.audit import AUDIT_FILE, AuditLog
from mmar_runtime.errors import MmarError


def note(by: FLComponent, fl_ctx: FLContext, event: str, **facts: Any) -> None:
    """Append an event of this job to the log of this server; without a log the run does not go on.

    Args:
        by: the component that saw it.
        fl_ctx: of the job.
        event: what happened, such as ``contribution-accepted``.
        facts: plain values; nothing that a site sent but what the guard has judged.
    """
    root = Path(fl_ctx.get_engine().get_workspace().get_root_dir())
    try:
        AuditLog(root / AUDIT_FILE).append(event, job=fl_ctx.get_job_id(), **facts)
    except (OSError, MmarError) as error:
        by.system_panic(f"the audit log of this server cannot be written: {error}", fl_ctx)
