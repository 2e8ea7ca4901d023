"""The server's audit log: what came from each site, what went out, what was refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

from fl_server.flare.later import write_later
from mmar_runtime.audit import AUDIT_FILE, AuditLog
from mmar_runtime.audit_keys import LogKey


def note(by: FLComponent, fl_ctx: FLContext, event: str, **facts: Any) -> None:
    """Append an event of this job to the log of this server; without a log the run does not go on.

    Args:
        by: the component that saw it.
        fl_ctx: of the job.
        event: what happened, such as ``contribution-accepted``.
        facts: plain values; nothing that a site sent but what the guard has judged. A function is
            called for its value when the line is written, which may be a little later.
    """
    job = fl_ctx.get_job_id()
    root = Path(fl_ctx.get_engine().get_workspace().get_root_dir())
    log = AuditLog(root / AUDIT_FILE, LogKey.of_kit(root))

    def write() -> None:
        found = {name: fact() if callable(fact) else fact for name, fact in facts.items()}
        log.append(event, job=job, **found)

    write_later(by, fl_ctx, "the audit log of this server", write)
