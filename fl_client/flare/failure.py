"""What becomes of an error in a task: its text stays at the site, and one word leaves."""

from __future__ import annotations

from pathlib import Path

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from fl_client.flare.audit import note
from fl_client.flare.exchange import failed_reply
from fl_client.status_words import keep_error, status_word


def failure(error: Exception, *, task: object, by: FLComponent, fl_ctx: FLContext) -> Shareable:
    """Keep an error's text here under a reference; the reply tells one word and that.

    Args:
        error: what went wrong.
        task: the name of the task.
        by: who was at work.
        fl_ctx: of the task.

    Where the disk is full, the audit log cannot have the line; the reply still names the reason.
    """
    word = status_word(error)
    run = Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))
    reference, place = keep_error(error, task=task, run=run)
    try:
        note(fl_ctx, "task-failed", task=task, by=by.name, status=word, reference=reference)
    except OSError as fault:
        by.log_error(fl_ctx, f"the audit log cannot be written: {fault}")
        word = status_word(fault)
    # NVFlare may send a site's error log to the server, and anyone may listen to log events.
    by.log_error(fl_ctx, f"{word} in task {task}; its text is in {place} here")
    return failed_reply(word, reference)
